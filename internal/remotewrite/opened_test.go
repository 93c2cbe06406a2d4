package remotewrite

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
)

// opened returns an Opened of the shelf that holds n series, and a batch of them that was
// received at a time, Unix ms.
func opened(t testing.TB, s *Shelf, n int, received int64) (*Opened, *series.Batch) {
	t.Helper()
	o := s.New()
	data, err := payloadV1(n).Marshal()
	require.NoError(t, err)
	copy(o.Room(len(data)), data)
	require.NoError(t, o.Message.Index(series.V1, o.Plain, 1))
	b := series.NewBatch(series.NewBuffer(1))
	b.Received = received
	return o, b
}

func TestShelf(t *testing.T) {
	const now = 1_763_800_000_000
	s := NewShelf(1 << 20)

	o, b := opened(t, s, 10, now)
	require.False(t, s.Leave(b, o), "nobody has ever asked")
	require.Nil(t, s.Take(b))
	require.True(t, s.Leave(b, o), "somebody reads what was received just now")
	require.Same(t, o, s.Take(b))
	require.Nil(t, s.Take(b), "it has one user")
	require.Len(t, o.Message.Series, 10)
	o.Free()
	require.Zero(t, s.lent.Load())

	o, late := opened(t, s, 10, now+near)
	require.True(t, s.Leave(late, o))
	late.Release()
	require.Zero(t, s.lent.Load(), "it goes with the batch that nobody has read")

	o, b = opened(t, s, 10, now+near+1)
	require.False(t, s.Leave(b, o), "the reader is far behind")
	require.Nil(t, s.Take(b))
	require.Nil(t, s.Take(late), "a batch of before")
	require.True(t, s.Leave(b, o), "which is no reason to think so of the newest")
}

// What is lent at a time is bounded, and what comes back makes room.
func TestShelf_IsFull(t *testing.T) {
	const now = 1_763_800_000_000
	s := NewShelf(0)
	o, b := opened(t, s, 100, now)
	s.Take(b) // somebody reads
	require.False(t, s.Leave(b, o))
	require.Zero(t, s.lent.Load())

	s.most = 2 * int64(o.Footprint())
	require.True(t, s.Leave(b, o))
	o2, b2 := opened(t, s, 100, now)
	require.True(t, s.Leave(b2, o2))
	o3, b3 := opened(t, s, 100, now)
	require.False(t, s.Leave(b3, o3))
	s.Take(b).Free()
	require.True(t, s.Leave(b3, o3))
}

func TestShelf_Nil(t *testing.T) {
	var s *Shelf
	o, b := opened(t, s, 1, 0)
	require.False(t, s.Leave(b, o))
	require.Nil(t, s.Take(b))
	b.Release()
}
