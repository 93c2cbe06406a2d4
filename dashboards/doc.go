// Package dashboards makes the Grafana dashboards of Sluice out of a small model, so that
// they agree in style, in their identifiers and in how they select: the queries of panels
// are plain PromQL, and what selects the gateways, backends or clusters that the reader has
// picked is added when a dashboard is written.
//
// The JSON files beside the sources are what DefaultOptions make. "sluice mixin" writes
// them for other names of labels, thresholds and prefixes.
package dashboards

//go:generate go run ./gendashboards .
