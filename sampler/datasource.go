package sampler

import (
	"slices"
	"strings"
)

// language is what a query of a dashboard is written in, as far as its data source tells.
type language int

const (
	unsaid  language = iota // nothing is said: that of the place around, or PromQL
	promQL                  // said to be it
	unknown                 // it is if it parses
	other                   // said to be another
)

// asks is what the node says of its data source.
func (b *board) asks(node map[string]any) language {
	if spec := mapping(node["spec"]); spec != nil {
		// Since dashboards have a schema version 2, the type is that of the query.
		for _, key := range []string{"group", "kind"} {
			if asks := ofType(text(node[key])); asks == promQL || asks == other {
				return asks
			}
		}
	}
	source, said := node["datasource"]
	if !said || source == nil {
		return unsaid
	}
	if named, ok := source.(string); ok {
		return b.ofName(named)
	}
	fields := mapping(source)
	if typ := text(fields["type"]); typ != "" {
		return ofType(typ)
	}
	for _, key := range []string{"uid", "name"} {
		if named := text(fields[key]); named != "" {
			return b.ofName(named)
		}
	}
	return unsaid
}

// ofType is the language of a kind of data source, by the name of its plug-in.
func ofType(typ string) language {
	typ = strings.ToLower(typ)
	speaks := func(word string) bool { return strings.Contains(typ, word) }
	switch {
	case typ == "":
		return unsaid
	case typ == "datasource", typ == "mixed": // each query says it
		return unsaid
	case slices.ContainsFunc(others(), speaks):
		return other
	case slices.ContainsFunc([]string{"prometheus", "victoriametrics", "mimir", "thanos", "cortex"}, speaks):
		return promQL
	}
	return unknown
}

// others are words in the names of plug-ins that speak something else than PromQL.
func others() []string {
	return []string{
		"loki", "logs", "tempo", "jaeger", "zipkin", "pyroscope", "phlare", "parca", "elasticsearch", "opensearch",
		"influxdb", "graphite", "opentsdb", "cloudwatch", "stackdriver", "monitor-datasource", "mysql", "mssql",
		"postgres", "clickhouse", "bigquery", "athena", "testdata", "alertmanager", "infinity", "sentry", "github",
	}
}

// ofName is the language of a data source of which only the name is known, or the variable
// that stands for it. A name proves nothing.
func (b *board) ofName(name string) language {
	if v := variable.FindString(name); v != "" && v == name {
		return ofType(b.inputs[nameOf(v)])
	}
	switch lower := strings.ToLower(name); {
	case lower == "", lower == "default", lower == "null", strings.HasPrefix(lower, "-- "):
		return unsaid
	case ofType(name) == promQL:
		return promQL
	case ofType(name) == other:
		return unknown
	}
	return promQL
}
