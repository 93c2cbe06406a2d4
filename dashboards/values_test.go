package dashboards_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/dashboards"
)

// small is a gateway with two backends for twenty minutes. The first loss of a reason
// begins a series; what was lost before the range is not of it.
const small = `
load 30s
  up{job="sluice",instance="g"} 1x40
  sluice_build_info{job="sluice",instance="g",version="1"} 1x40
  sluice_in_journal_bytes{job="sluice",instance="g",backend="a"} 0x40
  sluice_in_journal_bytes{job="sluice",instance="g",backend="b"} 0x40
  sluice_routed_total{job="sluice",instance="g",backend="a",kind="samples"} 1000x40
  sluice_routed_total{job="sluice",instance="g",backend="b",kind="samples"} 1000x40
  sluice_delivered_total{job="sluice",instance="g",backend="a",kind="samples"} 900x40
  sluice_delivered_total{job="sluice",instance="g",backend="b",kind="samples"} 963x40
  sluice_withheld{job="sluice",instance="g",backend="a",kind="samples"} 60x40
  sluice_withheld{job="sluice",instance="g",backend="b",kind="samples"} 0x40
  sluice_in_journal{job="sluice",instance="g",backend="a",kind="samples"} 40x40
  sluice_in_journal{job="sluice",instance="g",backend="b",kind="samples"} 7x40
  sluice_rejected_total{job="sluice",instance="g",backend="b",kind="samples",reason="refused"} _x30 20x10
  sluice_given_up_total{job="sluice",instance="g",backend="b",kind="samples",reason="max_backlog"} 5x30 10x10
  sluice_orphaned_samples_total{job="sluice",instance="g"} 0x40
  sluice_lane_state{job="sluice",instance="g",backend="a",state="ok"} 1x40
  sluice_lane_state{job="sluice",instance="g",backend="a",state="throttled"} 0x40
  sluice_lane_state{job="sluice",instance="g",backend="a",state="failing"} 0x40
  sluice_lane_state{job="sluice",instance="g",backend="a",state="denied"} 0x40
  sluice_lane_state{job="sluice",instance="g",backend="b",state="ok"} 0x40
  sluice_lane_state{job="sluice",instance="g",backend="b",state="throttled"} 0x40
  sluice_lane_state{job="sluice",instance="g",backend="b",state="failing"} 1x40
  sluice_lane_state{job="sluice",instance="g",backend="b",state="denied"} 0x40
  sluice_journal_disk_bytes{job="sluice",instance="g"} 0+3000x40
  sluice_journal_disk_limit_bytes{job="sluice",instance="g"} 480000x40
  remote_write_sampling_kept_ratio{job="sluice",instance="g",backend="a"} 0.25x40
`

// What the panels show is what they say.
func TestQueries_Compute(t *testing.T) {
	store := promqltest.LoadedStorage(t, small)
	engine := promqltest.NewTestEngine(t, false, 5*time.Minute, 1_000_000)
	tests := map[string]map[string]float64{
		"overview: Lost A":              {"{}": 25}, // 20 refused and 5 given up
		"overview: Withheld A":          {"{}": 0},
		"overview: Disk left A":         {"{}": 3600}, // 360000 bytes at 100 a second
		"overview: Lowest share sent A": {"{}": 0.25},
		"overview: Gateways A":          {"{}": 1},
		"overview: Gateways B":          {"{}": 1},
		"overview: Debt to replay A":    {"{}": 0},
		"overview: Backends A":          {`{backend="a"}`: 1, `{backend="b"}`: 3},
		"overview: Backends E":          {`{backend="a"}`: 1, `{backend="b"}`: 1}, // neither has a rate
		"overview: Backends G":          {`{backend="a"}`: 0, `{backend="b"}`: 25},
		"overview: Conservation A":      {`{backend="a"}`: 0, `{backend="b"}`: 0},
		"backends: Lost by reason A":    {`{reason="refused"}`: 20},
		"backends: Lost by reason B":    {`{reason="max_backlog"}`: 5},
	}
	asked := 0
	for _, b := range files(t, dashboards.DefaultOptions()) {
		for _, p := range b.queried() {
			for _, q := range p.Targets {
				want, ok := tests[strings.TrimSuffix(b.name, ".json")+": "+p.Title+" "+q.RefID]
				if !ok {
					continue
				}
				asked++
				require.Equal(t, want, evaluate(t, engine, store, q.Expr), "%s %s: %s", p.Title, q.RefID, q.Expr)
			}
		}
	}
	require.Equal(t, len(tests), asked)
}

func evaluate(t *testing.T, engine *promql.Engine, store storage.Queryable, expr string) map[string]float64 {
	t.Helper()
	expr = strings.NewReplacer(
		"$__rate_interval", "1m", "$__range", "10m", "$job", "sluice", "$instance", ".*", "$backend", ".*",
	).Replace(expr)
	q, err := engine.NewInstantQuery(context.Background(), store, nil, expr, time.Unix(20*60, 0))
	require.NoError(t, err)
	defer q.Close()
	r := q.Exec(context.Background())
	require.NoError(t, r.Err, expr)
	require.Equal(t, parser.ValueTypeVector, r.Value.Type())
	got := map[string]float64{}
	for _, s := range r.Value.(promql.Vector) {
		got[s.Metric.String()] = s.F
	}
	return got
}
