package alerts

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	promql "github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

// groups parses a file of rules as Prometheus of today does.
func groups(t *testing.T, f File) []rulefmt.RuleGroup {
	t.Helper()
	parsed, errs := rulefmt.Parse(f.YAML, false, model.UTF8Validation, promql.NewParser(promql.Options{}), slog.New(slog.DiscardHandler))
	require.Empty(t, errs, "%s", f.Name)
	return parsed.Groups
}

func all(t *testing.T, o Options) []rulefmt.Rule {
	t.Helper()
	files, err := Files(o)
	require.NoError(t, err)
	require.Len(t, files, len(examples()))
	var list []rulefmt.Rule
	for _, f := range files {
		for _, g := range groups(t, f) {
			list = append(list, g.Rules...)
		}
	}
	require.Greater(t, len(list), 40)
	return list
}

func TestRules_Style(t *testing.T) {
	recorded := regexp.MustCompile(`^[a-z_]+:[a-z_]+:[a-z0-9_]+$`)
	named := regexp.MustCompile(`^Sluice[A-Z][A-Za-z0-9]+$`)
	for _, f := range mustFiles(t) {
		for _, g := range groups(t, f) {
			require.Equal(t, "sluice-"+strings.TrimSuffix(f.Name, ".yaml"), g.Name)
			require.Equal(t, 30*time.Second, time.Duration(g.Interval))
			for _, r := range g.Rules {
				if r.Record != "" {
					require.Regexp(t, recorded, r.Record)
					continue
				}
				require.Regexp(t, named, r.Alert)
				require.GreaterOrEqual(t, time.Duration(r.For), 2*time.Duration(g.Interval), "%s: two evaluations at least", r.Alert)
				require.Contains(t, []string{"critical", "warning", "info"}, r.Labels["severity"])
				require.Len(t, r.Labels, 1, r.Alert)
				require.ElementsMatch(t, []string{"summary", "description", "runbook_url", "dashboard"}, keys(r.Annotations), r.Alert)
				require.NotContains(t, r.Annotations["summary"], "\n")
				require.Regexp(t, `\.$`, r.Annotations["description"])
				require.Equal(t, source+"docs/runbook.md#"+strings.ToLower(r.Alert), r.Annotations["runbook_url"])
			}
		}
	}
}

func mustFiles(t *testing.T) []File {
	t.Helper()
	files, err := Files(DefaultOptions())
	require.NoError(t, err)
	return files
}

func keys(m map[string]string) []string {
	var list []string
	for k := range m {
		list = append(list, k)
	}
	return list
}

// selectors calls f with each selector of the expression.
func selectors(t *testing.T, expr string, f func(*promql.VectorSelector)) {
	t.Helper()
	tree, err := parse(expr)
	require.NoError(t, err, expr)
	promql.Inspect(tree, func(n promql.Node, _ []promql.Node) error {
		if s, ok := n.(*promql.VectorSelector); ok {
			f(s)
		}
		return nil
	})
}

// TestRules_MetricsExist looks for each metric among those that the program declares, or
// that a rule before records.
func TestRules_MetricsExist(t *testing.T) {
	known := declared(t)
	for _, name := range []string{"up", "process_start_time_seconds", "process_resident_memory_bytes", "process_open_fds", "process_max_fds", "go_gc_gomemlimit_bytes"} {
		known[name] = true
	}
	for _, r := range all(t, DefaultOptions()) {
		selectors(t, r.Expr, func(s *promql.VectorSelector) {
			name := s.Name
			if !known[name] {
				name = strings.TrimSuffix(name, "_bucket")
			}
			require.True(t, known[name], "%s%s: nothing exports %s", r.Record, r.Alert, s.Name)
		})
		if r.Record != "" {
			known[r.Record] = true
		}
	}
}

// declared are the names of metrics in the sources of the program: what looks like one in
// files that use the client library.
func declared(t *testing.T) map[string]bool {
	t.Helper()
	root, err := testutil.Root()
	require.NoError(t, err)
	name := regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)+$`)
	known := map[string]bool{}
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") || slices.Contains([]string{"dashboards", "alerts", "testutil", "testdata"}, d.Name())):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(file.Imports, func(i *ast.ImportSpec) bool {
			return i.Path.Value == `"github.com/prometheus/client_golang/prometheus"`
		}) {
			return nil
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if text, err := strconv.Unquote(lit.Value); err == nil && name.MatchString(text) {
					known[text] = true
				}
			}
			return true
		})
		return nil
	}))
	require.Greater(t, len(known), 100)
	return known
}

// parts are what each section of the runbook has, in this order.
var parts = []string{"**What it means.**", "**What users notice.**", "**How to confirm.**", "**What to do.**", "**How to silence rightly.**"}

// TestRunbook requires a whole section for each alert, and an alert for each section.
func TestRunbook(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "docs", "runbook.md"))
	require.NoError(t, err)
	sections := map[string]string{}
	var order []string
	for _, s := range regexp.MustCompile(`(?m)^## `).Split(string(text), -1)[1:] {
		name, body, _ := strings.Cut(s, "\n")
		require.NotContains(t, sections, name)
		sections[name] = body
		order = append(order, name)
	}
	alerts := map[string]bool{}
	for _, r := range all(t, DefaultOptions()) {
		if r.Alert == "" {
			continue
		}
		alerts[r.Alert] = true
		body, ok := sections[r.Alert]
		require.True(t, ok, "%s has no section", r.Alert)
		at := 0
		for _, part := range parts {
			i := strings.Index(body[at:], part)
			require.GreaterOrEqual(t, i, 0, "%s: %s is missing, or not in its place", r.Alert, part)
			at += i
		}
	}
	for _, name := range order {
		require.True(t, alerts[name], "there is no alert %s", name)
	}

	known := declared(t)
	for _, r := range all(t, DefaultOptions()) {
		known[r.Record] = true
	}
	queries := regexp.MustCompile("(?s)```promql\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	require.GreaterOrEqual(t, len(queries), len(alerts))
	for _, m := range queries {
		selectors(t, m[1], func(s *promql.VectorSelector) {
			require.True(t, known[s.Name] || slices.Contains([]string{"up"}, s.Name) || strings.HasPrefix(s.Name, "process_") || strings.HasPrefix(s.Name, "go_"), "%s in %s", s.Name, m[1])
		})
	}
	for _, m := range regexp.MustCompile(`\]\(#([a-z0-9]+)\)`).FindAllStringSubmatch(string(text), -1) {
		require.True(t, slices.ContainsFunc(order, func(name string) bool { return strings.ToLower(name) == m[1] }), "no section #%s", m[1])
	}
	for _, m := range regexp.MustCompile(`\]\(([^#)]+)[^)]*\)`).FindAllStringSubmatch(string(text), -1) {
		_, err := os.Stat(filepath.Join("..", "docs", m[1]))
		require.NoError(t, err)
	}
}
