package exporter

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
)

func partOf(ids ...series.ID) *Part { return &Part{Batch: &series.Batch{IDs: ids}} }

func TestScoreboard(t *testing.T) {
	s := newScoreboard()
	s.enter(partOf(5000, 7, 9_000_000), 3)
	_, found := s.conflict(partOf(5000), 3)
	require.False(t, found, "a parcel is in no conflict with itself")
	slot, found := s.conflict(partOf(1, 2, 9_000_000), 4)
	require.True(t, found)
	require.Equal(t, 3, slot)
	_, found = s.conflict(partOf(1, 2, 9_000_001, math.MaxInt32), 4)
	require.False(t, found)

	p := partOf(1, 5000)
	p.Take = series.NewSet(2)
	p.Take.Add(0)
	_, found = s.conflict(p, 4)
	require.False(t, found, "what is not taken does not matter")
	s.enter(p, 4)
	slot, found = s.conflict(partOf(5000), 4)
	require.True(t, found)
	require.Equal(t, 3, slot, "nor does it change hands")

	s.free(3)
	_, found = s.conflict(partOf(5000, 7, 9_000_000), 4)
	require.False(t, found)
	_, found = s.conflict(partOf(1), 3)
	require.True(t, found)
}

// The generation of a slot comes round without leaving an entry that means none.
func TestScoreboardGenerationsComeRound(t *testing.T) {
	s := newScoreboard()
	s.gen[0].Store(1<<(32-slotBits) - 1)
	s.enter(partOf(1), 0)
	s.free(0)
	require.NotZero(t, s.entry(0))
	_, found := s.conflict(partOf(1), 1)
	require.False(t, found)
	s.enter(partOf(1), 0)
	_, found = s.conflict(partOf(1), 1)
	require.True(t, found)
}

func BenchmarkScoreboard(b *testing.B) {
	const n = 2000
	var parts [50]*Part
	for k := range parts {
		ids := make([]series.ID, n)
		for i := range ids {
			ids[i] = series.Overflow + series.ID(k*n+i)
		}
		parts[k] = partOf(ids...)
	}
	s := newScoreboard()
	for i := 0; b.Loop(); i++ {
		p, slot := parts[i%len(parts)], i%8
		s.free(slot)
		if _, found := s.conflict(p, slot); found {
			b.Fatal("conflict")
		}
		s.enter(p, slot)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/id")
}
