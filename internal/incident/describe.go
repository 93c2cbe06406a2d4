package incident

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/common/model"

	"github.com/sluice-metrics/sluice/internal/fidelity"
	"github.com/sluice-metrics/sluice/internal/fielderror"
	"github.com/sluice-metrics/sluice/internal/strictyaml"
	"github.com/sluice-metrics/sluice/sampler"
)

// Incident describes what happens to a backend. Times in it are since its start.
type Incident struct {
	// What the incident is, for people.
	Title string `yaml:"title,omitempty"`
	// Where in the recording the incident starts. Queries and alerts need what is before.
	Start model.Duration `yaml:"start"`
	// How long it is looked at, the time after the trouble included.
	Duration model.Duration `yaml:"duration"`
	// The load as a multiple of the recorded one.
	Load []LoadPoint `yaml:"load,omitempty"`
	// What becomes of the backend.
	Backend Backend `yaml:"backend"`
	// The configuration that is tried.
	Sampling *sampler.Config `yaml:"adaptive_sampling,omitempty"`
}

// LoadPoint is the load from a time on.
type LoadPoint struct {
	// When.
	At model.Duration `yaml:"at"`
	// How many times the recorded load.
	Factor float64 `yaml:"factor"`
	// Whether the load goes there evenly from the point before.
	Linear bool `yaml:"linear,omitempty"`
}

// Backend is what a backend can do over time.
type Backend struct {
	// How much it takes, from each time on.
	Capacity []CapacityPoint `yaml:"capacity"`
	// How long it takes over the smallest request.
	Latency model.Duration `yaml:"latency"`
	// For how long it saves up capacity that is not used. The capacity is a mean over
	// such a time: a recording with few senders comes in bursts.
	Burst model.Duration `yaml:"burst"`
	// When it is down.
	Outages []Outage `yaml:"outages,omitempty"`
	// Whether it takes samples out of order, so that the newest may go first.
	OutOfOrder bool `yaml:"out_of_order,omitempty"`
	// Requests in flight at most.
	Shards int `yaml:"shards"`
	// Samples in one of them at most.
	SamplesPerSend int `yaml:"max_samples_per_send"`
}

// CapacityPoint is the capacity from a time on: a share of the recorded load, or samples
// a second.
type CapacityPoint struct {
	// When.
	At model.Duration `yaml:"at"`
	// As a share of the mean of the recorded load; instead of samples.
	Share float64 `yaml:"share,omitempty"`
	// Samples a second; instead of share.
	Samples float64 `yaml:"samples,omitempty"`
	// Whether the capacity goes there evenly from the point before.
	Linear bool `yaml:"linear,omitempty"`
}

// Outage is a time in which the backend takes nothing.
type Outage struct {
	// When it begins.
	At model.Duration `yaml:"at"`
	// How long it lasts.
	For model.Duration `yaml:"for"`
	// refuse: each request fails at once; hang: none is answered.
	How How `yaml:"how"`
}

// How is what a backend does that is down.
type How string

// What a backend does that is down.
const (
	Refuse How = "refuse"
	Hang   How = "hang"
)

// SetDefaults makes i an incident of ten minutes, after the warm-up of queries.
func (i *Incident) SetDefaults() {
	*i = Incident{Start: model.Duration(fidelity.Warmup), Duration: model.Duration(10 * time.Minute)}
	i.Backend.SetDefaults()
}

// SetDefaults makes b a backend as a lane with defaults has it.
func (b *Backend) SetDefaults() {
	*b = Backend{Latency: model.Duration(40 * time.Millisecond), Burst: model.Duration(5 * time.Second), Shards: 16, SamplesPerSend: 10_000}
}

// SetDefaults makes o an outage in which everything is refused.
func (o *Outage) SetDefaults() { *o = Outage{How: Refuse} }

// SetDefaults makes p the recorded load.
func (p *LoadPoint) SetDefaults() { *p = LoadPoint{Factor: 1} }

// Parse reads an incident file, strictly. name stands for it in errors, which name all
// that is wrong.
func Parse(name string, data []byte) (*Incident, error) {
	var i Incident
	i.SetDefaults()
	d := strictyaml.Parse(name, data)
	d.Decode(&i)
	if d.Parsed() {
		d.Report(i.Validate())
	}
	if err := d.Err(); err != nil {
		return nil, err
	}
	if i.Sampling == nil {
		c := sampler.DefaultConfig()
		i.Sampling = &c
	}
	return &i, nil
}

// Validate reports every value that is out of range.
func (i *Incident) Validate() error {
	var errs []error
	check := func(ok bool, path, format string, args ...any) {
		if !ok {
			errs = append(errs, fielderror.Errorf(path, format, args...))
		}
	}
	check(time.Duration(i.Start) >= fidelity.Warmup, "start", "must be at least %s: queries look back for so long", fidelity.Warmup)
	check(i.Duration >= model.Duration(time.Minute), "duration", "must be at least 1m")
	last := model.Duration(-1)
	for n, p := range i.Load {
		path := fmt.Sprintf("load[%d]", n)
		check(p.At > last, path+".at", "must be later than the one before")
		check(p.Factor > 0 && p.Factor <= 1000, path+".factor", "must be above 0 and at most 1000")
		last = p.At
	}
	errs = append(errs, fielderror.Within("backend", i.Backend.validate()))
	if i.Sampling != nil {
		errs = append(errs, fielderror.Within("adaptive_sampling", i.Sampling.Validate()))
	}
	return errors.Join(errs...)
}

func (b *Backend) validate() error {
	var errs []error
	check := func(ok bool, path, format string, args ...any) {
		if !ok {
			errs = append(errs, fielderror.Errorf(path, format, args...))
		}
	}
	check(len(b.Capacity) > 0, "capacity", "must say at least what it is at 0s, such as {at: 0s, share: 1.5}")
	last := model.Duration(-1)
	for n, p := range b.Capacity {
		path := fmt.Sprintf("capacity[%d]", n)
		check(n > 0 || p.At == 0, path+".at", "must be 0s: what is the capacity before?")
		check(p.At > last, path+".at", "must be later than the one before")
		check(p.Share >= 0 && p.Samples >= 0 && !math.IsInf(p.Share+p.Samples, 0), path, "must not be below 0")
		check(p.Share == 0 || p.Samples == 0, path, "has share and samples; one of them is enough")
		last = p.At
	}
	check(b.Shards >= 1, "shards", "must be at least 1")
	check(b.SamplesPerSend >= 1, "max_samples_per_send", "must be at least 1")
	for n, o := range b.Outages {
		path := fmt.Sprintf("outages[%d]", n)
		check(o.For > 0, path+".for", "must be longer than 0s")
		check(o.How == Refuse || o.How == Hang, path+".how", "must be %s or %s, not %q", Refuse, Hang, string(o.How))
	}
	return errors.Join(errs...)
}

// factor is the load at a time since the start of the incident.
func (i *Incident) factor(at time.Duration) float64 {
	f, since := 1.0, time.Duration(0)
	for _, p := range i.Load {
		from := time.Duration(p.At)
		if at < from {
			if p.Linear {
				return between(f, p.Factor, at-since, from-since)
			}
			break
		}
		f, since = p.Factor, from
	}
	return f
}

// conditions are those at a time since the start of the incident, where load is the mean
// of the recorded load. Before, they are those at the start, without outages.
func (b *Backend) conditions(at time.Duration, load float64) Conditions {
	c := Conditions{Latency: time.Duration(b.Latency), Burst: time.Duration(b.Burst)}
	since := time.Duration(0)
	for n, p := range b.Capacity {
		from, v := time.Duration(p.At), p.Samples+p.Share*load
		if n > 0 && at < from {
			if p.Linear {
				c.Capacity = between(c.Capacity, v, max(0, at-since), from-since)
			}
			break
		}
		c.Capacity, since = v, from
	}
	for _, o := range b.Outages {
		if from := time.Duration(o.At); at >= from && at < from+time.Duration(o.For) {
			c.Refuses = o.How == Refuse
			c.Capacity = 0
		}
	}
	return c
}

func between(a, b float64, at, over time.Duration) float64 {
	return a + (b-a)*at.Seconds()/over.Seconds()
}
