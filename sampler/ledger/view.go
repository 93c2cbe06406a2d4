package ledger

import (
	"slices"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// View is what a ledger says, at one moment.
type View struct {
	Backend string `json:"backend"`
	// Settled is up to where the counts go.
	Settled Mark `json:"settled"`
	// Withheld is what was ever withheld, as the totals of the cursor have it.
	Withheld series.Counts `json:"withheld"`
	Debt     Debt          `json:"debt"`
	// Since is when the memory of the ledger begins: of samples up to then it may have
	// forgotten what was missing. Zero when it has forgotten nothing.
	Since Time `json:"since,omitzero"`
	// Damaged says that records are lost and Resume was not called since.
	Damaged bool    `json:"damaged,omitempty"`
	Entries []Entry `json:"entries"`
}

// Debt is what is to be given back.
type Debt struct {
	Counts series.Counts `json:"counts"`
	// Entries is how many have some of it.
	Entries int `json:"entries"`
	// Oldest is the time of the oldest sample, and Received when the oldest of them was
	// received; zero when there is none, or it is not known.
	Oldest   Time `json:"oldest,omitzero"`
	Received Time `json:"oldest_received,omitzero"`
	// Unknown says that there are stretches of which it is not known how much is owed.
	Unknown bool `json:"unknown,omitempty"`
}

// Missing is a stretch in which samples of a range of time were withheld.
type Missing struct {
	Entry uint64 `json:"entry"`
	Kind  Kind   `json:"kind"`
	State State  `json:"state"`
	Cause string `json:"cause,omitempty"`
	// From and To bound the times of the withheld samples, or when they were received
	// where their times are not known. They may reach beyond the range.
	From Time `json:"from"`
	To   Time `json:"to"`
	// MinRate and MaxRate bound the requested share. They mean nothing for KindUnknown.
	MinRate float64 `json:"min_rate"`
	MaxRate float64 `json:"max_rate"`
	// Tally counts the steps that overlap the range, whole steps each: what they withheld,
	// and what of that came after all.
	Tally
	// Outstanding is what of them the backend does not have; GivenUp is the part of it that
	// it will not get: of an entry that is given up in part, the oldest is.
	Outstanding series.Counts `json:"outstanding"`
	GivenUp     series.Counts `json:"given_up"`
	Reason      string        `json:"reason,omitempty"`
	// Estimated says that the range has a part of the entry only, and that of the entry a
	// part came: of which steps that was may not be known of samples that came late. It is
	// taken to be the nearest steps before. The sum over the entry is exact.
	Estimated bool `json:"estimated,omitempty"`
	Inexact   bool `json:"inexact,omitempty"`
}

// View returns a copy of everything but the configurations.
func (l *Ledger) View() View {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.state.view(l.o.Backend)
}

func (s *state) view(backend string) View {
	return View{
		Backend: backend, Settled: s.settled, Withheld: s.withheld, Debt: s.debt(),
		Since: s.since, Damaged: s.damaged, Entries: s.views(func(*entry) bool { return true }),
	}
}

func (s *state) views(which func(*entry) bool) []Entry {
	list := []Entry{}
	for _, e := range s.entries {
		if which(e) {
			list = append(list, e.view())
		}
	}
	return list
}

// Entries returns copies of all entries in the order of the journal.
func (l *Ledger) Entries() []Entry { return l.View().Entries }

// Timeline returns copies of the entries that end behind from, in the order of the
// journal: the decisions to repeat by whoever reads on from there. Records that none of
// them holds were, or are to be, sent whole.
func (l *Ledger) Timeline(from journal.Position) []Entry {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.state.views(func(e *entry) bool { return !e.history && e.endsBehind(from) })
}

// Config returns what a digest stands for: while an entry of it is owed, or the cursor is
// not behind it. The caller must not change it.
func (l *Ledger) Config(digest string) (config []byte, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	config, ok = l.state.configs[digest]
	return config, ok
}

// Needed is from where on the journal is needed to give back what is owed. ok is false
// when nothing is.
func (l *Ledger) Needed() (from journal.Position, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if !l.o.Backfill {
		return from, false
	}
	return l.state.needed()
}

// Resumable is from where on the journal is needed to go on with the open session as it
// was, after a restart, if it began after a time (Unix ms). ok is false when there is none.
func (l *Ledger) Resumable(after int64) (from journal.Position, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, e := range l.state.entries {
		if e.isOpen() && len(e.Steps) > 0 && int64(e.Steps[0].Time) > after {
			return e.Rebuild, true
		}
	}
	return from, false
}

func (s *state) needed() (from journal.Position, ok bool) {
	for _, e := range s.entries {
		if !e.history && (!ok || e.Rebuild.Before(from)) {
			from, ok = e.Rebuild, true
		}
	}
	return from, ok
}

// Debt sums up what is owed. Without Options.Backfill that is what an open session withheld
// so far, which is not to be given back either.
func (l *Ledger) Debt() Debt {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.state.debt()
}

func (s *state) debt() Debt {
	var d Debt
	for _, e := range s.entries {
		if e.Closed != 0 {
			continue
		}
		d.Unknown = d.Unknown || e.Kind == KindUnknown
		owed := e.Outstanding()
		if owed.Zero() {
			continue
		}
		d.Counts.Add(owed)
		d.Entries++
		d.Oldest = earlier(d.Oldest, e.Totals.Min)
		d.Received = earlier(d.Received, e.Totals.First)
	}
	return d
}

// earlier is the earlier of two times of which zero is none.
func earlier(a, b Time) Time {
	if a == 0 || b == 0 {
		return a + b
	}
	return min(a, b)
}

// Missing says which stretches withheld samples with times from from to to, both
// included: also of those given back since, as State and Outstanding say.
func (l *Ledger) Missing(from, to time.Time) []Missing {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.state.missing(TimeOf(from), TimeOf(to))
}

// Missing answers as Ledger.Missing does.
func (v *View) Missing(from, to time.Time) []Missing {
	list := []Missing{}
	for i := range v.Entries {
		if m, ok := v.Entries[i].missing(TimeOf(from), TimeOf(to)); ok {
			list = append(list, m)
		}
	}
	return list
}

func (s *state) missing(from, to Time) []Missing {
	list := []Missing{}
	for _, e := range s.entries {
		if m, ok := e.missing(from, to); ok {
			m.State = e.condition()
			list = append(list, m)
		}
	}
	return list
}

// missing is what the entry withheld of a range of time.
func (e *Entry) missing(from, to Time) (Missing, bool) {
	m := Missing{Entry: e.ID, Kind: e.Kind, State: e.State, Cause: e.Cause, Reason: e.Reason, Inexact: e.Inexact}
	found, whole := false, true
	steps := returned(e.Steps)
	lost := e.GivenUp
	for i := range steps {
		step := &steps[i]
		up := step.Outstanding().Within(lost)
		lost = lost.Without(up)
		if step.Withheld.Zero() && e.Kind != KindUnknown {
			continue
		}
		first, last := step.span()
		if last < from || to < first {
			whole = false
			continue
		}
		if !found {
			m.From, m.To, m.MinRate, m.MaxRate = first, last, step.Rate, step.Rate
		}
		found = true
		m.From, m.To = min(m.From, first), max(m.To, last)
		m.MinRate, m.MaxRate = min(m.MinRate, step.Rate), max(m.MaxRate, step.Rate)
		m.Tally.Add(step.Tally)
		m.GivenUp.Add(up)
	}
	m.Outstanding = m.Tally.Outstanding()
	m.GivenUp = m.GivenUp.Within(m.Outstanding)
	left := e.Totals.Outstanding()
	m.Estimated = e.Kind == KindSampled && !whole && !left.Zero() && left != e.Totals.Withheld
	return m, found
}

// returned are the steps with what was sent and given back in the ones that withheld it.
// Where that was not known, it was counted in a step behind, and more there than was withheld:
// it is taken to be of the nearest steps that withheld so much.
func returned(steps []Step) []Step {
	list := slices.Clone(steps)
	for i := range list {
		list[i].Sent, list[i].GivenBack = series.Counts{}, series.Counts{}
	}
	for _, kind := range []func(*series.Counts) *uint64{
		func(c *series.Counts) *uint64 { return &c.Samples },
		func(c *series.Counts) *uint64 { return &c.Histograms },
		func(c *series.Counts) *uint64 { return &c.Exemplars },
	} {
		place(list, steps, kind)
	}
	return list
}

// place puts what came of one kind into the steps of list. Where more came than was withheld
// before it, the rest stays with the step that counts it.
func place(list, steps []Step, kind func(*series.Counts) *uint64) {
	left := make([]uint64, len(steps))
	for i := range steps {
		left[i] = *kind(&steps[i].Withheld)
	}
	for _, field := range []func(*Tally) *series.Counts{
		func(t *Tally) *series.Counts { return &t.Sent },
		func(t *Tally) *series.Counts { return &t.GivenBack },
	} {
		var open []int // steps up to the one at hand with something left
		for i := range steps {
			if left[i] > 0 {
				open = append(open, i)
			}
			n := *kind(field(&steps[i].Tally))
			for n > 0 && len(open) > 0 {
				k := open[len(open)-1]
				took := min(n, left[k])
				*kind(field(&list[k].Tally)) += took
				n, left[k] = n-took, left[k]-took
				if left[k] == 0 {
					open = open[:len(open)-1]
				}
			}
			*kind(field(&list[i].Tally)) += n
		}
	}
}

// span bounds the times of the withheld samples.
func (s *Step) span() (first, last Time) {
	if s.Min == 0 && s.Max == 0 {
		return s.First, s.Last
	}
	return s.Min, s.Max
}
