package locktest_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/lock"
	"github.com/sluice-metrics/sluice/lock/etcd"
	"github.com/sluice-metrics/sluice/lock/redis"
)

// crashRelease is how long the lock of a process that was killed may stay held.
const crashRelease = 3 * time.Second

// The holder is killed: a waiting process has the lock within the limit, at the default
// TTL.
func TestHolderKilled(t *testing.T) {
	t.Parallel()
	for _, p := range allPlaces(t) {
		t.Run(p.Kind, func(t *testing.T) {
			t.Parallel()
			name := p.Kind + "-job" // etcd and etcdcas share a cluster
			log := startLedger(t)
			worker := startWorker(t, task{Place: p, Name: "worker", Lock: name, TTL: lock.DefaultTTL, Log: log.ln.Addr().String(), Pause: time.Millisecond})
			require.Eventually(t, func() bool { _, ok := log.newest(); return ok }, 20*time.Second, time.Millisecond)
			e := p.engine(t, "heir")
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			acquired := make(chan time.Time, 1)
			go func() {
				if l, err := e.Acquire(ctx, name, lock.Options{}); err == nil {
					defer l.Release(ctx) //nolint:errcheck // of no interest
				}
				acquired <- time.Now()
			}()
			require.Eventually(t, func() bool {
				info, err := e.Holder(ctx, name)
				return err == nil && info.Instance == "worker"
			}, 20*time.Second, time.Millisecond)
			killed := time.Now()
			worker.Kill()
			took := (<-acquired).Sub(killed)
			require.NoError(t, ctx.Err())
			t.Logf("%s: released %v after the kill, at a TTL of %v", p.Kind, took.Round(time.Millisecond), lock.DefaultTTL)
			require.LessOrEqual(t, took, crashRelease)
		})
	}
}

// Holders are stopped for longer than the TTL and wake up between their check and their
// write. The fenced log takes none of these writes; that the unfenced one does shows
// that the test bites.
func TestHoldersPaused(t *testing.T) {
	t.Parallel()
	const (
		pauses  = 100
		workers = 4
		ttl     = 300 * time.Millisecond
		length  = 450 * time.Millisecond
	)
	p := place{redis.Kind, addresses(startRedis(t, 1))}
	log := startLedger(t)
	processes := map[string]*testutil.Process{}
	for i := range workers {
		w := task{Place: p, Name: fmt.Sprint("w", i), Lock: "job", TTL: ttl, Log: log.ln.Addr().String(), Pause: 3 * time.Millisecond}
		processes[w.Name] = startWorker(t, w)
	}
	resumed := make(chan struct{}, pauses)
	var token uint64
	for range pauses {
		r := log.awaitAfter(t, token)
		token = r.token
		holder := processes[r.name]
		holder.Pause(t)
		time.AfterFunc(length, func() {
			holder.Resume(t)
			resumed <- struct{}{}
		})
	}
	for range pauses {
		<-resumed
	}
	log.awaitAfter(t, token)
	for _, w := range processes {
		w.Kill()
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	t.Logf("%d pauses, %d writes: %d stale ones in the unfenced log, %d in the fenced one, which refused %d",
		pauses, len(log.unfenced), stale(log.unfenced), stale(log.fenced), log.refused)
	require.Zero(t, stale(log.fenced))
	require.Positive(t, stale(log.unfenced))
}

// Of three contenders the holder is killed again and again, and comes back. Without pauses
// no write is stale, fence or not, and the job is not left undone for longer than the
// release after a crash takes.
func TestContendersKilled(t *testing.T) {
	t.Parallel()
	const (
		kills    = 5
		interval = 2 * time.Second
		ttl      = time.Second
	)
	for _, p := range []place{
		{redis.Kind, addresses(startRedis(t, 1))},
		{etcd.Kind, testutil.StartEtcd(t, testutil.EtcdOptions{Members: 3}).Endpoints()},
	} {
		t.Run(p.Kind, func(t *testing.T) {
			t.Parallel()
			log := startLedger(t)
			start := func(name string) *testutil.Process {
				return startWorker(t, task{Place: p, Name: name, Lock: "job", TTL: ttl, Log: log.ln.Addr().String(), Pause: 5 * time.Millisecond, Turn: 100})
			}
			contenders := map[string]*testutil.Process{}
			for _, name := range []string{"a", "b", "c"} {
				contenders[name] = start(name)
			}
			log.awaitAfter(t, 0)
			for range kills {
				time.Sleep(interval) // the schedule of the fault, no wait for anything
				r, _ := log.newest()
				contenders[r.name].Kill()
				log.awaitAfter(t, r.token)
				contenders[r.name] = start(r.name)
			}
			for _, c := range contenders {
				c.Kill()
			}
			log.mu.Lock()
			defer log.mu.Unlock()
			var gap time.Duration
			for i, r := range log.unfenced[1:] {
				gap = max(gap, r.at.Sub(log.unfenced[i].at))
			}
			t.Logf("%s: %d kills, %d writes, longest gap %v at a TTL of %v", p.Kind, kills, len(log.unfenced), gap.Round(time.Millisecond), ttl)
			require.Zero(t, stale(log.unfenced))
			require.LessOrEqual(t, gap, crashRelease)
		})
	}
}
