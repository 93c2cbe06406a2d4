package ledger_test

import (
	"encoding/json"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// A session from its beginning until all is given back, with a start between any two
// records.
func TestLifeOfASession(t *testing.T) {
	fs := vfs.NewMem()
	m := mark(0, 0)
	next := func() *ledger.Ledger { return start(t, fs, m) }

	require.NoError(t, next().Begin(session(10, 0.5)))
	require.NoError(t, next().Step(setting(20, 0.25)))
	then := func(to ledger.Mark, deltas ...ledger.Delta) ledger.Settled {
		s := settle(t, next(), to, deltas...)
		m = to
		return s
	}
	s := then(mark(25, 0), withheld(12, 100, 50), withheld(21, 100, 25))
	require.Equal(t, ledger.Settled{}, s)
	require.NoError(t, next().End(at(30)))

	l := next()
	want := ledger.Entry{
		ID: 1, Kind: ledger.KindSampled, State: ledger.StateOwed, From: at(10), To: at(30), Rebuild: at(5), Digest: "d1",
		Classes: map[string]uint64{"low": 125},
		Totals: ledger.Tally{
			Taken: samples(200), Withheld: samples(125),
			First: minute(12), Last: minute(21), Min: minute(12), Max: minute(21),
		},
		Steps: []ledger.Step{
			{Setting: setting(10, 0.5), Tally: withheld(12, 100, 50).Tally},
			{Setting: setting(20, 0.25), Tally: withheld(21, 100, 25).Tally},
		},
	}
	require.Equal(t, []ledger.Entry{want}, l.Entries())
	require.Equal(t, []ledger.Entry{want}, l.Timeline(at(29)))
	require.Empty(t, l.Timeline(at(30)))
	text, ok := l.Config("d1")
	require.True(t, ok)
	require.Equal(t, "config one", string(text))
	from, ok := l.Needed()
	require.True(t, ok)
	require.Equal(t, at(5), from)
	require.Equal(t, ledger.Debt{Counts: samples(125), Entries: 1, Oldest: minute(12), Received: minute(12)}, l.Debt())
	require.Equal(t, 0.5, want.Setting(at(19)).Rate)
	require.Equal(t, 0.25, want.Setting(at(20)).Rate)
	require.Equal(t, 0.25, want.Setting(at(29)).Rate)

	then(mark(40, 15), givenBack(14, 50))
	l = next()
	require.Equal(t, ledger.StateGivingBack, l.Entries()[0].State)
	require.Equal(t, samples(75), l.Debt().Counts)
	from, ok = l.Needed()
	require.True(t, ok)
	require.Equal(t, at(5), from, "the state of the sampler is built again from there")

	s = then(mark(41, 30), givenBack(28, 75))
	require.Len(t, s.Closed, 1)
	require.Zero(t, s.GivenUp)
	l = next()
	require.Equal(t, ledger.StateGivenBack, l.Entries()[0].State)
	require.Equal(t, ledger.Debt{}, l.Debt())
	_, ok = l.Needed()
	require.False(t, ok)
	require.Empty(t, l.Timeline(at(0)))
	_, ok = l.Config("d1")
	require.False(t, ok)
}

// What is settled is written before the state of the cursor is stored. When the state was
// not, the counts go back to the one that was.
func TestCountsGoBackToTheCursor(t *testing.T) {
	fs := vfs.NewMem()
	l := start(t, fs, mark(0, 0))
	begin(t, l, 0, 0.5)
	settle(t, l, mark(1, 0), withheld(0, 10, 5))
	settle(t, l, mark(2, 0), withheld(1, 10, 4))
	settle(t, l, mark(3, 0), withheld(2, 10, 3))
	for _, c := range []struct {
		at   int
		want uint64
	}{{3, 18}, {2, 11}, {1, 5}, {0, 0}} {
		again := start(t, fs.KillClone(), mark(c.at, 0))
		require.Equal(t, samples(c.want), again.Debt().Counts, "at %d", c.at)
		require.Equal(t, samples(c.want), again.View().Withheld)
		require.False(t, again.Entries()[0].Inexact)
		require.Equal(t, 1, len(again.Timeline(at(c.at))), "the decisions hold all the same")
		settle(t, again, mark(9, 0), withheld(8, 10, 9))
		require.Equal(t, samples(c.want+1), again.Debt().Counts)
	}

	_, err := l.Settle(ledger.Settlement{Mark: mark(4, 0), Committed: mark(2, 0), Deltas: []ledger.Delta{withheld(3, 10, 2)}})
	require.NoError(t, err)
	again := start(t, fs.KillClone(), mark(2, 0))
	require.Equal(t, samples(11), again.Debt().Counts)
	older := open(t, fs.KillClone())
	require.True(t, resume(t, older, mark(1, 0)).Inexact, "the state at 2 was stored for good")
	require.Equal(t, samples(11), older.Debt().Counts)
	require.True(t, older.Entries()[0].Inexact)
}

func TestGivingBackGoesBackToTheCursor(t *testing.T) {
	fs := vfs.NewMem()
	l := start(t, fs, mark(0, 0))
	begin(t, l, 0, 0.5)
	settle(t, l, mark(10, 0), withheld(0, 10, 5), withheld(1, 10, 5))
	require.NoError(t, l.End(at(10)))
	settle(t, l, mark(12, 5), givenBack(0, 4))
	s := settle(t, l, mark(13, 10), givenBack(1, 5))
	require.Equal(t, samples(1), s.GivenUp, "one was not found again")
	require.Equal(t, ledger.StateGivenUp, l.Entries()[0].State)
	require.Equal(t, ledger.ReasonNotFound, l.Entries()[0].Reason)

	again := start(t, fs, mark(12, 5))
	require.Equal(t, samples(6), again.Debt().Counts)
	require.Equal(t, ledger.StateGivingBack, again.Entries()[0].State)
	require.Equal(t, samples(1), settle(t, again, mark(13, 10), givenBack(1, 5)).GivenUp, "told again, since the totals do not have it")
}

func TestOrder(t *testing.T) {
	gap := func(from, to int, pieces ...int) ledger.Gap {
		g := ledger.Gap{From: at(from), To: at(to), Cause: "outage"}
		for _, p := range pieces {
			g.Pieces = append(g.Pieces, ledger.Piece{At: at(p), Tally: ledger.Tally{Taken: samples(1)}})
		}
		return g
	}
	closed := func(l *ledger.Ledger) error {
		return errors.Join(l.Begin(session(10, 0.5)), l.End(at(20)))
	}
	running := func(l *ledger.Ledger) error {
		return errors.Join(l.Begin(session(10, 0.5)), l.Step(setting(15, 0.3)))
	}
	settled := func(l *ledger.Ledger) error {
		err := running(l)
		_, serr := l.Settle(ledger.Settlement{Mark: mark(14, 3)})
		return errors.Join(err, serr)
	}
	none := func(*ledger.Ledger) error { return nil }
	settles := func(s ledger.Settlement) func(*ledger.Ledger) error {
		return func(l *ledger.Ledger) error {
			_, err := l.Settle(s)
			return err
		}
	}
	for _, c := range []struct {
		name   string
		before func(*ledger.Ledger) error
		do     func(*ledger.Ledger) error
		want   string // empty: taken
	}{
		{"a session right behind another", closed, func(l *ledger.Ledger) error { return l.Begin(session(20, 0.5)) }, ""},
		{"a session before the end", closed, func(l *ledger.Ledger) error { return l.Begin(session(19, 0.5)) }, "before the end of the last entry"},
		{"two sessions", running, func(l *ledger.Ledger) error { return l.Begin(session(30, 0.5)) }, "is open: end it first"},
		{"a session of what is settled", settled, func(l *ledger.Ledger) error { return errors.Join(l.End(at(14)), l.Begin(session(13, 0.5))) }, "before the end"},
		{"state from ahead", none, func(l *ledger.Ledger) error {
			return l.Begin(ledger.Session{From: at(1), Rebuild: at(2), Digest: "x", Config: []byte("y")})
		}, "cannot be rebuilt"},
		{"no step without a session", closed, func(l *ledger.Ledger) error { return l.Step(setting(30, 0.5)) }, "no session is open"},
		{"a step at the last one", running, func(l *ledger.Ledger) error { return l.Step(setting(15, 0.5)) }, ""},
		{"a step before the last one", running, func(l *ledger.Ledger) error { return l.Step(setting(14, 0.5)) }, "before the last one"},
		{"a rate above one", running, func(l *ledger.Ledger) error { return l.Step(setting(16, 1.5)) }, "BUG"},
		{"no end without a session", none, func(l *ledger.Ledger) error { return l.End(at(30)) }, "no session is open"},
		{"an end that was settled", settled, func(l *ledger.Ledger) error { return l.End(at(13)) }, "settled before"},
		{"a gap in a session", running, func(l *ledger.Ledger) error { return l.Gap(gap(20, 30, 20)) }, "is open"},
		{"a gap before the end", closed, func(l *ledger.Ledger) error { return l.Gap(gap(19, 30, 19)) }, "before the end"},
		{"a gap without pieces", closed, func(l *ledger.Ledger) error { return l.Gap(gap(20, 30)) }, "needs pieces"},
		{"a piece ahead", closed, func(l *ledger.Ledger) error { return l.Gap(gap(20, 30, 21)) }, "first of which"},
		{"pieces out of order", closed, func(l *ledger.Ledger) error { return l.Gap(gap(20, 30, 20, 25, 24)) }, "pieces"},
		{"a piece behind the gap", closed, func(l *ledger.Ledger) error { return l.Gap(gap(20, 30, 20, 30)) }, "with a piece at"},
		{"a gap", closed, func(l *ledger.Ledger) error { return l.Gap(gap(20, 30, 20, 25)) }, ""},
		{"back", settled, settles(ledger.Settlement{Mark: mark(13, 3)}), "out of the order"},
		{"back in one", settled, settles(ledger.Settlement{Mark: mark(20, 2)}), "out of the order"},
		{"counts of nothing", settled, settles(ledger.Settlement{Mark: mark(16, 3), Deltas: []ledger.Delta{withheld(9, 2, 1)}}), "nothing is withheld"},
		{"counts of nothing, without a move", settled, settles(ledger.Settlement{Mark: mark(14, 3), Deltas: []ledger.Delta{withheld(9, 2, 1)}}), "nothing is withheld"},
		{"counts", settled, settles(ledger.Settlement{Mark: mark(16, 3), Deltas: []ledger.Delta{withheld(15, 2, 1)}}), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := vfs.NewMem()
			l := start(t, fs, mark(0, 0))
			require.NoError(t, c.before(l))
			before := l.View()
			err := c.do(l)
			if c.want == "" {
				require.NoError(t, err)
				require.NotEqual(t, before, l.View())
				return
			}
			require.ErrorContains(t, err, c.want)
			if c.name != "a session of what is settled" {
				require.Equal(t, before, l.View())
			}
		})
	}
}

// What is settled while the cursor does not move waits until it does: the state of before
// has the same positions. So it is not there twice when it comes again after a restart.
func TestCountsWithoutAMoveWait(t *testing.T) {
	fs := vfs.NewMem()
	l := start(t, fs, mark(0, 0))
	begin(t, l, 0, 0.5)
	settle(t, l, mark(10, 0), withheld(3, 10, 4))
	require.NoError(t, l.End(at(10)))
	view := l.View()
	_, err := l.Settle(ledger.Settlement{Mark: mark(10, 0), Deltas: []ledger.Delta{givenBack(3, 2)}, Reason: "journal_full"})
	require.NoError(t, err)
	require.Equal(t, view, l.View())
	require.Equal(t, view, start(t, fs.KillClone(), mark(10, 0)).View())
	s := settle(t, l, mark(11, 10), givenBack(3, 3))
	require.Equal(t, samples(1), s.GivenUp)
	require.Equal(t, "journal_full", l.Entries()[0].Reason)
	require.Equal(t, samples(5), l.Entries()[0].Totals.GivenBack)
	settle(t, l, mark(12, 10))
	require.Equal(t, samples(5), l.Entries()[0].Totals.GivenBack, "once")
}

// A batch that was given back and told late, when the entry was closed, does not stop the
// cursor. The entry is not exact then.
func TestGivenBackTooLateToCount(t *testing.T) {
	fs := vfs.NewMem()
	l := start(t, fs, mark(0, 0))
	begin(t, l, 0, 0.5)
	settle(t, l, mark(10, 0), withheld(3, 10, 4))
	require.NoError(t, l.End(at(10)))
	settle(t, l, mark(11, 10))
	require.False(t, l.Entries()[0].Inexact)
	settle(t, l, mark(12, 10), givenBack(3, 6))
	require.True(t, l.Entries()[0].Inexact)
	require.Equal(t, l.View(), start(t, fs.KillClone(), mark(12, 10)).View())
	require.False(t, start(t, fs.KillClone(), mark(11, 10)).Entries()[0].Inexact)
	_, err := l.Settle(ledger.Settlement{Mark: mark(13, 10), Deltas: []ledger.Delta{withheld(4, 10, 4)}})
	require.ErrorContains(t, err, "nothing is withheld")
}

// A gap may be counted when it is made, or as the cursor passes it.
func TestCountsOfAGap(t *testing.T) {
	for _, late := range []bool{false, true} {
		fs := vfs.NewMem()
		l := start(t, fs, mark(0, 0))
		counts := ledger.Tally{Taken: samples(8), Withheld: samples(8)}
		piece := ledger.Piece{At: at(2)}
		var deltas []ledger.Delta
		if late {
			deltas = append(deltas, ledger.Delta{At: at(2), Tally: counts})
		} else {
			piece.Tally = counts
		}
		require.NoError(t, l.Gap(ledger.Gap{From: at(2), To: at(6), Cause: "outage", Pieces: []ledger.Piece{piece}}))
		settle(t, l, mark(7, 0), deltas...)
		require.Equal(t, samples(8), l.View().Withheld)
		require.Equal(t, samples(8), l.Debt().Counts)
		sum := samples(8)
		for _, fs := range []*vfs.Mem{fs.KillClone(), fs} {
			again := open(t, fs)
			res, err := again.Resume(ledger.Resumption{Mark: mark(7, 0), Withheld: &sum})
			require.NoError(t, err)
			require.Equal(t, ledger.Resumed{}, res)
			begin(t, again, 9, 0.5) // and writes it anew
		}
	}
}

func TestMustBeResumedAndOpen(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs)
	require.ErrorIs(t, l.Begin(session(1, 0.5)), ledger.ErrNotResumed)
	_, err := l.Settle(ledger.Settlement{})
	require.ErrorIs(t, err, ledger.ErrNotResumed)
	resume(t, l, mark(0, 0))
	require.NoError(t, l.Close())
	require.ErrorIs(t, l.Begin(session(1, 0.5)), ledger.ErrClosed)
	_, err = l.Resume(ledger.Resumption{})
	require.ErrorIs(t, err, ledger.ErrClosed)
	require.NoError(t, l.Close())

	_, err = ledger.Open(ledger.Options{})
	require.ErrorContains(t, err, "BUG")
}

// A session can be ended before steps that are recorded already: what was to be sent by
// them was not.
func TestEndTakesStepsBack(t *testing.T) {
	for _, c := range []struct {
		end   int
		steps int
	}{{40, 3}, {30, 2}, {29, 2}, {11, 1}, {10, 0}, {5, 0}} {
		fs := vfs.NewMem()
		l := start(t, fs, mark(5, 0))
		begin(t, l, 10, 0.5)
		require.NoError(t, l.Step(setting(20, 0.4)))
		require.NoError(t, l.Step(setting(30, 0.3)))
		require.NoError(t, l.End(at(c.end)))
		for _, l := range []*ledger.Ledger{l, start(t, fs, mark(5, 0))} {
			if c.steps == 0 {
				require.Empty(t, l.Entries())
				require.Equal(t, 0, len(l.Timeline(at(0))))
				continue
			}
			require.Len(t, l.Entries()[0].Steps, c.steps, "end at %d", c.end)
			require.Equal(t, at(c.end), l.Entries()[0].To)
		}
	}
}

// Without backfill an entry is history when the cursor has passed it.
func TestWithoutBackfill(t *testing.T) {
	fs := vfs.NewMem()
	off := func(o *ledger.Options) { o.Backfill = false }
	l := start(t, fs, mark(0, 0), off)
	begin(t, l, 0, 0.5)
	settle(t, l, mark(10, 0), withheld(3, 10, 5))
	_, ok := l.Needed()
	require.False(t, ok)
	require.NoError(t, l.End(at(20)))
	require.Len(t, l.Timeline(at(10)), 1)
	s := settle(t, l, mark(20, 0))
	require.Zero(t, s.GivenUp)
	require.Equal(t, ledger.StateKept, s.Closed[0].State)
	require.Equal(t, samples(5), s.Closed[0].Totals.Withheld)
	require.Equal(t, ledger.Debt{}, l.Debt())
	require.Len(t, l.Missing(epoch, epoch.Add(time.Hour)), 1)
	again := start(t, fs, mark(10, 0), off)
	require.Len(t, again.Timeline(at(10)), 1, "a cursor that came back needs the steps again")
	require.Equal(t, ledger.StateOwed, again.Entries()[0].State)
}

// When everything before a position is given up, the counts of it are told at once, but
// not of steps whose samples may yet be sent after all.
func TestGivingUpInsideOfASession(t *testing.T) {
	fs := vfs.NewMem()
	l := start(t, fs, mark(0, 0))
	begin(t, l, 0, 0.5)
	deltas := []ledger.Delta{withheld(0, 10, 5)}
	for i := 1; i < 40; i++ {
		require.NoError(t, l.Step(setting(i, 0.5)))
		deltas = append(deltas, withheld(i, 10, 5))
	}
	settle(t, l, mark(40, 0), deltas...)
	s, err := l.Settle(ledger.Settlement{Mark: mark(41, 30), Committed: mark(40, 0), Reason: "journal_full"})
	require.NoError(t, err)
	require.Equal(t, samples(20*5), s.GivenUp, "ten minutes stay behind")
	e := l.Entries()[0]
	require.Equal(t, ledger.StateOpen, e.State)
	require.Equal(t, samples(100), e.GivenUp)
	require.Equal(t, "journal_full", e.Reason)
	require.Equal(t, samples(100), l.Debt().Counts)

	require.NoError(t, l.End(at(42)))
	settle(t, l, mark(50, 30))
	s = settle(t, l, mark(50, 42), givenBack(35, 40), givenBack(39, 10))
	require.Equal(t, samples(50), s.GivenUp, "with the rest it is what was withheld")
	require.Equal(t, ledger.Debt{}, l.Debt())
}

func TestGivingUpAPartOfAGap(t *testing.T) {
	l := start(t, vfs.NewMem(), mark(0, 0))
	g := ledger.Gap{From: at(0), To: at(30), Cause: "fresh_first"}
	for _, n := range []int{0, 10, 20} {
		g.Pieces = append(g.Pieces, ledger.Piece{At: at(n), Tally: ledger.Tally{Taken: samples(7), First: minute(n), Last: minute(n + 9)}})
	}
	require.NoError(t, l.Gap(g))
	require.Zero(t, l.View().Withheld, "the cursor has not passed it")
	settle(t, l, mark(30, 0))
	require.Equal(t, samples(21), l.View().Withheld)
	s, err := l.Settle(ledger.Settlement{Mark: mark(31, 15), Reason: "journal_full"})
	require.NoError(t, err)
	require.Equal(t, samples(7), s.GivenUp)
	s = settle(t, l, mark(31, 30), givenBack(15, 3), givenBack(20, 7))
	require.Equal(t, samples(4), s.GivenUp)
	require.Equal(t, ledger.ReasonNotFound, l.Entries()[0].Reason)
}

// While nothing is withheld settling writes nothing; nor does a ledger that was never
// needed have a file.
func TestNothingIsWrittenWithoutNeed(t *testing.T) {
	c := &clock{epoch}
	mem := vfs.NewMem()
	fs := vfs.NewFaulty(mem)
	l := start(t, fs, mark(0, 0), c.use)
	before := fs.Calls()
	for i := range 100 {
		settle(t, l, mark(i, i))
		c.now = c.now.Add(time.Minute)
	}
	require.Equal(t, before, fs.Calls())

	begin(t, l, 100, 0.5)
	require.NoError(t, l.End(at(101)))
	settle(t, l, mark(101, 101))
	before = fs.Calls()
	for i := range 10 {
		settle(t, l, mark(102+i, 102+i))
		c.now = c.now.Add(10 * time.Second)
	}
	require.LessOrEqual(t, fs.Calls()-before, 2, "the position once a minute")
}

func TestConfigurationsAreStoredOnce(t *testing.T) {
	fs := vfs.NewMem()
	l := start(t, fs, mark(0, 0))
	text := []byte(strings.Repeat("0123456789", 1000))
	for i := range 5 {
		s := session(2*i, 0.5)
		s.Config = text
		require.NoError(t, l.Begin(s))
		require.NoError(t, l.End(at(2*i+1)))
	}
	other := session(20, 0.5)
	other.Digest, other.Config = "d2", []byte("other")
	require.NoError(t, l.Begin(other))
	b := content(t, fs)
	require.Equal(t, 1, strings.Count(string(b), `"config"`+`:"MDEyMzQ1`))
	l = start(t, fs, mark(0, 0))
	require.NoError(t, l.End(at(30)))
	for digest, want := range map[string]string{"d1": string(text), "d2": "other"} {
		got, ok := l.Config(digest)
		require.True(t, ok)
		require.Equal(t, want, string(got))
	}
	settle(t, l, mark(40, 15))
	_, ok := l.Config("d1")
	require.True(t, ok, "the cursor may come back")
	_, err := l.Settle(ledger.Settlement{Mark: mark(41, 15), Committed: mark(40, 15)})
	require.NoError(t, err)
	_, ok = l.Config("d1")
	require.False(t, ok)
	_, ok = l.Config("d2")
	require.True(t, ok)
}

func TestReadWithoutOpening(t *testing.T) {
	fs := vfs.NewMem()
	names, err := ledger.Backends(fs, dir)
	require.NoError(t, err)
	require.Empty(t, names)
	view, err := ledger.Read(fs, dir, backend)
	require.NoError(t, err)
	require.Empty(t, view.Entries)
	_, ok := view.Needed()
	require.False(t, ok)

	l := start(t, fs, mark(0, 0))
	begin(t, l, 7, 0.5)
	settle(t, l, mark(9, 0), withheld(8, 10, 5))
	before := content(t, fs)
	view, err = ledger.Read(fs, dir, backend)
	require.NoError(t, err)
	require.Equal(t, l.View(), view)
	from, ok := view.Needed()
	require.True(t, ok)
	require.Equal(t, at(2), from)
	require.Equal(t, l.Missing(epoch, epoch.Add(time.Hour)), view.Missing(epoch, epoch.Add(time.Hour)))
	require.Equal(t, before, content(t, fs))

	other := start(t, fs, mark(0, 0), func(o *ledger.Options) { o.Backend = "main" })
	begin(t, other, 1, 0.5)
	dotted := start(t, fs, mark(0, 0), func(o *ledger.Options) { o.Backend = ".main/eu.0000000001" })
	begin(t, dotted, 1, 0.5)
	names, err = ledger.Backends(fs, dir)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"main", backend, ".main/eu.0000000001"}, names)
	require.Equal(t, view, l.View())

	require.NoError(t, l.Close())
	require.NoError(t, ledger.Remove(fs, dir, backend))
	names, err = ledger.Backends(fs, dir)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"main", ".main/eu.0000000001"}, names)
	require.NoError(t, ledger.Remove(fs, dir, backend))
}

func TestOnTheDisk(t *testing.T) {
	root := t.TempDir() + "/ledger"
	on := func(o *ledger.Options) { o.Dir, o.Sync = root, true }
	l := start(t, vfs.OS{}, mark(0, 0), on)
	begin(t, l, 0, 0.5)
	settle(t, l, mark(5, 0), withheld(3, 10, 5))
	view := l.View()
	require.Equal(t, view, start(t, vfs.OS{}, mark(5, 0), on).View())
	read, err := ledger.Read(vfs.OS{}, root, backend)
	require.NoError(t, err)
	require.Equal(t, view, read)
}

func TestJSON(t *testing.T) {
	l := start(t, vfs.NewMem(), mark(0, 0))
	begin(t, l, 1, 0.5)
	settle(t, l, mark(3, 0), withheld(2, 10, 4))
	text, err := json.Marshal(l.View())
	require.NoError(t, err)
	require.JSONEq(t, `{"backend":"main/eu",
		"settled":{"position":{"segment":1,"offset":300},"restore":{"segment":1,"offset":0}},
		"withheld":{"samples":6,"histograms":0,"exemplars":0},
		"debt":{"counts":{"samples":6,"histograms":0,"exemplars":0},"entries":1,"oldest":"2026-03-01T10:02:00.000Z","oldest_received":"2026-03-01T10:02:00.000Z"},
		"entries":[{"id":1,"kind":"sampled","state":"open","from":{"segment":1,"offset":100},"rebuild":{"segment":1,"offset":0},"digest":"d1",
			"classes":{"low":6},
			"totals":{"taken":{"samples":10,"histograms":0,"exemplars":0},"withheld":{"samples":6,"histograms":0,"exemplars":0},
				"first_received":"2026-03-01T10:02:00.000Z","last_received":"2026-03-01T10:02:00.000Z","min_time":"2026-03-01T10:02:00.000Z","max_time":"2026-03-01T10:02:00.000Z"},
			"steps":[{"at":{"segment":1,"offset":100},"time":"2026-03-01T10:01:00.000Z","rate":0.5,"pressure":0.5,
				"taken":{"samples":10,"histograms":0,"exemplars":0},"withheld":{"samples":6,"histograms":0,"exemplars":0},
				"first_received":"2026-03-01T10:02:00.000Z","last_received":"2026-03-01T10:02:00.000Z","min_time":"2026-03-01T10:02:00.000Z","max_time":"2026-03-01T10:02:00.000Z"}]}]}`,
		string(text))
	var back ledger.View
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, l.View(), back)
}

func TestTimesBeyondWhatTextCanSay(t *testing.T) {
	for _, c := range []struct {
		time ledger.Time
		want string
	}{
		{-1, "1969-12-31T23:59:59.999Z"},
		{1 << 62, "9999-12-31T23:59:59.999Z"},
		{-1 << 62, "0000-01-01T00:00:00.000Z"},
	} {
		text, err := json.Marshal(c.time)
		require.NoError(t, err)
		require.Equal(t, `"`+c.want+`"`, string(text))
	}
	var back ledger.Time
	require.Error(t, json.Unmarshal([]byte(`"yesterday"`), &back))
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	m, err := ledger.NewMetrics(reg)
	require.NoError(t, err)
	_, err = ledger.NewMetrics(reg)
	require.Error(t, err)
	fs := vfs.NewFaulty(vfs.NewMem())
	l := start(t, fs, mark(0, 0), func(o *ledger.Options) { o.Metrics = m })
	begin(t, l, 0, 0.5)
	fs.Inject(vfs.Fault{Ops: []vfs.Op{vfs.OpWrite}, Err: syscall.EIO})
	require.ErrorIs(t, l.Step(setting(1, 0.4)), syscall.EIO)
	size := len(strings.TrimRight(string(content(t, fs)), "\x00"))
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP remote_write_ledger_entries Stretches of the journal of which something was withheld from the backend and which are not closed: neither given back, given up nor kept for good. 0 when nothing is owed.
# TYPE remote_write_ledger_entries gauge
remote_write_ledger_entries{backend="main/eu"} 1
# HELP remote_write_ledger_write_errors_total Records that the ledger of the backend could not write. Nothing takes effect without its record: the rate stays, or the cursor does. 0 when the disk is well.
# TYPE remote_write_ledger_write_errors_total counter
remote_write_ledger_write_errors_total{backend="main/eu"} 1
`), "remote_write_ledger_entries", "remote_write_ledger_write_errors_total"))
	require.Positive(t, size)
	require.NoError(t, l.Close())
	n, err := testutil.GatherAndCount(reg)
	require.NoError(t, err)
	require.Equal(t, 1, n, "what failed stays counted")
}

func TestSeriesCountsOfAllKinds(t *testing.T) {
	fs := vfs.NewMem()
	l := start(t, fs, mark(0, 0))
	begin(t, l, 0, 0.5)
	all := series.Counts{Samples: 3, Histograms: 2, Exemplars: 1}
	settle(t, l, mark(2, 0), ledger.Delta{At: at(1), Tally: ledger.Tally{Taken: all, Withheld: all, Sent: series.Counts{Histograms: 1}}})
	want := series.Counts{Samples: 3, Histograms: 1, Exemplars: 1}
	require.Equal(t, want, l.Debt().Counts)
	require.Equal(t, want, start(t, fs, mark(2, 0)).Debt().Counts)
	require.Equal(t, journal.Position{Segment: 1, Offset: 200}, l.View().Settled.Position)
}
