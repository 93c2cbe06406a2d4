package sampler

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

const someDashboard = `{
  "title": "Shop",
  "panels": [
    {"title": "Traffic", "targets": [
      {"expr": "sum by ($group) (rate(requests_total{instance=~\"$instance\"}[$__rate_interval]))"},
      {"expr": "histogram_quantile(0.9, rate(rpc_bucket{job=\"[[job]]\"}[${window:text}]))"},
      {"expr": "max_over_time(queue_depth[$__range:$__interval])"},
      {"expr": "node_${kind}_bytes"},
      {"expr": "$metric"},
      {"expr": ""},
      {"expr": "broken("}
    ]},
    {"title": "Logs", "datasource": {"type": "loki"}, "targets": [{"expr": "logs_read_total"}]},
    {"type": "row", "panels": [{"datasource": {"type": "prometheus", "uid": "x"}, "targets": [{"expr": "inner"}]}]}
  ]
}`

func TestDashboardsNameTheirMetrics(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "shop.json"), []byte(someDashboard), 0o644))
	metrics, err := LoadDashboards(dir, []string{"*.json"})
	require.ErrorContains(t, err, "broken(")
	for name, want := range map[string]bool{
		"requests_total": true, "rpc_bucket": true, "rpc_count": true, "queue_depth": true, "inner": true,
		"node_memory_bytes": true, "node_bytes": false, "logs_read_total": false, "other": false, "shop": false,
	} {
		r, ok := metrics.find(name)
		require.Equal(t, want, ok, name)
		if name == "requests_total" {
			require.Contains(t, r.source, "shop.json, Traffic")
		}
	}
	require.Empty(t, metrics.Narrow(1e12, 1e9), "ranges of dashboards are not known")

	require.NoError(t, os.WriteFile(filepath.Join(dir, "shop.json"), []byte("{"), 0o644))
	_, err = LoadDashboards(dir, []string{"*.json"})
	require.ErrorContains(t, err, "shop.json")
}

// Queries as Grafana's editors and the mixins write them, and the metrics in them.
func TestVariablesAreFilledInByTheirPlace(t *testing.T) {
	for query, want := range map[string][]string{
		`topk($n, sum by (job) (rate(requests_total[5m])))`:                            {"requests_total"},
		`histogram_quantile($q, sum by (le) (rate(rpc_bucket[$__rate_interval])))`:     {"rpc_bucket"},
		`histogram_quantile(0.$q, sum by (le, ${by}) (rate(rpc_bucket{$filter}[$w])))`: {"rpc_bucket"},
		`clamp_max(load, $max)`:                                 {"load"},
		`load offset $off`:                                      {"load"},
		`load offset -${off} > $min`:                            {"load"},
		`rate(load_total[${seconds}s] offset ${off})`:           {"load_total"},
		`${agg}(load)`:                                          {"load"},
		`$agg(load) by (job)`:                                   {"load"},
		`$agg by ($group) (load)`:                               {"load"},
		`$fn(load_total[$__range])`:                             {"load_total"},
		`${agg}_over_time(load[1h:$__interval])`:                {"load"},
		`$agg($k, load)`:                                        {"load"},
		`load{$filter}`:                                         {"load"},
		`load{job="x", $adhoc}`:                                 {"load"},
		`load{job="x" $adhoc}`:                                  {"load"},
		`load{$adhoc,job="x"}`:                                  {"load"},
		`load{$label="x", ${other}=~"$value|y"}`:                {"load"},
		`load{job=$job}`:                                        {"load"},
		`sum(load) $by`:                                         {"load"},
		`load $op on ($labels) group_left($more) info_total`:    {"info_total", "load"},
		`load / $__range_s * [[factor]] + load2 @ $__to`:        {"load", "load2"},
		`max_over_time(load[[[range]]])`:                        {"load"},
		`label_replace(load, "a", "$1", "b", "(.*)")`:           {"load"},
		"load{a='it\\'s $x', b=`$y\\`, $z}":                     {"load"},
		`{__name__=~"node_.*_bytes", job="$job"}`:               {`{__name__=~"node_.*_bytes"}`},
		`{__name__=~"node_${kind}_.*"}`:                         {`{__name__=~"node_.*_.*"}`},
		`rate(${prefix}_requests_total[$w]) + errors_$kind`:     {`{__name__=~".*_requests_total"}`, `{__name__=~"errors_.*"}`},
		`$metric{job="x"} + rate(${metric}[$i]) + sum($metric)`: nil,
		`$query`: nil,
		`count_values("v", load) + info(load3) + mad_over_time(load4[5m]) + load5 offset $a * 2`: {"load", "load3", "load4", "load5", "target_info"},
		`sum(rate(a{x="$x"}[$w])) / $n > $t and $agg(b{$f}) by ($g) or topk($k, c offset $o)`:    {"a", "b", "c"},
	} {
		var read Metrics
		require.NoError(t, read.addTemplate(query, "here"), query)
		require.Equal(t, want, read.named(), query)
	}
}

// named are the metrics and patterns.
func (m *Metrics) named() []string {
	list := m.Names()
	for i := range m.patterns {
		list = append(list, "{"+m.patterns[i].name.String()+"}")
	}
	slices.Sort(list)
	return list
}

// Of what does not parse nothing that is read may be lost.
func TestQueriesThatDoNotParseCountByTheirLooks(t *testing.T) {
	for query, want := range map[string][]string{
		`broken(`: nil,
		`sum(rate(requests_total{job="x"}[5m])) keep_metric_names by (`:                         {"requests_total"},
		`WITH (f = {job="x"}) sum by (a, b) (rate(errors_total{f}[$w])) default 5e3 if up == 1`: {"errors_total", "up"},
		`{__name__="load", job="x"} + "of" + 'all' + ` + "`it`" + ` offset 5m )`:                {"load"},
		`node_${kind}_bytes + )`: {`{__name__=~"node_.*_bytes"}`},
	} {
		b := board{metrics: &Metrics{}}
		b.add(query, panel{source: "here"})
		require.Len(t, b.errs, 1, query)
		require.ErrorContains(t, b.errs[0], "parse query")
		for _, name := range want {
			require.Contains(t, b.metrics.named(), name, query)
		}
		require.NotContains(t, b.metrics.named(), "sum")
		require.NotContains(t, b.metrics.named(), "m")
		if len(want) == 0 {
			require.Zero(t, b.metrics.Len())
			require.NotContains(t, b.errs[0].Error(), "count as read")
		}
	}
}

func TestDataSourcesOfDashboards(t *testing.T) {
	for _, c := range []struct {
		what, board string
		read        bool
		problem     string
	}{
		{"a row of another source", `{"panels": [{"type": "row", "datasource": {"type": "loki"}, "panels": [{"datasource": {"type": "prometheus"}, "targets": [{"expr": "load"}]}]}]}`, true, ""},
		{"a row of another source, panels that say nothing", `{"panels": [{"type": "row", "datasource": {"type": "loki"}, "panels": [{"targets": [{"expr": "load"}]}]}]}`, true, ""},
		{"a panel of another source", `{"panels": [{"datasource": {"type": "loki"}, "targets": [{"expr": "load"}]}]}`, false, ""},
		{"a query of its own source", `{"panels": [{"datasource": {"type": "loki"}, "targets": [{"datasource": {"type": "prometheus"}, "expr": "load"}]}]}`, true, ""},
		{"a query of another source", `{"panels": [{"datasource": {"type": "prometheus"}, "targets": [{"datasource": {"type": "loki"}, "expr": "load"}]}]}`, false, ""},
		{"mixed", `{"panels": [{"datasource": {"type": "datasource", "uid": "-- Mixed --"}, "targets": [{"expr": "load"}]}]}`, true, ""},
		{"of Amazon", `{"panels": [{"datasource": {"type": "grafana-amazonprometheus-datasource"}, "targets": [{"expr": "load"}]}]}`, true, ""},
		{"of VictoriaMetrics", `{"panels": [{"datasource": {"type": "victoriametrics-metrics-datasource"}, "targets": [{"expr": "load"}]}]}`, true, ""},
		{"logs of VictoriaMetrics", `{"panels": [{"datasource": {"type": "victoriametrics-logs-datasource"}, "targets": [{"expr": "load"}]}]}`, false, ""},
		{"unknown, PromQL", `{"panels": [{"datasource": {"type": "acme-datasource"}, "targets": [{"expr": "rate(load[5m])"}]}]}`, true, ""},
		{"unknown, something else", `{"panels": [{"datasource": {"type": "acme-datasource"}, "targets": [{"expr": "FETCH load |> x"}]}]}`, false, ""},
		{"by a name", `{"panels": [{"datasource": "Loki", "targets": [{"expr": "sum(count_over_time({job=\"x\"} |= \"load\" [1m]))"}]}]}`, false, ""},
		{"by a name that lies", `{"panels": [{"datasource": "Prometheus of Loki", "targets": [{"expr": "load"}]}]}`, true, ""},
		{"by a name that says nothing", `{"panels": [{"datasource": "Main", "targets": [{"expr": "load +"}]}]}`, true, "parse query"},
		{"by an unknown variable", `{"panels": [{"datasource": "$source", "targets": [{"expr": "load"}]}]}`, true, ""},
		{"by an input", `{"__inputs": [{"name": "DS_LOGS", "type": "datasource", "pluginId": "loki"}], "panels": [{"datasource": {"uid": "${DS_LOGS}"}, "targets": [{"expr": "load"}]}]}`, false, ""},
		{"by a variable", `{"templating": {"list": [{"name": "logs", "type": "datasource", "query": "loki"}]}, "panels": [{"datasource": "${logs:raw}", "targets": [{"expr": "load"}]}]}`, false, ""},
		{"null", `{"panels": [{"datasource": null, "targets": [{"expr": "load"}]}]}`, true, ""},
		{"an annotation", `{"annotations": {"list": [{"datasource": {"type": "prometheus"}, "expr": "load"}]}}`, true, ""},
		{"schema 2", `{"elements": {"panel-1": {"kind": "Panel", "spec": {"data": {"kind": "QueryGroup", "spec": {"queries": [{"kind": "PanelQuery", "spec": {"query": {"kind": "DataQuery", "group": "prometheus", "spec": {"expr": "load"}}}}]}}}}}}`, true, ""},
		{"schema 2, another source", `{"elements": {"panel-1": {"kind": "Panel", "spec": {"data": {"spec": {"queries": [{"kind": "PanelQuery", "spec": {"query": {"kind": "loki", "spec": {"expr": "load"}}}}]}}}}}}`, false, ""},
		{"a library panel", `{"panels": [{"id": 1, "title": "CPU", "libraryPanel": {"uid": "a", "name": "Load of all"}}]}`, false, "Load of all is a library panel"},
		{"a library panel with its model", `{"panels": [{"libraryPanel": {"uid": "a", "model": {"targets": [{"expr": "load"}]}}}]}`, true, ""},
		{"a library panel that comes along", `{"__elements": {"a": {"name": "x", "kind": 1, "model": {"targets": [{"expr": "load"}]}}}, "panels": [{"libraryPanel": {"uid": "a"}}]}`, true, ""},
		{"values of a label", `{"templating": {"list": [{"name": "v", "type": "query", "query": "label_values(load{job=~\"$job\"}, instance)"}]}}`, true, ""},
		{"values of a label, in an object", `{"templating": {"list": [{"name": "v", "type": "query", "datasource": {"type": "prometheus"}, "query": {"query": "label_values(load, $label)", "refId": "A"}}]}}`, true, ""},
		{"result of a query", `{"templating": {"list": [{"name": "v", "type": "query", "query": {"query": "query_result(topk(5, sum by (a) (rate(load[$__range]))))"}}]}}`, true, ""},
		{"result of a query that does not parse", `{"templating": {"list": [{"name": "v", "type": "query", "query": "query_result(load +)"}]}}`, true, "parse query"},
		{"series", `{"templating": {"list": [{"name": "v", "type": "query", "query": "load{a=\"b\"}"}]}}`, true, ""},
		{"values of a label of all", `{"templating": {"list": [{"name": "v", "type": "query", "query": "label_values(load)"}]}}`, false, ""},
		{"names", `{"templating": {"list": [{"name": "v", "type": "query", "query": "metrics(load)"}]}}`, false, ""},
		{"no lookup", `{"templating": {"list": [{"name": "v", "type": "custom", "query": "load"}]}}`, false, ""},
		{"a lookup elsewhere", `{"templating": {"list": [{"name": "v", "type": "query", "datasource": {"type": "loki"}, "query": "load"}]}}`, false, ""},
		{"a variable of schema 2", `{"variables": [{"kind": "QueryVariable", "spec": {"name": "v", "query": {"kind": "DataQuery", "group": "prometheus", "spec": {"query": "label_values(load, a)"}}}}]}`, true, ""},
		{"no lookup of schema 2", `{"variables": [{"kind": "CustomVariable", "spec": {"name": "v", "query": "load"}}]}`, false, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			var read Metrics
			err := read.AddDashboard([]byte(c.board), "x.json")
			_, ok := read.find("load")
			require.Equal(t, c.read, ok)
			if c.problem == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.problem)
		})
	}
}
