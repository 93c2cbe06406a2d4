package incident_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/fidelity"
	"github.com/sluice-metrics/sluice/internal/incident"
	"github.com/sluice-metrics/sluice/sampler"
)

// shop is the configuration of an incident without files beside it.
const shop = `
adaptive_sampling:
  floor: shed
  classes:
  - {name: critical, max_gap: 30s, weight: 8, match: ['up']}
  - {name: low, max_gap: 4m, weight: 0.25, match: ['{__name__=~"go_.*"}']}
  - {name: normal, max_gap: 2m}
`

func options(t *testing.T, text string) incident.Options {
	t.Helper()
	data := world(t)
	i, err := incident.Parse("incident.yaml", []byte(text))
	require.NoError(t, err)
	r, err := sampler.Resolve(*i.Sampling)
	require.NoError(t, err)
	return incident.Options{Capture: reader(data), Size: int64(len(data)), Incident: i, Sampling: r, Dir: t.TempDir()}
}

func run(t *testing.T, o incident.Options) *incident.Report {
	t.Helper()
	r, err := incident.Run(t.Context(), o)
	require.NoError(t, err)
	return r
}

func ask(t *testing.T, o *incident.Options) {
	t.Helper()
	var err error
	o.Queries, err = fidelity.ParseQueries("q", []byte("queries:\n- {expr: 'sum(rate(requests_total[5m]))'}\n- {expr: 'load'}\n"))
	require.NoError(t, err)
	o.Alerts, err = fidelity.ParseAlerts("r", []byte("groups:\n- name: g\n  rules:\n  - {alert: Busy, expr: 'load > 3', labels: {severity: page}}\n"))
	require.NoError(t, err)
}

func TestNothingIsWithheldFromABackendThatIsWell(t *testing.T) {
	o := options(t, "duration: 5m\nbackend: {capacity: [{at: 0s, share: 3}]}"+shop)
	ask(t, &o)
	r := run(t, o)
	require.Len(t, r.Rows, 30)
	require.InDelta(t, r.Totals.Offered, r.Totals.Sent, 1e-6)
	require.Zero(t, r.Totals.Withheld)
	require.Zero(t, r.Totals.LaggingSeconds)
	require.Equal(t, 1.0, r.Fidelity.Kept)
	require.Zero(t, r.Fidelity.Bad)
	require.Equal(t, 1.0, r.Fidelity.AlertAgreement)
}

func TestOverload(t *testing.T) {
	o := options(t, "duration: 10m\nbackend: {capacity: [{at: 0s, share: 2}, {at: 1m, share: 0.3}, {at: 5m, share: 2}]}"+shop)
	ask(t, &o)
	r := run(t, o)
	require.Less(t, r.Totals.LowestRate, 0.5)
	require.Greater(t, r.Totals.Withheld, 0.2*r.Totals.Offered)
	require.Equal(t, 1.0, r.Totals.FinalRate)
	require.NotZero(t, r.Totals.LaggingSeconds)
	require.InDelta(t, r.Totals.Offered, r.Totals.Sent+r.Totals.Withheld+r.Totals.Waiting, 0.01*r.Totals.Offered)

	// The second pass, which fills the stores, did what the first one did; it counts
	// also the ten minutes before the incident, in which all was sent.
	all := 2 * r.Totals.Offered
	require.InDelta(t, 1-r.Totals.Withheld/all, r.Fidelity.Kept, 0.01)
	require.Less(t, r.Fidelity.Kept, 0.95)
}

func TestFreshFirst(t *testing.T) {
	text := "duration: 8m\nbackend: {out_of_order: true, capacity: [{at: 0s, share: 2}], outages: [{at: 1m, for: 90s, how: hang}]}" +
		strings.Replace(shop, "floor: shed", "backfill: true", 1)
	o := options(t, text)
	ask(t, &o)
	r := run(t, o)
	require.NotZero(t, r.Totals.Passed)
	require.LessOrEqual(t, r.Totals.MaxQueueAge, 100.0)
	require.NotZero(t, r.Fidelity.Missing+r.Fidelity.Bad, "what was passed is missed")

	o = options(t, strings.Replace(text, "out_of_order: true", "out_of_order: false", 1))
	require.Zero(t, run(t, o).Totals.Passed)

	// What is not given back is not passed.
	o = options(t, strings.Replace(text, "backfill: true", "backfill: false", 1))
	r = run(t, o)
	require.Zero(t, r.Totals.Passed)
	require.Contains(t, strings.Join(r.Warnings, " "), "only with adaptive_sampling.backfill: true")
	require.Empty(t, run(t, options(t, text)).Warnings)
}

// In shadow mode the backend gets all there is, and is told what it would not have got.
func TestShadow(t *testing.T) {
	text := "duration: 5m\nbackend: {capacity: [{at: 0s, share: 2}, {at: 1m, share: 0.3}, {at: 3m, share: 2}]}"
	active := run(t, options(t, text+shop))
	require.Equal(t, "active", active.Mode)
	require.NotZero(t, active.Totals.Withheld)
	require.Zero(t, active.Totals.WouldWithhold)

	o := options(t, text+strings.Replace(shop, "floor: shed", "mode: shadow", 1))
	ask(t, &o)
	r := run(t, o)
	require.Equal(t, "shadow", r.Mode)
	require.Zero(t, r.Totals.Withheld)
	require.Greater(t, r.Totals.WouldWithhold, 0.1*r.Totals.Offered)
	require.InDelta(t, r.Totals.Offered, r.Totals.Sent+r.Totals.Waiting, 0.01*r.Totals.Offered)
	require.Less(t, r.Totals.LowestRate, 0.5)
	require.Greater(t, r.Totals.MaxQueueAge, active.Totals.MaxQueueAge, "nothing relieves the backend")
	require.Equal(t, 1.0, r.Fidelity.Kept)
	would := 0.0
	for _, row := range r.Rows {
		require.Equal(t, 1.0, row.Kept)
		require.Zero(t, row.Withheld)
		would += row.Would
	}
	require.InDelta(t, r.Totals.WouldWithhold, would, 1e-6)
	var table strings.Builder
	require.NoError(t, r.Write(&table, incident.Table))
	require.Contains(t, table.String(), "would withhold")
	require.Contains(t, table.String(), "Shadow mode: nothing is withheld")
}

// What was not recorded is not played as if nothing had come in.
func TestIncidentThatIsLongerThanTheCapture(t *testing.T) {
	o := options(t, "duration: 20m\nbackend: {capacity: [{at: 0s, share: 3}]}"+shop)
	r := run(t, o)
	// Of 21 minutes ten are the lead; the last request comes in the 656th second.
	require.Equal(t, 656.0, r.Totals.Seconds)
	require.Equal(t, 656.0, r.Rows[len(r.Rows)-1].At)
	for _, row := range r.Rows {
		require.NotZero(t, row.Offered)
	}
	require.Equal(t, []string{"The capture ends 10m56s after the start of the incident, which is to last 20m: it is played up to there."}, r.Warnings)
	var table strings.Builder
	require.NoError(t, r.Write(&table, incident.Table))
	require.Contains(t, table.String(), "Warning: The capture ends")

	// The silence at its end is no longer than others.
	r = run(t, options(t, "duration: 11m\nbackend: {capacity: [{at: 0s, share: 3}]}"+shop))
	require.Empty(t, r.Warnings)
	require.Equal(t, 660.0, r.Totals.Seconds)
}

func TestDisabled(t *testing.T) {
	o := options(t, "duration: 5m\nbackend: {capacity: [{at: 0s, share: 0.3}]}"+strings.Replace(shop, "floor: shed", "enabled: false", 1))
	r := run(t, o)
	require.Equal(t, 1.0, r.Totals.LowestRate)
	require.Zero(t, r.Totals.Withheld)
	require.Greater(t, r.Totals.MaxQueueAge, 60.0)
}

func TestIncidentsOfTheDocumentation(t *testing.T) {
	files, err := filepath.Glob("../../docs/incidents/*.yaml")
	require.NoError(t, err)
	require.Len(t, files, 3)
	for _, f := range files {
		text, err := os.ReadFile(f)
		require.NoError(t, err)
		require.NotContains(t, string(text), "adaptive_sampling")
		r := run(t, options(t, string(text)+shop))
		require.Less(t, r.Totals.LowestRate, 0.9, f)
		require.Equal(t, 1.0, r.Totals.FinalRate, f)
		require.Contains(t, r.Title, " ")
	}
}

func TestFormats(t *testing.T) {
	o := options(t, "title: A <test>\nduration: 1m\nbackend: {capacity: [{at: 0s, share: 3}]}"+shop)
	ask(t, &o)
	r := run(t, o)
	write := func(f incident.Format) string {
		var b strings.Builder
		require.NoError(t, r.Write(&b, f))
		return b.String()
	}
	table := write(incident.Table)
	require.Len(t, strings.Split(strings.TrimSpace(table), "\n"), 1+6+1+3)
	require.Contains(t, table, "at   offered/s")
	require.Contains(t, table, "alerts agree 100.0 %")
	var back incident.Report
	require.NoError(t, json.Unmarshal([]byte(write(incident.JSON)), &back))
	require.Equal(t, r.Rows, back.Rows)
	require.Equal(t, r.Totals, back.Totals)
	page := write(incident.HTML)
	require.Contains(t, page, "A &lt;test&gt;")
	require.Equal(t, 4, strings.Count(page, "<svg"))
	require.NotContains(t, page, "ZgotmplZ")
	require.ErrorContains(t, r.Write(&strings.Builder{}, "xml"), `unknown format "xml"`)

	figures, err := r.Figures()
	require.NoError(t, err)
	require.Equal(t, 1.0, figures["alert_agreement"])
	require.Equal(t, 1.0, figures["lowest_rate"])
}

func TestCaptureThatIsTooShort(t *testing.T) {
	o := options(t, "start: 30m\nbackend: {capacity: [{at: 0s, share: 3}]}"+shop)
	_, err := incident.Run(t.Context(), o)
	require.EqualError(t, err, "the capture ends before the incident starts, 30m0s after its first request")
}

func TestIncidentFilesAreStrict(t *testing.T) {
	for text, want := range map[string]string{
		"{}": "backend.capacity: must say at least what it is at 0s",
		"start: 1m\nbackend: {capacity: [{at: 0s, share: 1}]}":                         "start: must be at least 10m0s",
		"backend: {capacity: [{at: 5s, share: 1}]}":                                    "backend.capacity[0].at: must be 0s",
		"backend: {capacity: [{at: 0s, share: 1, samples: 5}]}":                        "share and samples",
		"backend: {capacity: [{at: 0s, share: 1}], outages: [{at: 1s, how: sleep}]}":   "backend.outages[0].how: must be refuse or hang",
		"backend: {capasity: []}":                                                      "capasity",
		"load: [{at: 0s, factor: 0}]\nbackend: {capacity: [{at: 0s, share: 1}]}":       "load[0].factor: must be above 0",
		"backend: {capacity: [{at: 0s, share: 1}]}\nadaptive_sampling: {base_rate: 3}": "adaptive_sampling.base_rate: must be above 0 and at most 1",
	} {
		_, err := incident.Parse("incident.yaml", []byte(text))
		require.ErrorContains(t, err, want, text)
	}
}
