// Package lockbench compares the kinds of locks on somebody's own servers: how long an
// acquisition takes, what contention costs, how soon the lock of a dead process is free,
// and what one stalled server does to it.
package lockbench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-metrics/sluice/lock"
)

// Options are what is measured.
type Options struct {
	Subjects []Subject
	// Acquisitions is how often each kind takes and gives back a lock without competition.
	Acquisitions int
	// Contenders is how many compete; each gets a share of the Acquisitions.
	Contenders int
	// TTL of the leases.
	TTL time.Duration
	// Progress is told which kind is measured next. It may be nil.
	Progress func(name string)
	// Failed is told at once why a kind cannot be measured, in one line. It may be nil.
	Failed func(name, reason string)
}

// Report is what was measured.
type Report struct {
	TTL     time.Duration `json:"ttl_ns"`
	Results []Result      `json:"results"`
}

// Result is what was measured of one subject. Durations are in seconds.
type Result struct {
	Name string `json:"name"`
	// Error is why it could not be measured; the rest is zero then.
	Error string `json:"error,omitempty"`
	// Fences says that leases have tokens.
	Fences bool `json:"fences"`
	// Granted is the longest time that a lease lasts without renewals, from what the
	// backend grants.
	Granted float64 `json:"granted_seconds"`
	// Acquire is the time of an acquisition without competition.
	Acquire Quantiles `json:"acquire"`
	// Release is the time of giving back.
	Release Quantiles `json:"release"`
	// Contended is the time from the wish to the lock among several contenders.
	Contended Quantiles `json:"contended"`
	// Handovers is how many leases per second all contenders got together.
	Handovers float64 `json:"handovers_per_second"`
	// Crash is how long the lock of a process that fell silent stayed held.
	Crash float64 `json:"crash_release_seconds"`
	// Stalled is an acquisition while one of the servers does not answer. Nil where there
	// is only one, so that nothing can be acquired.
	Stalled *Stalled `json:"one_server_stalled,omitempty"`
}

// Stalled is what one stalled server does.
type Stalled struct {
	Acquire Quantiles `json:"acquire"`
	// Failures are acquisitions that did not succeed within twice the TTL.
	Failures int `json:"failures"`
}

// Quantiles of durations, in seconds.
type Quantiles struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
}

// QuantilesOf sorts the durations. Those of none are zero.
func QuantilesOf(d []time.Duration) Quantiles {
	if len(d) == 0 {
		return Quantiles{}
	}
	slices.Sort(d)
	at := func(q float64) float64 { return d[min(len(d)-1, int(q*float64(len(d))))].Seconds() }
	return Quantiles{P50: at(0.5), P99: at(0.99), P999: at(0.999)}
}

// Run measures one subject after the other. What cannot be measured is in its Result; an
// error is the end of the context.
func Run(ctx context.Context, o Options) (*Report, error) {
	r := &Report{TTL: o.TTL}
	for _, s := range o.Subjects {
		if o.Progress != nil {
			o.Progress(s.Name)
		}
		result, err := measure(ctx, s, o)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			result = Result{Error: oneLine(err)}
			if o.Failed != nil {
				o.Failed(s.Name, result.Error)
			}
		}
		result.Name = s.Name
		r.Results = append(r.Results, result)
	}
	return r, nil
}

// oneLine is the text of an error, of which clients of several servers make a line each.
func oneLine(err error) string {
	var parts []string
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" && !slices.Contains(parts, line) {
			parts = append(parts, line)
		}
	}
	return strings.Join(parts, "; ")
}

// run is the measurement of one subject.
type run struct {
	Options
	subject Subject
	prefix  string // of the names of locks: not those of gateways, nor of another run
}

func measure(ctx context.Context, s Subject, o Options) (Result, error) {
	r := run{Options: o, subject: s, prefix: "lockbench-" + rand.Text()[:8] + "-"}
	var result Result
	for _, step := range []func(context.Context, *Result) error{r.answers, r.alone, r.contended, r.crash, r.stalled} {
		if err := step(ctx, &result); err != nil {
			return Result{}, err
		}
	}
	return result, nil
}

func (r *run) open(addresses []string) (*lock.Engine, error) {
	store, err := r.subject.Open(addresses)
	if err != nil {
		return nil, err
	}
	return lock.New(store, lock.EngineOptions{Instance: "lockbench"}), nil
}

func (r *run) options() lock.Options { return lock.Options{TTL: r.TTL} }

// How long an acquisition may take when nothing is wrong, and an answer to show that the
// backend is there.
const (
	patience      = 30 * time.Second
	firstPatience = 3 * time.Second
)

// answers asks the backend for a lock once: the engines try again and again for what it
// does not answer.
func (r *run) answers(ctx context.Context, _ *Result) error {
	store, err := r.subject.Open(r.subject.Addresses)
	if err != nil {
		return err
	}
	defer store.Close() //nolint:errcheck // what is left expires
	ctx, cancel := context.WithTimeout(ctx, firstPatience)
	defer cancel()
	c := lock.Claim{Name: r.prefix + "first", Holder: "lockbench/" + rand.Text(), TTL: r.TTL}
	g, err := store.Grant(ctx, c)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer within %v: %w", firstPatience, err)
	case err != nil:
		return err
	}
	return store.Release(ctx, g)
}

// alone takes and gives back a lock.
func (r *run) alone(ctx context.Context, result *Result) error {
	e, err := r.open(r.subject.Addresses)
	if err != nil {
		return err
	}
	defer e.Close() //nolint:errcheck // what is left expires
	var acquire, release []time.Duration
	for i := range r.Acquisitions + 1 {
		limited, cancel := context.WithTimeout(ctx, patience)
		start := time.Now()
		l, err := e.Acquire(limited, r.prefix+"alone", r.options())
		took := time.Since(start)
		cancel()
		if err != nil {
			return err
		}
		result.Fences, result.Granted = l.Token() != 0, max(result.Granted, time.Until(l.Deadline()).Seconds())
		start = time.Now()
		if err := l.Release(ctx); err != nil {
			return err
		}
		if i > 0 { // the first one connects
			acquire, release = append(acquire, took), append(release, time.Since(start))
		}
	}
	result.Acquire, result.Release = QuantilesOf(acquire), QuantilesOf(release)
	return nil
}

// contended lets several compete for one lock.
func (r *run) contended(ctx context.Context, result *Result) error {
	turns := max(1, r.Acquisitions/r.Contenders/4)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var mu sync.Mutex
	var waits []time.Duration
	var failed error
	var all sync.WaitGroup
	start := time.Now()
	for range r.Contenders {
		e, err := r.open(r.subject.Addresses)
		if err != nil {
			return err
		}
		all.Go(func() {
			defer e.Close() //nolint:errcheck // what is left expires
			for range turns {
				wish := time.Now()
				l, err := e.Acquire(ctx, r.prefix+"contended", r.options())
				wait := time.Since(wish)
				if err == nil {
					err = l.Release(ctx)
				}
				mu.Lock()
				if err == nil {
					waits = append(waits, wait)
				} else if !errors.Is(err, context.DeadlineExceeded) {
					failed = err
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	result.Handovers = float64(len(waits)) / time.Since(start).Seconds()
	result.Contended = QuantilesOf(waits)
	return failed
}

// crash lets a holder fall silent, as a process that dies does.
func (r *run) crash(ctx context.Context, result *Result) error {
	store, err := r.subject.Open(r.subject.Addresses)
	if err != nil {
		return err
	}
	dying := &mortal{Store: store}
	holder := lock.New(dying, lock.EngineOptions{Instance: "lockbench"})
	defer holder.Close() //nolint:errcheck // it is dead
	heir, err := r.open(r.subject.Addresses)
	if err != nil {
		return err
	}
	defer heir.Close() //nolint:errcheck // what is left expires
	ctx, cancel := context.WithTimeout(ctx, patience+2*r.TTL)
	defer cancel()
	if _, err := holder.Acquire(ctx, r.prefix+"crash", r.options()); err != nil {
		return err
	}
	dying.dead.Store(true)
	start := time.Now()
	if _, err := heir.Acquire(ctx, r.prefix+"crash", r.options()); err != nil {
		return err
	}
	result.Crash = time.Since(start).Seconds()
	return nil
}

// stalled acquires while the connections to the first server are stalled.
func (r *run) stalled(ctx context.Context, result *Result) error {
	if len(r.subject.Addresses) < 3 || r.subject.Encrypted {
		return nil
	}
	valve, err := newValve(r.subject.Addresses[0])
	if err != nil {
		return err
	}
	defer valve.close()
	e, err := r.open(append([]string{valve.address()}, r.subject.Addresses[1:]...))
	if err != nil {
		return err
	}
	defer e.Close() //nolint:errcheck // what is left expires
	once := func() (time.Duration, error) {
		limited, cancel := context.WithTimeout(ctx, 2*r.TTL)
		defer cancel()
		start := time.Now()
		l, err := e.Acquire(limited, r.prefix+"stalled", r.options())
		took := time.Since(start)
		if err == nil {
			err = l.Release(limited)
		}
		return took, err
	}
	if _, err := once(); err != nil {
		return err
	}
	valve.stall()
	result.Stalled = &Stalled{}
	var acquire []time.Duration
	for range max(10, r.Acquisitions/20) {
		took, err := once()
		if err != nil {
			result.Stalled.Failures++
			continue
		}
		acquire = append(acquire, took)
	}
	result.Stalled.Acquire = QuantilesOf(acquire)
	return ctx.Err()
}
