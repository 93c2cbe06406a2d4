package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

const lending = `
adaptive_sampling:
  enabled: true
  base_rate: 1.0
  min_rate: 0.01
  backpressure_thresholds: {queue_length: 5000, write_latency_ms: 1000, queue_age_seconds: 4}
  backfill: true
  backfill_share: 1
`

// A backend takes a third of the load for a while: less is sent to it, by plan; afterwards
// it gets the rest, each sample once.
func TestSampling_LoanIsGivenBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		protocol testutil.Protocol
		content  testutil.Content
	}{
		{testutil.RW1, testutil.Content{Histograms: true, Specials: true, Stale: true}},
		{testutil.RW2, testutil.Content{Histograms: true, CustomBuckets: true, Specials: true, Stale: true, StartTimes: true, Metadata: true}},
	} {
		t.Run(string(c.protocol), func(t *testing.T) {
			t.Parallel()
			sink := testutil.StartSink(t, testutil.SinkOptions{Accept: []testutil.Protocol{c.protocol}})
			s := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText(lending,
				backend{name: "main", url: sink.URL(), extra: "out_of_order_time_window: 1h, protocol: " + string(c.protocol)})})
			load := testutil.StartLoad(t, testutil.LoadOptions{
				URL: s.WriteURL(), Protocol: c.protocol, Content: c.content,
				Series: 3000, Target: 100, Batch: 500, Rate: 3000, Step: time.Second,
			})
			time.Sleep(20 * time.Second) // the sampler has to learn how often targets are scraped
			sink.Behave(testutil.Fault{SamplesPerSecond: 1000})
			awaitKept(t, s, 0.7)
			time.Sleep(20 * time.Second) // the trouble goes on
			t.Log("withheld", value(t, s, "remote_write_samples_shed_total", "backend", "main"), "owed", value(t, s, "remote_write_debt_samples", "backend", "main"))
			sink.Behave(testutil.Fault{})
			testutil.Await(t, 76*time.Second, "the rate returns", func() string {
				if rate := value(t, s, "remote_write_sampling_rate", "backend", "main"); rate < 0.9 {
					return fmt.Sprintf("it is %.3f", rate)
				}
				return ""
			})
			testutil.Await(t, 5*time.Minute, "the debt is paid", func() string {
				if d := value(t, s, "remote_write_debt_samples", "backend", "main"); d > 0 {
					return fmt.Sprintf("%v samples are owed", d)
				}
				return ""
			})
			load.Stop(t, 10*time.Second)
			t.Log(load.RequireDelivered(t, sink, time.Minute, testutil.CheckOptions{OutOfOrder: true}))
			require.Positive(t, value(t, s, "remote_write_backfill_samples_total", "backend", "main"))
			require.Positive(t, value(t, s, "remote_write_sampler_batches_total", "opened", "receiver"), "a lane that has caught up does not open them again")
			for _, kind := range testutil.Kinds() {
				require.Zero(t, sink.Arrivals().Repeated(kind), kind)
			}
			require.Zero(t, s.Metrics(t).Get("sluice_given_up_total", "backend", "main"))
			requireSettled(t, s, "main")
		})
	}
}
