package series_test

import (
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/sluice-metrics/sluice/internal/series"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// keyOf spreads a small number over a key, as a hash would.
func keyOf(n int) series.Key {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	return series.Key{Hi: r.Uint64(), Lo: r.Uint64()}
}

// modelTable does what a Table does, in plain maps and without bounds on spellings.
type modelTable struct {
	max         int
	tick, epoch uint32
	spellings   map[series.Key]modelSpelling
	series      map[series.Key]*modelSeries // by canonical key
	idle        map[series.ID]bool          // evicted and not free
}

type modelSpelling struct {
	canonical          series.Key
	respell, nonLegacy bool
}

type modelSeries struct {
	id          series.ID
	routes      uint64
	tick, epoch uint32
	from        series.Sender
}

// seen notes when and from whom; nobody does not take the place of somebody.
func (s *modelSeries) seen(tick uint32, from series.Sender) {
	s.tick = tick
	if from != 0 {
		s.from = from
	}
}

func (m *modelTable) find(k series.Key, from series.Sender) (series.Spelling, bool) {
	sp, ok := m.spellings[k]
	if !ok {
		return series.Spelling{}, false
	}
	s := m.series[sp.canonical]
	if s.epoch != m.epoch {
		return series.Spelling{}, false
	}
	s.seen(m.tick, from)
	return series.Spelling{ID: s.id, Respell: sp.respell, NonLegacy: sp.nonLegacy}, true
}

// insert takes the id that the table gave and checks that it may.
func (m *modelTable) insert(t require.TestingT, e series.Entry, id series.ID, of series.Decision) (overflowed bool) {
	s := m.series[e.Canonical]
	switch {
	case s != nil:
		require.Equal(t, s.id, id, "a series keeps its id")
	case len(m.series)+len(m.idle) >= m.max:
		require.True(t, id.Shared())
		require.Equal(t, series.SharedID(e.Canonical), id)
		return true
	default:
		require.False(t, id.Shared())
		require.NotContains(t, m.idle, id, "used again before it was freed")
		for _, o := range m.series {
			require.NotEqual(t, o.id, id, "two live series with one id")
		}
		s = &modelSeries{id: id}
		m.series[e.Canonical] = s
		m.spellings[e.Canonical] = modelSpelling{e.Canonical, false, e.NonLegacy}
	}
	m.spellings[e.Key] = modelSpelling{e.Canonical, e.Respell, e.NonLegacy}
	s.routes, s.epoch = e.Routes, of.Epoch
	s.seen(m.tick, of.Sender)
	return false
}

func (m *modelTable) evict(before uint32) map[series.ID]bool {
	gone := map[series.ID]bool{}
	for k, s := range m.series {
		if s.tick < before {
			gone[s.id], m.idle[s.id] = true, true
			delete(m.series, k)
		}
	}
	for k, sp := range m.spellings {
		if m.series[sp.canonical] == nil {
			delete(m.spellings, k)
		}
	}
	return gone
}

// entryOf is spelling k of series n. Spelling 0 is canonical, 1 and 2 are those of the
// other version, 3 and more have to be written anew.
func entryOf(n, k int, routes uint64) series.Entry {
	e := series.Entry{Canonical: keyOf(n * 10), Key: keyOf(n*10 + k), Routes: routes, NonLegacy: n%7 == 3}
	e.Respell = k >= 3
	return e
}

func TestTable_EqualsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.SampledFrom([]int{0, 1, 5, 1000}).Draw(t, "max")
		table := series.NewTable(limit)
		m := &modelTable{max: limit, epoch: table.Epoch(), spellings: map[series.Key]modelSpelling{}, series: map[series.Key]*modelSeries{}, idle: map[series.ID]bool{}}
		number := rapid.IntRange(0, 20)
		spelling := rapid.IntRange(0, 4)
		sender := rapid.SampledFrom([]series.Sender{0, 1, 2, series.MaxSender})
		t.Repeat(map[string]func(*rapid.T){
			"insert": func(t *rapid.T) {
				var entries []series.Entry
				for range rapid.IntRange(1, 5).Draw(t, "entries") {
					entries = append(entries, entryOf(number.Draw(t, "series"), spelling.Draw(t, "spelling"), rapid.Uint64().Draw(t, "routes")))
				}
				epoch := m.epoch
				if rapid.IntRange(0, 9).Draw(t, "late") == 0 {
					epoch--
				}
				ids := make([]series.ID, len(entries))
				of := series.Decision{Epoch: epoch, Sender: sender.Draw(t, "sender")}
				overflowed := table.Insert(of, entries, ids)
				want := 0
				for i, e := range entries {
					if m.insert(t, e, ids[i], of) {
						want++
					}
				}
				require.Equal(t, want, overflowed)
			},
			"find": func(t *rapid.T) {
				from := sender.Draw(t, "sender")
				rd := table.Reader(from)
				defer rd.Close()
				require.Equal(t, m.epoch, rd.Epoch())
				for range 20 {
					k := keyOf(number.Draw(t, "series")*10 + spelling.Draw(t, "spelling"))
					if rapid.IntRange(0, 19).Draw(t, "zero") == 0 {
						k = series.Key{} // what a message's series with broken references has
					}
					got, ok := rd.Find(k)
					want, known := m.find(k, from)
					if ok {
						require.True(t, known)
						require.Equal(t, want, got)
						require.Equal(t, m.series[m.spellings[k].canonical].routes, rd.Routes(got.ID))
					}
					// With few places the table need not know each spelling.
					if known && limit >= 1000 {
						require.True(t, ok)
					}
				}
			},
			"tick":  func(t *rapid.T) { m.tick += uint32(rapid.IntRange(0, 3).Draw(t, "ticks")); table.Tick(m.tick) },
			"epoch": func(t *rapid.T) { m.epoch++; require.Equal(t, m.epoch, table.NextEpoch()) },
			"evict": func(t *rapid.T) {
				before := m.tick - min(m.tick, uint32(rapid.IntRange(0, 4).Draw(t, "age")))
				got := map[series.ID]bool{}
				for _, id := range table.Evict(before) {
					require.False(t, got[id])
					got[id] = true
				}
				require.Equal(t, m.evict(before), got)
			},
			"free": func(t *rapid.T) {
				n := rapid.IntRange(0, len(m.idle)).Draw(t, "freed")
				ids := slices.Sorted(maps.Keys(m.idle))[:n]
				table.Free(ids)
				for _, id := range ids {
					delete(m.idle, id)
				}
			},
			"": func(t *rapid.T) {
				require.Equal(t, len(m.series), table.Len())
				require.Equal(t, m.epoch, table.Epoch())
				if limit < 1000 {
					return // it does not know each spelling that the model knows
				}
				for k, s := range m.series {
					tick, from, ok := table.Seen(k)
					require.True(t, ok)
					require.Equal(t, s.tick, tick)
					require.Equal(t, s.from, from)
				}
				_, _, ok := table.Seen(keyOf(-1))
				require.False(t, ok)
			},
		})
	})
}

// Each series found again in order, in reverse, and after half of them were evicted and
// as many others came.
func TestTable_ManySeries(t *testing.T) {
	const n = 50_000
	table := series.NewTable(n)
	table.Tick(1)
	entries := make([]series.Entry, n)
	ids := make([]series.ID, n)
	for i := range entries {
		entries[i] = series.Entry{Canonical: keyOf(i), Key: keyOf(i), Routes: uint64(i)}
	}
	require.Zero(t, table.Insert(series.Decision{Epoch: table.Epoch()}, entries, ids))
	find := func(from, to, step int, tick uint32) {
		table.Tick(tick)
		rd := table.Reader(0)
		defer rd.Close()
		for i := from; i != to; i += step {
			sp, ok := rd.Find(keyOf(i))
			require.True(t, ok)
			require.Equal(t, ids[i], sp.ID)
			require.Equal(t, uint64(i), rd.Routes(sp.ID))
		}
	}
	find(0, n, 1, 1)
	find(n-1, -1, -1, 1)
	find(0, n/2, 1, 2)
	evicted := table.Evict(2)
	require.Len(t, evicted, n/2)
	require.Equal(t, n/2, table.Len())
	require.Equal(t, 1, table.Insert(series.Decision{Epoch: table.Epoch()}, []series.Entry{{Canonical: keyOf(n), Key: keyOf(n)}}, make([]series.ID, 1)),
		"they count against the bound until they are freed")
	table.Free(evicted)
	for i := range entries[:n/2] {
		entries[i] = series.Entry{Canonical: keyOf(n + i), Key: keyOf(n + i)}
	}
	again := make([]series.ID, n/2)
	require.Zero(t, table.Insert(series.Decision{Epoch: table.Epoch()}, entries[:n/2], again))
	seen := map[series.ID]bool{}
	for _, id := range append(again, ids[:n/2]...) {
		require.False(t, seen[id])
		seen[id] = true
		require.Less(t, id, series.Overflow+n, "evicted ids are used again before new ones")
	}
	find(0, n/2, 1, 3)
	rd := table.Reader(0)
	defer rd.Close()
	for i := n / 2; i < n; i++ {
		_, ok := rd.Find(keyOf(i))
		require.False(t, ok)
	}
}

// An id is freed once, after it was evicted.
func TestTable_FreeOfOthers(t *testing.T) {
	table := series.NewTable(10)
	table.Tick(1)
	ids := make([]series.ID, 1)
	table.Insert(series.Decision{Epoch: table.Epoch()}, []series.Entry{{Canonical: keyOf(1), Key: keyOf(1)}}, ids)
	for _, id := range []series.ID{ids[0], 0, series.Overflow + 1, series.Overflow + 1<<20} {
		require.Panics(t, func() { table.Free([]series.ID{id}) }, "id %d", id)
	}
	require.Equal(t, ids, table.Evict(2))
	require.Empty(t, table.Evict(3), "it was evicted already")
	table.Free(ids)
	require.Panics(t, func() { table.Free(ids) })
}

// A sender that orders labels at random makes spellings without end: memory is bounded,
// and the spellings that senders in order need are kept.
func TestTable_SpellingsAreBounded(t *testing.T) {
	const n = 1000
	table := series.NewTable(n)
	entries := make([]series.Entry, n)
	ids := make([]series.ID, n)
	inOrder := func(i int) series.Entry { return series.Entry{Canonical: keyOf(i), Key: keyOf(i + n), Routes: 1} }
	for i := range entries {
		entries[i] = inOrder(i)
	}
	table.Insert(series.Decision{Epoch: table.Epoch()}, entries, ids)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for round := range 1000 {
		for i := range entries {
			entries[i].Key = keyOf(2*n + round*n + i)
			entries[i].Respell = round%2 == 0
		}
		require.Zero(t, table.Insert(series.Decision{Epoch: table.Epoch()}, entries, ids))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	require.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(1<<20), "a million spellings of a thousand series")
	rd := table.Reader(0)
	defer rd.Close()
	for i := range n {
		for _, k := range []series.Key{keyOf(i), keyOf(i + n)} {
			sp, ok := rd.Find(k)
			require.True(t, ok)
			require.Equal(t, ids[i], sp.ID)
		}
	}
	require.Equal(t, n, table.Len())
}

// A random order that is seen often enough is remembered again after others pushed it out.
func TestTable_RespelledIsLearntAgain(t *testing.T) {
	table := series.NewTable(10)
	id := make([]series.ID, 1)
	insert := func(k int) {
		table.Insert(series.Decision{Epoch: table.Epoch()}, []series.Entry{{Canonical: keyOf(0), Key: keyOf(k), Respell: true}}, id)
		rd := table.Reader(0)
		defer rd.Close()
		sp, ok := rd.Find(keyOf(k))
		require.True(t, ok)
		require.True(t, sp.Respell)
		require.Equal(t, id[0], sp.ID)
	}
	for k := range 100 {
		insert(k + 1)
		insert(1)
	}
}

func TestTable_Concurrency(t *testing.T) {
	const n = 500
	table := series.NewTable(n / 2)
	var stop, work sync.WaitGroup
	done := make(chan struct{})
	stop.Go(func() {
		for tick := uint32(0); ; tick++ {
			select {
			case <-done:
				return
			default:
			}
			table.Tick(tick)
			if tick%3 == 0 {
				table.NextEpoch()
			}
			table.Free(table.Evict(tick / 2))
			table.Len()
			runtime.Gosched()
		}
	})
	for w := range 4 {
		work.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 3))
			ids := make([]series.ID, 1)
			for range 20_000 {
				i := rng.IntN(n)
				epoch := table.Epoch()
				rd := table.Reader(0)
				sp, ok := rd.Find(keyOf(i))
				if ok && rd.Routes(sp.ID) != uint64(i) {
					t.Errorf("series %d has the routes of %d", i, rd.Routes(sp.ID))
				}
				rd.Close()
				if !ok {
					table.Insert(series.Decision{Epoch: epoch}, []series.Entry{{Canonical: keyOf(i), Key: keyOf(i), Routes: uint64(i)}}, ids)
				}
			}
		})
	}
	work.Wait()
	close(done)
	stop.Wait()
	require.LessOrEqual(t, table.Len(), n/2)
}

func filled(n, spellings int) *series.Table {
	table := series.NewTable(n)
	ids := make([]series.ID, 1)
	for i := range n {
		for k := range spellings {
			e := series.Entry{Canonical: key(i, 0), Key: key(i, k), Routes: 1}
			table.Insert(series.Decision{Epoch: table.Epoch()}, []series.Entry{e}, ids)
		}
	}
	return table
}

// key is keyOf without its allocation.
func key(i, k int) series.Key {
	x := uint64(i)<<8 | uint64(k)
	mix := func(x uint64) uint64 {
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		return x ^ x>>31
	}
	return series.Key{Hi: mix(x + 0x9e3779b97f4a7c15), Lo: mix(x + 0x3c6ef372fe94f82a)}
}

// A million series take some tens of MiB.
func TestTable_MemoryPerSeries(t *testing.T) {
	for spellings, limit := range map[int]float64{1: 96, 2: 150} {
		require.Less(t, bytesPerSeries(200_000, spellings), limit, "%d spellings", spellings)
	}
}

func bytesPerSeries(n, spellings int) float64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	table := filled(n, spellings)
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(table)
	return float64(after.HeapAlloc-before.HeapAlloc) / float64(n)
}

func BenchmarkTableMemory(b *testing.B) {
	for name, spellings := range map[string]int{"one version": 1, "both versions": 2} {
		b.Run(name, func(b *testing.B) {
			var per float64
			for b.Loop() {
				per = bytesPerSeries(1_000_000, spellings)
			}
			b.ReportMetric(per, "bytes/series")
		})
	}
}

func BenchmarkTableFind(b *testing.B) {
	const n = 1_000_000
	table := filled(n, 1)
	for name, step := range map[string]int{"in order": 1, "at random": 7919} {
		b.Run(name, func(b *testing.B) {
			i := 0
			rd := table.Reader(0)
			defer rd.Close()
			for b.Loop() {
				if _, ok := rd.Find(key(i, 0)); !ok {
					b.Fatal(i)
				}
				i = (i + step) % n
			}
		})
	}
}

func BenchmarkTableInsert(b *testing.B) {
	table := series.NewTable(1 << 28)
	ids := make([]series.ID, 1)
	entries := make([]series.Entry, 1)
	i := 0
	for b.Loop() {
		entries[0] = series.Entry{Canonical: key(i, 0), Key: key(i, 0)}
		table.Insert(series.Decision{}, entries, ids)
		i++
	}
}

// An epoch that comes again does not reach into what else a mark says.
func TestTable_EpochsComeAgain(t *testing.T) {
	table := series.NewTable(1)
	table.Tick(7)
	first := table.Epoch()
	id := make([]series.ID, 1)
	table.Insert(series.Decision{Epoch: first, Sender: series.MaxSender}, []series.Entry{entryOf(1, 0, 0)}, id)
	n := 1
	for ; table.NextEpoch() != first; n++ {
		require.Less(t, n, 1<<20)
	}
	require.Equal(t, 1<<20, n)
	tick, from, ok := table.Seen(keyOf(10))
	require.True(t, ok)
	require.EqualValues(t, 7, tick)
	require.Equal(t, series.MaxSender, from)
	rd := table.Reader(3)
	_, ok = rd.Find(keyOf(10))
	rd.Close()
	require.True(t, ok)
	_, from, _ = table.Seen(keyOf(10))
	require.EqualValues(t, 3, from)
}
