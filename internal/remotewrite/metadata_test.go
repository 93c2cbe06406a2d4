package remotewrite

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
)

func family(name, help string) Metadata {
	return Metadata{Family: []byte(name), Type: MetricGauge, Help: []byte(help), Unit: []byte("u")}
}

func TestM13_MetadataCacheKeepsTheLast(t *testing.T) {
	c := NewMetadataCache(MetadataCacheOptions{})
	_, ok := c.Get([]byte("a"))
	require.False(t, ok)
	md := family("a", "first")
	c.Observe(md)
	kept, ok := c.Get([]byte("a"))
	require.True(t, ok)
	copy(md.Help, "XXXXX") // borrowed bytes are copied
	require.Equal(t, family("a", "first"), kept)

	c.Observe(family("a", "second"))
	now, _ := c.Get([]byte("a"))
	require.Equal(t, family("a", "second"), now)
	require.Equal(t, family("a", "first"), kept, "what was handed out never changes")

	changed := family("a", "second")
	changed.Type = MetricCounter
	c.Observe(changed)
	now, _ = c.Get([]byte("a"))
	require.Equal(t, changed, now)

	c.Observe(Metadata{Help: []byte("no family")})
	require.Equal(t, 1, c.Len())
	require.Zero(t, c.Evicted())
}

func TestMetadataCache_Bounds(t *testing.T) {
	for name, o := range map[string]MetadataCacheOptions{
		"families": {MaxFamilies: 10},
		"bytes":    {MaxBytes: 10 * sizeMetadata(family("f00", "help"))},
	} {
		t.Run(name, func(t *testing.T) {
			c := NewMetadataCache(o)
			for i := range 25 {
				c.Observe(family(fmt.Sprintf("f%02d", i), "help"))
				c.Observe(family("f24", "help")) // a family that returns is kept once
			}
			require.Equal(t, 10, c.Len())
			all := c.All(0)
			require.Len(t, all, 10)
			for i, md := range all {
				require.Equal(t, fmt.Sprintf("f%02d", 15+i), string(md.Family))
			}
			require.Equal(t, all[:3], c.All(3))
			require.Equal(t, all, c.All(100))
			require.NotZero(t, c.Evicted())
		})
	}
	c := NewMetadataCache(MetadataCacheOptions{MaxBytes: 10})
	c.Observe(family("a", "this help text is longer than the cache"))
	require.Zero(t, c.Len())
	require.EqualValues(t, 1, c.Evicted())

	// An entry that grows in place counts too, and the last one can go.
	c.Observe(family("a", "12345678"))
	require.Equal(t, 1, c.Len())
	c.Observe(family("b", ""))
	require.Equal(t, 1, c.Len())
	c.Observe(family("c", "12345678"))
	require.Equal(t, "c", string(c.All(0)[0].Family))
	require.Equal(t, 1, c.Len())
}

func TestMetadataCache_Concurrent(t *testing.T) {
	c := NewMetadataCache(MetadataCacheOptions{MaxFamilies: 20})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				name := fmt.Sprint("f", (i*7+g)%40)
				c.Observe(family(name, fmt.Sprint(i%3)))
				if md, ok := c.Get([]byte(name)); ok && string(md.Family) != name {
					t.Errorf("got %s for %s", md.Family, name)
				}
				c.All(2)
			}
		})
	}
	wg.Wait()
	require.Equal(t, 20, c.Len())
}

func TestMetadataThrottle(t *testing.T) {
	now := time.Unix(1000, 0)
	th := NewMetadataThrottle(MetadataThrottleOptions{Now: func() time.Time { return now }})
	a := family("a", "help")
	require.True(t, th.Allow(a))
	require.False(t, th.Allow(a))
	now = now.Add(10*time.Minute - 1)
	require.False(t, th.Allow(a))
	now = now.Add(1)
	require.True(t, th.Allow(a))
	require.False(t, th.Allow(a))

	for _, change := range []func(*Metadata){
		func(md *Metadata) { md.Type = MetricCounter },
		func(md *Metadata) { md.Help = []byte("other") },
		func(md *Metadata) { md.Unit = []byte("another") },
		func(md *Metadata) { md.Help, md.Unit = md.Unit, md.Help },
		func(md *Metadata) { md.Family = []byte("b") },
	} {
		change(&a)
		require.True(t, th.Allow(a))
		require.False(t, th.Allow(a))
	}
}

func TestMetadataThrottle_IsBounded(t *testing.T) {
	th := NewMetadataThrottle(MetadataThrottleOptions{MaxFamilies: 10})
	for i := range 1000 {
		require.True(t, th.Allow(family(fmt.Sprint(i), "")))
		require.LessOrEqual(t, len(th.told), 10)
	}
	require.False(t, th.Allow(family("999", "")))
}

func TestM13_SeriesFindTheirFamily(t *testing.T) {
	c := NewMetadataCache(MetadataCacheOptions{})
	for name, typ := range map[string]MetricType{
		"requests": MetricCounter, "text_requests_total": MetricCounter, "latency": MetricHistogram, "queue": MetricGauge,
		"quantiles": MetricSummary, "sizes": MetricGaugeHistogram, "": MetricInfo,
	} {
		c.Observe(Metadata{Family: []byte(name), Type: typ, Help: []byte(name), Unit: []byte("u")})
	}
	req := &prompb.WriteRequest{}
	var want []modelMetadata
	for _, x := range []struct {
		metric, family string
		typ            MetricType
	}{
		{"requests_total", "requests", MetricCounter},
		{"requests_created", "requests", MetricCounter},
		{"requests_total", "requests", MetricCounter},
		{"text_requests_total", "text_requests_total", MetricCounter},
		{"latency_bucket", "latency", MetricHistogram},
		{"latency_sum", "latency", MetricHistogram},
		{"latency_count", "latency", MetricHistogram},
		{"latency_created", "latency", MetricHistogram},
		{"latency", "latency", MetricHistogram},
		{"quantiles_sum", "quantiles", MetricSummary},
		{"sizes_bucket", "sizes", MetricGaugeHistogram},
		{"queue", "queue", MetricGauge},
		{"queue_count", "", MetricUnspecified}, // another metric than the gauge "queue"
		{"quantiles_bucket", "", MetricUnspecified},
		{"unknown", "", MetricUnspecified},
		{"_total", "", MetricUnspecified},
	} {
		req.Timeseries = append(req.Timeseries, prompb.TimeSeries{Labels: label(nameLabel, x.metric), Samples: []prompb.Sample{{Value: 1, Timestamp: 2}}})
		md := modelMetadata{Type: int32(x.typ), Help: x.family}
		if x.family != "" {
			md.Unit = "u"
		}
		want = append(want, md)
	}
	b := NewBuilder(BuilderOptions{Version: series.V2, Metadata: c})
	for range 2 { // references of one request must not survive into the next
		b.Reset()
		out := written(t, b, series.V1, mustMarshal(req))
		symbolsUnique(t, out)
		var got []modelMetadata
		for _, s := range readV2(t, out) {
			got = append(got, s.Metadata)
		}
		require.Equal(t, want, got)
		req.Timeseries = append(req.Timeseries[1:], req.Timeseries[0])
		want = append(want[1:], want[0])
	}
}

func TestM13_MetadataGoesToV1Throttled(t *testing.T) {
	req := payloadV2(100, false)
	req.Symbols = append(req.Symbols, "latency_bucket", "latency", "latency_sum", "ended_bucket")
	n := uint32(len(req.Symbols))
	md := writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_HISTOGRAM, HelpRef: n - 3}
	gauge := writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_GAUGE}
	name := uint32(slices.Index(req.Symbols, nameLabel))
	sample := []writev2.Sample{{Value: 1, Timestamp: 1}}
	req.Timeseries = append(req.Timeseries,
		writev2.TimeSeries{LabelsRefs: []uint32{name, n - 4}, Samples: sample, Metadata: md},
		writev2.TimeSeries{LabelsRefs: []uint32{name, n - 2}, Samples: sample, Metadata: md},
		writev2.TimeSeries{LabelsRefs: []uint32{name, n - 1}, Samples: sample, Metadata: gauge},
		writev2.TimeSeries{LabelsRefs: []uint32{name, n - 4}, Histograms: []writev2.Histogram{{Timestamp: 1}}, Metadata: md},
	)
	now := time.Unix(0, 0)
	throttle := NewMetadataThrottle(MetadataThrottleOptions{Now: func() time.Time { return now }})
	b := NewBuilder(BuilderOptions{Version: series.V1, Throttle: throttle})
	families := func() map[string]modelMetadata {
		b.Reset()
		got, families := readV1(t, written(t, b, series.V2, mustMarshal(req)))
		require.Len(t, got, 104)
		return families
	}
	first := families()
	require.Len(t, first, 48)
	require.Equal(t, modelMetadata{Type: int32(MetricHistogram), Help: "latency"}, first["latency"])
	require.Equal(t, modelMetadata{Type: int32(MetricGauge)}, first["ended_bucket"])
	require.Equal(t, modelMetadata{Type: int32(MetricCounter), Help: "Cumulative count of packets dropped while transmitting."}, first["container_network_transmit_packets_dropped_00_total"])
	require.Empty(t, families())
	now = now.Add(time.Hour)
	require.Equal(t, first, families())
}

func TestBuilder_AddMetadata(t *testing.T) {
	md := Metadata{Family: []byte("with.dot"), Type: MetricInfo, Help: []byte("help"), Unit: []byte("seconds")}
	want := modelMetadata{Type: int32(MetricInfo), Help: "help", Unit: "seconds"}
	for escaping, name := range map[Escaping]string{EscapeAllow: "with.dot", EscapeUnderscores: "with_dot", EscapeDots: "with_dot_dot", EscapeValues: "U__with_2e_dot"} {
		b := NewBuilder(BuilderOptions{Version: series.V1, Escaping: escaping})
		b.AddMetadata(md)
		_, families := readV1(t, b.AppendTo(nil))
		require.Equal(t, map[string]modelMetadata{name: want}, families)
		require.Zero(t, b.Len())
	}
	b := NewBuilder(BuilderOptions{Version: series.V1, Escaping: EscapeRefuse})
	b.AddMetadata(md)
	require.Zero(t, b.Size())

	b = NewBuilder(BuilderOptions{Version: series.V2})
	b.AddMetadata(md)
	require.Empty(t, readV2(t, b.AppendTo(nil)))
}
