package remotewrite

import (
	"encoding/hex"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
)

// field is one field with the given content on the wire.
func field(number uint64, content ...[]byte) []byte {
	var p []byte
	for _, c := range content {
		p = append(p, c...)
	}
	return appendBytesField(nil, number, p)
}

func varintField(number, v uint64) []byte { return appendVarintField(nil, number, v) }

func join(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func sampleV(v float64, t int64) []byte {
	return mustMarshal(&prompb.Sample{Value: v, Timestamp: t})
}

func labelV1(name, val string) []byte {
	return appendLabel(nil, Label{[]byte(name), []byte(val)})
}

func symbolsV2(symbols ...string) (b []byte) {
	for _, s := range symbols {
		b = append(b, field(4, []byte(s))...)
	}
	return b
}

// indexed is the index of data, which must be fine as a message.
func indexed(t *testing.T, v series.Version, data []byte) *Message {
	t.Helper()
	m := &Message{}
	require.NoError(t, m.Index(v, data, 7))
	if v == series.V1 {
		compareV1(t, data)
	} else {
		compareV2(t, data)
	}
	return m
}

// seedsV1 is a request of each kind that the walk treats in a way of its own.
func seedsV1() [][]byte {
	name := labelV1("__name__", "up")
	sample := field(2, sampleV(1, payloadTime))
	whole := &prompb.WriteRequest{
		Timeseries: []prompb.TimeSeries{{
			Labels:    []prompb.Label{{Name: "__name__", Value: "x"}, {Name: "a", Value: strings.Repeat("v", 200)}},
			Samples:   []prompb.Sample{{Value: math.Float64frombits(value.StaleNaN), Timestamp: -5}, {Timestamp: payloadTime}},
			Exemplars: []prompb.Exemplar{{Labels: []prompb.Label{{Name: "trace_id", Value: "1"}}, Value: 3, Timestamp: 9}},
		}},
		Metadata: []prompb.MetricMetadata{{Type: prompb.MetricMetadata_SUMMARY, MetricFamilyName: "x", Help: "h", Unit: "s"}},
	}
	rng := rand.New(rand.NewPCG(5, 6))
	for range 8 {
		whole.Timeseries[0].Histograms = append(whole.Timeseries[0].Histograms, randomHistogram(rng))
	}
	return [][]byte{
		nil,
		mustMarshal(whole),
		mustMarshal(payloadV1(3)),
		field(1, sample, name), // labels behind samples
		field(1, name, sample, labelV1("job", "a")),
		field(1, []byte{0x8a, 0x00, 0x00}, []byte{0x92, 0x00, 0x00}), // long tags
		field(1, name, []byte{0x0a, 0x00}),
		field(1, name, field(9, []byte("unknown")), sample, []byte{0x7d, 1, 2, 3, 4}),
		join([]byte{0x8a, 0x80, 0x00, 0x00}, varintField(2, 5), field(3, varintField(1, 99))),
		field(1, name, sample)[:20],
		{0x0b, 0x0c},
	}
}

// seedsV2 is the same for RW 2.0.
func seedsV2() [][]byte {
	table := symbolsV2("", "__name__", "up", "job", "a")
	refs := field(1, []byte{1, 2, 3, 4})
	sample := field(2, sampleV(1, payloadTime))
	whole := payloadV2(3, true)
	rng := rand.New(rand.NewPCG(5, 6))
	for range 8 {
		h := randomHistogram(rng)
		var v2 writev2.Histogram
		if err := v2.Unmarshal(mustMarshal(&h)); err != nil {
			panic(err)
		}
		v2.StartTimestamp = payloadTime
		whole.Timeseries[1].Histograms = append(whole.Timeseries[1].Histograms, v2)
	}
	whole.Timeseries[2].Exemplars = []writev2.Exemplar{{LabelsRefs: []uint32{1, 2}, Value: 3, Timestamp: 9}}
	return [][]byte{
		nil,
		mustMarshal(whole),
		mustMarshal(payloadV2(2, false)),
		join(field(5, refs, sample), table), // symbols behind series
		join(table, field(5, sample, refs)),
		join(table, field(5, varintField(1, 1), varintField(1, 2), sample)),
		join(table, field(5, field(1, []byte{1}), field(1, []byte{2}), sample)),
		join(table, field(5, refs, sample, varintField(6, 5))),
		join(table, field(5, field(1, []byte{1, 2, 3}), sample)),
		join(table, field(5, field(1, []byte{1, 2, 0xff, 0xff, 0xff, 0xff, 0x7f, 1}), sample)),
		join(table, field(5, refs, sample, field(5, varintField(1, 2), varintField(3, 77)))),
		join(table, field(5, refs, sample, field(5, varintField(3, 77)), field(5, varintField(3, 1)))),
		join(table, field(5, refs, field(4, field(1, []byte{1, 9})))),
		field(4, []byte("x")),
		field(5, refs, sample),
	}
}

func TestSeedsAgreeWithGeneratedDecoders(t *testing.T) {
	for _, data := range seedsV1() {
		compareV1(t, data)
	}
	for _, data := range seedsV2() {
		compareV2(t, data)
	}
	compareV1(t, mustMarshal(payloadV1(300)))
	compareV2(t, mustMarshal(payloadV2(300, false)))
	compareV2(t, mustMarshal(payloadV2(300, true)))
}

// TestDamagedPayloads cuts and changes good requests at every byte: nothing panics, and
// what is taken is what the generated decoders take.
func TestDamagedPayloads(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	damage := func(data []byte, compare func(*testing.T, []byte)) {
		for i := range data {
			compare(t, data[:i])
			changed := append([]byte(nil), data...)
			changed[i] = byte(rng.Uint32())
			compare(t, changed)
			changed[i] = 0xff
			compare(t, changed)
		}
	}
	for _, data := range seedsV1() {
		damage(data, compareV1)
	}
	for _, data := range seedsV2() {
		damage(data, compareV2)
	}
}

func TestMalformed(t *testing.T) {
	name := labelV1("__name__", "up")
	table := symbolsV2("", "__name__", "up")
	refs := field(1, []byte{1, 2})
	for _, c := range []struct {
		name    string
		version series.Version
		data    []byte
		want    string
	}{
		{"cut tag", series.V1, []byte{0x80}, "broken field in WriteRequest at byte 0"},
		{"field number 0", series.V1, []byte{0x02, 0x00}, "broken field in WriteRequest at byte 0"},
		{"tag beyond 32 bits", series.V1, []byte{0x8a, 0x80, 0x80, 0x80, 0x80, 0x01, 0}, "broken field in WriteRequest at byte 0"},
		{"series longer than the request", series.V1, []byte{0x0a, 0x05, 1}, "broken length of a TimeSeries at byte 0"},
		{"series length beyond 64 bits", series.V1, append([]byte{0x0a}, strings.Repeat("\xff", 11)...), "broken length of a TimeSeries at byte 0"},
		{"series of huge length", series.V1, append([]byte{0x0a}, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"...), "broken length of a TimeSeries at byte 0"},
		{"series as varint", series.V1, join(field(1, name), varintField(1, 3)), "wrong wire type in WriteRequest at byte 18"},
		{"metadata as varint", series.V1, varintField(3, 3), "wrong wire type in WriteRequest at byte 0"},
		{"broken metadata", series.V1, field(3, varintField(2, 3)), "broken MetricMetadata at byte 0"},
		{"group in request", series.V1, []byte{0x2b, 0x2c}, "broken field in WriteRequest at byte 0"},
		{"group in series", series.V1, field(1, name, []byte{0x2b, 0x2c}), "broken unknown field in TimeSeries at byte 18"},
		{"group in sample", series.V1, field(1, name, field(2, []byte{0x2b, 0x2c})), "broken sample, histogram or exemplar at byte 18"},
		{"label longer than its series", series.V1, field(1, []byte{0x0a, 0x05, 1}), "broken length of a label at byte"},
		{"long label cut", series.V1, field(1, []byte{0x0a, 0x80, 0x80, 0x01, 1}), "broken length of a label at byte 2"},
		{"label as varint", series.V1, field(1, varintField(1, 1)), "wrong wire type in TimeSeries at byte 2"},
		{"sample as varint", series.V1, field(1, varintField(2, 1)), "wrong wire type in TimeSeries at byte 2"},
		{"value as varint", series.V1, field(1, field(2, varintField(1, 1))), "broken sample, histogram or exemplar at byte 2"},
		{"time as fixed64", series.V1, field(1, field(2, appendFixed64Field(nil, 2, 1))), "broken sample, histogram or exemplar at byte 2"},
		{"value cut", series.V1, field(1, field(2, []byte{0x09, 1, 2})), "broken sample, histogram or exemplar at byte 2"},
		{"broken exemplar label", series.V1, field(1, name, field(3, field(1, []byte{0x0a, 9}))), "broken sample, histogram or exemplar at byte 18"},
		{"sum as varint", series.V1, field(1, field(4, varintField(3, 1))), "broken sample, histogram or exemplar at byte 2"},
		{"packed doubles cut", series.V1, field(1, field(4, field(13, []byte{1}))), "broken sample, histogram or exemplar at byte 2"},
		{"first symbol not empty", series.V2, symbolsV2("a"), "the first symbol is not the empty string at byte 2"},
		{"no symbols", series.V2, field(5, field(2, sampleV(1, 2))), "series without a symbol table at byte"},
		{"symbol as varint", series.V2, varintField(4, 0), "wrong wire type in Request at byte 0"},
		{"series as varint", series.V2, varintField(5, 0), "wrong wire type in Request at byte 0"},
		{"cut symbol", series.V2, []byte{0x22, 0x05}, "broken length in Request at byte 0"},
		{"refs cut", series.V2, join(table, field(5, field(1, []byte{1, 0x82}))), "broken labels_refs at byte"},
		{"refs longer than series", series.V2, join(table, field(5, []byte{0x0a, 0x09})), "broken length of labels_refs at byte"},
		{"refs as fixed32", series.V2, join(table, field(5, []byte{0x0d, 1, 2, 3, 4})), "wrong wire type in TimeSeries at byte"},
		{"late refs cut", series.V2, join(table, field(5, refs, field(1, []byte{0x82}))), "broken field in TimeSeries at byte"},
		{"start as fixed64", series.V2, join(table, field(5, refs, field(2, appendFixed64Field(nil, 3, 1)))), "broken field in TimeSeries at byte"},
		{"help as bytes", series.V2, join(table, field(5, refs, field(5, field(3)))), "broken field in TimeSeries at byte"},
		{"version", 3, nil, "unknown version 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var m Message
			require.NoError(t, m.Index(series.V1, mustMarshal(payloadV1(2)), 1))
			err := m.Index(c.version, c.data, 1)
			require.ErrorIs(t, err, ErrMalformed)
			require.ErrorContains(t, err, c.want)
			require.Empty(t, m.Series, "what is left of a refused request")
			require.Zero(t, m.Counts)
			require.ErrorIs(t, m.Scan(c.version, c.data), ErrMalformed)
		})
	}
}

func TestFieldsInAnyOrder(t *testing.T) {
	name, job := labelV1("__name__", "up"), labelV1("job", "a")
	sample := field(2, sampleV(1, payloadTime))
	for _, c := range []struct {
		name  string
		data  []byte
		split bool
	}{
		{"labels first", field(1, name, job, sample), false},
		{"labels last", field(1, sample, name, job), true},
		{"sample between", field(1, name, sample, job), true},
		{"unknown field before", field(1, varintField(9, 1), name, job, sample), true},
		{"label with a long tag", field(1, []byte{0x8a, 0x00}, name[1:], job, sample), true},
	} {
		t.Run("V1 "+c.name, func(t *testing.T) {
			m := indexed(t, series.V1, c.data)
			ls, err := m.AppendLabels(nil, 0)
			require.NoError(t, err)
			requireLabels(t, []prompb.Label{{Name: "__name__", Value: "up"}, {Name: "job", Value: "a"}}, ls)
			require.Equal(t, c.split, m.Series[0].Flags&FlagSplitLabels != 0)
			require.Equal(t, c.split, m.Series[0].NeedsRewrite())
			if c.name != "label with a long tag" {
				require.Equal(t, CanonicalKey(ls, 7), m.Series[0].Key)
			}
			require.Len(t, m.AppendSamples(nil, 0), 1)
			require.Equal(t, m.Content(0), join(m.LabelBytes(0), m.Rest(0)))
		})
	}

	table := symbolsV2("", "__name__", "up", "job", "a")
	refs := field(1, []byte{1, 2, 3, 4})
	want := indexed(t, series.V2, join(table, field(5, refs, sample))).Series[0].Key
	for _, c := range []struct {
		name  string
		data  []byte
		split bool
	}{
		{"symbols last", join(field(5, refs, sample), table), false},
		{"symbols around", join(symbolsV2("", "__name__", "up"), field(5, refs, sample), symbolsV2("job", "a")), false},
		{"refs last", join(table, field(5, sample, refs)), true},
		{"refs not packed", join(table, field(5, varintField(1, 1), varintField(1, 2), varintField(1, 3), varintField(1, 4), sample)), true},
		{"refs in two fields", join(table, field(5, field(1, []byte{1, 2, 3}), field(1, []byte{4}), sample)), true},
		{"refs packed and not", join(table, field(5, field(1, []byte{1, 2, 3}), sample, varintField(1, 4))), true},
		{"long refs", join(table, field(5, field(1, []byte{0x81, 0x80, 0, 0x82, 0, 3, 4}), sample)), false},
	} {
		t.Run("V2 "+c.name, func(t *testing.T) {
			m := indexed(t, series.V2, c.data)
			ls, err := m.AppendLabels(nil, 0)
			require.NoError(t, err)
			requireLabels(t, []prompb.Label{{Name: "__name__", Value: "up"}, {Name: "job", Value: "a"}}, ls)
			require.Equal(t, c.split, m.Series[0].Flags&FlagSplitLabels != 0)
			require.Equal(t, want, m.Series[0].Key)
			if c.name != "long refs" {
				require.Equal(t, []byte{1, 2, 3, 4}, m.Refs(0))
			}
			require.Equal(t, m.Content(0), join(m.LabelBytes(0), m.Rest(0)))
		})
	}
}

func TestTooManySeries(t *testing.T) {
	var m Message
	empty := func(n int) []byte { return []byte(strings.Repeat("\x0a\x00", n)) }
	require.NoError(t, m.Index(series.V1, empty(fewSeries), 1))
	require.Len(t, m.Series, fewSeries)
	require.ErrorIs(t, m.Index(series.V1, empty(fewSeries+1), 1), ErrTooManySeries)
	require.ErrorIs(t, m.Index(series.V1, empty(1<<20), 1), ErrMalformed)

	// The smallest series that hold a sample are never too many.
	small := field(1, field(2))
	require.Len(t, small, 4)
	data := []byte(strings.Repeat(string(small), 100_000))
	m = Message{}
	require.NoError(t, m.Index(series.V1, data, 1))
	require.Len(t, m.Series, 100_000)
	// Slices that grow have up to a quarter to spare.
	require.Less(t, m.Footprint(), 20*len(data)+1<<16)

	data = append(symbolsV2(""), strings.Repeat("\x22\x00", 100_000)...)
	m = Message{}
	require.NoError(t, m.Index(series.V2, data, 1))
	require.Less(t, m.Footprint(), 20*len(data)+1<<16)
}

// TestDeclaredLengthsAreNotBelieved checks that a number in the request alone makes
// nobody allocate.
func TestDeclaredLengthsAreNotBelieved(t *testing.T) {
	huge := []byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x07}
	for _, data := range [][]byte{huge, field(1, huge), field(1, field(4, field(11, varintField(2, math.MaxUint32))))} {
		var m Message
		_ = m.Index(series.V1, data, 1)
		for i := range m.Series {
			for _, h := range m.AppendHistograms(nil, i) {
				ints, _, err := m.DecodeHistogram(h)
				require.NoError(t, err)
				require.Len(t, ints.PositiveSpans, 1)
			}
		}
		require.Less(t, m.Footprint(), 1<<10)
	}
}

// TestKeys checks what a key depends on.
func TestKeys(t *testing.T) {
	keyV1 := func(seed uint64, parts ...[]byte) series.Key {
		var m Message
		require.NoError(t, m.Index(series.V1, field(1, parts...), seed))
		return m.Series[0].Key
	}
	a, b, sample := labelV1("a", "1"), labelV1("b", "2"), field(2, sampleV(1, 2))
	require.Equal(t, keyV1(1, a, b), keyV1(1, a, b, sample))
	require.NotEqual(t, keyV1(1, a, b), keyV1(1, b, a))
	require.NotEqual(t, keyV1(1, a, b), keyV1(2, a, b))
	require.Equal(t, CanonicalKey([]Label{{[]byte("a"), []byte("1")}, {[]byte("b"), []byte("2")}}, 1), keyV1(1, a, b))

	keyV2 := func(seed uint64, symbols []string, refs ...byte) series.Key {
		var m Message
		data := join(symbolsV2(symbols...), field(5, field(1, refs), sample))
		require.NoError(t, m.Index(series.V2, data, seed))
		require.Zero(t, m.Series[0].Flags&FlagBadRefs)
		return m.Series[0].Key
	}
	s := []string{"", "a", "1", "b", "2", "1", ""}
	want := keyV2(1, s, 1, 2, 3, 4)
	require.Equal(t, want, keyV2(1, []string{"", "x", "2", "b", "a", "1"}, 4, 5, 3, 2), "numbering of the table")
	require.Equal(t, want, keyV2(1, s, 1, 5, 3, 4), "a symbol twice in the table")
	for _, other := range [][]byte{{3, 4, 1, 2}, {2, 1, 3, 4}, {1, 4, 3, 2}, {1, 2}, {}, {1, 2, 3, 4, 0, 0}, {0, 0, 1, 2, 3, 4}} {
		require.NotEqual(t, want, keyV2(1, s, other...), "%v", other)
	}
	require.NotEqual(t, want, keyV2(2, s, 1, 2, 3, 4), "seed")
}

// TestKeyBits checks that keys of RW 2.0 labels that differ little differ in about half
// of their bits, in both halves.
func TestKeyBits(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 9))
	symbols := []string{""}
	for range 100 {
		var raw [8]byte
		for i := range raw {
			raw[i] = byte(rng.Uint32())
		}
		symbols = append(symbols, hex.EncodeToString(raw[:]))
	}
	data := symbolsV2(symbols...)
	const n = 2000
	for range n {
		refs := make([]byte, 12)
		for i := range refs {
			refs[i] = byte(1 + rng.IntN(100))
		}
		data = append(data, field(5, field(1, refs))...)
		refs[rng.IntN(12)] = byte(1 + rng.IntN(100))
		data = append(data, field(5, field(1, refs))...)
	}
	var m Message
	require.NoError(t, m.Index(series.V2, data, 3))
	var flipped [128]int
	pairs := 0
	seen := map[series.Key]string{}
	for i := 0; i < len(m.Series); i += 2 {
		a, b := m.Series[i].Key, m.Series[i+1].Key
		for j := i; j < i+2; j++ {
			k := m.Series[j].Key
			if refs, ok := seen[k]; ok {
				require.Equal(t, refs, string(m.Refs(j)))
			}
			seen[k] = string(m.Refs(j))
		}
		if a == b {
			continue
		}
		pairs++
		for bit := range 64 {
			flipped[bit] += int((a.Lo ^ b.Lo) >> bit & 1)
			flipped[64+bit] += int((a.Hi ^ b.Hi) >> bit & 1)
		}
	}
	for bit, n := range flipped {
		require.InDelta(t, 0.5, float64(n)/float64(pairs), 0.1, "bit %d", bit)
	}
}

// TestSteadyStateAllocatesNothing once the scratch has grown.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	split := field(1, field(2, sampleV(1, 2)), labelV1("__name__", "up"))
	splitV2 := join(symbolsV2("", "a", "b"), field(5, field(2, sampleV(1, 2)), varintField(1, 1), varintField(1, 2)))
	for _, c := range []struct {
		version series.Version
		data    []byte
	}{
		{series.V1, mustMarshal(payloadV1(500))},
		{series.V2, mustMarshal(payloadV2(500, true))},
		{series.V1, seedsV1()[1]},
		{series.V2, seedsV2()[1]},
		{series.V1, split},
		{series.V2, splitV2},
	} {
		var m Message
		var (
			ls []Label
			ss []Sample
			hs []HistogramRef
			es []Exemplar
			ms []Metadata
		)
		read := func() {
			if m.Index(c.version, c.data, 9) != nil {
				t.Fail()
			}
			ms = m.AppendMetadata(ms[:0])
			for i := range m.Series {
				ls, _ = m.AppendLabels(ls[:0], i)
				ss = m.AppendSamples(ss[:0], i)
				hs = m.AppendHistograms(hs[:0], i)
				es = m.AppendExemplars(es[:0], i)
				m.SeriesMetadata(i)
				m.Series[i].Invalid()
				CanonicalKey(ls, 9)
				LegacyNames(ls)
				CanonicalLabels(ls)
				if c.version == series.V2 {
					m.Refs(i)
				}
			}
		}
		read()
		require.Zero(t, testing.AllocsPerRun(20, read))
	}
}
