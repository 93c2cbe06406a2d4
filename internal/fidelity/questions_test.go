package fidelity_test

import (
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/fidelity"
)

func TestParseQueries(t *testing.T) {
	got, err := fidelity.ParseQueries("q.yaml", []byte("queries:\n- {kind: state, expr: 'up'}\n- {expr: 'sum(rate(a[1m]))'}\n"))
	require.NoError(t, err)
	require.Equal(t, []fidelity.Query{{Kind: "state", Expr: "up"}, {Expr: "sum(rate(a[1m]))"}}, got)

	for text, want := range map[string][]string{
		"queries: []":       {"q.yaml: it names no queries"},
		"queries: [{ex: 1}": {"q.yaml: "},
		"queries: [{exp: up}]": {
			"q.yaml: ", "exp",
		},
		"queries: [{expr: 'up +'}, {expr: 'up[1m]'}, {expr: up}]": {
			`q.yaml: queries[0].expr "up +"`, `q.yaml: queries[1].expr "up[1m]" is a range vector, which cannot be drawn`,
		},
	} {
		_, err := fidelity.ParseQueries("q.yaml", []byte(text))
		for _, w := range want {
			require.ErrorContains(t, err, w, text)
		}
	}
}

func TestParseAlerts(t *testing.T) {
	got, err := fidelity.ParseAlerts("r.yml", []byte(`groups:
- name: a
  labels: {team: shop, severity: none}
  rules:
  - {record: 'a:b', expr: sum(b)}
  - {alert: Down, expr: up == 0, for: 15s, keep_firing_for: 1m, labels: {severity: page}}
  - {alert: Slow, expr: p99 > 1}
`))
	require.NoError(t, err)
	require.Equal(t, []fidelity.Alert{
		{Name: "Down", Expr: "up == 0", For: 15 * time.Second, KeepFiring: time.Minute, Labels: labels.FromStrings("severity", "page", "team", "shop")},
		{Name: "Slow", Expr: "p99 > 1", Labels: labels.FromStrings("severity", "none", "team", "shop")},
	}, got)
	require.True(t, got[0].Page())
	require.False(t, got[1].Page())

	for text, want := range map[string]string{
		"groups: []": "r.yml: it has no alert rules",
		"groups: [{name: a, rules: [{record: a, expr: b}]}]":    "r.yml: it has no alert rules",
		"groups: [{name: a, rules: [{alert: A, expr: 'b +'}]}]": "r.yml: ",
		"groups: [{name: a, rules: [{alert: A}]}]":              "r.yml: ",
	} {
		_, err := fidelity.ParseAlerts("r.yml", []byte(text))
		require.ErrorContains(t, err, want, text)
	}
}
