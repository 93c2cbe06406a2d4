package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/dashboards"
	"github.com/sluice-metrics/sluice/internal/testutil"
)

// Every query of every panel, variable and annotation is answered by what a gateway in
// trouble exports of itself, and none of a panel or variable is empty.
func TestDashboards_ShowAnIncident(t *testing.T) {
	t.Parallel()
	w := startIncident(t)
	files, err := dashboards.Files(dashboards.DefaultOptions())
	require.NoError(t, err)
	asked, panels := 0, map[string]bool{}
	var empty, nameless []string
	for _, f := range files {
		name := strings.TrimSuffix(f.Name, ".json")
		for _, q := range questionsOf(t, name, f.JSON) {
			asked++
			panels[q.panel] = true
			got := w.ask(t, q)
			if label := q.nameless(got); label != "" {
				nameless = append(nameless, fmt.Sprintf("%s %s: %s in %q: %s", q.panel, q.ref, label, q.legend, q.expr))
			}
			if len(got) == 0 && !q.mark {
				empty = append(empty, fmt.Sprintf("%s %s: %s", q.panel, q.ref, q.expr))
			}
		}
	}
	require.Empty(t, nameless, "legends name labels that no series has:\n%s", strings.Join(nameless, "\n"))
	require.Empty(t, empty, "panels are empty that should show something:\n%s", strings.Join(empty, "\n"))
	require.Greater(t, asked, 200)
	t.Logf("%d queries of %d panels", asked, len(panels))
	w.requireProbed(t)
}

// question is one query of a dashboard.
type question struct {
	panel, ref, expr, legend string
	instant                  bool
	mark                     bool // an annotation: there may have been nothing to mark
}

// questionsOf lists what a dashboard asks.
func questionsOf(t *testing.T, name string, text []byte) []question {
	t.Helper()
	type panel struct {
		Title   string
		Targets []struct {
			RefID, Expr, LegendFormat string
			Instant                   bool
		}
	}
	var d struct {
		Panels []struct {
			panel
			Panels []panel
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
		Annotations struct{ List []struct{ Name, Expr string } }
	}
	require.NoError(t, json.Unmarshal(text, &d))
	var all []question
	add := func(p panel) {
		for _, q := range p.Targets {
			all = append(all, question{panel: name + ": " + p.Title, ref: q.RefID, expr: q.Expr, legend: q.LegendFormat, instant: q.Instant})
		}
	}
	for _, p := range d.Panels {
		add(p.panel)
		for _, inner := range p.Panels {
			add(inner)
		}
	}
	for _, v := range d.Templating.List {
		if m := variableQuery.FindStringSubmatch(v.Definition); m != nil {
			all = append(all, question{panel: name + ": variable " + v.Name, ref: "A", expr: "count by (" + m[2] + ") (" + m[1] + ")", legend: "{{" + m[2] + "}}", instant: true})
		}
	}
	for _, a := range d.Annotations.List {
		all = append(all, question{panel: name + ": annotation " + a.Name, ref: "A", expr: a.Expr, mark: true})
	}
	return all
}

var variableQuery = regexp.MustCompile(`^label_values\((.+), ([a-zA-Z_]+)\)$`)

// everything is what a reader finds who opens a dashboard: all choices, of a short time.
var everything = strings.NewReplacer(
	"$__rate_interval", "15s", "$__range", "2m", "$__interval", "5s",
	"$job", "sluice", "$instance", ".*", "$backend", ".*", "$cluster", ".*", "$target", ".*", "$lock", ".*",
)

// answered is one series of an answer.
type answered struct {
	Metric map[string]string
	Value  [2]any
	Values [][2]any
}

// ask sends the query as Grafana does and returns the series that have a number.
func (w *incident) ask(t *testing.T, q question) []answered {
	t.Helper()
	now := time.Now()
	form := url.Values{"query": {everything.Replace(q.expr)}}
	path := "/api/v1/query"
	seconds := func(at time.Time) []string { return []string{strconv.FormatInt(at.Unix(), 10)} }
	if q.instant {
		form["time"] = seconds(now)
	} else {
		path = "/api/v1/query_range"
		form["start"], form["end"], form["step"] = seconds(w.begin), seconds(now), []string{"5"}
	}
	status, body, err := testutil.Get(w.sluice.URL(path + "?" + form.Encode()))
	require.NoError(t, err, q.panel)
	require.Equal(t, http.StatusOK, status, "%s %s: %s: %s", q.panel, q.ref, q.expr, body)
	var answer struct {
		Data     struct{ Result []answered }
		Warnings []string
	}
	require.NoError(t, json.Unmarshal([]byte(body), &answer))
	require.Empty(t, answer.Warnings, "%s %s: %s", q.panel, q.ref, q.expr)
	var list []answered
	for _, s := range answer.Data.Result {
		points := s.Values
		if q.instant {
			points = [][2]any{s.Value}
		}
		for _, p := range points {
			if p[1] != "NaN" {
				list = append(list, s)
				break
			}
		}
	}
	return list
}

var legendLabel = regexp.MustCompile(`\{\{([a-zA-Z_]+)\}\}`)

// nameless is the first label that the legend names and no series has; empty if there is
// none.
func (q *question) nameless(got []answered) string {
	for _, m := range legendLabel.FindAllStringSubmatch(q.legend, -1) {
		found := len(got) == 0
		for _, s := range got {
			found = found || s.Metric[m[1]] != ""
		}
		if !found && m[1] != "version" { // the tests' program is built without one
			return m[1]
		}
	}
	return ""
}
