package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/sampler"
)

// Bounds of what a tap shows and costs.
const (
	maxTaps     = 4                      // at the same time, of all backends
	tapEvery    = 100 * time.Millisecond // between two batches that one looks at
	tapSeries   = 10                     // series of one batch that one shows
	tapExamined = 20_000                 // series of one batch that one compares with its selector
	tapWait     = 5 * time.Second        // for a client that takes nothing
	maxTapLimit = 1_000_000
)

// Tapped is a series with its last sample in a request that a backend has taken: one line
// of the answer of GET /api/v1/tap.
type Tapped struct {
	Backend string `json:"backend"`
	Series  string `json:"series"`
	// Time is that of the sample, in Unix milliseconds.
	Time int64 `json:"timestamp_ms"`
	// Value is the sample's, as text; "histogram" for a native histogram.
	Value string `json:"value"`
}

// taps are the taps of the backends. It costs a lane one load of an atomic value while
// nobody looks.
type taps struct {
	mu   sync.Mutex
	open int
	ends chan struct{} // closed when the gateway stops
	by   map[string]*tap
}

func newTaps() *taps { return &taps{ends: make(chan struct{}), by: map[string]*tap{}} }

// of is the tap of a backend, which outlives its lanes.
func (t *taps) of(backend string) *tap {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by[backend] == nil {
		t.by[backend] = &tap{}
	}
	return t.by[backend]
}

func (t *taps) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open >= maxTaps {
		return false
	}
	t.open++
	return true
}

func (t *taps) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open--
}

// tap hands batches of one backend to those who look.
type tap struct {
	listeners atomic.Pointer[[]*tapListener]
	mu        sync.Mutex // held by those who come and go
}

// tapListener is one who looks. It gets a batch at a time, and none while it is busy.
type tapListener struct {
	due  atomic.Int64 // Unix ns of the next batch
	next chan exporter.Part
}

// Sent implements exporter.Tap.
func (t *tap) Sent(p *exporter.Parcel) {
	listeners := t.listeners.Load()
	if listeners == nil || len(p.Parts) == 0 {
		return
	}
	now := time.Now()
	for _, l := range *listeners {
		due := l.due.Load()
		if now.UnixNano() < due || !l.due.CompareAndSwap(due, now.Add(tapEvery).UnixNano()) {
			continue
		}
		part := p.Parts[0]
		part.Take = slices.Clone(part.Take)
		part.Batch.Retain()
		select {
		case l.next <- part:
		default:
			part.Batch.Release()
		}
	}
}

func (t *tap) add(l *tapListener) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []*tapListener
	if old := t.listeners.Load(); old != nil {
		list = slices.Clone(*old)
	}
	list = append(list, l)
	t.listeners.Store(&list)
}

func (t *tap) remove(l *tapListener) {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(*t.listeners.Load()), func(o *tapListener) bool { return o == l })
	if len(list) == 0 {
		t.listeners.Store(nil)
		return
	}
	t.listeners.Store(&list)
}

// look is what a request asks to see.
type look struct {
	backend  string
	matchers []*labels.Matcher
	limit    int
}

// watchTap serves GET /api/v1/tap?backend=&match=&limit=: samples of what a backend takes,
// as server-sent events.
func (g *Gateway) watchTap(w http.ResponseWriter, r *http.Request) {
	wanted, err := g.lookOf(r)
	if err != nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()}) // the client went away
		return
	}
	if !g.taps.enter() {
		w.Header().Set("Retry-After", "10")
		http.Error(w, fmt.Sprintf("%d look already; that is all there is room for", maxTaps), http.StatusServiceUnavailable)
		return
	}
	defer g.taps.leave()
	l := &tapListener{next: make(chan exporter.Part, 1)}
	t := g.taps.of(wanted.backend)
	t.add(l)
	defer func() {
		t.remove(l)
		// A sender that still has the old list may hand over one more: the collector takes
		// its buffer then.
		select {
		case part := <-l.next:
			part.Batch.Release()
		default:
		}
	}()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	rc := http.NewResponseController(w)
	e := json.NewEncoder(w)
	if rc.Flush() != nil {
		return
	}
	var reader tapReader
	for shown := 0; shown < wanted.limit; {
		select {
		case <-r.Context().Done():
			return
		case <-g.taps.ends:
			return
		case part := <-l.next:
			list := reader.read(part, wanted, min(tapSeries, wanted.limit-shown))
			part.Batch.Release()
			// Not every server can limit a write; one that cannot is limited by its client.
			_ = rc.SetWriteDeadline(time.Now().Add(tapWait))
			for _, s := range list {
				_, _ = w.Write([]byte("data: "))
				_ = e.Encode(s)
				_, _ = w.Write([]byte("\n"))
			}
			if rc.Flush() != nil {
				return
			}
			shown += len(list)
		}
	}
}

func (g *Gateway) lookOf(r *http.Request) (look, error) {
	wanted := look{backend: r.FormValue("backend"), limit: maxTapLimit}
	var names []string
	for _, l := range *g.lines.Load() {
		names = append(names, l.config.Name)
	}
	if wanted.backend == "" && len(names) == 1 {
		wanted.backend = names[0]
	}
	if !slices.Contains(names, wanted.backend) {
		return wanted, fmt.Errorf("no backend %q; there are %q", wanted.backend, names)
	}
	if text := r.FormValue("match"); text != "" {
		s, err := sampler.ParseSelector(text)
		if err != nil {
			return wanted, fmt.Errorf("match: %w", err)
		}
		wanted.matchers = s.Matchers()
	}
	if text := r.FormValue("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxTapLimit {
			return wanted, errors.New("limit: must be a whole number from 1 to " + strconv.Itoa(maxTapLimit))
		}
		wanted.limit = n
	}
	return wanted, nil
}

// tapReader reads series out of batches.
type tapReader struct {
	plain   []byte
	msg     remotewrite.Message
	labels  []remotewrite.Label
	samples []remotewrite.Sample
	builder labels.ScratchBuilder
}

// read returns up to most series of what was taken, spread over it. The batch was read
// before, by who sent it: what cannot be read is left out.
func (d *tapReader) read(part exporter.Part, wanted look, most int) []Tapped {
	d.plain = slices.Grow(d.plain[:0], part.Batch.Decoded)[:part.Batch.Decoded]
	plain, err := s2.Decode(d.plain, part.Batch.Body)
	if err != nil || d.msg.Index(part.Batch.Version, plain, 0) != nil {
		return nil
	}
	// Each batch is begun at another place, so that not always the first of a scrape are shown.
	n := len(d.msg.Series)
	start := int(uint64(part.Batch.Received) * 2654435761 % uint64(max(n, 1)))
	var list []Tapped
	for k := 0; k < min(n, tapExamined) && len(list) < most; k++ {
		i := (start + k) % n
		if !part.Take.Has(i) {
			continue
		}
		if s, ok := d.series(i, wanted); ok {
			list = append(list, s)
		}
	}
	return list
}

func (d *tapReader) series(i int, wanted look) (Tapped, bool) {
	var err error
	if d.labels, err = d.msg.AppendLabels(d.labels[:0], i); err != nil {
		return Tapped{}, false
	}
	d.builder.Reset()
	for _, l := range d.labels {
		d.builder.Add(string(l.Name), string(l.Value))
	}
	d.builder.Sort()
	of := d.builder.Labels()
	for _, m := range wanted.matchers {
		if !m.Matches(of.Get(m.Name)) {
			return Tapped{}, false
		}
	}
	s := Tapped{Backend: wanted.backend, Series: of.String(), Time: d.msg.Series[i].MaxTime, Value: "histogram"}
	if d.samples = d.msg.AppendSamples(d.samples[:0], i); len(d.samples) > 0 {
		last := d.samples[len(d.samples)-1]
		s.Time, s.Value = last.Time, valueText(last.Value)
	}
	return s, true
}

// valueText is a sample's value; a stale marker is told from other NaN.
func valueText(v float64) string {
	if math.Float64bits(v) == staleMarker {
		return "stale"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// staleMarker are the bits of the value that says that a series has ended.
const staleMarker = 0x7ff0000000000002

var _ exporter.Tap = (*tap)(nil)
