package tsdb

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// exemplarGroup is the exemplars that go to the store together.
//
// They go through the store's first appender interface: the second takes an exemplar
// only along with a sample of its series, and RW 1.0 senders send it alone.
type exemplarGroup struct {
	app storage.Appender
	// newest of each series in the group. The store checks each against what was
	// committed before and drops what does not fit the group itself without a word, so
	// one that is not behind the last of its series waits for the next group.
	newest map[storage.SeriesRef]exemplar.Exemplar
}

// appendExemplars hands over the exemplars of the delivery that are not committed yet.
func (a *appender) appendExemplars(ctx context.Context) error {
	var g exemplarGroup
	err := a.exemplarPass(ctx, &g)
	if err == nil {
		err = a.commitExemplars(&g, progress{part: len(a.d.parts)})
	}
	if err == nil {
		return nil
	}
	if g.app != nil {
		_ = g.app.Rollback()
	}
	for i := range a.d.parts {
		a.d.parts[i].pending = refusals{}
	}
	return err
}

func (a *appender) exemplarPass(ctx context.Context, g *exemplarGroup) error {
	at := a.d.exemplars
	for i := at.part; i < len(a.d.parts); i++ {
		if a.d.parts[i].sent.Exemplars == 0 {
			continue
		}
		if err := a.enter(ctx, i); err != nil {
			return err
		}
		msg := &a.part.body.msg
		for j := range msg.Series {
			if msg.Series[j].Exemplars == 0 || !a.part.take.Has(j) {
				continue
			}
			if i == at.part && j < at.series {
				continue
			}
			a.turn(j)
			if err := a.appendExemplarsOf(g, i, j); err != nil {
				return err
			}
		}
		a.d.release(a.part)
	}
	return nil
}

// appendExemplarsOf hands the exemplars of series j of part i over.
func (a *appender) appendExemplarsOf(g *exemplarGroup, i, j int) error {
	msg := &a.part.body.msg
	one := series.Counts{Exemplars: 1}
	if !a.b.exemplars {
		a.refuse(exemplarsDisabled, series.Counts{Exemplars: uint64(msg.Series[j].Exemplars)}, msg.Series[j].MaxTime, storage.ErrExemplarsDisabled)
		return nil
	}
	if msg.Series[j].Flags&remotewrite.FlagBadRefs != 0 {
		a.refuse(invalidLabels, series.Counts{Exemplars: uint64(msg.Series[j].Exemplars)}, msg.Series[j].MaxTime, errNoLabels)
		return nil
	}
	skip := 0
	if at := a.d.exemplars; at.part == i && at.series == j {
		skip = at.sample
	}
	a.exemplars = msg.AppendExemplars(a.exemplars[:0], j)
	for k := range a.exemplars {
		if k < skip {
			continue
		}
		e, ok := a.exemplar(&a.exemplars[k])
		if !ok {
			a.refuse(invalidLabels, one, e.Ts, errNoLabels)
			continue
		}
		if err := a.appendExemplar(g, e, progress{i, j, k}); err != nil {
			return err
		}
	}
	return nil
}

// exemplar turns x into the store's form; ok is false when its labels are no labels.
func (a *appender) exemplar(x *remotewrite.Exemplar) (e exemplar.Exemplar, ok bool) {
	e = exemplar.Exemplar{Value: x.Value, Ts: x.Time, HasTs: true}
	ls, ok := sortLabels(x.Labels)
	if ok {
		e.Labels = a.build(ls)
	}
	return e, ok
}

// sortLabels sorts the labels of an exemplar, which need no name among them, in place
// and leaves out the empty ones. ok is false when a name is empty or comes twice.
func sortLabels(ls []remotewrite.Label) (sorted []remotewrite.Label, ok bool) {
	ls = slices.DeleteFunc(ls, func(l remotewrite.Label) bool { return len(l.Value) == 0 })
	slices.SortFunc(ls, func(a, b remotewrite.Label) int { return bytes.Compare(a.Name, b.Name) })
	for i := range ls {
		if len(ls[i].Name) == 0 || i > 0 && bytes.Equal(ls[i-1].Name, ls[i].Name) {
			return nil, false
		}
	}
	return ls, true
}

// appendExemplar hands over one exemplar of the series at hand; at is where it stands
// in the delivery.
func (a *appender) appendExemplar(g *exemplarGroup, e exemplar.Exemplar, at progress) error {
	one := series.Counts{Exemplars: 1}
	for _, resolve := range []func(*exemplarGroup) storage.SeriesRef{a.knownRef, a.lookedUpRef} {
		if g.app == nil {
			g.app = a.b.into.Appender(context.Background())
		}
		ref := resolve(g)
		if ref == 0 {
			continue
		}
		if last, ok := g.newest[ref]; ok {
			c := compareExemplars(e, last)
			if c == 0 {
				return nil
			}
			if c < 0 {
				if err := a.commitExemplars(g, at); err != nil {
					return err
				}
				g.app = a.b.into.Appender(context.Background())
			}
		}
		_, err := g.app.AppendExemplar(ref, labels.EmptyLabels(), e)
		if err == nil {
			if g.newest == nil {
				g.newest = make(map[storage.SeriesRef]exemplar.Exemplar)
			}
			g.newest[ref] = e
			return nil
		}
		if r, ok := verdict(err); ok {
			a.refuse(r, one, e.Ts, err)
			return nil
		}
		// The only other thing that the store says is that it does not know ref.
	}
	a.refuse(exemplarWithoutSeries, one, e.Ts, errNoSeries)
	return nil
}

// knownRef is the store's reference for the series at hand, as far as it was noted.
func (a *appender) knownRef(*exemplarGroup) storage.SeriesRef {
	if ids := a.part.batch.IDs; ids != nil && !ids[a.series].Shared() {
		return a.b.refs.at(ids[a.series]).ref
	}
	return 0
}

// lookedUpRef finds the store's reference for the series at hand by its labels.
func (a *appender) lookedUpRef(g *exemplarGroup) storage.SeriesRef {
	ls, ok := a.labels()
	finder, can := g.app.(storage.GetRef)
	if !ok || !can {
		return 0
	}
	a.b.metrics.lookups.Inc()
	ref, _ := finder.GetRef(ls, ls.Hash())
	return ref
}

// compareExemplars is the order in which the store takes the exemplars of one series.
func compareExemplars(a, b exemplar.Exemplar) int {
	return cmp.Or(
		cmp.Compare(a.Ts, b.Ts),
		cmp.Compare(a.Value, b.Value),
		cmp.Compare(a.Labels.Hash(), b.Labels.Hash()),
	)
}

// commitExemplars writes the group; at is the first exemplar behind it.
func (a *appender) commitExemplars(g *exemplarGroup, at progress) error {
	if g.app != nil {
		app := g.app
		g.app = nil
		if err := app.Commit(); err != nil {
			a.b.metrics.commitFailures.Inc()
			return fmt.Errorf("append exemplars to the embedded store %s: %w", a.b.dir, err)
		}
		a.b.metrics.commits.Inc()
	}
	clear(g.newest)
	a.d.exemplars = at
	a.settle()
	return nil
}

var errNoSeries = errors.New("the store has no samples of the exemplar's series")
