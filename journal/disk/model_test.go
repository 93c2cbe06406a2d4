package disk_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

// ledger is what a journal is: a list of batches, and for each cursor two indices into
// it.
type ledger struct {
	fs      *vfs.Mem
	config  disk.Config
	j       *running
	ends    []journal.Position // of each batch, known once it was read
	starts  []journal.Position
	cursors map[string]*modelCursor
}

type modelCursor struct {
	c         journal.Cursor // nil when it is not open
	read      int
	committed int
}

func (m *ledger) check(t *rapid.T) {
	require.Equal(t, len(m.cursors), len(m.j.Cursors()))
	for name, c := range m.cursors {
		if c.c == nil {
			continue
		}
		lag := c.c.Lag()
		want := journal.Lag{Records: int64(len(m.ends) - c.committed), Counts: sumOf(c.committed, len(m.ends)), Bytes: lag.Bytes}
		if want.Records > 0 {
			want.Oldest = time.UnixMilli(received + int64(c.committed))
			require.Positive(t, lag.Bytes)
		} else {
			want.Bytes = 0
		}
		require.Equal(t, want, lag, "cursor %s", name)
		require.Equal(t, sumTo(c.committed), c.c.Committed().Totals.Delivered)
		require.Zero(t, c.c.Damaged())
		require.False(t, m.j.Tail().Before(c.c.Read()))
	}
}

// reopen ends the process and starts another one.
func (m *ledger) reopen(t *rapid.T, kill bool) {
	fs := m.fs
	if kill {
		fs = m.fs.KillClone()
	}
	require.NoError(t, m.j.stop())
	m.fs = fs
	var err error
	m.j, err = tryOpen(m.fs, m.config)
	require.NoError(t, err)
	for _, c := range m.cursors {
		c.c, c.read = nil, c.committed
	}
}

func (m *ledger) pick(t *rapid.T) *modelCursor {
	name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "cursor")
	c := m.cursors[name]
	if c == nil {
		c = &modelCursor{read: len(m.ends), committed: len(m.ends)}
		m.cursors[name] = c
	}
	if c.c == nil {
		opened, err := m.j.OpenCursor(name)
		require.NoError(t, err)
		c.c = opened
		st := c.c.Committed()
		st.Totals.Delivered = sumTo(c.committed)
		require.NoError(t, c.c.Commit(st))
	}
	return c
}

func (m *ledger) append(t *rapid.T, size int) {
	b := newBatch(len(m.ends), size)
	require.NoError(t, m.j.Append(context.Background(), b))
	b.Release()
	m.starts = append(m.starts, journal.Position{})
	m.ends = append(m.ends, journal.Position{})
}

func (m *ledger) next(t *rapid.T, c *modelCursor) {
	rec, ok, err := c.c.Next(context.Background(), false)
	require.NoError(t, err)
	require.Equal(t, c.read < len(m.ends), ok)
	if !ok {
		return
	}
	seq, err := identify(rec.Batch)
	require.NoError(t, err)
	rec.Batch.Release()
	require.Equal(t, c.read, seq)
	require.Equal(t, countsOf(seq), rec.Counts)
	if m.ends[seq] != (journal.Position{}) {
		require.Equal(t, m.starts[seq], rec.Start)
		require.Equal(t, m.ends[seq], rec.End)
	}
	m.starts[seq], m.ends[seq] = rec.Start, rec.End
	c.read++
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		config := testConfig(func(c *disk.Config) { c.RetainBehind = 0 })
		if rapid.Bool().Draw(t, "small tail") {
			config.TailBytes = 4 << 10
		}
		m := &ledger{fs: vfs.NewMem(), config: config, cursors: map[string]*modelCursor{}}
		var err error
		m.j, err = tryOpen(m.fs, config)
		require.NoError(t, err)
		defer func() { require.NoError(t, m.j.stop()) }()
		t.Repeat(map[string]func(*rapid.T){
			"": m.check,
			"append": func(t *rapid.T) {
				m.append(t, rapid.IntRange(8, 900).Draw(t, "size"))
			},
			"append large": func(t *rapid.T) {
				m.append(t, rapid.IntRange(1500, 5000).Draw(t, "size"))
			},
			"next": func(t *rapid.T) {
				c := m.pick(t)
				for range rapid.IntRange(1, 5).Draw(t, "n") {
					m.next(t, c)
				}
			},
			"commit": func(t *rapid.T) {
				c := m.pick(t)
				n := rapid.IntRange(c.committed, c.read).Draw(t, "to")
				st := c.c.Committed()
				switch {
				case n == c.committed:
				case n == c.read:
					st.Position = c.c.Read()
				case m.ends[n-1] != (journal.Position{}):
					st.Position = m.ends[n-1]
				default:
					t.Skip("that record was skipped and its place is not known")
				}
				st.Totals.Delivered = sumTo(n)
				require.NoError(t, c.c.Commit(st))
				c.committed = n
			},
			"skip": func(t *rapid.T) {
				c := m.pick(t)
				n := rapid.IntRange(c.read, len(m.ends)).Draw(t, "to")
				p := m.j.Tail()
				if n < len(m.ends) {
					if m.starts[n] == (journal.Position{}) {
						p = c.c.PositionAt(0, time.UnixMilli(received+int64(n)))
					} else {
						p = m.starts[n]
					}
				}
				lag, err := c.c.Skip(p)
				require.NoError(t, err)
				require.Equal(t, sumOf(c.read, n), lag.Counts)
				require.Equal(t, int64(n-c.read), lag.Records)
				c.read = n
			},
			"close cursor": func(t *rapid.T) {
				c := m.pick(t)
				require.NoError(t, c.c.Close())
				c.c, c.read = nil, c.committed
			},
			"drop cursor": func(t *rapid.T) {
				c := m.pick(t)
				require.NoError(t, c.c.Close())
				for name, other := range m.cursors {
					if other == c {
						st, lag, err := m.j.DropCursor(name)
						require.NoError(t, err)
						require.Equal(t, sumTo(c.committed), st.Totals.Delivered)
						require.Equal(t, sumOf(c.committed, len(m.ends)), lag.Counts)
						delete(m.cursors, name)
					}
				}
			},
			"backends": func(t *rapid.T) {
				_, err := m.j.SetBackends([]journal.Backend{{Name: "a"}, {Name: "b"}, {Name: "c"}})
				require.NoError(t, err)
			},
			"restart": func(t *rapid.T) { m.reopen(t, false) },
			"kill":    func(t *rapid.T) { m.reopen(t, true) },
		})
	})
}
