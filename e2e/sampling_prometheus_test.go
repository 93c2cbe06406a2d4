package e2e

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

// TestSampling_ThrottledPrometheus makes the way to one of two Prometheus servers so
// narrow that it takes a third of the load. Less is sent to it; its alerts agree with those of
// the other all the same; and when the way is wide again it gets the rest, until both
// answer every question alike.
func TestSampling_ThrottledPrometheus(t *testing.T) {
	t.Parallel()
	w := startWorld(t, 6)
	time.Sleep(15 * time.Second) // the sampler has to learn how often targets are scraped
	before, measured := w.proxy.Passed(), time.Now()
	time.Sleep(5 * time.Second) // what the load needs is measured
	need := float64(w.proxy.Passed()-before) / time.Since(measured).Seconds()
	t.Logf("the load needs %.0f bytes a second", need)

	throttled := time.Now()
	w.proxy.Set(testutil.Network{Shared: int(need * 0.3)})
	testutil.Await(t, 30*time.Second, "the lag rises", func() string {
		if lag := w.lag(t); lag < 1 {
			return fmt.Sprintf("it is %.2f", lag)
		}
		return ""
	})
	testutil.Await(t, 40*time.Second, "less is sent", func() string {
		if kept := w.sampling(t, "remote_write_sampling_kept_ratio"); kept > 0.6 {
			return fmt.Sprintf("kept ratio %.2f", kept)
		}
		return ""
	})
	t.Logf("thinned after %v, rate %.2f", time.Since(throttled).Round(time.Second), w.sampling(t, "remote_write_sampling_rate"))
	w.requireAlertsAgree(t)
	t.Logf("kept %.2f, rate %.2f, owed %.0f", w.sampling(t, "remote_write_sampling_kept_ratio"), w.sampling(t, "remote_write_sampling_rate"), w.sampling(t, "remote_write_debt_samples"))
	awaitSeries(t, w.thin.URL(""), `sluice_sampling_interval_seconds{job="shop"} > 1`)
	require.Zero(t, value(t, w.sluice, "remote_write_debt_samples", "backend", "twin"), "the other backend is thinned")
	require.Equal(t, 1.0, value(t, w.sluice, "remote_write_sampling_rate", "backend", "twin"))

	w.proxy.Set(testutil.Network{})
	wide := time.Now()
	testutil.Await(t, 76*time.Second, "the rate is back", func() string {
		if rate := w.sampling(t, "remote_write_sampling_rate"); rate < 0.9 {
			return fmt.Sprintf("it is %.2f", rate)
		}
		return ""
	})
	t.Logf("0.9 of the base rate after %v", time.Since(wide).Round(time.Second))
	w.requireEverythingReturned(t, 3*time.Minute)
	awaitNothing(t, w.thin.URL(""), `sluice_sampling_interval_seconds`)
	got, err := testutil.Ask(w.thin.URL(""), testutil.Query{Expr: `count(last_over_time(sluice_sampling_interval_seconds[10m]))`, End: time.Now()})
	require.NoError(t, err)
	require.Len(t, got, 1)
	got, err = testutil.Ask(w.twin.URL(""), testutil.Query{Expr: `last_over_time(sluice_sampling_interval_seconds[10m])`, End: time.Now()})
	require.NoError(t, err)
	require.Empty(t, got, "the backend that gets everything is told that it does not")
	requireMemory(t, w.sluice)
}

// requireAlertsAgree lets the targets fail in all ways that the rules know, one of them for
// good, and requires that both backends see the same.
func (w *world) requireAlertsAgree(t *testing.T) {
	t.Helper()
	from := time.Now()
	w.targets[0].trouble(true, false, false)
	w.targets[1].trouble(false, true, false)
	w.targets[2].trouble(false, false, true)
	w.targets[3].server.Close()
	w.targets[4].restart()
	testutil.Await(t, 30*time.Second, "all alerts fire with full data", func() string {
		if got := firing(t, w.twin, from, time.Now()); len(got) < 4 {
			return fmt.Sprint(got)
		}
		return ""
	})
	time.Sleep(15 * time.Second) // the trouble goes on
	for _, s := range w.targets {
		s.trouble(false, false, false)
	}
	awaitNothing(t, w.twin.URL(""), `ALERTS{alertstate="firing", alertname!="Down"}`)
	time.Sleep(alertDelay) // what the other may be late by
	to := time.Now()
	want, got := firing(t, w.twin, from, to), firing(t, w.thin, from, to)
	require.Len(t, want, 4)
	for key, list := range want {
		require.Len(t, list, 1, "%s with full data", key)
		require.Len(t, got[key], 1, "%s with less", key)
		late, long := got[key][0].from.Sub(list[0].from), got[key][0].to.Sub(list[0].to)
		t.Logf("%s: fires %v later, ends %v later", key, late, long)
		require.InDelta(t, 0, late.Seconds(), alertDelay.Seconds(), "%s begins", key)
		require.InDelta(t, 0, long.Seconds(), alertDelay.Seconds(), "%s ends", key)
	}
	require.Len(t, got, len(want), "false alerts: %v", got)
}

// alertDelay is by how much alerts may differ: the age at which a queue counts as lag, the
// largest distance of what alerts read, and a little for the evaluation.
const alertDelay = 12 * time.Second

// awaitGap waits until the ledger says that a stretch was left for later.
func (w *world) awaitGap(t *testing.T) {
	t.Helper()
	testutil.Await(t, 10*time.Second, "a gap in the ledger", func() string {
		list := ledgerOf(t, w.sluice, url.Values{"backend": {"thin"}, "from": {stamp(w.begin)}}).Missing
		for _, m := range list {
			if m.Kind == "gap" && m.Cause == "outage" && m.Withheld.Samples > 0 {
				return ""
			}
		}
		return fmt.Sprintf("%+v", list)
	})
}

// TestSampling_FreshFirst takes a backend away for a minute. When it is back it has the
// newest samples at once, whatever waited meanwhile; and then the rest.
func TestSampling_FreshFirst(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		outage testutil.Network
	}{
		{"refused", testutil.Network{Refuse: true}},
		{"stalled", testutil.Network{Delay: time.Hour}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := startWorld(t, 3)
			time.Sleep(10 * time.Second) // scrapes go on
			w.proxy.Set(c.outage)
			if c.outage.Refuse {
				w.proxy.CutAll()
			}
			time.Sleep(30 * time.Second)
			w.targets[1].restart()
			w.targets[2].server.Close() // its end lies in the gap
			time.Sleep(30 * time.Second)
			w.proxy.Set(testutil.Network{})
			back := time.Now()
			testutil.Await(t, 30*time.Second, "the newest sample", func() string {
				q := fmt.Sprintf(`timestamp(shop_queue_depth) > %d`, back.Unix())
				got, err := testutil.Ask(w.thin.URL(""), testutil.Query{Expr: q, End: time.Now()})
				if err != nil {
					return err.Error()
				}
				if len(got) < 2 {
					return "it is not there"
				}
				return ""
			})
			took := time.Since(back)
			t.Logf("the newest sample is there after %v", took.Round(time.Millisecond))
			require.Less(t, took, 5*time.Second)
			w.awaitGap(t)
			w.requireEverythingReturned(t, 4*time.Minute)
		})
	}
}
