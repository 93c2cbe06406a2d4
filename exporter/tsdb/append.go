package tsdb

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// appender puts one delivery into the store.
//
// The store checks a sample twice: against what its series holds when it is handed
// over, which is told to the caller, and again when the group is committed, which is
// not. The two differ only where the group itself holds an earlier sample of the
// series. So a sample that is not newer than the one before it in its group is handed
// over after that group is committed; then the first check is the last word.
type appender struct {
	b        *Backend
	d        *delivery
	deadline int64 // newest timestamp that is taken

	app storage.AppenderV2 // the open group; nil when there is none
	gen uint32             // its number, never 0

	part   *part
	series int           // ordinal of the series at hand
	ls     labels.Labels // its labels once they were needed

	// loose are the places of series that have no id of their own, by the hash of
	// their labels. Two series of one hash cost a commit, no more.
	loose map[uint64]*place

	samples    []remotewrite.Sample
	histograms []remotewrite.HistogramRef
	exemplars  []remotewrite.Exemplar
	spelled    []remotewrite.Label
	builder    labels.ScratchBuilder
}

func (a *appender) start(d *delivery, now time.Time) {
	a.b, a.d = d.b, d
	a.deadline = now.Add(maxAhead).UnixMilli()
	a.renumber()
}

// stop lets go of what belongs to the delivery.
func (a *appender) stop() {
	a.b, a.d, a.part, a.app = nil, nil, nil, nil
	clear(a.loose)
}

// renumber makes every place one that the group at hand has not touched.
func (a *appender) renumber() {
	for {
		if a.gen = a.b.gen.Add(1); a.gen != 0 {
			return
		}
	}
}

// run makes the two passes over the delivery: samples first, because exemplars need
// their series.
func (a *appender) run(ctx context.Context) error {
	if err := a.appendSamples(ctx); err != nil {
		a.rollback()
		return err
	}
	return a.appendExemplars(ctx)
}

func (a *appender) appendSamples(ctx context.Context) error {
	at := &a.d.samples
	for i := at.part; i < len(a.d.parts); i++ {
		if err := a.enter(ctx, i); err != nil {
			return err
		}
		msg := &a.part.body.msg
		for j := range msg.Series {
			s := &msg.Series[j]
			if s.Samples+s.Histograms == 0 || !a.part.take.Has(j) {
				continue
			}
			if i == at.part && j < at.series {
				continue
			}
			a.turn(j)
			if err := a.appendSeries(i, j); err != nil {
				return err
			}
		}
		a.leave()
	}
	return a.commit(progress{part: len(a.d.parts)})
}

// enter makes part i the one at hand.
func (a *appender) enter(ctx context.Context, i int) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("append to the embedded store: %w", context.Cause(ctx))
	}
	a.part = &a.d.parts[i]
	if err := a.d.open(a.part); err != nil {
		return contentError{fmt.Errorf("append to the embedded store: %w", err)}
	}
	return nil
}

// turn makes series j of the part at hand the one at hand.
func (a *appender) turn(j int) {
	a.series, a.ls = j, labels.EmptyLabels()
}

// leave gives the decoded request back where no exemplars of it remain to be read.
func (a *appender) leave() {
	if a.part.sent.Exemplars == 0 {
		a.d.release(a.part)
	}
}

// appendSeries hands the samples of series j of part i over.
func (a *appender) appendSeries(i, j int) error {
	msg := &a.part.body.msg
	s := &msg.Series[j]
	skip := 0
	if at := a.d.samples; at.part == i && at.series == j {
		skip = at.sample
	}
	p := a.place()
	if p == nil {
		a.refuse(invalidLabels, series.Counts{Samples: uint64(s.Samples), Histograms: uint64(s.Histograms)}, s.MinTime, errNoLabels)
		return nil
	}
	a.samples = msg.AppendSamples(a.samples[:0], j)
	for k := range a.samples {
		if k < skip {
			continue
		}
		x := sample{t: a.samples[k].Time, start: a.samples[k].Start, v: a.samples[k].Value}
		if err := a.append(p, x, progress{i, j, k}); err != nil {
			return err
		}
	}
	if s.Histograms == 0 {
		return nil
	}
	a.histograms = msg.AppendHistograms(a.histograms[:0], j)
	for k, h := range a.histograms {
		n := len(a.samples) + k
		if n < skip {
			continue
		}
		x := sample{t: h.Time, start: h.Start}
		var err error
		if x.h, x.fh, err = msg.DecodeHistogram(h); err != nil {
			a.refuse(invalidHistogram, series.Counts{Histograms: 1}, h.Time, err)
			continue
		}
		if err := a.append(p, x, progress{i, j, n}); err != nil {
			return err
		}
	}
	return nil
}

// sample is a float, or the histogram that is not nil.
type sample struct {
	t, start int64
	v        float64
	h        *histogram.Histogram
	fh       *histogram.FloatHistogram
}

func (x *sample) counts() series.Counts {
	if x.h != nil || x.fh != nil {
		return series.Counts{Histograms: 1}
	}
	return series.Counts{Samples: 1}
}

// append hands one sample over; at is where it stands in the delivery.
func (a *appender) append(p *place, x sample, at progress) error {
	if x.t > a.deadline {
		a.refuse(tooFarInFuture, x.counts(), x.t, errFuture)
		return nil
	}
	if p.gen == a.gen && x.t <= p.last {
		if err := a.commit(at); err != nil {
			return err
		}
	}
	if a.app == nil {
		a.app = a.b.into.AppenderV2(context.Background())
	}
	err := a.put(p, &x)
	if err == nil {
		p.gen, p.last = a.gen, x.t
		if x.start != 0 && !a.b.starts {
			a.b.metrics.startsDropped.Inc()
		}
		return nil
	}
	r, ok := verdict(err)
	if !ok {
		return fmt.Errorf("append to the embedded store: %w", err)
	}
	if r == duplicateTimestamp && x.h == nil && x.fh == nil && value.IsStaleNaN(x.v) && a.staleAlready(p, x) {
		return nil
	}
	a.refuse(r, x.counts(), x.t, err)
	return nil
}

// put appends by the place's reference, and by the labels where the store does not
// know that.
func (a *appender) put(p *place, x *sample) error {
	if p.ref != 0 {
		ref, err := a.app.Append(p.ref, labels.EmptyLabels(), x.start, x.t, x.v, x.h, x.fh, storage.AOptions{})
		if err == nil {
			p.ref = ref
			return nil
		}
		if !errors.Is(err, tsdb.ErrInvalidSample) {
			return err
		}
		// The series has left the head; the store asked for labels and got none.
	}
	ls, ok := a.labels()
	if !ok {
		return errNoLabels
	}
	a.b.metrics.lookups.Inc()
	ref, err := a.app.Append(0, ls, x.start, x.t, x.v, x.h, x.fh, storage.AOptions{})
	if err == nil {
		p.ref = ref
	}
	return err
}

// staleAlready reports whether the stale marker x is in the store already: a series of
// histograms keeps it as a histogram, which the store takes for another value.
func (a *appender) staleAlready(p *place, x sample) bool {
	mark := math.Float64frombits(value.StaleNaN)
	for _, y := range []sample{
		{t: x.t, start: x.start, h: &histogram.Histogram{Sum: mark}},
		{t: x.t, start: x.start, fh: &histogram.FloatHistogram{Sum: mark}},
	} {
		if a.put(p, &y) == nil {
			p.gen, p.last = a.gen, x.t
			return true
		}
	}
	return false
}

// place returns the place of the series at hand, and nil when it needs labels and has
// none that name a series.
func (a *appender) place() *place {
	if ids := a.part.batch.IDs; ids != nil && !ids[a.series].Shared() {
		return a.b.refs.at(ids[a.series])
	}
	ls, ok := a.labels()
	if !ok {
		return nil
	}
	h := ls.Hash()
	p := a.loose[h]
	if p == nil {
		if a.loose == nil {
			a.loose = make(map[uint64]*place)
		}
		p = &place{}
		a.loose[h] = p
	}
	p.ref = 0 // it may be another series' with the same hash
	return p
}

// labels builds the labels of the series at hand. They share nothing with the request.
// ok is false when they name no series.
func (a *appender) labels() (ls labels.Labels, ok bool) {
	if !a.ls.IsEmpty() {
		return a.ls, true
	}
	var err error
	if a.spelled, err = a.part.body.msg.AppendLabels(a.spelled[:0], a.series); err != nil {
		return labels.EmptyLabels(), false
	}
	canonical, _, reason := remotewrite.CanonicalLabels(a.spelled)
	if reason != "" || len(canonical) == 0 {
		return labels.EmptyLabels(), false
	}
	a.ls = a.build(canonical)
	return a.ls, true
}

// build turns sorted labels into the store's form.
func (a *appender) build(ls []remotewrite.Label) labels.Labels {
	a.builder.Reset()
	for _, l := range ls {
		a.builder.Add(string(l.Name), string(l.Value))
	}
	return a.builder.Labels()
}

// commit writes the open group to the store's log and into its memory; at is the first
// sample behind it.
func (a *appender) commit(at progress) error {
	if a.app != nil {
		app := a.app
		a.app = nil
		if err := app.Commit(); err != nil {
			a.b.metrics.commitFailures.Inc()
			return fmt.Errorf("append to the embedded store %s: %w", a.b.dir, err)
		}
		a.b.metrics.commits.Inc()
	}
	a.renumber()
	a.d.samples = at
	a.settle()
	return nil
}

// settle makes what was refused since the last commit final.
func (a *appender) settle() {
	for i := range a.d.parts {
		p := &a.d.parts[i]
		p.refused.add(&p.pending)
		p.pending = refusals{}
	}
}

// rollback drops the open group and what was refused with it.
func (a *appender) rollback() {
	if a.app != nil {
		// The group is gone either way; the error that led here is the one to tell.
		_ = a.app.Rollback()
		a.app = nil
	}
	for i := range a.d.parts {
		a.d.parts[i].pending = refusals{}
	}
}

// refuse counts and, now and then, logs what the store refused of the series at hand.
func (a *appender) refuse(r reason, c series.Counts, t int64, err error) {
	a.part.pending[r].Add(c)
	a.b.complain.about(r, t, err, func() string {
		ls, ok := a.labels()
		if !ok {
			return "?"
		}
		return ls.String()
	})
}

var (
	errNoLabels = fmt.Errorf("the labels name no series: %w", tsdb.ErrInvalidSample)
	errFuture   = errors.New("the timestamp is more than ten minutes ahead of this machine's clock")
)
