// Package ownmetrics turns the gateway's own metrics into remote-write requests, so that
// they travel through its own pipeline like everybody else's.
package ownmetrics

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// Options is what a Writer is made of.
type Options struct {
	Gatherer prometheus.Gatherer
	// Job and Instance are the labels that tell these series from those of others. Without
	// an Instance the series are of no process: they have no such label, there is no up
	// among them, and their timestamps are multiples of the interval, so that several
	// processes write the same. Only the first after Active became true is of that time,
	// so that it is newer than all that another process wrote before.
	Job, Instance string
	Interval      time.Duration
	// Active says whether there is something to write; nil is always. When there is not,
	// what was written before is forgotten, and not marked as ended.
	Active func() bool
	// Ends: when Run ends and Active is still true, all series are marked as ended.
	Ends bool
	// Write takes one RW 2.0 request, a snappy block that is its own from then on.
	Write  func(ctx context.Context, body []byte) error
	Logger *slog.Logger
	Now    func() time.Time
}

// Writer gathers at an interval. A series that was there and is not any more gets a
// staleness marker.
type Writer struct {
	o     Options
	alive map[string]labels.Labels
	began bool      // Active was true at the last look
	last  time.Time // the timestamp of the last request
}

// New returns a Writer that does nothing before Run.
func New(o Options) *Writer { return &Writer{o: o, alive: map[string]labels.Labels{}} }

// looks is how often per interval a Writer without an Instance looks whether it is to write.
const looks = 10

// endLimit bounds the writing of what marks the end of the series.
const endLimit = time.Second

// Run writes at once and then at each interval until ctx ends.
func (w *Writer) Run(ctx context.Context) error {
	every := w.o.Interval
	if w.o.Instance == "" {
		every /= looks
	}
	t := time.NewTicker(every)
	defer t.Stop()
	failing := false
	for {
		wrote, err := w.write(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil && !failing:
			w.o.Logger.Warn("Own metrics cannot be written, or not all of them", "err", err)
		case err == nil && wrote && failing:
			w.o.Logger.Info("Own metrics are written again")
		}
		if wrote {
			failing = err != nil
		}
		select {
		case <-ctx.Done():
			return w.end(ctx)
		case <-t.C:
		}
	}
}

// active reports whether there is something to write, and forgets what was written if there
// is not.
func (w *Writer) active() bool {
	if w.o.Active == nil || w.o.Active() {
		return true
	}
	w.alive, w.began = map[string]labels.Labels{}, false
	return false
}

// due returns the timestamp of the request that is to be written now, if one is.
func (w *Writer) due() (time.Time, bool) {
	now := w.o.Now()
	if w.o.Instance != "" || !w.began {
		return now, true
	}
	grid := now.Truncate(w.o.Interval)
	return grid, grid.After(w.last)
}

// write writes what can be gathered, if it is time to, and says whether it was. It returns
// an error also where that was not all.
func (w *Writer) write(ctx context.Context) (wrote bool, err error) {
	if !w.active() {
		return false, nil
	}
	now, due := w.due()
	if !due {
		return false, nil
	}
	families, failed := w.o.Gatherer.Gather()
	if !w.active() { // it ended meanwhile, and so did what was gathered
		return false, nil
	}
	w.began, w.last = true, now
	if failed != nil {
		failed = fmt.Errorf("gathering own metrics: %w", failed)
		if len(families) == 0 {
			return true, failed
		}
	}
	r := w.request(now)
	if w.o.Instance != "" {
		r.up()
	}
	for _, f := range families {
		r.family(f)
	}
	if err := r.write(ctx); err != nil {
		return true, err
	}
	return true, failed
}

// end marks all series as ended, if they are to be.
func (w *Writer) end(ctx context.Context) error {
	if !w.o.Ends || len(w.alive) == 0 || !w.active() {
		return nil
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
	defer cancel()
	now := w.o.Now()
	if !now.After(w.last.Add(time.Millisecond)) {
		now = w.last.Add(time.Millisecond) // a sample of the same time would be refused
	}
	if err := w.request(now).write(limited); err != nil {
		w.o.Logger.Warn("The end of the series cannot be marked", "err", err)
	}
	return nil
}

// request is one request in the making.
type request struct {
	w       *Writer
	now     int64
	symbols writev2.SymbolsTable
	req     writev2.Request
	alive   map[string]labels.Labels
}

func (w *Writer) request(now time.Time) *request {
	return &request{w: w, now: now.UnixMilli(), symbols: writev2.NewSymbolTable(), alive: map[string]labels.Labels{}}
}

// write writes the request, with the ends of series that are not in it.
func (r *request) write(ctx context.Context) error {
	r.stale()
	if len(r.req.Timeseries) == 0 {
		return nil
	}
	r.req.Symbols = r.symbols.Symbols()
	plain, err := r.req.Marshal()
	if err != nil {
		return fmt.Errorf("own metrics: %w", err)
	}
	if err := r.w.o.Write(ctx, s2.EncodeSnappy(nil, plain)); err != nil {
		return err
	}
	r.w.alive = r.alive
	return nil
}

// up is 1: a gateway that is not up writes nothing.
func (r *request) up() {
	md := writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_GAUGE, HelpRef: r.symbols.Symbolize("1 as long as the gateway writes its own metrics.")}
	r.add("up", nil, 1, md)
}

func (r *request) family(f *dto.MetricFamily) {
	md := writev2.Metadata{Type: metricType(f.GetType()), HelpRef: r.symbols.Symbolize(f.GetHelp()), UnitRef: r.symbols.Symbolize(f.GetUnit())}
	name := f.GetName()
	for _, m := range f.GetMetric() {
		ls := m.GetLabel()
		switch {
		case m.GetCounter() != nil:
			r.add(name, ls, m.GetCounter().GetValue(), md)
		case m.GetGauge() != nil:
			r.add(name, ls, m.GetGauge().GetValue(), md)
		case m.GetUntyped() != nil:
			r.add(name, ls, m.GetUntyped().GetValue(), md)
		case m.GetSummary() != nil:
			s := m.GetSummary()
			for _, q := range s.GetQuantile() {
				r.add(name, ls, q.GetValue(), md, labels.Label{Name: "quantile", Value: labels.FormatOpenMetricsFloat(q.GetQuantile())})
			}
			r.add(name+"_sum", ls, s.GetSampleSum(), md)
			r.add(name+"_count", ls, float64(s.GetSampleCount()), md)
		case m.GetHistogram() != nil:
			r.histogram(name, ls, m.GetHistogram(), md)
		}
	}
}

// histogram adds the classic form: what every backend takes.
func (r *request) histogram(name string, ls []*dto.LabelPair, h *dto.Histogram, md writev2.Metadata) {
	inf := false
	for _, b := range h.GetBucket() {
		inf = inf || math.IsInf(b.GetUpperBound(), 1)
		r.add(name+"_bucket", ls, float64(b.GetCumulativeCount()), md, labels.Label{Name: "le", Value: labels.FormatOpenMetricsFloat(b.GetUpperBound())})
	}
	if !inf {
		r.add(name+"_bucket", ls, float64(h.GetSampleCount()), md, labels.Label{Name: "le", Value: "+Inf"})
	}
	r.add(name+"_sum", ls, h.GetSampleSum(), md)
	r.add(name+"_count", ls, float64(h.GetSampleCount()), md)
}

func (r *request) add(name string, pairs []*dto.LabelPair, v float64, md writev2.Metadata, more ...labels.Label) {
	ls := append(more, labels.Label{Name: model.MetricNameLabel, Value: name}, labels.Label{Name: "job", Value: r.w.o.Job})
	if r.w.o.Instance != "" {
		ls = append(ls, labels.Label{Name: "instance", Value: r.w.o.Instance})
	}
	for _, p := range pairs {
		if p.GetValue() != "" {
			ls = append(ls, labels.Label{Name: p.GetName(), Value: p.GetValue()})
		}
	}
	slices.SortFunc(ls, func(a, b labels.Label) int { return strings.Compare(a.Name, b.Name) })
	set := labels.New(ls...)
	r.alive[set.String()] = set
	r.append(set, v, md)
}

func (r *request) append(ls labels.Labels, v float64, md writev2.Metadata) {
	r.req.Timeseries = append(r.req.Timeseries, writev2.TimeSeries{
		LabelsRefs: r.symbols.SymbolizeLabels(ls, nil),
		Samples:    []writev2.Sample{{Value: v, Timestamp: r.now}},
		Metadata:   md,
	})
}

// stale marks the end of the series that the last request had and this one has not.
func (r *request) stale() {
	for key, ls := range r.w.alive {
		if _, ok := r.alive[key]; !ok {
			r.append(ls, math.Float64frombits(value.StaleNaN), writev2.Metadata{})
		}
	}
}

func metricType(t dto.MetricType) writev2.Metadata_MetricType {
	switch t {
	case dto.MetricType_COUNTER:
		return writev2.Metadata_METRIC_TYPE_COUNTER
	case dto.MetricType_GAUGE:
		return writev2.Metadata_METRIC_TYPE_GAUGE
	case dto.MetricType_SUMMARY:
		return writev2.Metadata_METRIC_TYPE_SUMMARY
	case dto.MetricType_HISTOGRAM:
		return writev2.Metadata_METRIC_TYPE_HISTOGRAM
	case dto.MetricType_GAUGE_HISTOGRAM:
		return writev2.Metadata_METRIC_TYPE_GAUGEHISTOGRAM
	}
	return writev2.Metadata_METRIC_TYPE_UNSPECIFIED
}
