package exportertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"

	"github.com/klauspost/compress/s2"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// Arrival is one sample, histogram or exemplar that reached a Backend.
type Arrival struct {
	Series string // its labels
	Kind   string // sample, histogram or exemplar
	Time   int64
	Value  float64 // of a histogram its count
}

// Attempt is one call of Send.
type Attempt struct {
	Number   int       // of the call at this Backend, from 0
	Retry    int       // of the call for this delivery, from 0
	Parts    int       // of the parcel
	Arrivals []Arrival // in the order of the parcel
	Counts   series.Counts

	backend *Backend
}

// Script says what becomes of an attempt. It is called from several goroutines.
type Script func(ctx context.Context, a *Attempt) (exporter.Receipt, error)

// Backend is a storage in memory that does what its Script says. It watches how it is
// used: Violations tells what a lane must never do.
type Backend struct {
	// ProbeFunc answers Probe; nil answers that all is well.
	ProbeFunc func(context.Context) error

	mu         sync.Mutex
	script     Script
	attempts   int
	probes     int
	open       map[*delivery]bool
	busy       map[string]int // deliveries that hold the series
	peak       int
	sent       []series.Counts
	stored     map[string][]Arrival // by series, as written
	seen       map[Arrival]int
	violations []string
}

var _ exporter.Backend = (*Backend)(nil)

// NewBackend returns a Backend. A nil script writes everything.
func NewBackend(script Script) *Backend {
	b := &Backend{
		open:   map[*delivery]bool{},
		busy:   map[string]int{},
		stored: map[string][]Arrival{},
		seen:   map[Arrival]int{},
	}
	b.Play(script)
	return b
}

// Play replaces the script from the next attempt on.
func (b *Backend) Play(script Script) {
	if script == nil {
		script = func(_ context.Context, a *Attempt) (exporter.Receipt, error) {
			a.Write()
			return exporter.Receipt{}, nil
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.script = script
}

type delivery struct {
	backend  *Backend
	tallies  []exporter.Tally
	arrivals []Arrival
	counts   series.Counts
	series   map[string]bool
	sending  bool
}

// Prepare implements exporter.Backend.
func (b *Backend) Prepare(p *exporter.Parcel) (exporter.Delivery, error) {
	d := &delivery{backend: b, tallies: make([]exporter.Tally, len(p.Parts)), series: map[string]bool{}}
	for k := range p.Parts {
		if err := d.add(k, &p.Parts[k]); err != nil {
			return nil, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open[d] = true
	b.peak = max(b.peak, len(b.open))
	for s := range d.series {
		if b.busy[s]++; b.busy[s] > 1 {
			b.violate("series %s is in two parcels in flight", s)
		}
	}
	return d, nil
}

func (d *delivery) add(k int, p *exporter.Part) error {
	plain, err := s2.Decode(nil, p.Batch.Body)
	if err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	var m remotewrite.Message
	if err := m.Scan(p.Batch.Version, plain); err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	for i := range m.Series {
		if !p.Take.Has(i) {
			continue
		}
		ls, err := m.AppendLabels(nil, i)
		if err != nil {
			return err
		}
		name := labelsOf(ls).String()
		d.series[name] = true
		for _, s := range m.AppendSamples(nil, i) {
			d.arrivals = append(d.arrivals, Arrival{name, "sample", s.Time, s.Value})
			d.tallies[k].Sent.Samples++
		}
		for _, h := range m.AppendHistograms(nil, i) {
			d.arrivals = append(d.arrivals, Arrival{name, "histogram", h.Time, 0})
			d.tallies[k].Sent.Histograms++
		}
		for _, e := range m.AppendExemplars(nil, i) {
			d.arrivals = append(d.arrivals, Arrival{name, "exemplar", e.Time, e.Value})
			d.tallies[k].Sent.Exemplars++
		}
	}
	d.counts.Add(d.tallies[k].Sent)
	return nil
}

// Tally implements exporter.Delivery.
func (d *delivery) Tally(part int) exporter.Tally { return d.tallies[part] }

// Send implements exporter.Delivery.
func (d *delivery) Send(ctx context.Context, attempt int) (exporter.Receipt, error) {
	b := d.backend
	b.mu.Lock()
	a := &Attempt{
		Number: b.attempts, Retry: attempt, Parts: len(d.tallies), Arrivals: d.arrivals, Counts: d.counts, backend: b,
	}
	b.attempts++
	b.sent = append(b.sent, d.counts)
	switch {
	case d.sending:
		b.violate("two attempts with one delivery at a time")
	case !b.open[d]:
		b.violate("attempt with a delivery that is closed")
	}
	d.sending = true
	script := b.script
	b.mu.Unlock()
	receipt, err := script(ctx, a)
	b.mu.Lock()
	d.sending = false
	b.mu.Unlock()
	return receipt, err
}

// Close implements exporter.Delivery.
func (d *delivery) Close() {
	b := d.backend
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open[d] {
		b.violate("delivery closed twice")
		return
	}
	delete(b.open, d)
	for s := range d.series {
		if b.busy[s]--; b.busy[s] == 0 {
			delete(b.busy, s)
		}
	}
}

// Probe implements exporter.Backend.
func (b *Backend) Probe(ctx context.Context) error {
	b.mu.Lock()
	b.probes++
	b.mu.Unlock()
	if b.ProbeFunc == nil {
		return nil
	}
	return b.ProbeFunc(ctx)
}

// Close implements exporter.Backend.
func (b *Backend) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.open) > 0 {
		return fmt.Errorf("%d deliveries were not closed", len(b.open))
	}
	return nil
}

func (b *Backend) violate(format string, args ...any) {
	b.violations = append(b.violations, fmt.Sprintf(format, args...))
}

// write stores an arrival; mu is held.
func (b *Backend) write(x Arrival) {
	key := x
	if math.IsNaN(key.Value) {
		key.Value = 0
	}
	b.seen[key]++
	if b.seen[key] > 1 {
		return
	}
	if l := b.stored[x.Series]; x.Kind != "exemplar" && len(l) > 0 && l[len(l)-1].Time > x.Time {
		b.violate("series %s: %d arrives first behind %d", x.Series, x.Time, l[len(l)-1].Time)
	}
	if x.Kind != "exemplar" {
		b.stored[x.Series] = append(b.stored[x.Series], x)
	}
}

// Write stores all that the attempt holds. What was stored before is only counted again.
func (a *Attempt) Write() {
	a.backend.mu.Lock()
	defer a.backend.mu.Unlock()
	for _, x := range a.Arrivals {
		a.backend.write(x)
	}
}

// ErrOutOfOrder is what a Strict storage says.
var ErrOutOfOrder = errors.New("out of order sample")

// Strict is a storage that wants strict order in each series, as Prometheus without an
// out-of-order window does, and never takes the series that bad tells; nil means none.
// Where it refuses something it answers 400. With atomic set it then writes nothing of the
// attempt, else everything that it does not refuse.
func Strict(bad func(series string) bool, atomic bool) Script {
	return func(_ context.Context, a *Attempt) (exporter.Receipt, error) {
		b := a.backend
		b.mu.Lock()
		defer b.mu.Unlock()
		last := map[string]Arrival{}
		var good []Arrival
		refused := map[string]bool{}
		for _, x := range a.Arrivals {
			y, ok := last[x.Series]
			if !ok {
				if l := b.stored[x.Series]; len(l) > 0 {
					y, ok = l[len(l)-1], true
				}
			}
			switch {
			case bad != nil && bad(x.Series), x.Kind != "exemplar" && ok && (y.Time > x.Time || y.Time == x.Time && y != x):
				refused[x.Series] = true
				continue
			case x.Kind != "exemplar":
				last[x.Series] = x
			}
			good = append(good, x)
		}
		if len(refused) == 0 || !atomic {
			for _, x := range good {
				b.write(x)
			}
		}
		if len(refused) == 0 {
			return exporter.Receipt{}, nil
		}
		names := slices.Sorted(maps.Keys(refused))
		return exporter.Receipt{}, &exporter.Error{Class: exporter.Rejected, Status: 400, Message: "refused: " + names[0]}
	}
}

// Violations lists what the user of the Backend did wrong.
func (b *Backend) Violations() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.violations)
}

// Stored returns what was written of a series, each sample and histogram once.
func (b *Backend) Stored(series string) []Arrival {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.stored[series])
}

// Count is how many different samples and histograms were written, and how often any of
// them came again.
func (b *Backend) Count() (different, repeats int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for x, n := range b.seen {
		if x.Kind != "exemplar" {
			different++
			repeats += n - 1
		}
	}
	return different, repeats
}

// Attempts is how many attempts were made.
func (b *Backend) Attempts() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.attempts
}

// Probes is how often Probe was called.
func (b *Backend) Probes() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.probes
}

// Sent is what each attempt held.
func (b *Backend) Sent() []series.Counts {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.sent)
}

// Peak is the largest number of deliveries that were open at a time.
func (b *Backend) Peak() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.peak
}
