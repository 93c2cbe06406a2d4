package exporter

import (
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// outcome is what became of records, by kind.
type outcome struct {
	delivered   series.Counts
	redelivered series.Counts // part of delivered
	rejected    map[string]series.Counts
	givenUp     map[string]series.Counts
}

func (o *outcome) reject(reason string, c series.Counts) { note(&o.rejected, reason, c) }
func (o *outcome) giveUp(reason string, c series.Counts) { note(&o.givenUp, reason, c) }

func note(m *map[string]series.Counts, reason string, c series.Counts) {
	if c.Zero() {
		return
	}
	if *m == nil {
		*m = map[string]series.Counts{}
	}
	sum := (*m)[reason]
	sum.Add(c)
	(*m)[reason] = sum
}

// addTo adds the outcome to totals.
func (o *outcome) addTo(t *journal.Totals) {
	t.Delivered.Add(o.delivered)
	t.Redelivered.Add(o.redelivered)
	for reason, c := range o.rejected {
		note(&t.Rejected, reason, c)
	}
	for reason, c := range o.givenUp {
		note(&t.GivenUp, reason, c)
	}
}

// openRecord is a record, or several that share their fate, that was read while something
// before it or it itself was not settled.
type openRecord struct {
	start, end journal.Position
	received   int64 // Unix ms
	records    int64 // how many it stands for
	settled    bool
	out        outcome
	loan       loan // what sampling does to it, beside what was sent of it
}

func (r *openRecord) addTo(t *journal.Totals) {
	r.out.addTo(t)
	r.loan.addTo(t)
}

// progress follows the records that a lane has read, in journal order, until everything
// before them is settled too. The lane's mutex guards it.
type progress struct {
	open []*openRecord // from the oldest that is not settled

	live   journal.Totals // all that is settled
	prefix journal.Totals // all that is settled before position: what is committed
	// position is behind the last record of the settled prefix.
	position journal.Position
	// settled and passed are how many records live and prefix stand for, since New.
	settled, passed int64
}

// maxOpen is how many records may be read ahead of the oldest one that is not settled:
// one parcel that is retried for ever must not make memory grow, neither the lane's nor
// the cursor's.
const maxOpen = 1 << 14

func (p *progress) full() bool { return len(p.open) >= maxOpen }

func (p *progress) add(r *openRecord) { p.open = append(p.open, r) }

// settle notes what became of a record.
func (p *progress) settle(r *openRecord) {
	r.settled = true
	r.addTo(&p.live)
	p.settled += r.records
	n := 0
	for n < len(p.open) && p.open[n].settled {
		p.open[n].addTo(&p.prefix)
		p.position = p.open[n].end
		p.passed += p.open[n].records
		p.open[n] = nil
		n++
	}
	p.open = p.open[n:]
}

// first is the oldest record that is not settled, or nil.
func (p *progress) first() *openRecord {
	for _, r := range p.open {
		if !r.settled {
			return r
		}
	}
	return nil
}
