package ledger

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// Kind says what was done in the stretch of an entry.
type Kind string

// Kinds of entries.
const (
	// KindSampled: thinned by the steps of the entry.
	KindSampled Kind = "sampled"
	// KindGap: nothing was sent.
	KindGap Kind = "gap"
	// KindUnknown: the ledger's own record of it is lost. Anything between nothing
	// and everything was sent.
	KindUnknown Kind = "unknown"
)

// State says what becomes of the samples that an entry withheld.
type State string

// States of entries.
const (
	// StateOpen: samples are still being withheld.
	StateOpen State = "open"
	// StateOwed: they are to be given back.
	StateOwed State = "owed"
	// StateGivingBack: some of them were given back.
	StateGivingBack State = "giving_back"
	// StateGivenBack: all of them were.
	StateGivenBack State = "given_back"
	// StateGivenUp: some of them will never be given back; Entry.GivenUp says how many.
	StateGivenUp State = "given_up"
	// StateKept: they are not to be given back, since Options.Backfill was off.
	StateKept State = "kept"
)

// Time is a time in Unix ms. As text it is RFC 3339 in UTC with ms; the zero Time is
// "not known" and left out of JSON. Years beyond 0 to 9999, which samples may claim, are
// written as the nearest of them.
type Time int64

// TimeOf is t in ms; zero for the zero time.
func TimeOf(t time.Time) Time {
	if t.IsZero() {
		return 0
	}
	return Time(t.UnixMilli())
}

const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// Bounds of what RFC 3339 can say, in Unix ms.
const (
	firstTime = Time(-62167219200000)
	lastTime  = Time(253402300799999)
)

// Time is t as a time.Time in UTC.
func (t Time) Time() time.Time { return time.UnixMilli(int64(t)).UTC() }

func (t Time) String() string {
	return min(max(t, firstTime), lastTime).Time().Format(timeFormat)
}

// MarshalText writes RFC 3339 with ms.
func (t Time) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads RFC 3339.
func (t *Time) UnmarshalText(text []byte) error {
	at, err := time.Parse(time.RFC3339, string(text))
	if err != nil {
		return fmt.Errorf("read a time of a ledger: %w", err)
	}
	*t = Time(at.UnixMilli())
	return nil
}

// Setting is what a sampler is set to from a position on.
type Setting struct {
	// At is the start of the first record for which it holds.
	At journal.Position `json:"at"`
	// Time is when it was decided.
	Time Time `json:"time,omitzero"`
	// Rate is the requested share, from 0 to 1.
	Rate float64 `json:"rate"`
	// Pressure is the place on the sampler's ladder.
	Pressure float64 `json:"pressure"`
}

// Tally is what is known of the records of a stretch, as far as they are settled.
type Tally struct {
	// Taken is what the backend's selectors take, sent or not.
	Taken series.Counts `json:"taken,omitzero"`
	// Withheld is the part of Taken that was not sent in its turn.
	Withheld series.Counts `json:"withheld,omitzero"`
	// Sent is the part of what was withheld, here or before, that the sampler sent soon
	// after: held or replayed.
	Sent series.Counts `json:"sent,omitzero"`
	// GivenBack is the part that the backfill sent. Sent and GivenBack are counted in the step
	// that withheld the samples; where that is not known any more, in a later one.
	GivenBack series.Counts `json:"given_back,omitzero"`
	// First and Last are when the first and the last of the records were received; zero
	// when that is not known.
	First Time `json:"first_received,omitzero"`
	Last  Time `json:"last_received,omitzero"`
	// Min and Max bound the times of the withheld samples; both zero when that is not
	// known.
	Min Time `json:"min_time,omitzero"`
	Max Time `json:"max_time,omitzero"`
}

// Add adds what o counts and widens the times to hold those of o.
func (t *Tally) Add(o Tally) {
	t.Taken.Add(o.Taken)
	t.Withheld.Add(o.Withheld)
	t.Sent.Add(o.Sent)
	t.GivenBack.Add(o.GivenBack)
	widen(&t.First, &t.Last, o.First, o.Last)
	widen(&t.Min, &t.Max, o.Min, o.Max)
}

// widen makes the range from first to last hold the other one. Two zeros are no range.
func widen(first, last *Time, oFirst, oLast Time) {
	switch {
	case oFirst == 0 && oLast == 0:
	case *first == 0 && *last == 0:
		*first, *last = oFirst, oLast
	default:
		*first, *last = min(*first, oFirst), max(*last, oLast)
	}
}

// Outstanding is what was withheld and neither sent nor given back.
func (t *Tally) Outstanding() series.Counts {
	back := t.Sent
	back.Add(t.GivenBack)
	return t.Withheld.Without(back)
}

// within reports whether no kind of a is more than that of b.
func within(a, b series.Counts) bool { return a.Without(b).Zero() }

// Step is a part of an entry: from a change of the settings to the next one, or a piece of
// a gap, which has rate 0.
type Step struct {
	Setting
	Tally
}

// Entry is a stretch of the journal of which less than everything was sent.
type Entry struct {
	// ID is unique within the ledger, and grows.
	ID    uint64 `json:"id"`
	Kind  Kind   `json:"kind"`
	State State  `json:"state"`
	// From is the start of the first record of the stretch.
	From journal.Position `json:"from"`
	// To is the end of the stretch: where the next record starts. It is zero while the
	// entry is open.
	To journal.Position `json:"to,omitzero"`
	// Rebuild is where reading at rate 1 starts to build the state that the sampler had at
	// From; From itself when it had none.
	Rebuild journal.Position `json:"rebuild,omitzero"`
	// Digest names the sampler's configuration, see Ledger.Config.
	Digest string `json:"digest,omitempty"`
	// Cause is why nothing was sent in a gap, or why an entry is not known.
	Cause string `json:"cause,omitempty"`
	// Totals is the sum of the steps, never less than it was when steps are put together.
	Totals Tally `json:"totals"`
	// Classes is how many samples were withheld by class.
	Classes map[string]uint64 `json:"classes,omitempty"`
	// GivenUp is the part of what is outstanding that will never be given back, and Reason
	// is why.
	GivenUp series.Counts `json:"given_up,omitzero"`
	Reason  string        `json:"reason,omitempty"`
	// Closed is when nothing was owed any more; zero before that.
	Closed Time `json:"closed,omitzero"`
	// Inexact says that the counts may be off, since the cursor came back at a state for
	// which the ledger had no counts any more. The steps hold.
	Inexact bool `json:"inexact,omitempty"`
	// Steps are in the order of the journal. The first is at From. In entries that are
	// history neighbours were put together: then rate and pressure are the lowest and the
	// highest of them.
	Steps []Step `json:"steps,omitempty"`
}

// Outstanding is what the entry withheld and what was neither sent, given back nor given
// up since.
func (e *Entry) Outstanding() series.Counts { return e.Totals.Outstanding().Without(e.GivenUp) }

// Holds reports whether the record that starts at p is in the stretch of the entry.
func (e *Entry) Holds(p journal.Position) bool { return !p.Before(e.From) && e.endsBehind(p) }

// endsBehind reports whether the stretch ends behind p, or is open.
func (e *Entry) endsBehind(p journal.Position) bool { return e.isOpen() || p.Before(e.To) }

func (e *Entry) isOpen() bool { return e.To == journal.Position{} }

// Setting is what holds for the record that starts at p, which the entry holds.
func (e *Entry) Setting(p journal.Position) Setting { return e.Steps[e.step(p)].Setting }

// step is the index of the step that holds for p.
func (e *Entry) step(p journal.Position) int {
	i, found := slices.BinarySearchFunc(e.Steps, p, func(s Step, p journal.Position) int {
		switch {
		case s.At.Before(p):
			return -1
		case p.Before(s.At):
			return 1
		}
		return 0
	})
	if found {
		return i
	}
	return max(i-1, 0)
}

// clone shares nothing with e.
func (e *Entry) clone() Entry {
	c := *e
	c.Steps = slices.Clone(e.Steps)
	c.Classes = maps.Clone(e.Classes)
	return c
}
