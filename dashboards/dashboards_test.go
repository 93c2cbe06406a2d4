package dashboards_test

import (
	"encoding/json"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/alerts"
	"github.com/sluice-metrics/sluice/dashboards"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// board is what the tests look at in a file, read as Grafana reads it.
type board struct {
	UID, Title, Description, Refresh string
	Tags                             []string
	SchemaVersion, GraphTooltip      int
	Time                             struct{ From string }
	Links                            []struct {
		Type, URL, Title      string
		Tags                  []string
		KeepTime, IncludeVars bool
	}
	Templating  struct{ List []variable }
	Annotations struct{ List []annotation }
	Panels      []panel
	Inputs      any `json:"__inputs"`

	name string
	text string
}

type variable struct {
	Name, Type, Definition string
	Query                  json.RawMessage
	Multi, IncludeAll      bool
}

type annotation struct {
	Name, Expr string
	Datasource datasource
}

type datasource struct{ Type, UID string }

type panel struct {
	ID                       int
	Type, Title, Description string
	Collapsed                bool
	Repeat                   string
	GridPos                  struct{ X, Y, W, H int }
	Datasource               datasource
	Targets                  []struct {
		RefID, Expr, LegendFormat, Format string
		Instant, Range                    bool
		Datasource                        datasource
	}
	FieldConfig struct {
		Defaults  struct{ Unit string }
		Overrides []struct {
			Matcher    struct{ ID, Options string }
			Properties []struct {
				ID    string
				Value any
			}
		}
	}
	Panels []panel
}

func files(t *testing.T, o dashboards.Options) []board {
	t.Helper()
	list, err := dashboards.Files(o)
	require.NoError(t, err)
	var all []board
	for _, f := range list {
		b := board{name: f.Name, text: string(f.JSON)}
		require.NoError(t, json.Unmarshal(f.JSON, &b), f.Name)
		all = append(all, b)
	}
	require.Len(t, all, 5)
	return all
}

// queried are the panels that are not rows, those of collapsed rows included.
func (b *board) queried() []panel {
	var list []panel
	for _, p := range b.Panels {
		if p.Type == "row" {
			list = append(list, p.Panels...)
			continue
		}
		list = append(list, p)
	}
	return list
}

func TestFiles_AreTheCommittedOnes(t *testing.T) {
	list, err := dashboards.Files(dashboards.DefaultOptions())
	require.NoError(t, err)
	var names []string
	for _, f := range list {
		names = append(names, f.Name)
		got, err := os.ReadFile(f.Name)
		require.NoError(t, err)
		require.Equal(t, string(f.JSON), string(got), "%s is not what the sources make; run: go generate ./dashboards", f.Name)
	}
	found, err := filepath.Glob("*.json")
	require.NoError(t, err)
	require.ElementsMatch(t, names, found, "a file that no source makes")
}

func TestFiles_AreComplete(t *testing.T) {
	uids := map[string]bool{}
	for _, b := range files(t, dashboards.DefaultOptions()) {
		t.Run(b.name, func(t *testing.T) {
			require.Equal(t, "sluice-"+strings.TrimSuffix(b.name, ".json"), b.UID)
			require.LessOrEqual(t, len(b.UID), 40, "Grafana takes no longer uid")
			require.False(t, uids[b.UID])
			uids[b.UID] = true
			require.NotEmpty(t, b.Description)
			require.Equal(t, 38, b.SchemaVersion)
			require.Equal(t, 1, b.GraphTooltip, "shared crosshair")
			require.Equal(t, "30s", b.Refresh)
			require.Equal(t, "now-1h", b.Time.From)
			require.Equal(t, []string{"sluice"}, b.Tags)
			require.Nil(t, b.Inputs, "provisioned dashboards with __inputs show errors")
			require.NotContains(t, b.text, "/tmp/")

			ids := map[int]bool{}
			for _, p := range append(b.queried(), b.Panels...) {
				if p.Type == "row" || !ids[p.ID] {
					require.NotZero(t, p.ID)
				}
				ids[p.ID] = true
			}
			require.Len(t, ids, strings.Count(b.text, `"gridPos"`), "ids of panels are unique")
		})
	}
}

// units are Grafana's ids of units that dashboards use.
var units = []string{"none", "short", "s", "bytes", "Bps", "percentunit", "cps", "reqps"}

// metricName is a name in the manner of Prometheus, which readers need not see.
var metricName = regexp.MustCompile(`[a-z]+_[a-z_]+`)

func TestPanels_AreDescribed(t *testing.T) {
	for _, b := range files(t, dashboards.DefaultOptions()) {
		titles := map[string]bool{}
		for _, p := range b.queried() {
			where := b.name + ": " + p.Title
			require.NotEmpty(t, p.Title, where)
			require.NotRegexp(t, metricName, p.Title, where)
			require.Contains(t, []string{"stat", "timeseries", "table", "state-timeline"}, p.Type, where)
			require.Contains(t, units, p.FieldConfig.Defaults.Unit, where)
			for _, o := range p.FieldConfig.Overrides {
				for _, property := range o.Properties {
					if property.ID == "unit" {
						require.Contains(t, units, property.Value, where)
					}
				}
			}
			shows, rest, found := strings.Cut(p.Description, "\n\n**Good:** ")
			require.True(t, found, where)
			good, act, found := strings.Cut(rest, "\n\n**Otherwise:** ")
			require.True(t, found, where)
			for _, sentence := range []string{shows, good, act} {
				require.NotEmpty(t, sentence, where)
				require.True(t, strings.HasSuffix(sentence, "."), "%s: %q is no sentence", where, sentence)
			}
			require.Equal(t, datasource{"prometheus", "${datasource}"}, p.Datasource, where)
			require.NotEmpty(t, p.Targets, where)
			refs := map[string]bool{}
			for _, q := range p.Targets {
				require.False(t, refs[q.RefID], where)
				refs[q.RefID] = true
				require.NotEqual(t, q.Instant, q.Range, where)
				require.Equal(t, datasource{"prometheus", "${datasource}"}, q.Datasource, where)
				if p.Type != "table" {
					require.NotEmpty(t, q.LegendFormat, where)
				}
			}
			if p.Repeat == "" {
				require.False(t, titles[p.Title+p.Type], "%s is there twice", where)
				titles[p.Title+p.Type] = true
			}
		}
	}
}

func TestPanels_DoNotOverlap(t *testing.T) {
	for _, b := range files(t, dashboards.DefaultOptions()) {
		requireApart(t, b.name, b.Panels)
		for _, p := range b.Panels {
			requireApart(t, b.name+" "+p.Title, p.Panels)
		}
	}
}

func requireApart(t *testing.T, where string, panels []panel) {
	t.Helper()
	taken := map[[2]int]string{}
	for _, p := range panels {
		g := p.GridPos
		require.LessOrEqual(t, g.X+g.W, 24, "%s: %s is wider than the page", where, p.Title)
		require.Positive(t, g.W*g.H)
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				require.Empty(t, taken[[2]int{x, y}], "%s: %s covers another", where, p.Title)
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}

// firstScreen is how many lines of the grid are seen at 1440 x 900: 30 pixels and a gap
// of 8 each, below the bars of Grafana and the line of variables.
const firstScreen = 20

func TestOverview_AnswersOnTheFirstScreen(t *testing.T) {
	b := files(t, dashboards.DefaultOptions())[0]
	var seen []string
	for _, p := range b.Panels {
		if p.Type != "row" && p.GridPos.Y+p.GridPos.H <= firstScreen {
			seen = append(seen, p.Title)
		}
	}
	require.Subset(t, seen, []string{
		"Received", "Delivered", "Withheld", "Refused", "Lost", "Lag of the worst backend", "Debt to replay", "Disk left", "Restarts", "Version",
		"Conservation", "Lag against sampling rate: $backend",
	})
}

// grafana puts values in the place of Grafana's variables.
var grafana = strings.NewReplacer("$__rate_interval", "1m", "$__range", "1h", "$__interval", "15s")

func parse(t *testing.T, where, expr string) parser.Expr {
	t.Helper()
	tree, err := parser.NewParser(parser.Options{}).ParseExpr(grafana.Replace(expr))
	require.NoError(t, err, "%s: %s", where, expr)
	return tree
}

// expressions lists everything that is asked, by where it is.
func (b *board) expressions(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, p := range b.queried() {
		for _, q := range p.Targets {
			all[b.name+": "+p.Title+" "+q.RefID] = q.Expr
		}
	}
	for _, a := range b.Annotations.List {
		all[b.name+": annotation "+a.Name] = a.Expr
	}
	for _, v := range b.Templating.List {
		if v.Type == "query" {
			all[b.name+": variable "+v.Name] = variableExpr(t, v.Definition)
		}
	}
	return all
}

var labelValues = regexp.MustCompile(`^label_values\((.+), ([a-zA-Z_]+)\)$`)

func variableExpr(t *testing.T, definition string) string {
	t.Helper()
	m := labelValues.FindStringSubmatch(definition)
	require.NotNil(t, m, definition)
	return "count by (" + m[2] + ") (" + m[1] + ")"
}

func TestQueries_NameWhatIsExported(t *testing.T) {
	c := exported(t)
	used := map[string]bool{}
	for _, b := range files(t, dashboards.DefaultOptions()) {
		for where, expr := range b.expressions(t) {
			requireExported(t, c, where, parse(t, where, expr), used)
		}
	}
	// What the program exports of its own is for somebody.
	var unused []string
	for name := range c.labels {
		if own.MatchString(name) && !used[name] && !used[base(name)] {
			unused = append(unused, name)
		}
	}
	slices.Sort(unused)
	require.Empty(t, unused, "no panel shows these metrics; add them or list them in notShown with the reason")
}

// own are the names of metrics that this program invents.
var own = regexp.MustCompile(`^(sluice|remote_write|replica|db|dlock|ha|stream|consumer|etcd|circuit|sql|transaction)_`)

// base is the name that the parts of a histogram have in common, or a metric that tells
// the same as the one that is shown.
func base(name string) string {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		name = strings.TrimSuffix(name, suffix)
	}
	if of, ok := notShown[name]; ok {
		return of
	}
	return name
}

// notShown are metrics that no panel shows, with the one that is shown in their place.
var notShown = map[string]string{
	"sluice_backend_confirmed_total":       "sluice_backend_unconfirmed_total", // the same from the other side
	"sluice_journal_damaged_records_total": "sluice_journal_damaged_bytes_total",
	"remote_write_debt_bytes":              "remote_write_debt_samples",
	"remote_write_samples_kept_total":      "remote_write_sampling_kept_ratio",
	"remote_write_sampling_floor_bound":    "remote_write_sampling_kept_ratio",
	"remote_write_sampling_mode":           "remote_write_sampling_rate",
	"remote_write_backfill_active":         "remote_write_backfill_samples_total",
	"remote_write_sampler_batches_total":   "remote_write_sampler_series", // what the sampler costs
	"replica_lag_unknown":                  "replica_lag_seconds",
}

func requireExported(t *testing.T, c *catalogue, where string, tree parser.Expr, used map[string]bool) {
	t.Helper()
	parser.Inspect(tree, func(node parser.Node, path []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			used[n.Name] = true
			have, ok := c.labels[n.Name]
			require.True(t, ok, "%s: nobody exports %s", where, n.Name)
			for _, m := range n.LabelMatchers {
				if m.Name != model.MetricNameLabel {
					require.Contains(t, have, m.Name, "%s: %s has no label %s", where, n.Name, m.Name)
				}
			}
		case *parser.AggregateExpr:
			if n.Without {
				break
			}
			have := map[string]bool{}
			parser.Inspect(n.Expr, func(inner parser.Node, _ []parser.Node) error {
				if v, ok := inner.(*parser.VectorSelector); ok {
					maps.Copy(have, set(c.labels[v.Name]))
				}
				return nil
			})
			for _, name := range n.Grouping {
				require.True(t, have[name], "%s: grouped by %s, which nothing in %s has", where, name, n.Expr)
			}
		case *parser.Call:
			switch n.Func.Name {
			case "rate", "increase":
				name := n.Args[0].(*parser.MatrixSelector).VectorSelector.(*parser.VectorSelector).Name
				require.True(t, c.counters[name] || c.histograms[name], "%s: %s of %s, which is no counter", where, n.Func.Name, name)
			}
		}
		return nil
	})
}

var dollar = regexp.MustCompile(`\$\{?([a-zA-Z_]+)`)

func TestVariables_AreDefinedAndUsed(t *testing.T) {
	for _, b := range files(t, dashboards.DefaultOptions()) {
		defined := map[string]bool{}
		for _, v := range b.Templating.List {
			require.False(t, defined[v.Name], "%s: %s is there twice", b.name, v.Name)
			defined[v.Name] = true
			if v.Name != "datasource" && v.Name != "job" {
				require.True(t, v.Multi && v.IncludeAll, "%s: %s", b.name, v.Name)
			}
		}
		for _, name := range []string{"datasource", "job", "instance"} {
			require.True(t, defined[name], "%s: %s", b.name, name)
		}
		used := map[string]bool{}
		for _, m := range dollar.FindAllStringSubmatch(b.text, -1) {
			if !strings.HasPrefix(m[1], "__") {
				used[m[1]] = true
			}
		}
		require.Equal(t, keys(defined), keys(used), b.name)

		for where, expr := range b.expressions(t) {
			requireSelected(t, where, parse(t, where, expr))
		}
	}
}

// ofDatabases are the metrics of what probes found, which may have no instance.
var ofDatabases = regexp.MustCompile(`^(replica|circuit|sql|stream|consumer|etcd|db_(probe|lock|locks|metadata|deadlocks|transaction|transactions|sessions))(_|$)`)

// requireSelected: each selector is of the gateways that the reader picked.
func requireSelected(t *testing.T, where string, tree parser.Expr) {
	t.Helper()
	parser.Inspect(tree, func(node parser.Node, _ []parser.Node) error {
		v, ok := node.(*parser.VectorSelector)
		if !ok || v.Name == "ALERTS" || strings.Contains(where, "variable job") {
			return nil
		}
		var names []string
		for _, m := range v.LabelMatchers {
			names = append(names, m.Name+m.Type.String()+m.Value)
		}
		require.Contains(t, names, "job=~$job", "%s: %s", where, v)
		if !strings.Contains(where, "variable instance") && !ofDatabases.MatchString(v.Name) {
			require.Contains(t, names, "instance=~$instance", "%s: %s", where, v)
		}
		return nil
	})
}

func TestLinks_Resolve(t *testing.T) {
	all := files(t, dashboards.DefaultOptions())
	uids := map[string]bool{}
	for _, b := range all {
		uids[b.UID] = true
	}
	for _, b := range all {
		var byTag bool
		for _, l := range b.Links {
			switch l.Type {
			case "dashboards":
				byTag = true
				require.True(t, l.KeepTime && l.IncludeVars)
				require.Equal(t, b.Tags, l.Tags)
			default:
				requireDocument(t, l.URL)
			}
		}
		require.True(t, byTag)
		for _, m := range regexp.MustCompile(`"/d/([^?"]+)`).FindAllStringSubmatch(b.text, -1) {
			require.True(t, uids[m[1]], "%s leads to %s", b.name, m[1])
		}
	}
}

var alertLink = regexp.MustCompile(`/d/([a-z-]+)(\?[^'"]*)?`)

// What alerts link to is there, with the variables that they fill in.
func TestLinks_OfAlertsResolve(t *testing.T) {
	variables := map[string]map[string]bool{}
	for _, b := range files(t, dashboards.DefaultOptions()) {
		variables[b.UID] = map[string]bool{}
		for _, v := range b.Templating.List {
			variables[b.UID][v.Name] = true
		}
	}
	rules, err := alerts.Files(alerts.DefaultOptions())
	require.NoError(t, err)
	checked := 0
	for _, f := range rules {
		for _, m := range alertLink.FindAllStringSubmatch(string(f.YAML), -1) {
			require.Contains(t, variables, m[1], f.Name)
			for _, v := range regexp.MustCompile(`var-([a-z]+)=`).FindAllStringSubmatch(m[0], -1) {
				require.True(t, variables[m[1]][v[1]], "%s: %s has no variable %s", f.Name, m[1], v[1])
				checked++
			}
		}
	}
	require.Positive(t, checked)
}

// Panels draw the thresholds that the alerts have.
func TestThresholds_AreThoseOfTheAlerts(t *testing.T) {
	want, err := alerts.Thresholds()
	require.NoError(t, err)
	for alert, value := range dashboards.DefaultOptions().Thresholds {
		require.Contains(t, want, alert)
		require.InDelta(t, want[alert], value, 1e-9, alert)
	}
}

var anchors = regexp.MustCompile(`(?m)^#+ (.+)$`)

// requireDocument: the link is to a file of this repository, and to a headline in it.
func requireDocument(t *testing.T, link string) {
	t.Helper()
	u, err := url.Parse(link)
	require.NoError(t, err)
	path, found := strings.CutPrefix(u.Path, "/sluice-metrics/sluice/blob/main/")
	require.True(t, found, link)
	text, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(path)))
	require.NoError(t, err)
	if u.Fragment == "" {
		return
	}
	var heads []string
	for _, m := range anchors.FindAllStringSubmatch(string(text), -1) {
		heads = append(heads, strings.ReplaceAll(strings.ToLower(m[1]), " ", "-"))
	}
	require.Contains(t, heads, u.Fragment, link)
}

func TestColors_MeanOneThing(t *testing.T) {
	meaning := map[string]string{
		"received": "blue", "routed": "blue", "delivered": "green", "withheld": "yellow", "lost": "red", "owed": "yellow", "given back": "green",
	}
	checked := map[string]bool{}
	for _, b := range files(t, dashboards.DefaultOptions()) {
		for _, p := range b.queried() {
			colors := p.colors()
			for _, q := range p.Targets {
				if want, ok := meaning[q.LegendFormat]; ok {
					require.Equal(t, want, colors[q.RefID], "%s: %s: %s", b.name, p.Title, q.LegendFormat)
					checked[q.LegendFormat] = true
				}
			}
		}
	}
	require.Len(t, checked, len(meaning))
}

// colors are the fixed ones, by query.
func (p *panel) colors() map[string]string {
	colors := map[string]string{}
	for _, o := range p.FieldConfig.Overrides {
		for _, property := range o.Properties {
			if c, ok := property.Value.(map[string]any); ok && property.ID == "color" && o.Matcher.ID == "byFrameRefID" {
				colors[o.Matcher.Options], _ = c["fixedColor"].(string)
			}
		}
	}
	return colors
}
