package gateway

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/web"
)

// page is what the status page is told.
type page struct {
	gateway  *Gateway
	events   *web.Events
	started  time.Time
	received atomic.Uint64 // samples and histograms that the journal has
}

// newPage returns a page that, from now on, sees what the Logger of o is told.
func newPage(o *Options) *page {
	p := &page{events: web.NewEvents(), started: o.Now()}
	o.Logger = slog.New(p.events.Handler(o.Logger.Handler()))
	return p
}

// site returns what serves the admin pages of the gateway.
func (p *page) site(g *Gateway) *web.Site {
	p.gateway = g
	return web.New(web.Options{
		Gatherer: gatherer{g},
		Ready:    g.ready.get,
		Reload:   g.Reload,
		Config:   g.configText,
		Flags:    g.o.Flags,
		Status:   p.status,
		Explain:  p.explain,
		Events:   p.events,
		Logger:   g.o.Logger.With("component", "web"),
	})
}

// took notes what the journal has taken.
func (p *page) took(c series.Counts) { p.received.Add(c.Samples + c.Histograms) }

// status is how the gateway stands. It takes no lock that a reload or the stop holds for
// long.
func (p *page) status() web.Status {
	g := p.gateway
	own := read(g.registry)
	st := web.Status{
		At:       g.o.Now(),
		Started:  p.started,
		NotReady: g.ready.get(),
		Config: web.Config{
			Loaded:  unix(own.sum("sluice_config_last_reload_success_timestamp_seconds")),
			Refused: own.is("sluice_config_last_reload_successful", 0),
		},
		Received: p.intake(own),
		Journal: web.Disk{
			Bytes:    int64(own.sum("sluice_journal_disk_bytes")),
			Limit:    int64(own.sum("sluice_journal_disk_limit_bytes")),
			Retained: int64(own.sum("sluice_journal_retained_bytes")),
			Errors:   uint64(own.sum("sluice_journal_write_errors_total")),
		},
		Series:   uint64(g.table.Len()),
		Lanes:    []web.Lane{},
		Clusters: []web.Cluster{},
		Leases:   leasesOf(own),
	}
	for _, l := range *g.lines.Load() {
		st.Lanes = append(st.Lanes, laneOf(l, st.At))
	}
	for _, w := range *g.watching.Load() {
		st.Clusters = append(st.Clusters, clusterOf(w.cluster.Snapshot(), w.config.Kind()))
	}
	return st
}

// protocols are the names that people know the receiver's protocols by.
var protocols = []struct{ label, name string }{
	{"rw1", "remote write 1.0"}, {"rw2", "remote write 2.0"}, {"otlp", "OTLP"},
}

func (p *page) intake(own readings) web.Intake {
	in := web.Intake{
		Samples:   p.received.Load(),
		Refused:   uint64(own.sum("sluice_receiver_refused_samples_total")),
		Protocols: []web.Protocol{},
	}
	const requests = "sluice_receiver_requests_total"
	for _, v := range own.values(requests) {
		if code := v.label("code"); len(code) != 3 || code[0] != '2' {
			in.Failed += uint64(v.value)
		}
	}
	for _, k := range protocols {
		n := own.sum(requests, "protocol", k.label)
		if n > 0 {
			in.Protocols = append(in.Protocols, web.Protocol{
				Name:     k.name,
				Requests: uint64(n),
				Bytes:    uint64(own.sum("sluice_receiver_bytes_total", "protocol", k.label)),
			})
		}
	}
	return in
}

func laneOf(l *line, now time.Time) web.Lane {
	c := l.connected.Load()
	b := c.lane.Balance()
	out := web.Lane{
		Name:      l.config.Name,
		Kind:      l.config.Kind(),
		State:     c.lane.State(),
		Routed:    b.Routed,
		Delivered: b.Totals.Delivered,
		Withheld:  b.Totals.Withheld,
		Restored:  b.Totals.Restored,
		InJournal: b.InJournal,
		Rejected:  lost(b.Totals.Rejected),
		GivenUp:   lost(b.Totals.GivenUp),
		Batches:   b.Batches,
	}
	for _, s := range l.config.Match {
		out.Takes = append(out.Takes, s.String())
	}
	if !b.Oldest.IsZero() {
		out.LagSeconds = max(0, now.Sub(b.Oldest).Seconds())
	}
	_, out.Queries = l.backend.(querier)
	if c.thinner != nil {
		out.Sampling = samplingOf(c)
	}
	return out
}

func samplingOf(c *connection) *web.Sampling {
	v := c.thinner.View()
	s := &web.Sampling{
		Shadow:     v.Mode == "shadow",
		Rate:       v.Rate,
		Kept:       v.Kept,
		FloorBound: v.FloorBound,
		Since:      v.Since,
		Cause:      v.Cause,
		Why:        v.Why,
		Debt:       web.Debt{Samples: v.Debt.Samples, Oldest: v.Debt.Oldest, ETASeconds: v.Debt.ETASeconds},
		GivingBack: v.GivingBack != nil,
		Classes:    []web.Class{},
	}
	lane := read(c.registry)
	s.InFlightLimit = uint64(lane.sum("remote_write_in_flight_limit_samples"))
	for _, kept := range lane.values("remote_write_samples_kept_total") {
		class := kept.label("class")
		s.Classes = append(s.Classes, web.Class{
			Name:     class,
			Kept:     uint64(kept.value),
			Withheld: uint64(lane.sum("remote_write_samples_shed_total", "class", class)),
		})
	}
	return s
}

func clusterOf(s *probe.Snapshot, kind string) web.Cluster {
	c := web.Cluster{
		Name:          s.Cluster,
		Kind:          kind,
		Leading:       s.Leading,
		Leader:        s.Leadership.By,
		Why:           s.Leadership.Why,
		Primary:       s.Primary,
		MaxLagSeconds: s.MaxLag.Seconds(),
		Targets:       []web.Target{},
	}
	if since := s.Leadership.UnknownSince; !since.IsZero() {
		c.UnknownSince = &since
	}
	if s.Leading {
		c.Primaries = &s.Primaries
	}
	for i := range s.Targets {
		c.Targets = append(c.Targets, targetOf(&s.Targets[i]))
	}
	return c
}

func targetOf(v *probe.TargetView) web.Target {
	t := web.Target{
		Name:    v.Target,
		Role:    string(v.Role),
		Up:      v.Success || !v.Probed,
		Error:   v.Error,
		Note:    v.LacksText(),
		Replica: v.Replica,
		Circuit: string(v.Circuit),
	}
	if v.Replica {
		t.Weight = &v.Weight
		t.AtLeast, t.Unknown = v.Lag.LowerBound, string(v.Lag.Unknown)
		if v.Lag.Known() {
			lag := v.Lag.Age.Seconds()
			t.LagSeconds = &lag
		}
	}
	if v.Reading == nil || v.Reading.Locks == nil {
		return t
	}
	waiting := v.Graph.Waiting
	t.Waiting = &waiting
	for _, b := range v.Reading.Locks.Blocked {
		t.Waits = append(t.Waits, web.Wait{Session: b.Session, Blockers: b.Blockers})
	}
	for _, w := range v.Reading.Locks.Waiting {
		if oldest, known := w.Oldest.Get(); known && (t.LongestWaitSeconds == nil || oldest.Seconds() > *t.LongestWaitSeconds) {
			longest := oldest.Seconds()
			t.LongestWaitSeconds = &longest
		}
	}
	return t
}

// leasesOf are the leases that this gateway holds, wants, or has asked about.
func leasesOf(own readings) []web.Lease {
	list := []web.Lease{}
	for _, held := range own.values("dlock_held") {
		kind, name := held.label("kind"), held.label("lock")
		l := web.Lease{
			Name:             name,
			Kind:             kind,
			Here:             held.value == 1,
			Token:            uint64(own.sum("dlock_fencing_token", "kind", kind, "lock", name)),
			RemainingSeconds: own.sum("dlock_deadline_remaining_seconds", "kind", kind, "lock", name),
		}
		for _, v := range own.values("dlock_holder_info", "kind", kind, "lock", name) {
			l.Holder = v.label("holder")
		}
		list = append(list, l)
	}
	return list
}

func unix(s float64) time.Time { return time.UnixMilli(int64(s * 1000)).UTC() }
