package thinning

import (
	"errors"
	"fmt"
	"time"

	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// Pass implements exporter.Sampling. A session ends before the stretch: its sampler does not
// see what is passed.
func (t *Thinner) Pass(from, to journal.Position, lent bool) error {
	if !t.resumed {
		t.resumed = true
		t.resume(from)
	}
	if lent {
		if err := t.fits(from); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if lent && t.isDecided(from) {
		return errors.New("it was decided before what is sent of what waits")
	}
	if err := t.endBefore(from, to); err != nil {
		return err
	}
	if !lent {
		t.drop()
		t.stood = to
		return nil
	}
	err := t.o.Ledger.Gap(ledger.Gap{From: from, To: to, Cause: causeOutage, Pieces: pieces(from, to)})
	if err != nil {
		t.o.Metrics.failures.WithLabelValues(t.o.Backend).Inc()
		return err
	}
	t.drop()
	t.stood = to
	t.ahead = append(t.ahead, ledger.Entry{Kind: ledger.KindGap, From: from, To: to})
	t.retain()
	t.note("fresh first", "the backend is back after an outage: the newest goes first, what waited is given back behind it")
	return nil
}

// mostPieces bounds the pieces of a gap.
const mostPieces = 256

// pieces divides a gap by the segments of the journal, which go one by one when it has no
// room for them.
func pieces(from, to journal.Position) []ledger.Piece {
	list := []ledger.Piece{{At: from}}
	by := (to.Segment-from.Segment)/mostPieces + 1
	for at := from.Segment + by; at <= to.Segment; at += by {
		if p := (journal.Position{Segment: at}); p.Before(to) {
			list = append(list, ledger.Piece{At: p})
		}
	}
	return list
}

// fits reports whether the backend will still take what was received from a position on,
// when it comes behind the newest.
func (t *Thinner) fits(from journal.Position) error {
	r, err := t.o.Journal.OpenReader(t.o.Backend, from)
	if err != nil {
		return err
	}
	defer func() { t.closing(r.Close()) }()
	rec, ok, err := r.Next()
	if err != nil || !ok {
		return err
	}
	defer rec.Batch.Release()
	if age := t.o.Now().Sub(time.UnixMilli(rec.Batch.Received)); age > t.reach() {
		return fmt.Errorf("what waits is up to %s old, and behind newer samples the backend takes about %s", age.Round(time.Second), t.reach())
	}
	return nil
}

// endBefore ends the session before a stretch that is passed. One that ended in a run
// before goes on behind a stretch inside of it.
func (t *Thinner) endBefore(from, to journal.Position) error {
	if n := len(t.ahead); n > 0 && t.ahead[n-1].To == (journal.Position{}) && t.ahead[n-1].From.Before(to) {
		t.ahead = t.ahead[:n-1]
		return t.endRecorded(from)
	}
	switch s := t.session; {
	case s == nil:
		return t.writeEnd()
	case s.until == journal.Position{}:
		return t.end(from)
	case !to.Before(s.until):
		t.leave()
	}
	return nil
}

// isDecided reports whether what is sent from a position on was decided in a run before.
func (t *Thinner) isDecided(from journal.Position) bool {
	s := t.session
	return s != nil && from.Before(s.until) || len(t.ahead) > 0 && from.Before(t.ahead[len(t.ahead)-1].To)
}

// drop forgets the session that Run built.
func (t *Thinner) drop() {
	if t.ready != nil {
		t.closing(t.ready.feed.close())
		t.ready = nil
		t.reserved = journal.Position{}
		t.retain()
	}
}

// causeOutage is why nothing was sent in a gap.
const causeOutage = "outage"
