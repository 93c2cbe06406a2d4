package web

import (
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/internal/testutil"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(cleaning{m}) }

// cleaning removes the built program after the tests.
type cleaning struct{ m *testing.M }

func (c cleaning) Run() int {
	defer testutil.RemoveSluice()
	return c.m.Run()
}

// world is a gateway that a page is shown of. Its time moves when it is told to.
type world struct {
	mu     sync.Mutex
	st     Status
	events *Events
	site   *Site
	reload error
}

// change changes the world.
func (w *world) change(f func(st *Status)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(&w.st)
}

// status is a copy of how the world is.
func (w *world) status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	st := w.st
	st.Lanes = append([]Lane{}, st.Lanes...)
	for i := range st.Lanes {
		if s := st.Lanes[i].Sampling; s != nil {
			c := *s
			c.Classes = append([]Class{}, s.Classes...)
			st.Lanes[i].Sampling = &c
		}
	}
	st.Received.Protocols = append([]Protocol{}, st.Received.Protocols...)
	st.Clusters = append([]Cluster{}, st.Clusters...)
	for i := range st.Clusters {
		st.Clusters[i].Targets = append([]Target{}, st.Clusters[i].Targets...)
	}
	return st
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// newWorld returns one with the name in it wherever somebody else chooses names.
func newWorld(t *testing.T, name string) *world {
	t.Helper()
	w := &world{events: NewEvents(), st: Status{
		At:      noon,
		Started: noon.Add(-time.Hour),
		Version: "1.0.0",
		Received: Intake{
			Samples:   1_000_000,
			Protocols: []Protocol{{Name: "remote write 1.0", Requests: 500}, {Name: "OTLP", Requests: 100}},
		},
		Journal: Disk{Bytes: 3 << 30, Limit: 10 << 30, Retained: 40 << 20},
		Series:  1234,
		Lanes: []Lane{
			{Name: "main" + name, Kind: "remote_write", State: "ok", Sampling: &Sampling{
				Rate: 1, Kept: 1,
				Classes: []Class{{Name: "critical"}, {Name: "low"}, {Name: "normal"}},
			}},
			{Name: "archive", Kind: "tsdb", State: "ok", Queries: true, Takes: []string{`{job="node` + name + `"}`}},
		},
		Clusters: []Cluster{{Name: "orders" + name, Kind: "postgres", Leading: true, Primaries: new(1), Primary: "db1:5432", Targets: []Target{
			{Name: "db1:5432", Role: "primary", Up: true, Waiting: new(3), LongestWaitSeconds: new(12.0), Waits: []Wait{
				{Session: 4101, Blockers: []uint64{3990}}, {Session: 4102, Blockers: []uint64{3990}}, {Session: 4110, Blockers: []uint64{4102}},
			}},
			{Name: "db2:5432", Role: "replica", Up: true, Replica: true, LagSeconds: new(0.4), Circuit: "closed", Weight: new(87)},
			{Name: "db3:5432", Role: "replica", Replica: true, Unknown: "unreachable", Circuit: "open", Weight: new(0), Error: "connection refused" + name},
		}}},
		Leases: []Lease{{Name: "probe/orders" + name, Kind: "etcd", Here: true, Holder: "127.0.0.1:9201", Token: 42, RemainingSeconds: 7.5}},
	}}
	logger := slog.New(w.events.Handler(slog.DiscardHandler))
	logger.With("backend", "main"+name).Warn("The backend fails; everything stays in the journal and is tried again", "answer", "dial tcp: connection refused"+name)
	logger.Info("Reloaded the configuration", "backends", 2)
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "sluice_test", Help: "Of a test."}))
	w.site = New(Options{
		Gatherer: reg,
		Ready:    func() string { return w.status().NotReady },
		Reload:   func() error { return w.reload },
		Config:   func() string { return "backends: []\n" },
		Status:   w.status,
		Explain: func(text string) (Explanation, error) {
			return Explanation{Series: text + name, Routes: []Route{
				{Backend: "main" + name, Takes: true, Sampling: true, Class: "normal", Rule: "everything else" + name},
				{Backend: "archive", Selector: ""},
			}, LastSent: &LastSent{At: noon, Address: "10.1.0.7", Forwarded: "10.9.0.3", UserAgent: "Prometheus/3.1.0" + name, Protocol: "rw2"}}, nil
		},
		Events: w.events,
		Logger: logger,
	})
	return w
}

// pass lets time pass with a load of so many samples a second, of which main is sent the
// share.
func (w *world) pass(d time.Duration, load, share float64) {
	w.change(func(st *Status) {
		n := load * d.Seconds()
		st.At = st.At.Add(d)
		st.Received.Samples += uint64(n)
		for i := range st.Received.Protocols {
			p := &st.Received.Protocols[i]
			p.Requests += uint64(n / 500)
			p.Bytes += uint64(n * 12)
		}
		for i := range st.Lanes {
			l := &st.Lanes[i]
			l.Routed.Samples += uint64(n)
			if l.Sampling == nil {
				l.Delivered.Samples += uint64(n / 3)
				continue
			}
			l.sampled(n, share, st.At)
		}
	})
}

func (l *Lane) sampled(n, share float64, now time.Time) {
	s := *l.Sampling
	s.Rate, s.Kept, s.Since, s.InFlightLimit = share, share, nil, 0
	s.Classes = append([]Class{}, s.Classes...)
	l.InJournal, l.LagSeconds = series.Counts{}, 0.2
	l.Delivered.Samples += uint64(n * share)
	if share < 1 {
		l.Withheld.Samples += uint64(n * (1 - share))
		began := now.Add(-4 * time.Minute)
		s.Since, s.Cause, s.InFlightLimit = &began, "queue_age", 1200
		s.Why = "queue_age is 14.2 of 10; the rate goes from 0.4 to 0.25: the backlog grows"
		s.Debt.Samples += uint64(n * (1 - share))
		eta := float64(s.Debt.Samples) / (0.2 * n)
		s.Debt.ETASeconds = &eta
		l.InJournal, l.LagSeconds = series.Counts{Samples: uint64(14 * n)}, 14.2
	}
	for i := range s.Classes {
		c := &s.Classes[i]
		kept := share
		if c.Name == "critical" {
			kept = 1
		}
		c.Kept += uint64(n * kept / 3)
		c.Withheld += uint64(n * (1 - kept) / 3)
	}
	l.Sampling = &s
}

// hour lets an hour pass, with an incident at its end, and looks at it as a Site does.
func (w *world) hour() {
	for i := range 370 {
		load, share := 9000+1500*float64(i%7)/7, 1.0
		if i > 330 || i > 100 && i < 140 {
			share = 0.25
		}
		w.pass(historyEvery, load, share)
		w.site.watch.mu.Lock()
		w.site.watch.picture = w.site.watch.take()
		w.site.watch.mu.Unlock()
	}
}
