package docs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-metrics/sluice/ha"
	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/lock"
	"github.com/sluice-metrics/sluice/lock/postgres"
	"github.com/sluice-metrics/sluice/probe"
)

const head = `# Metrics

<!-- Written by "make generate" from what a running gateway exports. Do not edit. -->

Sluice serves its metrics at ` + "`/metrics`" + `, and writes them into its own pipeline where the
configuration has ` + "`own_metrics`" + `. Names and labels are part of its interface: a change of one
is in the CHANGELOG.

For every backend and every kind (samples, histograms, exemplars) the books balance:

    sluice_routed_total = sluice_delivered_total + sum(sluice_rejected_total)
                        + sum(sluice_given_up_total) + sluice_withheld + sluice_in_journal

` + "`sluice_conservation_error_samples`" + ` is the difference. It is 0 at rest and at most a batch while
data flows. The totals go on where they were after a restart, also after a crash.

Beside these there are ` + "`go_*` and `process_*`" + ` of the Go client library and, of each embedded store,
what Prometheus' own code exports (` + "`prometheus_tsdb_*`, `prometheus_engine_*`" + ` and their kin) with
the label ` + "`backend`" + `.

Histograms come in classic form and, to a scraper that asks for it, in native form.
`

// sections are the parts of the page, by the beginnings of the names that belong to them.
var sections = []struct {
	title    string
	prefixes []string
}{
	{"The books of each backend", []string{
		"sluice_routed_", "sluice_delivered_", "sluice_redelivered_", "sluice_rejected_", "sluice_given_up_", "sluice_conservation_", "sluice_orphaned_", "sluice_withheld",
	}},
	{"What waits for each backend", []string{"remote_write_queue_", "remote_write_destination_", "sluice_in_journal"}},
	{"Sampling", []string{"remote_write_"}},
	{"Lanes", []string{"sluice_lane_", "sluice_dead_letters_"}},
	{"Remote-write backends", []string{"sluice_backend_"}},
	{"Embedded stores", []string{"sluice_tsdb_"}},
	{"Receiver", []string{"sluice_receiver_"}},
	{"Journal", []string{"sluice_journal_"}},
	{"Series and metadata", []string{"sluice_series", "sluice_metadata_"}},
	{"Program and configuration", []string{"sluice_build_info", "sluice_config_", "sluice_server_"}},
}

// foreign are the beginnings of names of dependencies.
var foreign = []string{"go_", "process_", "prometheus_", "promhttp_", "net_conntrack_", "exposer_"}

// metricsPage is the text of docs/metrics.md.
func metricsPage(m testutil.Metrics) (string, error) {
	var b strings.Builder
	b.WriteString(head)
	written := map[string]bool{}
	for _, s := range sections {
		fmt.Fprintf(&b, "\n## %s\n\n| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n", s.title)
		for _, name := range slices.Sorted(maps.Keys(m)) {
			if written[name] || !begins(name, s.prefixes) {
				continue
			}
			written[name] = true
			f := m[name]
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, strings.ToLower(f.GetType().String()), labelNames(m, name), strings.ReplaceAll(f.GetHelp(), "|", `\|`))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if !written[name] && !begins(name, foreign) {
			return "", fmt.Errorf("metric %s fits no section of the page: give it one in page_test.go", name)
		}
	}
	b.WriteString(describedTables())
	reasons, err := reasonTable()
	b.WriteString(reasons)
	return b.String(), err
}

// describedTables are the metrics that a gateway has only with databases, leases or HA
// pairs, as their collectors describe them.
func describedTables() string {
	var b strings.Builder
	for _, s := range []struct {
		title    string
		register func(prometheus.Registerer)
	}{
		{"Databases", func(r prometheus.Registerer) { probe.NewMetrics(r, func() []*probe.Cluster { return nil }) }},
		{"Leases", func(r prometheus.Registerer) { _, _ = lock.NewMetrics(r) }},
		{"Leases in PostgreSQL: the gateway's own transactions and connections", describePostgresLease},
		{"HA pairs", func(r prometheus.Registerer) {
			_, _ = ha.New(ha.Options{Config: ha.DefaultConfig(), Store: ha.NewMemory(), Registerer: r, Logger: slog.New(slog.DiscardHandler), Now: time.Now})
		}},
	} {
		fmt.Fprintf(&b, "\n## %s\n\n| metric | labels | meaning |\n| --- | --- | --- |\n", s.title)
		r := &recorder{}
		s.register(r)
		for _, line := range slices.Sorted(slices.Values(r.lines)) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// describePostgresLease registers what a lease in PostgreSQL exports, with the names for
// dashboards of Java applications. Nothing is connected to.
func describePostgresLease(r prometheus.Registerer) {
	var nowhere postgres.Config
	nowhere.SetDefaults()
	nowhere.DSN = "postgres://nobody@127.0.0.1:1/none"
	store, err := postgres.New(nowhere, postgres.Options{Pool: "lease", Registerer: r, HikariCP: true})
	if err != nil {
		panic("BUG: docs: " + err.Error())
	}
	_ = store.Close() // there was no connection
}

// recorder is a Registerer that notes what is registered.
type recorder struct{ lines []string }

var described = regexp.MustCompile(`^Desc\{fqName: "([^"]*)", help: "(.*?)", (?:unit: ".*", )?constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

var constLabel = regexp.MustCompile(`([a-z_]+)="`)

func (r *recorder) Register(c prometheus.Collector) error {
	ch := make(chan *prometheus.Desc)
	go func() {
		c.Describe(ch)
		close(ch)
	}()
	for d := range ch {
		m := described.FindStringSubmatch(d.String())
		if m == nil {
			return fmt.Errorf("what is %s?", d)
		}
		labels := ""
		for _, l := range constLabel.FindAllStringSubmatch(m[3], -1) {
			labels += ", `" + l[1] + "`"
		}
		for _, l := range strings.FieldsFunc(m[4], func(r rune) bool { return r == ',' || r == ' ' }) {
			labels += ", `" + l + "`"
		}
		line := fmt.Sprintf("| `%s` | %s | %s |\n", m[1], strings.TrimPrefix(labels, ", "), strings.ReplaceAll(strings.ReplaceAll(m[2], "|", `\|`), `\"`, `"`))
		if !slices.Contains(r.lines, line) { // the same with another value of a label
			r.lines = append(r.lines, line)
		}
	}
	return nil
}

func (r *recorder) MustRegister(list ...prometheus.Collector) {
	for _, c := range list {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

func (r *recorder) Unregister(prometheus.Collector) bool { return false }

func begins(name string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

func labelNames(m testutil.Metrics, name string) string {
	names := map[string]bool{}
	for _, s := range m[name].GetMetric() {
		for _, l := range s.GetLabel() {
			names["`"+l.GetName()+"`"] = true
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(names)), ", ")
}

// reasonTable is the section about the label reason, made of the constants that are its
// values and their comments.
func reasonTable() (string, error) {
	var b strings.Builder
	b.WriteString("\n## Reasons\n\nThe values of the label `reason` of what was lost or refused, and who says so.\n\n| reason | said by | meaning |\n| --- | --- | --- |\n")
	for _, p := range []struct{ dir, who string }{
		{"exporter", "lane"},
		{"exporter/tsdb", "embedded store"},
		{"internal/thinning", "giving back"},
		{"internal/remotewrite", "receiver, encoding for a backend"},
	} {
		reasons, err := reasonsOf(filepath.Join("..", p.dir))
		if err != nil {
			return "", err
		}
		for _, r := range reasons {
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.value, p.who, r.meaning)
		}
	}
	return b.String(), nil
}

type reason struct{ value, meaning string }

// obligation is a reference to the design, which readers of the page do not have.
var obligation = regexp.MustCompile(` \([A-Z]\d+\)`)

// reasonsOf lists the constants of a package that are called Reason-something.
func reasonsOf(dir string) ([]reason, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	var list []reason
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		for _, d := range parsed.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				if name := v.Names[0].Name; strings.HasPrefix(name, "Reason") {
					value, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
					if err != nil {
						return nil, fmt.Errorf("%s: %s: %w", file, name, err)
					}
					list = append(list, reason{value, meaning(name, v.Doc.Text())})
				}
			}
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s has no reasons", dir)
	}
	slices.SortFunc(list, func(a, b reason) int { return strings.Compare(a.value, b.value) })
	return list, nil
}

// meaning makes a sentence of the comment of a constant.
func meaning(name, comment string) string {
	text := strings.Join(strings.Fields(comment), " ")
	text = strings.TrimPrefix(strings.TrimPrefix(text, name), ":")
	text = strings.TrimSpace(obligation.ReplaceAllString(text, ""))
	for i, r := range text {
		return string(unicode.ToUpper(r)) + text[i+len(string(r)):]
	}
	return ""
}

// Every metric of the sources is on the page, also those that only some configurations
// export.
func TestMetricsPageIsComplete(t *testing.T) {
	page, err := os.ReadFile("metrics.md")
	require.NoError(t, err)
	names := map[string]bool{}
	for _, file := range sources(t) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range anyMetric.FindAllSubmatch(text, -1) {
			names[string(m[1])] = true
		}
	}
	for _, known := range []string{"transaction_duration_seconds", "transaction_nesting_depth", "db_conn_queue_time_seconds", "db_pool_connections", "hikaricp_connections_pending", "jdbc_statement_timeout_total", "dlock_held", "replica_lag_seconds"} {
		require.Contains(t, names, known, "the sources are not read as they should be")
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		require.Contains(t, string(page), "| `"+name+"` |", "run: make generate")
	}
}

// anyMetric matches the name of a metric where its help text follows.
var anyMetric = regexp.MustCompile(`"((?:sluice|remote_write|replica|db|dlock|ha|stream|consumer|etcd|circuit|sql|transaction|hikaricp|jdbc)_[a-z_]+)",(?:\s*(?://.*)?\n)?\s*(?:Help: +)?"[A-Z0-9]`)

func TestEveryReasonHasAMeaning(t *testing.T) {
	text, err := reasonTable()
	require.NoError(t, err)
	require.NotContains(t, text, "|  |")
	require.Greater(t, strings.Count(text, "\n"), 25)
}

// sources lists the Go files of the program.
func sources(t *testing.T) []string {
	t.Helper()
	var files []string
	require.NoError(t, filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "testutil"):
			return filepath.SkipDir
		case strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go"):
			files = append(files, path)
		}
		return nil
	}))
	return files
}
