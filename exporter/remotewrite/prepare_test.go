package remotewrite

import (
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// sentBody prepares a parcel and returns what goes over the wire and the tallies.
func (h *harness) sentBody(t testing.TB, p *exporter.Parcel) (body []byte, tallies []exporter.Tally) {
	t.Helper()
	d, err := h.Prepare(p)
	require.NoError(t, err)
	defer d.Close()
	for i := range p.Parts {
		tallies = append(tallies, d.Tally(i))
	}
	c := &d.(*delivery).content
	if c.src == nil {
		return nil, tallies
	}
	body = make([]byte, 0, c.src.Len())
	c.src.Rewind()
	buf := make([]byte, 1000)
	for {
		n, err := c.src.Read(buf)
		body = append(body, buf[:n]...)
		if err != nil {
			break
		}
	}
	require.Len(t, body, c.src.Len())
	return body, tallies
}

func samples(n uint64) exporter.Tally { return exporter.Tally{Sent: series.Counts{Samples: n}} }

func plainOf(t testing.TB, body []byte) []byte {
	t.Helper()
	plain, err := snappy.Decode(nil, body)
	require.NoError(t, err)
	return plain
}

func TestPrepare_WholeBodiesAreForwarded(t *testing.T) {
	b := newBackend(t, "http://127.0.0.1:1/", protocol(ProtocolRW1))
	one, two := batchOf(t, series.V1, requestV1("a", 700)), batchOf(t, series.V1, staleV1("b"))
	body, tallies := b.sentBody(t, parcel(one, two))
	require.Equal(t, append(plainOf(t, one.Body), plainOf(t, two.Body)...), plainOf(t, body))
	require.Equal(t, []exporter.Tally{samples(700), samples(1)}, tallies)
	require.Equal(t, 2.0, b.metric(t, b.metrics.parts.WithLabelValues(formForwarded)))

	b = newBackend(t, "http://127.0.0.1:1/", protocol(ProtocolRW2))
	whole := batchOf(t, series.V2, requestV2("a", 700))
	d, err := b.Prepare(parcel(whole))
	require.NoError(t, err)
	require.Same(t, &whole.Body[0], &d.(*delivery).content.src.(*stored).body[0], "no copy")
	d.Close()
	require.Zero(t, b.metric(t, b.metrics.parts.WithLabelValues(formEncoded)))
}

// S4: in a mixed parcel the order of the parts is kept, so that samples of a series that
// are in several of them stay in order.
func TestS4_OrderOfParts(t *testing.T) {
	for _, p := range []Protocol{ProtocolRW1, ProtocolRW2} {
		t.Run(string(p), func(t *testing.T) {
			b := newBackend(t, "http://127.0.0.1:1/", protocol(p))
			parcel := new(exporter.Parcel)
			for i := range 8 {
				m := requestV1("a", 4)
				for k := range m.Timeseries {
					m.Timeseries[k].Samples[0].Timestamp = startTime + int64(i)
				}
				batch := batchOf(t, series.V1, m)
				part := exporter.Part{Batch: batch}
				if i%3 == 1 {
					part.Take = take(batch, 1, 2)
				}
				if i == 5 {
					part.Take = take(batch) // nothing
				}
				parcel.Parts = append(parcel.Parts, part)
			}
			body, tallies := b.sentBody(t, parcel)
			last := map[string]int64{}
			total := 0
			see := func(name string, at int64) {
				require.Less(t, last[name], at, name)
				last[name] = at
				total++
			}
			if p == ProtocolRW1 {
				for _, s := range (request{body: body}).v1(t).Timeseries {
					see(s.Labels[1].Value, s.Samples[0].Timestamp)
				}
			} else {
				m := (request{body: body}).v2(t)
				for _, s := range m.Timeseries {
					see(m.Symbols[s.LabelsRefs[3]], s.Samples[0].Timestamp)
				}
			}
			require.Equal(t, []exporter.Tally{samples(4), samples(2), samples(4), samples(4), samples(2), samples(0), samples(4), samples(2)}, tallies)
			require.Equal(t, 22, total)
		})
	}
}

func TestPrepare_NothingTaken(t *testing.T) {
	for _, p := range []Protocol{ProtocolRW1, ProtocolRW2} {
		s := newServer(t, accept)
		b := newBackend(t, s.URL, protocol(p))
		batch := batchOf(t, series.V1, requestV1("a", 3))
		d, err := b.Prepare(&exporter.Parcel{Parts: []exporter.Part{{Batch: batch, Take: take(batch)}, {Batch: batch, Take: take(batch)}}})
		require.NoError(t, err)
		r, err := d.Send(t.Context(), 0)
		require.NoError(t, err)
		require.Equal(t, exporter.Receipt{}, r)
		require.Equal(t, exporter.Tally{}, d.Tally(1))
		d.Close()
		require.Empty(t, s.got())
	}
}

func TestM11_StartTimestamps(t *testing.T) {
	b := newBackend(t, "http://127.0.0.1:1/", protocol(ProtocolRW1))
	_, tallies := b.sentBody(t, parcel(batchOf(t, series.V2, requestV2("a", 7))))
	require.Equal(t, []exporter.Tally{samples(7)}, tallies)
	require.Equal(t, 7.0, b.metric(t, b.metrics.startsDropped))

	b = newBackend(t, "http://127.0.0.1:1/", protocol(ProtocolRW2))
	body, _ := b.sentBody(t, parcel(batchOf(t, series.V2, requestV2("a", 7)), batchOf(t, series.V2, requestV2("b", 7))))
	m := (request{body: body}).v2(t)
	require.Len(t, m.Timeseries, 14)
	for _, s := range m.Timeseries {
		require.Equal(t, startTime-1000, s.Samples[0].StartTimestamp)
	}
	require.Equal(t, "", m.Symbols[0])
}

func TestM13_MetadataJoinsV2(t *testing.T) {
	b := newBackend(t, "http://127.0.0.1:1/", protocol(ProtocolRW2))
	b.cache.Observe(remotewrite.Metadata{Family: []byte("http_requests"), Type: remotewrite.MetricCounter, Help: []byte("Requests."), Unit: []byte("1")})
	body, _ := b.sentBody(t, parcel(batchOf(t, series.V1, requestV1("http_requests_total", 2))))
	m := (request{body: body}).v2(t)
	for _, s := range m.Timeseries {
		require.Equal(t, writev2.Metadata_METRIC_TYPE_COUNTER, s.Metadata.Type)
		require.Equal(t, "Requests.", m.Symbols[s.Metadata.HelpRef])
		require.Equal(t, "1", m.Symbols[s.Metadata.UnitRef])
	}
}

func TestM13_MetadataToV1(t *testing.T) {
	b := newBackend(t, "http://127.0.0.1:1/", protocol(ProtocolRW1))
	v2 := batchOf(t, series.V2, requestV2("a", 3))
	entries := func(p *exporter.Parcel) []prompb.MetricMetadata {
		body, _ := b.sentBody(t, p)
		return (request{body: body}).v1(t).Metadata
	}
	require.Equal(t, []prompb.MetricMetadata{{MetricFamilyName: "a", Type: prompb.MetricMetadata_COUNTER, Help: "What a counts."}}, entries(parcel(v2)))
	require.Empty(t, entries(parcel(v2)), "told once")
	b.clock.advance(11 * time.Minute)
	require.Len(t, entries(parcel(v2)), 1, "and again later")

	m := requestV1("c", 2)
	m.Metadata = []prompb.MetricMetadata{{MetricFamilyName: "c", Type: prompb.MetricMetadata_GAUGE, Help: "What c is."}}
	v1 := batchOf(t, series.V1, m)
	require.Equal(t, m.Metadata, entries(parcel(v1)), "forwarded")
	part := &exporter.Parcel{Parts: []exporter.Part{{Batch: v1, Take: take(v1, 1)}}}
	require.Equal(t, m.Metadata, entries(part), "of a part")
	require.Empty(t, entries(part), "once, so that dividing does not find it in each half")

	only := batchOf(t, series.V1, &prompb.WriteRequest{Metadata: m.Metadata})
	require.Equal(t, m.Metadata, entries(parcel(only)), "a request of its own")
	b = newBackend(t, "http://127.0.0.1:1/", protocol(ProtocolRW2))
	body, tallies := b.sentBody(t, parcel(only))
	require.Nil(t, body, "2.0 has no place for metadata without series")
	require.Equal(t, []exporter.Tally{{}}, tallies)
}

// histogramV1 is a native histogram with custom buckets.
func histogramV1() prompb.Histogram {
	return prompb.Histogram{
		Count: &prompb.Histogram_CountInt{CountInt: 3}, Sum: 4, Schema: -53,
		ZeroCount:      &prompb.Histogram_ZeroCountInt{},
		PositiveSpans:  []prompb.BucketSpan{{Length: 2}},
		PositiveDeltas: []int64{1, 1}, CustomValues: []float64{1, 2}, Timestamp: startTime,
	}
}

// allKinds is a request with a sample, a custom-bucket histogram and an exemplar-only
// series with and without a sample to go with, and a name beyond the classic charset.
func allKinds() *prompb.WriteRequest {
	m := requestV1("plain", 1)
	h := seriesV1("latency", 0)
	h.Samples, h.Histograms = nil, []prompb.Histogram{histogramV1()}
	attached := seriesV1("plain", 0)
	attached.Samples = nil
	attached.Exemplars = []prompb.Exemplar{{Labels: []prompb.Label{{Name: "trace_id", Value: "x"}}, Value: 1, Timestamp: startTime}}
	lonely := seriesV1("lonely", 0)
	lonely.Samples, lonely.Exemplars = nil, attached.Exemplars
	utf8 := seriesV1("mit.punkt", 0)
	m.Timeseries = append(m.Timeseries, h, attached, lonely, utf8)
	return m
}

func TestPrepare_TallyOfDrops(t *testing.T) {
	drop1 := func(reason remotewrite.Reason, c series.Counts) exporter.Drop {
		return exporter.Drop{Reason: string(reason), Counts: c}
	}
	exemplar, sample, histogram := series.Counts{Exemplars: 1}, series.Counts{Samples: 1}, series.Counts{Histograms: 1}
	for name, tt := range map[string]struct {
		change func(*Config)
		want   exporter.Tally
	}{
		"2.0": {func(c *Config) { c.Protocol = ProtocolRW2 }, exporter.Tally{
			Sent:    series.Counts{Samples: 2, Histograms: 1, Exemplars: 1},
			Dropped: []exporter.Drop{drop1(remotewrite.ReasonExemplarWithoutSample, exemplar)},
		}},
		"2.0, legacy, refuse": {func(c *Config) {
			c.Protocol, c.Legacy, c.Escaping = ProtocolRW2, true, remotewrite.EscapeRefuse
		}, exporter.Tally{
			Sent: series.Counts{Samples: 1, Histograms: 1, Exemplars: 1},
			Dropped: []exporter.Drop{
				drop1(remotewrite.ReasonUTF8NameRefused, sample),
				drop1(remotewrite.ReasonExemplarWithoutSample, exemplar),
			},
		}},
		"1.0": {func(c *Config) { c.Protocol = ProtocolRW1 }, exporter.Tally{
			Sent: series.Counts{Samples: 2, Histograms: 1, Exemplars: 2},
		}},
		"1.0, refuse, drop": {func(c *Config) {
			c.Protocol, c.Escaping, c.NHCBOnRW1 = ProtocolRW1, remotewrite.EscapeRefuse, remotewrite.NHCBDrop
		}, exporter.Tally{
			Sent: series.Counts{Samples: 1, Exemplars: 2},
			Dropped: []exporter.Drop{
				drop1(remotewrite.ReasonNHCBOnRW1, histogram),
				drop1(remotewrite.ReasonUTF8NameRefused, sample),
			},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBackend(t, "http://127.0.0.1:1/", tt.change)
			batch := batchOf(t, series.V1, allKinds())
			require.False(t, batch.Legacy)
			// The other part shares the request, so that late drops have to be told apart.
			plain := batchOf(t, series.V1, requestV1("other", 5))
			p := parcel(plain, batch, plain)
			p.Parts[0].Take, p.Parts[2].Take = take(plain, 1, 2), take(plain, 3)
			_, tallies := b.sentBody(t, p)
			require.Equal(t, samples(2), tallies[0])
			require.Equal(t, tt.want, tallies[1])
			require.Equal(t, samples(1), tallies[2])
		})
	}
}

// Whatever is selected of whatever, Sent and Dropped are what the selection holds, and
// Sent is what arrives.
func TestPrepare_TallyIsExact(t *testing.T) {
	backends := map[Protocol]*harness{}
	for _, p := range []Protocol{ProtocolRW1, ProtocolRW2} {
		backends[p] = newBackend(t, "http://127.0.0.1:1/", protocol(p))
	}
	var pool []*series.Batch
	for i := range 3 {
		pool = append(pool,
			batchOf(t, series.V1, requestV1(fmt.Sprintf("one%d", i), 5+i)),
			batchOf(t, series.V1, allKinds()),
			batchOf(t, series.V2, requestV2(fmt.Sprintf("two%d", i), 5+i)))
	}
	rapid.Check(t, func(rt *rapid.T) {
		p := new(exporter.Parcel)
		var selected []series.Counts
		for range rapid.IntRange(1, 6).Draw(rt, "parts") {
			batch := rapid.SampledFrom(pool).Draw(rt, "batch")
			part := exporter.Part{Batch: batch}
			counts := batch.Counts
			if rapid.Bool().Draw(rt, "partly") {
				var m remotewrite.Message
				require.NoError(rt, m.Scan(batch.Version, plainOf(t, batch.Body)))
				part.Take, counts = series.NewSet(batch.Series), series.Counts{}
				for i, s := range m.Series {
					if rapid.Bool().Draw(rt, "take") {
						part.Take.Add(i)
						counts.Add(series.Counts{Samples: uint64(s.Samples), Histograms: uint64(s.Histograms), Exemplars: uint64(s.Exemplars)})
					}
				}
			}
			p.Parts = append(p.Parts, part)
			selected = append(selected, counts)
		}
		how := rapid.SampledFrom([]Protocol{ProtocolRW1, ProtocolRW2}).Draw(rt, "protocol")
		body, tallies := backends[how].sentBody(t, p)
		var sent series.Counts
		for i, tally := range tallies {
			all := tally.Sent
			for _, d := range tally.Dropped {
				require.NotEmpty(rt, d.Reason)
				all.Add(d.Counts)
			}
			require.Equal(rt, selected[i], all)
			sent.Add(tally.Sent)
		}
		if body == nil {
			require.True(rt, sent.Zero())
			return
		}
		var m remotewrite.Message
		v := map[Protocol]series.Version{ProtocolRW1: series.V1, ProtocolRW2: series.V2}[how]
		require.NoError(rt, m.Scan(v, plainOf(t, body)))
		if how == ProtocolRW2 { // expanded histograms become samples in 1.0
			require.Equal(rt, sent, m.Counts)
		} else {
			require.Equal(rt, sent.Exemplars, m.Counts.Exemplars)
		}
		for i := range m.Series {
			require.Empty(rt, m.Series[i].Invalid())
		}
	})
}

func TestPrepare_DamagedBatch(t *testing.T) {
	for name, damage := range map[string]func(*series.Batch){
		"not snappy":        func(b *series.Batch) { b.Body = []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} },
		"empty":             func(b *series.Batch) { b.Body = nil },
		"another length":    func(b *series.Batch) { b.Decoded++ },
		"another number":    func(b *series.Batch) { b.Series++ },
		"not protobuf":      func(b *series.Batch) { b.Body = snappy.Encode(nil, []byte{0xff}); b.Decoded = 1 },
		"breaks off":        func(b *series.Batch) { b.Body = b.Body[:len(b.Body)-3] },
		"length of a bomb":  func(b *series.Batch) { b.Body = []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0} },
		"the wrong version": func(b *series.Batch) { b.Version = series.V2 },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBackend(t, "http://127.0.0.1:1/", protocol(ProtocolRW1))
			batch := batchOf(t, series.V1, requestV1("a", 3))
			good := batchOf(t, series.V1, requestV1("b", 3))
			damage(batch)
			p := parcel(good, batch)
			p.Parts[1].Take = take(good, 0, 1, 2)
			_, err := b.Prepare(p)
			require.ErrorContains(t, err, "out of the journal")
			_, tallies := b.sentBody(t, &exporter.Parcel{Parts: []exporter.Part{{Batch: good, Take: take(good, 1)}}})
			require.Equal(t, samples(1), tallies[0], "the encoder is fit for use")
		})
	}
}

func TestPrepare_Concurrent(t *testing.T) {
	for _, p := range []Protocol{ProtocolRW1, ProtocolRW2} {
		b := newBackend(t, "http://127.0.0.1:1/", protocol(p))
		one, two := batchOf(t, series.V1, requestV1("a", 50)), batchOf(t, series.V2, requestV2("b", 50))
		pc := parcel(one, two)
		pc.Parts[0].Take = take(one, 3, 4)
		var wg sync.WaitGroup
		errs := make(chan error, 8*20)
		for range 8 {
			wg.Go(func() {
				for range 20 {
					d, err := b.Prepare(pc)
					if err == nil && (d.Tally(0).Sent.Samples != 2 || d.Tally(1).Sent.Samples != 50) {
						err = fmt.Errorf("wrong tallies: %v, %v", d.Tally(0), d.Tally(1))
					}
					if err == nil {
						d.Close()
					}
					errs <- err
				}
			})
		}
		wg.Wait()
		close(errs)
		for err := range errs {
			require.NoError(t, err)
		}
	}
}

// NaNs keep their bits whatever way they take.
func TestM10_StaleMarkers(t *testing.T) {
	for _, p := range []Protocol{ProtocolRW1, ProtocolRW2} {
		b := newBackend(t, "http://127.0.0.1:1/", protocol(p))
		batch := batchOf(t, series.V1, staleV1("a"))
		body, _ := b.sentBody(t, &exporter.Parcel{Parts: []exporter.Part{{Batch: batch, Take: take(batch, 0)}}})
		var got float64
		if p == ProtocolRW1 {
			got = (request{body: body}).v1(t).Timeseries[0].Samples[0].Value
		} else {
			got = (request{body: body}).v2(t).Timeseries[0].Samples[0].Value
		}
		require.Equal(t, uint64(0x7ff0000000000002), math.Float64bits(got))
	}
}
