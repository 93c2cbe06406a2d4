package disk_test

import (
	"context"
	"errors"
	"math"
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
	readers map[string]*modelReader
}

// modelReader is a reader and, under the same name, what it retains.
type modelReader struct {
	r    journal.Reader
	read int
	// retains is the first batch that was there when it was retained; a large number when
	// that is not known.
	retains int
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
	m.readers = map[string]*modelReader{}
}

func (m *ledger) reader(t *rapid.T) (string, *modelReader) {
	name := rapid.SampledFrom([]string{"x", "y"}).Draw(t, "reader")
	r := m.readers[name]
	if r == nil {
		// Opened at the tail, so that it is known where it is.
		opened, err := m.j.OpenReader("a", m.j.Tail())
		require.NoError(t, err)
		r = &modelReader{r: opened, read: len(m.ends), retains: math.MaxInt}
		m.readers[name] = r
	}
	return name, r
}

// reread reads one record, before which there may be a gap where nobody needed any.
func (m *ledger) reread(t *rapid.T, r *modelReader) {
	rec, ok, err := r.r.Next()
	told := false
	for gone := (*journal.GoneError)(nil); errors.As(err, &gone); told = true {
		require.True(t, gone.From.Before(gone.To))
		rec, ok, err = r.r.Next()
	}
	require.NoError(t, err)
	if !ok {
		require.True(t, told || r.read == len(m.ends))
		if told {
			r.read = len(m.ends)
		}
		return
	}
	seq, err := identify(rec.Batch)
	require.NoError(t, err)
	require.Equal(t, countsOf(seq), rec.Counts)
	if rec.Batch.IDs != nil {
		require.Len(t, rec.Batch.IDs, rec.Batch.Series)
	}
	rec.Batch.Release()
	if told {
		require.Greater(t, seq, r.read)
		require.LessOrEqual(t, seq, r.retains, "what is retained is there")
		for _, c := range m.cursors {
			require.LessOrEqual(t, r.read, c.committed, "what a cursor has not passed is there")
		}
	} else {
		require.Equal(t, r.read, seq)
	}
	m.starts[seq], m.ends[seq] = rec.Start, rec.End
	r.read = seq + 1
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
		m := &ledger{fs: vfs.NewMem(), config: config, cursors: map[string]*modelCursor{}, readers: map[string]*modelReader{}}
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
			"reread": func(t *rapid.T) {
				_, r := m.reader(t)
				for range rapid.IntRange(1, 5).Draw(t, "n") {
					m.reread(t, r)
				}
				if rapid.Bool().Draw(t, "done") {
					r.r.Done(r.r.Position())
				}
			},
			"retain": func(t *rapid.T) {
				name, r := m.reader(t)
				m.j.Retain(name, r.r.Position())
				r.retains = math.MaxInt
				if !r.r.Position().Before(m.j.Oldest()) {
					r.retains = r.read
				}
			},
			"close reader": func(t *rapid.T) {
				name, r := m.reader(t)
				m.j.Retain(name, journal.Position{})
				require.NoError(t, r.r.Close())
				delete(m.readers, name)
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
