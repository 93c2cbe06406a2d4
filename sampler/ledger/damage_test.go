package ledger_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// example is a ledger with something of each kind, of which the cursor is at record 40,
// and what it withheld up to there.
type example struct {
	name     string
	content  []byte
	file     string
	rates    map[int]float64 // of records before 40 of which something is withheld
	withheld uint64
}

const exampleEnd = 40

func newExample(t testing.TB, rewritten bool) example {
	t.Helper()
	fs := vfs.NewMem()
	l := start(t, fs, mark(0, 0))
	x := example{name: fmt.Sprintf("rewritten %t", rewritten), rates: map[int]float64{}}
	sampled := func(to int, list ...int) {
		var deltas []ledger.Delta
		for _, n := range list {
			for _, e := range l.Entries() {
				if e.Holds(at(n)) {
					x.rates[n] = e.Setting(at(n)).Rate
				}
			}
			deltas = append(deltas, withheld(n, 10, 4))
			x.withheld += 6
		}
		settle(t, l, mark(to, 0), deltas...)
	}
	begin(t, l, 2, 0.5)
	require.NoError(t, l.Step(setting(6, 0.25)))
	sampled(8, 3, 5, 7)
	require.NoError(t, l.End(at(10)))
	g := ledger.Gap{From: at(12), To: at(18), Cause: "outage"}
	for n := 12; n < 18; n += 2 {
		g.Pieces = append(g.Pieces, ledger.Piece{At: at(n), Tally: ledger.Tally{Taken: samples(6), First: minute(n), Last: minute(n + 1)}})
		x.rates[n] = 0
		x.withheld += 6
	}
	require.NoError(t, l.Gap(g))
	sampled(20, 9)
	begin(t, l, 22, 0.7)
	sampled(26, 23)
	require.NoError(t, l.Step(setting(28, 0.4)))
	require.NoError(t, l.Step(setting(33, 0.3)))
	sampled(36, 28, 30, 35)
	sampled(exampleEnd, 36, 39)
	if rewritten {
		m := mark(exampleEnd, 0)
		l = start(t, fs, m)
		require.NoError(t, l.Step(setting(exampleEnd, 0.9)))
	}
	x.content, x.file = content(t, fs), files(t, fs)[0]
	return x
}

// open opens the ledger of an example whose file is now other, at the cursor. With told
// the ledger gets to know what the cursor says is withheld.
func (x *example) open(t testing.TB, other []byte, told bool) (*ledger.Ledger, ledger.Resumed) {
	t.Helper()
	l := open(t, holding(t, x.file, other))
	r := ledger.Resumption{Mark: mark(exampleEnd, 0)}
	if told {
		sum := samples(x.withheld)
		r.Withheld = &sum
	}
	res, err := l.Resume(r)
	require.NoError(t, err)
	return l, res
}

// check requires that the ledger knows of each record by which rate it was thinned, or
// knows that it does not know.
func (x *example) check(t testing.TB, l *ledger.Ledger, told bool, what string) {
	t.Helper()
	entries := l.Entries()
	for n, rate := range x.rates {
		i := slices.IndexFunc(entries, func(e ledger.Entry) bool { return e.Holds(at(n)) })
		require.GreaterOrEqual(t, i, 0, "%s: record %d is forgotten", what, n)
		if e := &entries[i]; e.Kind != ledger.KindUnknown {
			require.Equal(t, rate, e.Setting(at(n)).Rate, "%s: record %d", what, n)
		}
	}
	var end journal.Position
	for i, e := range entries {
		require.False(t, e.From.Before(end), "%s: entries overlap", what)
		require.True(t, e.From.Before(e.To) || i == len(entries)-1, "%s: an empty entry", what)
		end = e.To
	}
	if told {
		require.Equal(t, samples(x.withheld), l.View().Withheld, what)
		require.Equal(t, samples(x.withheld), l.Debt().Counts, what)
	}
	// And it goes on.
	next := exampleEnd + 5
	if open := len(entries) > 0 && entries[len(entries)-1].State == ledger.StateOpen; open {
		require.NoError(t, l.End(at(next)), what)
	}
	require.NoError(t, l.Begin(session(next, 0.5)), what)
	settle(t, l, mark(next+2, 0), withheld(next, 10, 4))
}

func examples(t *testing.T, f func(t *testing.T, x example)) {
	for _, rewritten := range []bool{false, true} {
		x := newExample(t, rewritten)
		t.Run(x.name, func(t *testing.T) { f(t, x) })
	}
}

func TestWholeFile(t *testing.T) {
	examples(t, func(t *testing.T, x example) {
		for _, told := range []bool{false, true} {
			l, res := x.open(t, x.content, told)
			require.Equal(t, ledger.Resumed{}, res)
			x.check(t, l, told, "whole")
		}
	})
}

// A bit that flips anywhere never makes the ledger say something wrong: it knows what it
// lost.
func TestEveryByteIsDamaged(t *testing.T) {
	examples(t, func(t *testing.T, x example) {
		end := len(bytes.TrimRight(x.content, "\x00"))
		lost := 0
		for i := range end + 8 {
			for _, told := range []bool{false, true} {
				b := slices.Clone(x.content)
				b[i] ^= 1 << (i % 8)
				l, res := x.open(t, b, told)
				if len(res.Unknown) > 0 {
					lost++
				}
				x.check(t, l, told, fmt.Sprintf("byte %d, told %t", i, told))
			}
		}
		require.Greater(t, lost, end)
	})
}

// A file of which the end is missing is either one as of before, or known to be incomplete:
// by the totals of the cursor, and a file that took the place of another one also by itself.
func TestEveryLength(t *testing.T) {
	examples(t, func(t *testing.T, x example) {
		for n := range len(bytes.TrimRight(x.content, "\x00")) {
			for _, told := range []bool{true, false} {
				if told || strings.Contains(x.file, "0002") {
					l, _ := x.open(t, x.content[:n], told)
					x.check(t, l, told, fmt.Sprintf("length %d, told %t", n, told))
				}
			}
		}
	})
}

// What is ahead of the cursor is not touched by what was lost behind it.
func TestLossBehindTheCursor(t *testing.T) {
	l := start(t, vfs.NewMem(), mark(0, 0))
	begin(t, l, 5, 0.5)
	settle(t, l, mark(10, 0), withheld(6, 10, 5))
	require.NoError(t, l.Step(setting(15, 0.4)))
	require.NoError(t, l.End(at(20)))
	require.NoError(t, l.Gap(ledger.Gap{From: at(24), To: at(28), Pieces: []ledger.Piece{{At: at(24), Tally: ledger.Tally{Taken: samples(7)}}}}))
	begin(t, l, 45, 0.3)
	sum := samples(100)
	res, err := l.Resume(ledger.Resumption{Mark: mark(40, 0), Withheld: &sum})
	require.NoError(t, err)
	require.Len(t, res.Unknown, 2)
	type stretch struct {
		kind     ledger.Kind
		from, to journal.Position
		withheld uint64
	}
	var got []stretch
	for _, e := range l.Entries() {
		got = append(got, stretch{e.Kind, e.From, e.To, e.Totals.Withheld.Samples})
	}
	require.Equal(t, []stretch{
		{ledger.KindSampled, at(5), at(10), 5},
		{ledger.KindUnknown, at(10), at(24), 88},
		{ledger.KindGap, at(24), at(28), 7},
		{ledger.KindUnknown, at(28), at(40), 0},
		{ledger.KindSampled, at(45), journal.Position{}, 0},
	}, got)
	settle(t, l, mark(46, 0), withheld(45, 10, 3))
	require.Equal(t, samples(107), l.View().Withheld)
}

// A ledger that is gone is known to be gone by the totals of the cursor.
func TestLostLedger(t *testing.T) {
	l := open(t, vfs.NewMem())
	sum := samples(50)
	res, err := l.Resume(ledger.Resumption{Mark: mark(20, 10), Withheld: &sum})
	require.NoError(t, err)
	require.Len(t, res.Unknown, 1)
	e := res.Unknown[0]
	require.Equal(t, ledger.KindUnknown, e.Kind)
	require.Equal(t, ledger.CauseIncomplete, e.Cause)
	require.Equal(t, journal.Position{}, e.From)
	require.Equal(t, at(20), e.To)
	require.Equal(t, sum, l.Debt().Counts)
	require.True(t, l.Debt().Unknown)
	require.Len(t, l.Missing(epoch.Add(-time.Hour), epoch), 1, "it may be of any time up to now")
	s, err := l.Settle(ledger.Settlement{Mark: mark(21, 20), Reason: "unknown"})
	require.NoError(t, err)
	require.Equal(t, sum, s.GivenUp)

	l = open(t, vfs.NewMem())
	none := samples(0)
	res, err = l.Resume(ledger.Resumption{Mark: mark(20, 10), Withheld: &none})
	require.NoError(t, err)
	require.Equal(t, ledger.Resumed{}, res, "nothing was ever withheld")
}

// What the cursor says is given back is not given up because the ledger lost the record of
// it.
func TestLostRecordOfGivingBack(t *testing.T) {
	fs := vfs.NewMem()
	l := start(t, fs, mark(0, 0))
	begin(t, l, 0, 0.5)
	settle(t, l, mark(5, 0), withheld(1, 10, 5))
	require.NoError(t, l.End(at(5)))
	before := fs.KillClone()
	settle(t, l, mark(6, 5), givenBack(1, 5))

	l = open(t, before)
	sum := samples(5)
	res, err := l.Resume(ledger.Resumption{Mark: mark(6, 5), Withheld: &sum})
	require.NoError(t, err)
	require.True(t, res.Inexact)
	require.Equal(t, ledger.Debt{}, l.Debt())
	e := l.Entries()[0]
	require.True(t, e.Inexact)
	require.Equal(t, ledger.CauseIncomplete, e.Reason)
	require.Zero(t, settle(t, l, mark(7, 7)).GivenUp)
}

func TestDamageIsLogged(t *testing.T) {
	x := newExample(t, false)
	b := slices.Clone(x.content)
	b[len(bytes.TrimRight(b, "\x00"))/2] ^= 1
	var log strings.Builder
	l, err := ledger.Open(options(holding(t, x.file, b), func(o *ledger.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) }))
	require.NoError(t, err)
	require.True(t, l.View().Damaged)
	require.Contains(t, log.String(), "The ledger is damaged.")
	sum := samples(x.withheld)
	res, err := l.Resume(ledger.Resumption{Mark: mark(exampleEnd, 0), Withheld: &sum})
	require.NoError(t, err)
	require.Equal(t, ledger.CauseDamaged, res.Unknown[0].Cause)
	require.Contains(t, log.String(), "does not know what was withheld")
	require.False(t, l.View().Damaged)
}

func TestFilesThatAreNoLedgers(t *testing.T) {
	x := newExample(t, false)
	newer := bytes.Replace(x.content, []byte(`"version":1`), []byte(`"version":2`), 1)
	copy(newer, ledger.Frame(0, newer[20:bytes.IndexByte(newer, '}')+2]))
	_, err := ledger.Open(options(holding(t, x.file, newer)))
	require.ErrorContains(t, err, "newer version")
	_, err = ledger.Read(holding(t, x.file, newer), dir, backend)
	require.ErrorContains(t, err, "newer version")

	fs := holding(t, "notes.txt", []byte("hello"))
	l := start(t, fs, mark(0, 0))
	begin(t, l, 1, 0.5)
	require.Len(t, files(t, fs), 2, "what is not its own is left alone")

	other := holding(t, strings.Replace(x.file, "eu", "us", 1), x.content)
	l = open(t, other, func(o *ledger.Options) { o.Backend = "main/us" })
	require.Empty(t, l.Entries(), "the file is of another backend")
}

// FuzzRead reads anything: it ends, and what it says can be written and read again.
func FuzzRead(f *testing.F) {
	for _, rewritten := range []bool{false, true} {
		x := newExample(f, rewritten)
		f.Add(bytes.TrimRight(x.content, "\x00"))
	}
	f.Add([]byte{})
	f.Add(ledger.Frame(0, []byte(`{"header":{"version":1,"backend":"main/eu"}}`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		// The fuzzer does not find checksums: frames are made of what it writes.
		var framed []byte
		for i, line := range bytes.Split(b, []byte("\n")) {
			framed = append(framed, ledger.Frame(uint64(i), line)...)
		}
		for _, file := range [][]byte{b, framed} {
			fs := holding(t, "main%2Feu.0000000001.ledger", file)
			l, err := ledger.Open(options(fs))
			if err != nil {
				continue
			}
			resume(t, l, mark(30, 0))
			_, _ = l.Settle(ledger.Settlement{Mark: mark(31, 3), Reason: "fuzz"})
			view := l.View()
			l.Missing(epoch, epoch)
			for i := range view.Entries {
				view.Entries[i].Setting(at(7))
			}
			if err := l.End(at(32)); err == nil {
				view = l.View()
			}
			require.NoError(t, l.Close())
			read, err := ledger.Read(fs, dir, backend)
			require.NoError(t, err)
			require.Equal(t, view.Settled, read.Settled)
			require.Len(t, read.Entries, len(view.Entries))
		}
	})
}
