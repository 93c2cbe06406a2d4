package thinning_test

import (
	"cmp"
	"hash/fnv"
	"math"
	"slices"
	"strconv"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/internal/thinning"
	"github.com/sluice-metrics/sluice/sampler"
)

// oracle decides on decoded messages with a Sampler of its own, and keeps all samples that
// it has seen, so that it knows what an older one was.
type oracle struct {
	t         require.TestingT
	sampler   *sampler.Sampler
	describer *sampler.Describer
	seen      map[series.ID]map[int64]point
	newest    map[series.ID]point
}

func newOracle(t require.TestingT, change func(*sampler.Config)) *oracle {
	s, d := newSampler(t, change)
	return &oracle{t: t, sampler: s, describer: d, seen: map[series.ID]map[int64]point{}, newest: map[series.ID]point{}}
}

// verdict is what the oracle expects of a batch.
type verdict struct {
	messages                 []message
	taken, kept, restored    series.Counts
	withheldFrom, withheldTo int64
	everything               bool // goes, and nothing else
}

func (o *oracle) batch(list []message, labels [][]remotewrite.Label, types []remotewrite.MetricType, set series.Set) verdict {
	v := verdict{withheldFrom: math.MaxInt64, withheldTo: math.MinInt64, everything: set == nil}
	inBatch := map[series.ID]map[int64]bool{}
	newestSent := map[series.ID]bool{}
	for i, m := range list {
		if !set.Has(i) {
			continue
		}
		v.taken.Add(countsOf(m.points))
		v.taken.Exemplars += uint64(len(m.exemplars))
		if !m.id.Shared() && !o.sampler.Described(uint32(m.id)) {
			require.NoError(o.t, o.sampler.Know(uint32(m.id), o.describer.Describe(labels[i], types[i])))
		}
		out := message{labels: m.labels, id: m.id, typ: m.typ}
		if len(m.points) == 0 {
			if sent, ok := newestSent[m.id]; sent || !ok {
				out.exemplars = m.exemplars
				v.kept.Exemplars += uint64(len(m.exemplars))
				v.messages = append(v.messages, out)
			} else {
				v.everything = false
			}
			continue
		}
		if inBatch[m.id] == nil {
			inBatch[m.id] = map[int64]bool{}
		}
		sent := map[int64]bool{}
		for _, p := range m.points {
			inBatch[m.id][p.time] = true
			for _, s := range o.feed(m.id, p) {
				q := p
				if s.Time != p.time {
					q = o.seen[m.id][s.Time]
				}
				out.points = append(out.points, q)
				if inBatch[m.id][s.Time] {
					v.kept.Add(countsOf([]point{q}))
				} else {
					v.restored.Add(countsOf([]point{q}))
				}
				sent[s.Time] = true
			}
		}
		for _, p := range m.points {
			if !sent[p.time] {
				v.withheldFrom, v.withheldTo = min(v.withheldFrom, p.time), max(v.withheldTo, p.time)
				v.everything = false
			}
		}
		newest := slices.MaxFunc(m.points, func(a, b point) int { return cmp.Compare(a.time, b.time) })
		newestSent[m.id] = sent[newest.time]
		if newestSent[m.id] {
			out.exemplars = m.exemplars
			v.kept.Exemplars += uint64(len(m.exemplars))
		}
		if len(out.points) > 0 {
			v.messages = append(v.messages, out)
		}
		if len(out.points) != len(m.points) {
			v.everything = false
		}
	}
	return v
}

// feed gives a sample to the Sampler.
func (o *oracle) feed(id series.ID, p point) []sampler.Sample {
	in := sampler.Sample{Time: p.time, Histogram: p.hist, Stale: p.stale}
	last := o.newest[id]
	in.Reset = last.time != 0 && p.start > last.time
	if p.hist {
		h := fnv.New64a()
		h.Write([]byte(p.value))
		in.Bits = h.Sum64()
		in.Reset = in.Reset || p.hint == histogram.CounterReset || p.hint != histogram.GaugeType && p.count < last.count
	} else {
		in.Bits, _ = strconv.ParseUint(p.value, 10, 64)
	}
	if o.seen[id] == nil {
		o.seen[id] = map[int64]point{}
	}
	o.seen[id][p.time] = p
	if p.time > last.time {
		if p.stale {
			p.count = 0
		}
		o.newest[id] = p
	}
	return o.sampler.Sample(uint32(id), in, nil)
}

// labelsOf are the labels of the messages of a batch, and the types told with them.
func labelsOf(t require.TestingT, b *series.Batch) (labels [][]remotewrite.Label, types []remotewrite.MetricType) {
	m := scan(t, b)
	for i := range m.Series {
		list, err := m.AppendLabels(nil, i)
		require.NoError(t, err)
		labels = append(labels, list)
		md, _ := m.SeriesMetadata(i)
		types = append(types, md.Type)
	}
	return labels, types
}

// steps are random steps, by number of the batch from which they hold.
func steps(t *rapid.T, batches int) map[int]sampler.Step {
	all := map[int]sampler.Step{}
	for range rapid.IntRange(1, 5).Draw(t, "steps") {
		step := sampler.Step{Rate: rapid.SampledFrom([]float64{0.05, 0.25, 0.5, 0.9}).Draw(t, "rate"), Pressure: rapid.Float64Range(0, 1).Draw(t, "pressure")}
		if rapid.IntRange(0, 3).Draw(t, "full") == 0 {
			step = sampler.Step{Rate: 1}
		}
		all[rapid.IntRange(0, batches-1).Draw(t, "at")] = step
	}
	return all
}

func anyConfig(t *rapid.T) func(*sampler.Config) {
	method := rapid.SampledFrom([]sampler.Method{sampler.MethodFrames, sampler.MethodFrames, sampler.MethodFrames, sampler.MethodAligned, sampler.MethodRandom}).Draw(t, "method")
	floor := rapid.SampledFrom([]sampler.Floor{sampler.FloorHold, sampler.FloorShed}).Draw(t, "floor")
	return func(c *sampler.Config) { c.Method, c.Floor = method, floor }
}

func anyWorld(t *rapid.T, repeats bool) *world {
	return newWorld(rapid.Uint64().Draw(t, "seed"), worldOptions{
		version:   rapid.SampledFrom([]series.Version{series.V1, series.V2}).Draw(t, "version"),
		repeats:   repeats,
		exemplars: rapid.Bool().Draw(t, "exemplars"),
	})
}

// leave leaves a batch opened on the shelf, as its receiver does.
func leave(t require.TestingT, shelf *remotewrite.Shelf, b *series.Batch) {
	require.Nil(t, shelf.Take(b)) // somebody asks
	o := shelf.New()
	plain, err := s2.Decode(o.Room(b.Decoded), b.Body)
	require.NoError(t, err)
	require.NoError(t, o.Message.Index(b.Version, plain, 7))
	require.True(t, shelf.Leave(b, o))
}

// What is sent is what a Sampler says, sample for sample and message for message.
func TestSplicer_SendsWhatTheSamplerSays(t *testing.T) {
	var total series.Counts
	rapid.Check(t, func(t *rapid.T) {
		w := anyWorld(t, rapid.Bool().Draw(t, "repeats"))
		config := anyConfig(t)
		modulus := rapid.SampledFrom([]int{0, 2, 5}).Draw(t, "modulus")
		batches := w.batches(40)
		at := steps(t, len(batches))
		smp, describer := newSampler(t, config)
		shelf := remotewrite.NewShelf(math.MaxInt64)
		splicer := thinning.NewSplicer(thinning.SplicerOptions{Sampler: smp, Describer: describer, Shelf: shelf})
		o := newOracle(t, config)
		opened := rapid.Bool().Draw(t, "opened")
		for n, b := range batches {
			if step, ok := at[n]; ok {
				smp.Set(step)
				o.sampler.Set(step)
			}
			labels, types := labelsOf(t, b)
			set := takes(b, modulus)
			want := o.batch(decode(t, b), labels, types, set)
			if opened {
				leave(t, shelf, b)
			}
			got, err := splicer.Splice(b, set)
			require.NoError(t, err)
			require.Nil(t, shelf.Take(b), "what was left with the batch is not used")
			require.Equal(t, opened, got.Found)
			require.Equal(t, want.taken, got.Taken)
			require.Equal(t, want.kept, got.Kept)
			require.Equal(t, want.restored, got.Restored)
			withheld := want.taken
			withheld.Sub(want.kept)
			require.Equal(t, withheld, got.Withheld)
			require.Equal(t, [2]int64{want.withheldFrom, want.withheldTo}, [2]int64{got.MinTime, got.MaxTime})
			require.Zero(t, got.Lost)
			total.Add(got.Restored)
			if len(want.messages) == 0 {
				require.Nil(t, got.Batch)
				continue
			}
			require.Equal(t, want.everything, got.Batch == b)
			require.Equal(t, want.messages, decode(t, got.Batch))
			require.Equal(t, customIn(want.messages), got.Batch.CustomBuckets)
			require.Equal(t, [3]any{b.Epoch, b.Received, b.Legacy}, [3]any{got.Batch.Epoch, got.Batch.Received, got.Batch.Legacy})
			got.Batch.Release()
		}
	})
	require.Positive(t, total.Samples)
	require.Positive(t, total.Histograms)
}

func customIn(list []message) bool {
	return slices.ContainsFunc(list, func(m message) bool {
		return slices.ContainsFunc(m.points, func(p point) bool { return p.custom })
	})
}
