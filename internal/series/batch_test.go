package series_test

import (
	"bytes"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-metrics/sluice/internal/series"
)

func bufferOf(content []byte) *series.Buffer {
	b := series.NewBuffer(len(content))
	b.B = append(b.B, content...)
	return b
}

func TestBuffer_HasRoomForWhatWasAsked(t *testing.T) {
	for _, n := range []int{0, 1, 100, 1023, 1024, 1025, 3071, 3072, 3073, 1 << 16, 1<<20 - 1024, 1<<20 - 1023, 5 << 20} {
		for range 3 { // new and used again
			b := series.NewBuffer(n)
			require.Empty(t, b.B)
			require.GreaterOrEqual(t, cap(b.B), n)
			b.B = append(b.B, make([]byte, n)...)
			b.Free()
		}
	}
}

// The headroom stays right before the content, whatever was appended and grown.
func TestBuffer_GrowKeepsContentAndHeadroom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := series.NewBuffer(rapid.IntRange(0, 5000).Draw(t, "size"))
		var want []byte
		for range rapid.IntRange(0, 6).Draw(t, "steps") {
			p := bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, rapid.IntRange(0, 9000).Draw(t, "length"))
			b.Grow(len(p))
			require.GreaterOrEqual(t, cap(b.B)-len(b.B), len(p))
			b.B = append(b.B, p...)
			want = append(want, p...)
			require.True(t, bytes.Equal(want, b.B))
		}
		batch := series.NewBatch(b)
		record := batch.Record()
		require.Len(t, record, series.Headroom+len(want))
		require.True(t, bytes.Equal(want, record[series.Headroom:]))
		for i := range record[:series.Headroom] {
			record[i] = 0xaa // the journal's header: it must not reach the body
		}
		require.True(t, bytes.Equal(want, batch.Body))
		if len(want) > 0 {
			require.Same(t, &record[series.Headroom], &batch.Body[0])
		}
		batch.Release()
	})
}

// Buffers in use at one time never share memory.
func TestBuffer_NotHandedOutTwice(t *testing.T) {
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 500 {
				content := bytes.Repeat([]byte{byte(w)}, 10+i*7)
				b := bufferOf(content[:len(content)/2])
				b.Grow(len(content))
				b.B = append(b.B, content[len(content)/2:]...)
				batch := series.NewBatch(b)
				batch.Retain()
				batch.Release()
				if !bytes.Equal(content, batch.Body) {
					t.Error("a buffer is used by two")
				}
				batch.Release()
			}
		})
	}
	wg.Wait()
}

func TestBatch_References(t *testing.T) {
	b := series.NewBatch(bufferOf([]byte("body")))
	for range 3 {
		b.Retain()
	}
	for range 3 {
		b.Release()
		require.Equal(t, "body", string(b.Body))
	}
	b.Release()
	require.Nil(t, b.Body, "a released batch has no body to read")
	require.PanicsWithValue(t, "BUG: series.Batch released more often than retained", b.Release)
}

func TestBatch_LastOfManyReleases(t *testing.T) {
	for range 200 {
		b := series.NewBatch(bufferOf([]byte("body")))
		var wg sync.WaitGroup
		for range 8 {
			b.Retain()
			wg.Go(func() {
				if string(b.Body) != "body" {
					t.Error("released too early")
				}
				b.Release()
			})
		}
		wg.Wait()
		require.NotNil(t, b.Body)
		b.Release()
		require.Nil(t, b.Body)
	}
}

func TestCounts(t *testing.T) {
	c := series.Counts{Samples: 1, Histograms: 2, Exemplars: 3}
	require.False(t, c.Zero())
	c.Add(series.Counts{Samples: 10, Histograms: 20, Exemplars: 30})
	require.Equal(t, series.Counts{Samples: 11, Histograms: 22, Exemplars: 33}, c)
	c.Sub(series.Counts{Samples: 11, Histograms: 22, Exemplars: 33})
	require.True(t, c.Zero())
}

func TestSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 300).Draw(t, "n")
		s := series.NewSet(n)
		want := map[int]bool{}
		for range rapid.IntRange(0, n).Draw(t, "adds") {
			i := rapid.IntRange(0, n-1).Draw(t, "i")
			s.Add(i)
			want[i] = true
		}
		for i := range n {
			require.Equal(t, want[i], s.Has(i))
			require.True(t, series.Set(nil).Has(i))
		}
	})
}

func TestVersion(t *testing.T) {
	require.Equal(t, []string{"rw1", "rw2", "unknown"}, []string{series.V1.String(), series.V2.String(), series.Version(0).String()})
}

func BenchmarkBuffer(b *testing.B) {
	body := make([]byte, 60<<10)
	b.ReportAllocs()
	for b.Loop() {
		series.NewBatch(bufferOf(body)).Release()
	}
}
