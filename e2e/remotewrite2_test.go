package e2e

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	promconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

// sender is the sending half of a Prometheus as a library: a store with its write-ahead
// log, and the remote-write queues that read it.
type sender struct {
	db  *tsdb.DB
	reg *prometheus.Registry
}

// startSender starts a Prometheus' storage that writes to the URL. batch is the most
// points in a request.
func startSender(t *testing.T, target string, message remoteapi.WriteMessageType, batch int) *sender {
	t.Helper()
	dir, reg := t.TempDir(), prometheus.NewRegistry()
	opts := tsdb.DefaultOptions()
	opts.EnableExemplarStorage, opts.MaxExemplars = true, 10_000
	opts.EnableMetadataWALRecords = true
	opts.EnableSTStorage, opts.FloatChunkEncoding = true, chunkenc.EncXOR2
	db, err := tsdb.Open(dir, promslog.NewNopLogger(), nil, opts, nil)
	require.NoError(t, err)
	db.DisableCompactions()

	queues := remote.NewWriteStorage(promslog.NewNopLogger(), reg, dir, 10*time.Second, nil, false)
	db.SetWriteNotified(queues)
	to, err := url.Parse(target)
	require.NoError(t, err)
	rw := config.DefaultRemoteWriteConfig
	rw.URL = &promconfig.URL{URL: to}
	rw.Name = "sluice"
	rw.ProtobufMessage = message
	rw.SendExemplars, rw.SendNativeHistograms = true, true
	rw.MetadataConfig.Send = false // of RW 1.0; RW 2.0 takes it from the log
	rw.QueueConfig.MinShards, rw.QueueConfig.MaxShards = 1, 1
	rw.QueueConfig.MaxSamplesPerSend = batch
	rw.QueueConfig.BatchSendDeadline = model.Duration(100 * time.Millisecond)
	rw.QueueConfig.MinBackoff = model.Duration(30 * time.Millisecond)
	rw.QueueConfig.RetryOnRateLimit = true
	global := config.DefaultGlobalConfig
	require.NoError(t, queues.ApplyConfig(&config.Config{GlobalConfig: global, RemoteWriteConfigs: []*config.RemoteWriteConfig{&rw}}))
	t.Cleanup(func() {
		require.NoError(t, queues.Close())
		require.NoError(t, db.Close())
	})
	return &sender{db: db, reg: reg}
}

// total adds up a metric of the sender.
func (s *sender) total(t *testing.T, name string) float64 {
	t.Helper()
	families, err := s.reg.Gather()
	require.NoError(t, err)
	m := testutil.Metrics{}
	for _, f := range families {
		m[f.GetName()] = f
	}
	v, ok := m.Sum(name)
	require.True(t, ok, "the client does not export %s", name)
	return v
}

// requireAllSent waits until the client has sent everything, and requires that it
// believes that all of it was written: that is what the Written headers told it.
func (s *sender) requireAllSent(t *testing.T, load *testutil.Load) {
	t.Helper()
	const prefix = "prometheus_remote_storage_"
	sum := func(what string) float64 {
		n := 0.0
		for _, class := range []string{"samples", "histograms", "exemplars"} {
			n += s.total(t, prefix+class+what)
		}
		return n
	}
	testutil.Await(t, 30*time.Second, "the client has sent everything", func() string {
		if sent := sum("_total"); sent < float64(load.Acknowledged()) || sum("_pending") > 0 {
			return fmt.Sprintf("%v of %d", sent, load.Acknowledged())
		}
		return ""
	})
	require.Zero(t, sum("_failed_total"), "the client counts failed points")
	require.Zero(t, sum("_retried_total"))
}

// TestRemoteWrite2 has Prometheus' own remote-write 2.0 client write through Sluice, to a
// backend that takes RW 2.0 and to one that takes RW 1.0. All bits arrive that the
// version can carry.
func TestRemoteWrite2(t *testing.T) {
	t.Parallel()
	two := testutil.StartSink(t, testutil.SinkOptions{Accept: []testutil.Protocol{testutil.RW2}})
	one := testutil.StartSink(t, testutil.SinkOptions{Accept: []testutil.Protocol{testutil.RW1}})
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: strictConfig(two, one)})
	client := startSender(t, s.WriteURL(), remoteapi.WriteV2MessageType, 1000)
	content := testutil.Everything()
	content.Exemplars = false // see TestRemoteWrite2Exemplars
	content.CustomBuckets, content.StartTimes, content.Metadata = true, true, true
	load := testutil.StoreLoad(t, client.db, 0, testutil.LoadOptions{
		Content: content, Series: 700, Rounds: 30, Start: time.Now().Add(2 * time.Second),
	})
	client.requireAllSent(t, load)

	load.RequireDelivered(t, two, 20*time.Second, testutil.CheckOptions{})
	for _, want := range load.Types() {
		got, ok := two.Arrivals().Row(want.Key)
		require.True(t, ok)
		require.Equal(t, want, got)
	}
	require.Zero(t, two.Stats().ByProtocol[testutil.RW1])
	load.RequireDelivered(t, one, 20*time.Second, testutil.CheckOptions{NoStart: true, Series: func(key string) bool {
		return !strings.Contains(key, `"load_custom_`)
	}})
	requireExpanded(t, load, one, 30)
	requireSettled(t, s, "two", "one")
}

// requireExpanded requires that histograms with custom buckets, which RW 1.0 does not
// have, came as classic ones: five buckets, sum and count for each.
func requireExpanded(t *testing.T, load *testutil.Load, sink *testutil.Sink, rounds int) {
	t.Helper()
	custom := 0
	for _, key := range load.Keys() {
		if strings.Contains(key, `"load_custom_`) {
			custom++
		}
	}
	got := map[string]int{}
	for _, key := range sink.Arrivals().Keys() {
		if !strings.Contains(key, `"load_custom_`) {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(key, `{__name__="`), `"`)
		got[name[strings.LastIndex(name, "_"):]] += len(sink.Arrivals().Points(key, "samples"))
	}
	require.Equal(t, map[string]int{"_bucket": 5 * custom * rounds, "_sum": custom * rounds, "_count": custom * rounds}, got)
}

// TestRemoteWrite2Exemplars is apart because the client sends an exemplar as a series of
// its own, which a receiver takes only together with a sample of that series: the rounds
// here are apart enough to be requests of their own.
func TestRemoteWrite2Exemplars(t *testing.T) {
	t.Parallel()
	two := testutil.StartSink(t, testutil.SinkOptions{Accept: []testutil.Protocol{testutil.RW2}})
	one := testutil.StartSink(t, testutil.SinkOptions{Accept: []testutil.Protocol{testutil.RW1}})
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: strictConfig(two, one)})
	client := startSender(t, s.WriteURL(), remoteapi.WriteV2MessageType, 1000)
	load := testutil.StoreLoad(t, client.db, 400*time.Millisecond, testutil.LoadOptions{
		Content: testutil.Content{Exemplars: true}, Series: 100, Rounds: 6, Start: time.Now().Add(2 * time.Second), Step: 500 * time.Millisecond,
	})
	client.requireAllSent(t, load)
	require.Positive(t, two.Arrivals().Unique("exemplars"))
	load.RequireDelivered(t, two, 20*time.Second, testutil.CheckOptions{})
	load.RequireDelivered(t, one, 20*time.Second, testutil.CheckOptions{})
	requireSettled(t, s, "two", "one")
}

// TestRemoteWrite1Client is the same client speaking RW 1.0, translated to RW 2.0.
func TestRemoteWrite1Client(t *testing.T) {
	t.Parallel()
	two := testutil.StartSink(t, testutil.SinkOptions{Accept: []testutil.Protocol{testutil.RW2}})
	one := testutil.StartSink(t, testutil.SinkOptions{Accept: []testutil.Protocol{testutil.RW1}})
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: strictConfig(two, one)})
	client := startSender(t, s.WriteURL(), remoteapi.WriteV1MessageType, 1000)
	content := testutil.Everything()
	content.Exemplars = false
	load := testutil.StoreLoad(t, client.db, 0, testutil.LoadOptions{
		Content: content, Series: 700, Rounds: 30, Start: time.Now().Add(2 * time.Second),
	})
	client.requireAllSent(t, load)
	load.RequireDelivered(t, one, 20*time.Second, testutil.CheckOptions{})
	load.RequireDelivered(t, two, 20*time.Second, testutil.CheckOptions{})
	requireSettled(t, s, "two", "one")
}

func strictConfig(two, one *testutil.Sink) string {
	return configText("",
		backend{name: "two", url: two.URL(), extra: "protocol: rw2"},
		backend{name: "one", url: one.URL(), extra: "protocol: rw1"},
	)
}

// TestProtocolIsNegotiated leaves the choice to Sluice: RW 2.0 where it is understood,
// RW 1.0 where the answer is 415, and RW 1.0 too where RW 2.0 is swallowed silently.
func TestProtocolIsNegotiated(t *testing.T) {
	t.Parallel()
	two := testutil.StartSink(t, testutil.SinkOptions{})
	one := testutil.StartSink(t, testutil.SinkOptions{Accept: []testutil.Protocol{testutil.RW1}})
	silent := testutil.StartSink(t, testutil.SinkOptions{SilentRW2: true})
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText("",
		backend{name: "two", url: two.URL()}, backend{name: "one", url: one.URL()}, backend{name: "silent", url: silent.URL()})})
	loads := map[testutil.Protocol]*testutil.Load{}
	for _, p := range []testutil.Protocol{testutil.RW1, testutil.RW2} {
		loads[p] = testutil.StartLoad(t, testutil.LoadOptions{
			URL: s.WriteURL(), Name: string(p), Protocol: p, Content: testutil.Everything(), Rounds: 20, Rate: 2000,
		})
	}
	for _, l := range loads {
		l.Wait(t, 30*time.Second)
		require.Equal(t, []int{204}, statuses(l))
		for _, sink := range []*testutil.Sink{two, one, silent} {
			l.RequireDelivered(t, sink, 20*time.Second, testutil.CheckOptions{})
		}
	}
	require.Zero(t, two.Stats().ByProtocol[testutil.RW1])
	require.Positive(t, one.Stats().ByProtocol[testutil.RW1])
	require.Positive(t, silent.Stats().ByProtocol[testutil.RW1])
	requireSettled(t, s, "two", "one", "silent")
}
