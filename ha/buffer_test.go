package ha

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func newBuffer(t testing.TB, limit int64) *buffer {
	t.Helper()
	m, err := newMetrics(nil)
	require.NoError(t, err)
	return &buffer{limit: limit, metrics: m, count: map[member]int{}}
}

func TestBuffer_Remove(t *testing.T) {
	b := newBuffer(t, 1<<20)
	x, y := member{"x", "b"}, member{"y", "b"}
	var list []*entry
	for i := range 6 {
		e := &entry{key: x, body: make([]byte, 10*i)}
		if i%2 == 1 {
			e.key = y
		}
		list = append(list, e)
		b.push(e)
	}
	for _, i := range []int{2, 2, 0, 5} { // one of them twice
		b.remove(list[i], "")
	}
	b.remove(&entry{key: x}, "") // never in it
	var left []*entry
	size := int64(0)
	for at := b.entries.Front(); at != nil; at = at.Next() {
		left = append(left, at.Value.(*entry))
		size += at.Value.(*entry).size()
	}
	require.Equal(t, 3, len(left))
	for i, want := range []int{1, 3, 4} {
		require.Same(t, list[want], left[i])
	}
	require.Equal(t, size, b.bytes)
	require.Equal(t, map[member]int{x: 1, y: 2}, b.count)
	require.Same(t, list[4], b.take(x))
	b.remove(list[4], "")
	require.False(t, b.holds(x))
	b.push(list[0])
	require.Same(t, list[0], b.take(x), "an entry may come again")
}

// An entry that was dropped is not removed once more.
func TestBuffer_RemoveAfterDrop(t *testing.T) {
	b := newBuffer(t, 2*entryOverhead)
	first := &entry{key: member{"x", "b"}}
	b.push(first)
	for range 2 {
		b.push(&entry{key: member{"x", "b"}})
	}
	b.remove(first, "")
	require.Equal(t, 2, b.entries.Len())
	require.Equal(t, int64(2*entryOverhead), b.bytes)
}

// BenchmarkBuffer_Remove empties a buffer as a handover does. The time per entry does not
// depend on how many there are.
func BenchmarkBuffer_Remove(b *testing.B) {
	for _, c := range []struct {
		name string
		n    int
	}{{"1k", 1000}, {"50k", 50000}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				buf, key := newBuffer(b, 1<<40), member{"x", "b"}
				for range c.n {
					buf.push(&entry{key: key})
				}
				for e := buf.take(key); e != nil; e = buf.take(key) {
					buf.remove(e, "")
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*c.n), "ns/entry")
		})
	}
}
