package remotewrite

import (
	"fmt"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
)

// scanned is a request as the builders take it.
func scanned(tb testing.TB, v series.Version, msg marshaler) *Message {
	tb.Helper()
	m := new(Message)
	require.NoError(tb, m.Scan(v, mustMarshal(msg)))
	return m
}

// addAll adds all series of messages and returns the Outcomes' sum.
func addAll(b *Builder, messages ...*Message) (o Outcome) {
	for _, m := range messages {
		for i := range m.Series {
			one := b.Add(m, i)
			o.Written.Add(one.Written)
			o.Dropped.Add(one.Dropped)
			if one.Reason != "" {
				o.Reason = one.Reason
			}
		}
	}
	return o
}

func familySource() *MetadataCache {
	c := NewMetadataCache(MetadataCacheOptions{})
	for _, ts := range payloadV1(46).Timeseries {
		c.Observe(Metadata{Family: []byte(ts.Labels[0].Value), Type: MetricCounter, Help: []byte("Packets dropped while transmitting.")})
	}
	return c
}

// builderCase is one way through a Builder. It is measured here, and its allocations
// are bounded in a test.
type builderCase struct {
	name     string
	o        BuilderOptions
	messages []*Message
}

func builderCases(tb testing.TB) []builderCase {
	v1 := scanned(tb, series.V1, payloadV1(benchSeries))
	v2 := scanned(tb, series.V2, payloadV2(benchSeries, false))
	first := scanned(tb, series.V2, payloadV2(1, false))
	starts := scanned(tb, series.V2, payloadV2(benchSeries, true))
	var rich []genSeries // histograms, exemplars in the series and exemplars on their own
	for i := range 100 {
		ls := label(nameLabel, "m", "id", fmt.Sprint(i))
		h := &histogram.Histogram{Count: 5, ZeroCount: 2, PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []int64{3}}
		rich = append(rich,
			genSeries{labels: ls, exemplars: exemplar(1)},
			genSeries{labels: ls, exemplars: exemplar(2), ints: []*histogram.Histogram{h}, times: []int64{1}, starts: []int64{1}},
		)
	}
	rich1, rich2 := scanBytes(tb, series.V1, encodeV1(rich)), scanBytes(tb, series.V2, encodeV2(rich))
	return []builderCase{
		{"Rich/V1ToV2", BuilderOptions{Version: series.V2}, []*Message{rich1}},
		{"Rich/V2ToV2/Remap", BuilderOptions{Version: series.V2}, []*Message{first, rich2}},
		{"Rich/V2ToV1", BuilderOptions{Version: series.V1}, []*Message{rich2}},
		{"V1ToV1", BuilderOptions{Version: series.V1}, []*Message{v1}},
		{"V1ToV1/Underscores", BuilderOptions{Version: series.V1, Escaping: EscapeUnderscores}, []*Message{v1}},
		{"V2ToV2/OneSource", BuilderOptions{Version: series.V2}, []*Message{v2}},
		{"V2ToV2/Underscores", BuilderOptions{Version: series.V2, Escaping: EscapeUnderscores}, []*Message{v2}},
		{"V2ToV2/Remap", BuilderOptions{Version: series.V2}, []*Message{first, v2}},
		{"V1ToV2", BuilderOptions{Version: series.V2}, []*Message{v1}},
		{"V1ToV2/Metadata", BuilderOptions{Version: series.V2, Metadata: familySource()}, []*Message{v1}},
		{"V2ToV1", BuilderOptions{Version: series.V1, Throttle: NewMetadataThrottle(MetadataThrottleOptions{})}, []*Message{v2}},
		{"V2ToV1/Starts", BuilderOptions{Version: series.V1}, []*Message{starts}},
	}
}

func BenchmarkBuilder(b *testing.B) {
	for _, c := range builderCases(b) {
		b.Run(c.name, func(b *testing.B) {
			builder := NewBuilder(c.o)
			samples := 0 // of both kinds
			for _, m := range c.messages {
				samples += int(m.Counts.Samples + m.Counts.Histograms)
			}
			b.ReportAllocs()
			for b.Loop() {
				builder.Reset()
				for _, m := range c.messages {
					for i := range m.Series {
						if builder.Add(m, i).Reason != "" {
							b.Fatal("dropped")
						}
					}
				}
				builder.Bytes()
			}
			perSample(b, samples)
		})
	}
}

func TestBuilder_AllocatesNothingOnceWarm(t *testing.T) {
	for _, c := range builderCases(t) {
		t.Run(c.name, func(t *testing.T) {
			builder := NewBuilder(c.o)
			var out []byte
			write := func() {
				builder.Reset()
				addAll(builder, c.messages...)
				out = builder.AppendTo(out[:0])
			}
			write()
			require.Zero(t, testing.AllocsPerRun(10, write))
			require.Equal(t, len(out), builder.Size())
		})
	}
}
