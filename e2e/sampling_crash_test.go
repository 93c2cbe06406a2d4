package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

// lent is what GET /api/v1/ledger says of a stretch of which less than everything was
// sent.
type lent struct {
	Entry       int64
	Kind, State string
	Cause       string
	From, To    time.Time
	MinRate     float64 `json:"min_rate"`
	MaxRate     float64 `json:"max_rate"`
	Withheld    counts
	Outstanding counts
	GivenUp     counts `json:"given_up"`
	Inexact     bool
}

type counts struct{ Samples, Histograms, Exemplars uint64 }

// missingFrom asks what the backend main lacks of a range of time.
func missingFrom(t *testing.T, s *testutil.Sluice, from, to time.Time) []lent {
	t.Helper()
	status, body, err := testutil.Get(s.URL("/api/v1/ledger?" + url.Values{
		"backend": {"main"}, "from": {from.Format(time.RFC3339Nano)}, "to": {to.Format(time.RFC3339Nano)},
	}.Encode()))
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status, body)
	var answer struct {
		Backends []struct {
			Backend  string
			Sampling bool
			Missing  []lent
		}
	}
	require.NoError(t, json.Unmarshal([]byte(body), &answer), body)
	require.Len(t, answer.Backends, 1)
	require.Equal(t, "main", answer.Backends[0].Backend)
	require.True(t, answer.Backends[0].Sampling)
	return answer.Backends[0].Missing
}

func outstanding(list []lent) (n int) {
	for _, m := range list {
		n += int(m.Outstanding.Samples + m.Outstanding.Histograms)
	}
	return n
}

// TestSampling_Crash kills the program at random instants: while it thins, after an outage
// when the newest goes first, and while it gives back. Every acknowledged sample arrives
// in the end, and in between the ledger tells exactly how many do not.
func TestSampling_Crash(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	sink := testutil.StartSink(t, testutil.SinkOptions{})
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText(`
adaptive_sampling:
  backpressure_thresholds: {write_latency_ms: 1000, queue_age_seconds: 4}
  backfill: true
  backfill_share: 1
  fresh_first_after: 10s
  key_frame_min: 5s
`, backend{name: "main", url: sink.URL(), extra: "out_of_order_time_window: 1h"})})
	begin := time.Now()
	start := func(name string) *testutil.Load {
		return testutil.StartLoad(t, testutil.LoadOptions{
			Name: name, URL: s.WriteURL(), Content: testutil.Content{Histograms: true, Stale: true}, Series: 2000, Target: 100, Batch: 250, Senders: 4, Rate: 2000, Step: time.Second,
		})
	}
	kill := func() {
		s.Kill()
		s.Start(t)
	}
	soon := func(limit time.Duration) { time.Sleep(time.Duration(r.Int64N(int64(limit)))) } // the instant is what is random

	first := start("first")
	time.Sleep(18 * time.Second) // the sampler has to learn how often targets are scraped
	sink.Behave(testutil.Fault{Pace: 600})
	awaitKept(t, s, 0.7)
	for range 4 {
		soon(4 * time.Second)
		kill()
	}
	awaitKept(t, s, 0.7)
	first.Stop(t, 10*time.Second)
	s.AwaitEmpty(t, "main", time.Minute)
	owed := requireLedgerTruthful(t, s, sink, begin, first)
	t.Logf("after kills while thinning %d samples are owed", owed)
	require.Positive(t, owed)
	kill()
	s.AwaitEmpty(t, "main", time.Minute)
	require.Equal(t, owed, requireLedgerTruthful(t, s, sink, begin, first))

	// An outage, and kills around its end.
	sink.Behave(testutil.Fault{})
	second := start("second")
	soon(2 * time.Second)
	sink.Down()
	time.Sleep(15 * time.Second)
	kill()
	time.Sleep(11 * time.Second)
	sink.Up(t)
	soon(3 * time.Second)
	kill()
	soon(3 * time.Second)
	second.Stop(t, 10*time.Second)
	s.AwaitEmpty(t, "main", time.Minute)
	t.Logf("after an outage %d samples are owed: %+v", requireLedgerTruthful(t, s, sink, begin, first, second), missingFrom(t, s, begin, time.Now()))

	// Sessions end with what comes in after them.
	third := start("third")
	for range 2 {
		testutil.Await(t, 3*time.Minute, "something is given back", func() string {
			m := s.Metrics(t)
			if m.Get("remote_write_backfill_samples_total") == 0 && m.Get("remote_write_debt_samples") > 0 {
				return fmt.Sprintf("%v samples are owed, rate %v", m.Get("remote_write_debt_samples"), m.Get("remote_write_sampling_rate"))
			}
			return ""
		})
		soon(3 * time.Second)
		t.Logf("killed with %v owed", value(t, s, "remote_write_debt_samples"))
		kill()
	}
	testutil.Await(t, 3*time.Minute, "the debt is paid", func() string {
		if d := value(t, s, "remote_write_debt_samples"); d > 0 {
			return fmt.Sprintf("%v samples are owed", d)
		}
		return ""
	})
	third.Stop(t, 10*time.Second)
	for _, load := range []*testutil.Load{first, second, third} {
		t.Log(load.RequireDelivered(t, sink, 30*time.Second, testutil.CheckOptions{OutOfOrder: true}))
	}
	requireSettled(t, s, "main")
	m := s.Metrics(t)
	require.Zero(t, m.Get("sluice_given_up_total", "backend", "main"))
	for _, kind := range testutil.Kinds() {
		require.Zero(t, m.Accounts("main", kind).Withheld, kind)
		repeated := float64(sink.Arrivals().Repeated(kind))
		t.Logf("%v %s came more than once", repeated, kind)
		require.LessOrEqual(t, repeated, m.Get("sluice_redelivered_total", "backend", "main", "kind", kind), "what was sent again is counted as redelivered")
	}
	list := missingFrom(t, s, begin, time.Now())
	require.Zero(t, outstanding(list), "nothing is owed, and yet missing: %+v", list)
}

// requireLedgerTruthful compares what the ledger says with what the sink lacks, and returns
// how much that is. The loads are stopped and the journal is empty.
func requireLedgerTruthful(t *testing.T, s *testutil.Sluice, sink *testutil.Sink, begin time.Time, loads ...*testutil.Load) int {
	t.Helper()
	lost := 0
	for _, load := range loads {
		report := load.Check(sink.Arrivals(), testutil.CheckOptions{OutOfOrder: true})
		require.Zero(t, report.Changed+report.Unknown, "%v", report)
		lost += report.Lost
	}
	// The ledger counts what the cursor has passed, which is written down every second.
	testutil.Await(t, 10*time.Second, "the ledger says what the sink lacks", func() string {
		list := missingFrom(t, s, begin.Add(-time.Minute), time.Now().Add(time.Minute))
		m := s.Metrics(t)
		withheld := int(m.Accounts("main", "samples").Withheld + m.Accounts("main", "histograms").Withheld)
		if n := outstanding(list); n != lost || withheld != lost {
			return fmt.Sprintf("the sink lacks %d, the books say %d, the ledger says %d: %+v", lost, withheld, n, list)
		}
		return ""
	})
	testutil.RequireConservation(t, s.Metrics(t), "main")
	return lost
}

func awaitKept(t *testing.T, s *testutil.Sluice, below float64) {
	t.Helper()
	testutil.Await(t, time.Minute, "less is sent", func() string {
		if kept := value(t, s, "remote_write_sampling_kept_ratio", "backend", "main"); kept > below {
			return fmt.Sprintf("kept ratio %.2f", kept)
		}
		return ""
	})
}
