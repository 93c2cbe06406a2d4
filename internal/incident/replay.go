package incident

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sluice-metrics/sluice/internal/capture"
	"github.com/sluice-metrics/sluice/internal/fidelity"
	"github.com/sluice-metrics/sluice/sampler"
	"github.com/sluice-metrics/sluice/sampler/control"
)

// Options is what Run needs.
type Options struct {
	// Capture is read several times.
	Capture io.ReaderAt
	Size    int64 // of it, bytes
	// Incident is as Parse gives it.
	Incident *Incident
	// Sampling is Incident.Sampling, resolved.
	Sampling *sampler.Resolved
	// Queries and Alerts are asked of what the backend got; without any of them nothing
	// is.
	Queries []fidelity.Query
	Alerts  []fidelity.Alert
	// Dir is where the stores of the comparison lie while Run runs; empty means the
	// system's place for temporary files.
	Dir string
}

const (
	// sensing is how many ticks the signals of a lane are late.
	sensing = 1
	// pressureEvery is how often the sampler corrects its pressure.
	pressureEvery = 10 * time.Second
)

// Run plays the incident.
func Run(ctx context.Context, o Options) (*Report, error) {
	s, err := survey(ctx, o)
	if err != nil {
		return nil, err
	}
	r := &replay{o: o, load: s}
	if err := r.play(ctx); err != nil {
		return nil, err
	}
	if len(o.Queries)+len(o.Alerts) == 0 {
		return r.report, nil
	}
	return r.report, r.compare(ctx)
}

// load is the part of the recording that is played.
type load struct {
	from, size int64 // bytes of the capture
	begin      int64 // time of receipt of the first request, Unix ms
	arrivals   []Arrival
	mean       float64 // samples a second
	lead       time.Duration
	length     time.Duration // of what is played, the lead included
}

// survey finds the part: what is before the incident as long as queries look back, and the
// incident.
func survey(ctx context.Context, o Options) (*load, error) {
	in := capture.NewReader(io.NewSectionReader(o.Capture, 0, o.Size))
	l := &load{lead: fidelity.Warmup}
	skip := time.Duration(o.Incident.Start) - fidelity.Warmup
	length := fidelity.Warmup + time.Duration(o.Incident.Duration)
	var first, at int64
	var silence time.Duration // the longest between two requests
	samples := 0
	l.length = length
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("read the capture: %w", context.Cause(ctx))
		}
		req, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		record := int64(len(capture.AppendRecord(nil, 1, nil)) + len(req.Body))
		at += record
		if first == 0 {
			first = req.Received
		}
		since := time.Duration(req.Received-first) * time.Millisecond
		if since < skip {
			l.from = at
			continue
		}
		if len(l.arrivals) == 0 {
			l.begin = req.Received
		}
		since = max(0, time.Duration(req.Received-l.begin)*time.Millisecond)
		if since >= length {
			break
		}
		if n := len(l.arrivals); n > 0 {
			since = max(since, l.arrivals[n-1].At)
			silence = max(silence, since-l.arrivals[n-1].At)
		}
		n := samplesOf(req.Message)
		l.arrivals = append(l.arrivals, Arrival{At: since, Samples: n})
		samples += n
		l.size = at - l.from
	}
	if n := len(l.arrivals); n == 0 || l.arrivals[n-1].At <= l.lead {
		return nil, fmt.Errorf("the capture ends before the incident starts, %v after its first request", time.Duration(o.Incident.Start))
	}
	if last := l.arrivals[len(l.arrivals)-1].At; length-last > silence+Tick {
		l.length = last.Truncate(Tick) + Tick
	}
	l.mean = float64(samples) / l.arrivals[len(l.arrivals)-1].At.Seconds()
	return l, nil
}

func (l *load) reader(c io.ReaderAt) *io.SectionReader {
	return io.NewSectionReader(c, l.from, l.size)
}

// replay is an incident under way.
type replay struct {
	o       Options
	load    *load
	thinner *thinner
	feed    *feed
	report  *Report
	would   float64  // samples that would have been withheld in the tick at hand, in shadow mode
	ends    []uint64 // samples up to the end of each arrival that the lane came to
	failed  error    // of reading the capture
}

// at is the time of the incident at a time of the model.
func (r *replay) at(t time.Duration) time.Duration { return t - r.load.lead }

func (r *replay) factor(t time.Duration) float64 {
	return r.o.Incident.factor(max(0, r.at(t)))
}

func (r *replay) conditions(t time.Duration) Conditions {
	if r.at(t) < 0 {
		// Before the incident nothing is wrong: what is compared begins with it.
		return Conditions{Capacity: 1000 * r.load.mean, Latency: time.Duration(r.o.Incident.Backend.Latency)}
	}
	return r.o.Incident.Backend.conditions(r.at(t), r.load.mean)
}

func (r *replay) model(t Thresholds) *Model {
	b := &r.o.Incident.Backend
	c := &r.o.Sampling.Config
	shadow := c.Mode == sampler.ModeShadow
	fresh := time.Duration(0)
	// A gateway passes only what it gives back later.
	if b.OutOfOrder && c.Enabled && c.Backfill && !shadow {
		fresh = time.Duration(c.FreshFirstAfter)
	}
	return NewModel(ModelOptions{
		Conditions: r.conditions,
		Thin: func(_ int, a Arrival) float64 {
			all, sent, err := r.feed.next()
			r.failed = errors.Join(r.failed, err)
			r.ends = append(r.ends, r.thinner.seen)
			if shadow {
				r.would += float64(all-sent) * r.factor(a.At)
				sent = all
			}
			return float64(sent) * r.factor(a.At)
		},
		Pass: func(int, Arrival) {
			r.failed = errors.Join(r.failed, r.feed.pass())
			r.ends = append(r.ends, r.thinner.seen)
		},
		FreshFirst: fresh,
		Thresholds: t,
		Shards:     b.Shards,
		Parcel:     b.SamplesPerSend,
		Sensing:    sensing,
	})
}

func thresholdsOf(t sampler.Thresholds) Thresholds {
	return Thresholds{
		Batches:    float64(t.QueueLength),
		Age:        time.Duration(t.QueueAgeSeconds * float64(time.Second)),
		Latency:    time.Duration(t.WriteLatencyMS) * time.Millisecond,
		ErrorShare: t.ErrorShare,
	}
}

// play lets the lane take the load.
func (r *replay) play(ctx context.Context) (err error) {
	if r.thinner, err = newThinner(r.o.Sampling, r.o.Incident.Backend.OutOfOrder); err != nil {
		return err
	}
	r.feed = newFeed(capture.NewReader(r.load.reader(r.o.Capture)), r.thinner)
	c := r.o.Sampling.Config
	t := thresholdsOf(c.Thresholds)
	model := r.model(t)
	settings := control.Config{BaseRate: c.BaseRate, MinRate: c.MinRate, OnUnknown: control.OnUnknown(c.Thresholds.OnUnknown)}
	var state control.State
	rate := 1.0
	if c.Enabled && c.BaseRate < 1 {
		rate = c.BaseRate
		r.thinner.tell(step{rate: rate})
	}
	r.report = newReport(r.o.Incident, c)
	r.report.Warnings = r.warnings()
	next := 0
	end := r.load.length
	for now := time.Duration(0); now < end; now += Tick {
		if ctx.Err() != nil {
			return fmt.Errorf("play the incident: %w", context.Cause(ctx))
		}
		from := next
		for next < len(r.load.arrivals) && r.load.arrivals[next].At < now+Tick {
			next++
		}
		truth, seen := model.Advance(r.scaled(from, next))
		if r.failed != nil {
			return fmt.Errorf("read the capture: %w", r.failed)
		}
		var d control.Decision
		state, d = control.Step(&settings, state, seen.Inputs(t), Tick)
		r.report.add(r.at(truth.At), moment{truth, t, rate, r.conditions(now), d, r.would})
		r.would = 0
		if c.Enabled && d.Rate != rate {
			rate = d.Rate
			r.thinner.tell(step{rate: rate})
		}
		if c.Enabled && c.Mode != sampler.ModeShadow {
			model.SetMaxInFlight(d.MaxInFlight)
		}
		if (now+Tick)%pressureEvery == 0 {
			r.thinner.tell(step{tick: r.load.begin + (now + Tick).Milliseconds()})
		}
	}
	r.thinner.record.end = 0
	if n := model.Settled(); n > 0 {
		r.thinner.record.end = r.ends[n-1]
	}
	r.report.finish()
	return nil
}

// warnings are about what is not as the incident file suggests.
func (r *replay) warnings() []string {
	var list []string
	i, c := r.o.Incident, &r.o.Sampling.Config
	if played := r.at(r.load.length); played < time.Duration(i.Duration) {
		list = append(list, fmt.Sprintf("The capture ends %s after the start of the incident, which is to last %s: it is played up to there.", played, i.Duration))
	}
	if i.Backend.OutOfOrder && c.Enabled && !c.Backfill {
		list = append(list, "The backend takes samples out of order, but the newest go first only with adaptive_sampling.backfill: true.")
	}
	return list
}

// scaled are the arrivals as they are under the load of the incident.
func (r *replay) scaled(from, to int) []Arrival {
	var out []Arrival
	for _, a := range r.load.arrivals[from:to] {
		a.Samples = int(float64(a.Samples) * r.factor(a.At))
		out = append(out, a)
	}
	return out
}

// compare asks the backend and one that got everything.
func (r *replay) compare(ctx context.Context) error {
	report, err := fidelity.Run(ctx, fidelity.Options{
		Capture: r.load.reader(r.o.Capture),
		Queries: r.o.Queries,
		Alerts:  r.o.Alerts,
		Rates:   []float64{1},
		Methods: []fidelity.Method{fidelity.Frames},
		NewThinner: func(fidelity.Method, float64) (fidelity.Thinner, error) {
			return r.thinner.again(r.o.Sampling, r.o.Incident.Backend.OutOfOrder)
		},
		Dir: r.o.Dir,
	})
	if err != nil {
		return fmt.Errorf("compare what the backend got: %w", err)
	}
	row := report.Rows[0]
	r.report.Fidelity = &Fidelity{
		Kept: row.Kept, Bytes: row.Bytes,
		P50: row.P50, P95: row.P95, P99: row.P99,
		Missing: row.Missing, Extra: row.Extra, Bad: row.Bad,
		AlertAgreement: row.AlertAgreement, PageAgreement: row.PageAgreement,
		Missed: row.Missed, False: row.False,
		DelayMean: row.DelayMean, DelayMax: row.DelayMax,
	}
	return nil
}
