package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

const samplingOn = `
adaptive_sampling:
  backpressure_thresholds: {write_latency_ms: 1000, queue_age_seconds: 4}
  key_frame_min: 5s
`

// TestSampling_Told lets one of two backends lag, and looks at everything by which that
// is told: to senders, to the backend, to its readers, and to whoever asks.
func TestSampling_Told(t *testing.T) {
	t.Parallel()
	slow, quick := testutil.StartSink(t, testutil.SinkOptions{}), testutil.StartSink(t, testutil.SinkOptions{})
	backends := []backend{
		{name: "slow", url: slow.URL(), extra: "out_of_order_time_window: 1h"},
		{name: "quick", url: quick.URL()},
	}
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText(samplingOn, backends...)})
	begin := time.Now()
	load := testutil.StartLoad(t, testutil.LoadOptions{
		URL: s.WriteURL(), Series: 2000, Target: 100, Batch: 500, Rate: 2000, Step: time.Second,
	})
	time.Sleep(18 * time.Second) // the sampler has to learn how often targets are scraped
	require.Empty(t, withheldHeader(t, s))
	requireProvenance(t, slow, s, 1, 1)
	require.Equal(t, 1.0, lagOf(t, s, "slow").Sampling.Rate)

	slow.Behave(testutil.Fault{Pace: 600})
	testutil.Await(t, time.Minute, "less is sent", func() string {
		if kept := value(t, s, "remote_write_sampling_kept_ratio", "backend", "slow"); kept > 0.7 {
			return fmt.Sprintf("kept ratio %.2f", kept)
		}
		return ""
	})
	time.Sleep(16 * time.Second) // companion series are written every 15 s
	kept := requireProvenance(t, slow, s, 0.01, 0.8)
	require.Regexp(t, `^slow;kept=0\.\d{4}$`, withheldHeader(t, s))
	requireProvenance(t, quick, s, 1, 1)
	t.Logf("kept share in the header: %v", kept)
	requireToldBy(t, lagOf(t, s, "slow"))
	require.Nil(t, lagOf(t, s, "quick").Sampling.Since)

	view := ledgerOf(t, s, url.Values{"backend": {"slow"}})
	require.Len(t, view.Entries, 1)
	require.Equal(t, "sampled", view.Entries[0].Kind)
	require.NotEmpty(t, view.Entries[0].Steps)
	missing := ledgerOf(t, s, url.Values{"backend": {"slow"}, "from": {stamp(begin)}, "to": {stamp(time.Now())}}).Missing
	require.Len(t, missing, 1)
	require.Equal(t, "open", missing[0].State)
	require.Positive(t, missing[0].Outstanding.Samples)
	require.Less(t, missing[0].MinRate, 0.9)
	require.Empty(t, ledgerOf(t, s, url.Values{"backend": {"slow"}, "to": {stamp(begin.Add(-time.Hour))}}).Missing)
	require.Empty(t, ledgerOf(t, s, url.Values{"backend": {"quick"}, "from": {stamp(begin)}}).Missing)
	requireTable(t, s, "slow")

	// Readers of the backend find a series for each target that is thinned, and its end.
	require.NotEmpty(t, companions(slow))
	require.Empty(t, companions(quick))
	testutil.RequireConservation(t, s.Metrics(t), "quick")

	// A reload that switches sampling off sends everything from then on.
	s.Configure(t, configText("adaptive_sampling: {enabled: false}", backends...))
	status, body := s.Reload(t)
	require.Equal(t, http.StatusOK, status, body)
	require.Empty(t, withheldHeader(t, s))
	_, exported := s.Metrics(t).Sum("remote_write_sampling_rate", "backend", "slow")
	require.False(t, exported, "a backend that is not sampled has a rate")
	slow.Behave(testutil.Fault{})
	testutil.Await(t, time.Minute, "the backend is told that it gets everything", func() string {
		if text := slow.Stats().Header.Get("X-Dataprovenance"); !strings.Contains(text, ";sample=1.0000;") {
			return text
		}
		return ""
	})

	// One that switches it on again finds the account of before.
	s.Configure(t, configText(samplingOn, backends...))
	status, body = s.Reload(t)
	require.Equal(t, http.StatusOK, status, body)
	testutil.Await(t, 10*time.Second, "the account is closed", func() string {
		missing := ledgerOf(t, s, url.Values{"backend": {"slow"}, "from": {stamp(begin)}, "to": {stamp(time.Now())}}).Missing
		if len(missing) != 1 || missing[0].State != "kept" {
			return fmt.Sprintf("%+v", missing)
		}
		return ""
	})

	load.Stop(t, 10*time.Second)
	load.RequireDelivered(t, quick, 30*time.Second, testutil.CheckOptions{})
	requireSettled(t, s, "slow", "quick")
	report := load.Check(slow.Arrivals(), testutil.CheckOptions{})
	require.Zero(t, report.Changed+report.Disordered+report.Unknown, "%v", report)
	require.Equal(t, float64(report.Lost), s.Metrics(t).Accounts("slow", "samples").Withheld, "%v", report)
}

// TestSampling_CompanionEnds requires a staleness marker at the end of each series that
// says how far apart samples are.
func TestSampling_CompanionEnds(t *testing.T) {
	t.Parallel()
	sink := testutil.StartSink(t, testutil.SinkOptions{})
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText(samplingOn, backend{name: "main", url: sink.URL()})})
	load := testutil.StartLoad(t, testutil.LoadOptions{
		URL: s.WriteURL(), Series: 1000, Target: 200, Batch: 500, Rate: 1000, Step: time.Second,
	})
	time.Sleep(18 * time.Second) // the sampler has to learn how often targets are scraped
	sink.Behave(testutil.Fault{Pace: 300})
	testutil.Await(t, time.Minute, "companion series", func() string {
		if len(companions(sink)) < 5 {
			return fmt.Sprint(companions(sink))
		}
		return ""
	})
	sink.Behave(testutil.Fault{})
	stale := testutil.StaleSum()
	testutil.Await(t, 3*time.Minute, "their end", func() string {
		for _, key := range companions(sink) {
			points := sink.Arrivals().Points(key, "samples")
			if points[len(points)-1].Sum != stale {
				return key
			}
		}
		return ""
	})
	require.Len(t, companions(sink), 5)
	require.Contains(t, companions(sink), `{__name__="sluice_sampling_interval_seconds", instance="10.0.0.0:9100", job="load"}`)
	load.Stop(t, 10*time.Second)
	requireSettled(t, s, "main")
	require.Zero(t, s.Metrics(t).Get("sluice_rejected_total", "backend", "main"))
}

// TestSampling_Shadow reports what would be withheld, and withholds nothing.
func TestSampling_Shadow(t *testing.T) {
	t.Parallel()
	sink := testutil.StartSink(t, testutil.SinkOptions{})
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText(samplingOn+"  mode: shadow\n  backfill: true\n",
		backend{name: "main", url: sink.URL(), extra: "out_of_order_time_window: 1h"})})
	load := testutil.StartLoad(t, testutil.LoadOptions{
		URL: s.WriteURL(), Series: 2000, Target: 100, Batch: 500, Rate: 2000, Step: time.Second,
	})
	time.Sleep(18 * time.Second) // the sampler has to learn how often targets are scraped
	sink.Behave(testutil.Fault{Pace: 1200})
	testutil.Await(t, time.Minute, "the report", func() string {
		if n := s.Metrics(t).Get("remote_write_samples_shed_total", "backend", "main"); n < 1000 {
			return fmt.Sprintf("%v samples would be withheld", n)
		}
		return ""
	})
	view := lagOf(t, s, "main")
	require.Equal(t, "shadow", view.Sampling.Mode)
	require.Less(t, view.Sampling.Rate, 0.95)
	require.Empty(t, withheldHeader(t, s))
	requireProvenance(t, sink, s, 1, 1)
	require.Empty(t, ledgerOf(t, s, url.Values{"backend": {"main"}}).Entries)
	require.Zero(t, value(t, s, "remote_write_debt_samples", "backend", "main"))
	sink.Behave(testutil.Fault{})
	load.Stop(t, 10*time.Second)
	load.RequireDelivered(t, sink, time.Minute, testutil.CheckOptions{})
	requireSettled(t, s, "main")
	require.Zero(t, s.Metrics(t).Accounts("main", "samples").Withheld)
	require.Empty(t, companions(sink))
}

// withheldHeader sends an empty request and returns what senders are told.
func withheldHeader(t *testing.T, s *testutil.Sluice) string {
	t.Helper()
	req, err := testutil.NewWriteRequest(t.Context(), s.WriteURL(), testutil.RW1, []byte{0})
	require.NoError(t, err)
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusNoContent, resp.StatusCode)
	return resp.Header.Get("X-Sluice-Withheld")
}

// requireProvenance requires that the newest request of the sink names the gateway and a
// kept share from low to high.
func requireProvenance(t *testing.T, sink *testutil.Sink, s *testutil.Sluice, low, high float64) float64 {
	t.Helper()
	text := sink.Stats().Header.Get("X-Dataprovenance")
	parts := strings.Split(text, ";")
	require.Len(t, parts, 3, text)
	require.Contains(t, parts[0], s.Address)
	require.Regexp(t, `^sample=[01]\.\d{4}$`, parts[1])
	kept, err := strconv.ParseFloat(strings.TrimPrefix(parts[1], "sample="), 64)
	require.NoError(t, err)
	require.GreaterOrEqual(t, kept, low, text)
	require.LessOrEqual(t, kept, high, text)
	require.Equal(t, "mask=", parts[2])
	return kept
}

// lag is what GET /api/v1/lag says of a backend.
type lag struct {
	Backend, State string
	Batches        *int64
	Samples        *uint64
	Bytes          *int64
	Age            *float64 `json:"age_seconds"`
	Sampling       *struct {
		Mode, Cause, Why     string
		Rate, Kept, Pressure float64
		Since                *time.Time
		Signals              []struct {
			Name      string
			Value     *float64
			Threshold float64
			Known     bool
		}
		Offered      float64 `json:"offered_per_second"`
		Acknowledged float64 `json:"acknowledged_per_second"`
		Debt         struct {
			Samples, Bytes uint64
			Oldest         *time.Time
			ETA            *float64 `json:"eta_seconds"`
		}
		Events []struct {
			Time      time.Time
			What, Why string
		}
	}
}

func lagOf(t *testing.T, s *testutil.Sluice, backend string) lag {
	t.Helper()
	var answer struct{ Backends []lag }
	getJSON(t, s.URL("/api/v1/lag?backend="+backend), &answer)
	require.Len(t, answer.Backends, 1)
	require.Equal(t, backend, answer.Backends[0].Backend)
	require.NotNil(t, answer.Backends[0].Sampling)
	return answer.Backends[0]
}

// requireToldBy requires that all of it is there for a backend that is thinned.
func requireToldBy(t *testing.T, l lag) {
	t.Helper()
	for _, v := range []any{l.Batches, l.Samples, l.Bytes, l.Age} {
		require.NotNil(t, v)
	}
	v := l.Sampling
	require.Equal(t, "active", v.Mode)
	require.Less(t, v.Rate, 0.9)
	require.Less(t, v.Kept, 0.8)
	require.Positive(t, v.Pressure)
	require.NotNil(t, v.Since)
	require.Positive(t, v.Offered)
	require.Positive(t, v.Debt.Samples)
	require.NotNil(t, v.Debt.Oldest)
	require.Nil(t, v.Debt.ETA, "nothing is given back without backfill")
	require.NotEmpty(t, v.Why)
	names := map[string]bool{}
	for _, signal := range v.Signals {
		names[signal.Name] = true
		require.Equal(t, signal.Known, signal.Value != nil, signal.Name)
	}
	for _, name := range []string{"queue_length", "queue_age", "write_latency", "errors", "throttled", "retry_after"} {
		require.True(t, names[name], "no signal %s", name)
	}
	what := map[string]bool{}
	for _, e := range v.Events {
		what[e.What] = true
	}
	require.True(t, what["rate falls"] && what["sampling began"], "%+v", v.Events)
}

// account is what GET /api/v1/ledger says of a backend.
type account struct {
	Backend string
	Missing []lent
	Entries []struct {
		Kind  string
		Steps []struct{ Rate float64 }
	}
}

func ledgerOf(t *testing.T, s *testutil.Sluice, query url.Values) account {
	t.Helper()
	var answer struct{ Backends []account }
	getJSON(t, s.URL("/api/v1/ledger?"+query.Encode()), &answer)
	require.Len(t, answer.Backends, 1)
	require.Equal(t, query.Get("backend"), answer.Backends[0].Backend)
	return answer.Backends[0]
}

func getJSON(t *testing.T, url string, to any) {
	t.Helper()
	status, body, err := testutil.Get(url)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status, body)
	require.NoError(t, json.Unmarshal([]byte(body), to), body)
}

func stamp(at time.Time) string { return at.Format(time.RFC3339Nano) }

// requireTable asks the command for the same, of the running gateway and of its files.
func requireTable(t *testing.T, s *testutil.Sluice, backend string) {
	t.Helper()
	for _, args := range [][]string{
		{"ledger", "--address=" + s.URL("/"), "--backend=" + backend},
		{"ledger", "--storage.path=" + s.Data, "--backend=" + backend},
	} {
		out, err := exec.Command(s.Program(), args...).CombinedOutput()
		require.NoError(t, err, "%v: %s", args, out)
		require.Contains(t, string(out), backend)
		require.Contains(t, string(out), "open")
		t.Logf("%v\n%s", args[:1], out)
	}
}

// companions are the series of the sink that say how far apart samples are.
func companions(sink *testutil.Sink) []string {
	var list []string
	for _, key := range sink.Arrivals().Keys() {
		if strings.Contains(key, `__name__="sluice_sampling_interval_seconds"`) {
			list = append(list, key)
		}
	}
	return list
}
