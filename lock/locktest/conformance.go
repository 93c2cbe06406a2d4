package locktest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/lock"
)

// Harness is what the suite has to know of a kind.
type Harness struct {
	// Open returns a Store on the same backend as all others of this Harness. The suite
	// closes it.
	Open func(t testing.TB) lock.Store
	// Fences says that the kind has fencing tokens.
	Fences bool
	// TTL to ask for. The shorter, the quicker the suite; the backend has to grant it.
	TTL time.Duration
}

// Run runs the suite: what every kind has to do, healthy and with each of the faults that
// a single call can have.
func Run(t *testing.T, h Harness) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *bench)
	}{
		{"Exclusion", exclusion},
		{"Contention", contention},
		{"TokensGrow", tokensGrow},
		{"Renewal", renewal},
		{"Expiry", expiry},
		{"TakenAway", takenAway},
		{"ReleaseTwice", releaseTwice},
		{"LateCallsOfFormerHolder", lateCalls},
		{"Crash", crash},
		{"Holder", holder},
		{"GrantedTooLate", grantedTooLate},
		{"ReplyOfGrantLost", replyOfGrantLost},
		{"GrantWithUnknownOutcome", unknownOutcome},
		{"GrantedTwice", grantedTwice},
		{"RenewalsWithoutReply", renewalsWithoutReply},
		{"ReleaseWithoutReply", releaseWithoutReply},
		{"ReleaseNotPossible", releaseNotPossible},
		{"NeighbourSurvivesFailedRelease", neighbourSurvives},
		{"Close", closing},
		{"WaitEndsWithContext", waitEnds},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, &bench{Harness: h, lock: fmt.Sprintf("%s-%d", test.name, time.Now().UnixNano())})
		})
	}
}

// bench is the surroundings of one test: a lock of its own.
type bench struct {
	Harness
	lock string
}

// contender is a process that wants locks.
type contender struct {
	*lock.Engine
	store *Faulty
}

func (b *bench) contender(t testing.TB, instance string) *contender {
	t.Helper()
	store := NewFaulty(b.Open(t))
	c := &contender{lock.New(store, lock.EngineOptions{Instance: instance}), store}
	t.Cleanup(func() {
		store.SetAll(None)
		require.NoError(t, c.Close())
	})
	return c
}

func (b *bench) options() lock.Options { return lock.Options{TTL: b.TTL} }

// patience bounds each wait of the suite. Nothing is measured by it.
const patience = 20 * time.Second

func (b *bench) acquire(t testing.TB, c *contender) lock.Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l, err := c.Acquire(ctx, b.lock, b.options())
	require.NoError(t, err)
	return l
}

func (b *bench) requireHeld(t testing.TB, c *contender) {
	t.Helper()
	_, err := c.TryAcquire(context.Background(), b.lock, b.options())
	require.ErrorIs(t, err, lock.ErrHeld)
}

func awaitDone(t testing.TB, l lock.Lease) {
	t.Helper()
	select {
	case <-l.Done():
	case <-time.After(patience):
		require.FailNow(t, "the lease did not end")
	}
}

func exclusion(t *testing.T, b *bench) {
	one, two := b.contender(t, "one"), b.contender(t, "two")
	l := b.acquire(t, one)
	require.NoError(t, l.Err())
	require.True(t, l.Valid())
	require.Greater(t, time.Until(l.Deadline()), time.Duration(0))
	b.requireHeld(t, two)
	b.requireHeld(t, one) // a lock is not taken twice by one process either
	require.NoError(t, l.Release(context.Background()))
	l, err := two.TryAcquire(context.Background(), b.lock, b.options())
	require.NoError(t, err)
	require.NoError(t, l.Release(context.Background()))
}

// Several want the lock, and each gets its turns.
func contention(t *testing.T, b *bench) {
	const contenders, turns = 4, 4
	var inside atomic.Int32
	var highest atomic.Uint64
	var all sync.WaitGroup
	for i := range contenders {
		c := b.contender(t, fmt.Sprint("c", i))
		all.Go(func() {
			for range turns {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				l, err := c.Acquire(ctx, b.lock, b.options())
				cancel()
				if err != nil {
					t.Errorf("contender %d: %v", i, err)
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d hold the lock", n)
				}
				if before := highest.Swap(l.Token()); b.Fences && before >= l.Token() {
					t.Errorf("token %d after %d", l.Token(), before)
				}
				inside.Add(-1)
				if err := l.Release(context.Background()); err != nil {
					t.Errorf("contender %d: %v", i, err)
				}
			}
		})
	}
	all.Wait()
}

func tokensGrow(t *testing.T, b *bench) {
	one, two := b.contender(t, "one"), b.contender(t, "two")
	var last uint64
	for i := range 6 {
		l := b.acquire(t, []*contender{one, two}[i%2])
		if b.Fences {
			require.Greater(t, l.Token(), last)
		} else {
			require.Zero(t, l.Token())
		}
		last = l.Token()
		require.NoError(t, l.Release(context.Background()))
	}
}

func renewal(t *testing.T, b *bench) {
	one, two := b.contender(t, "one"), b.contender(t, "two")
	l := b.acquire(t, one)
	first, token := l.Deadline(), l.Token()
	select {
	case <-l.Done():
		require.FailNow(t, "the lease ended", "%v", l.Err())
	case <-time.After(3 * b.TTL):
	}
	require.True(t, l.Valid())
	require.Greater(t, l.Deadline().Sub(first), 2*b.TTL)
	require.Equal(t, token, l.Token())
	b.requireHeld(t, two)
}

// Renewals stop to arrive: the holder knows it before another has the lock.
func expiry(t *testing.T, b *bench) {
	one, two := b.contender(t, "one"), b.contender(t, "two")
	l := b.acquire(t, one)
	ended := make(chan time.Time, 1)
	go func() {
		<-l.Done()
		ended <- time.Now()
	}()
	one.store.SetAll(Stall)
	next := b.acquire(t, two)
	acquired := time.Now()
	require.False(t, l.Valid())
	require.Less(t, <-ended, acquired)
	require.ErrorIs(t, l.Err(), lock.ErrExpired)
	require.ErrorIs(t, context.Cause(l.Context()), lock.ErrExpired)
	require.True(t, next.Valid())
	if b.Fences {
		require.Greater(t, next.Token(), l.Token())
	}
}

// The backend loses the lease: the next renewal says so.
func takenAway(t *testing.T, b *bench) {
	one, two := b.contender(t, "one"), b.contender(t, "two")
	l := b.acquire(t, one)
	require.NoError(t, two.store.Store.Release(context.Background(), lock.Grant{Claim: one.store.Last().Claim}))
	awaitDone(t, l)
	require.ErrorIs(t, l.Err(), lock.ErrLost)
	require.ErrorIs(t, context.Cause(l.Context()), lock.ErrLost)
	require.False(t, l.Valid())
	require.NoError(t, l.Release(context.Background()))
	require.NoError(t, b.acquire(t, two).Release(context.Background()))
}

func releaseTwice(t *testing.T, b *bench) {
	one := b.contender(t, "one")
	type key struct{}
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), key{}, "value"))
	l, err := one.Acquire(ctx, b.lock, b.options())
	require.NoError(t, err)
	cancel()
	require.NoError(t, l.Context().Err(), "the lease outlives the context of Acquire")
	require.Equal(t, "value", l.Context().Value(key{}))
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if err := l.Release(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	awaitDone(t, l)
	require.False(t, l.Valid())
	require.ErrorIs(t, l.Err(), lock.ErrReleased)
	require.ErrorIs(t, context.Cause(l.Context()), lock.ErrReleased)
	require.Equal(t, 1, one.store.Calls(Release))
}

// What a former holder sends late changes nothing for the present one.
func lateCalls(t *testing.T, b *bench) {
	one, two := b.contender(t, "one"), b.contender(t, "two")
	l := b.acquire(t, one)
	former := one.store.Last()
	require.NoError(t, l.Release(context.Background()))
	next := b.acquire(t, two)
	_, err := one.store.Store.Renew(context.Background(), former)
	require.ErrorIs(t, err, lock.ErrLost)
	require.NoError(t, one.store.Store.Release(context.Background(), former))
	_, err = one.store.Store.Find(context.Background(), former.Claim)
	require.ErrorIs(t, err, lock.ErrNotHeld)
	b.requireHeld(t, one)
	_, err = two.store.Store.Renew(context.Background(), two.store.Last())
	require.NoError(t, err)
	require.True(t, next.Valid())
}

// crashRelease is how long the lock of a process that died may stay held.
const crashRelease = 3 * time.Second

func crash(t *testing.T, b *bench) {
	one, two := b.contender(t, "one"), b.contender(t, "two")
	b.acquire(t, one)
	died := time.Now()
	one.store.SetAll(Cut)
	b.acquire(t, two)
	took := time.Since(died)
	require.Less(t, took, crashRelease)
	t.Logf("released %v after the crash at a TTL of %v", took.Round(time.Millisecond), b.TTL)
}

func holder(t *testing.T, b *bench) {
	one, two := b.contender(t, "host-1:9201"), b.contender(t, "host-2:9201")
	info, err := two.Engine.Holder(context.Background(), b.lock)
	require.NoError(t, err)
	require.Equal(t, lock.HolderInfo{}, info)
	l := b.acquire(t, one)
	info, err = two.Engine.Holder(context.Background(), b.lock)
	require.NoError(t, err)
	require.LessOrEqual(t, info.Remaining, b.TTL)
	info.Remaining = 0
	require.Equal(t, lock.HolderInfo{Held: true, Instance: "host-1:9201", Token: l.Token()}, info)
	require.NoError(t, l.Release(context.Background()))
	info, err = two.Engine.Holder(context.Background(), b.lock)
	require.NoError(t, err)
	require.False(t, info.Held)
	two.store.Set(Cut, Holder)
	_, err = two.Engine.Holder(context.Background(), b.lock)
	require.ErrorIs(t, err, ErrInjected)
}

func grantedTooLate(t *testing.T, b *bench) {
	one, two := b.contender(t, "one"), b.contender(t, "two")
	one.store.Delay(Grant, 2*b.TTL)
	_, err := one.TryAcquire(context.Background(), b.lock, b.options())
	if err == nil {
		// A kept session counts from its own renewals, which went on meanwhile.
		require.Equal(t, "etcd", one.Kind())
		return
	}
	require.ErrorIs(t, err, lock.ErrLate)
	start := time.Now()
	b.acquire(t, two)
	require.Less(t, time.Since(start), b.TTL, "the late grant was given back")
}

func replyOfGrantLost(t *testing.T, b *bench) {
	one, two := b.contender(t, "one"), b.contender(t, "two")
	one.store.Set(LoseReply, Grant)
	start := time.Now()
	l, err := one.TryAcquire(context.Background(), b.lock, b.options())
	require.NoError(t, err, "the claim is read back")
	require.Less(t, time.Since(start), b.TTL)
	require.True(t, l.Valid())
	require.Equal(t, b.Fences, l.Token() != 0)
	b.requireHeld(t, two)
	require.NoError(t, l.Release(context.Background()))
	b.acquire(t, two)
}

// The outcome stays unknown: nobody holds the lock afterwards.
func unknownOutcome(t *testing.T, b *bench) {
	one, two := b.contender(t, "one"), b.contender(t, "two")
	one.store.Set(LoseReply, Grant)
	one.store.Set(Cut, Find)
	_, err := one.TryAcquire(context.Background(), b.lock, b.options())
	require.ErrorIs(t, err, ErrInjected)
	start := time.Now()
	b.acquire(t, two)
	require.Less(t, time.Since(start), b.TTL, "what may have come into force was withdrawn")
}

// A claim whose first request came into force unnoticed is granted again: what is renewed
// from then on is what holds the lock.
func grantedTwice(t *testing.T, b *bench) {
	one, two := b.contender(t, "one"), b.contender(t, "two")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	claim := lock.Claim{Name: b.lock, Holder: "one/twice", TTL: b.TTL}
	first, err := one.store.Grant(ctx, claim)
	require.NoError(t, err)
	claim.Unsure = true
	g, err := one.store.Grant(ctx, claim)
	require.NoError(t, err)
	require.Equal(t, first.Token, g.Token)
	for end := time.Now().Add(3 * b.TTL); time.Now().Before(end); time.Sleep(b.TTL / 5) {
		g, err = one.store.Renew(ctx, g)
		require.NoError(t, err)
		b.requireHeld(t, two)
	}
	require.NoError(t, one.store.Release(ctx, g))
	b.acquire(t, two)
}

func renewalsWithoutReply(t *testing.T, b *bench) {
	one := b.contender(t, "one")
	l := b.acquire(t, one)
	for range 4 {
		one.store.Set(LoseReply, Renew)
		calls := one.store.Calls(Renew)
		require.Eventually(t, func() bool { return one.store.Calls(Renew) >= calls+2 }, patience, time.Millisecond)
		one.store.Set(None, Renew)
		calls = one.store.Calls(Renew)
		require.Eventually(t, func() bool { return one.store.Calls(Renew) >= calls+1 }, patience, time.Millisecond)
	}
	require.NoError(t, l.Err())
}

func releaseWithoutReply(t *testing.T, b *bench) {
	one, two := b.contender(t, "one"), b.contender(t, "two")
	l := b.acquire(t, one)
	one.store.Set(LoseReply, Release)
	ctx, cancel := context.WithTimeout(context.Background(), b.TTL/4)
	defer cancel()
	require.ErrorIs(t, l.Release(ctx), ErrInjected)
	require.ErrorIs(t, l.Release(ctx), ErrInjected, "the outcome stays the same")
	_, err := two.TryAcquire(context.Background(), b.lock, b.options())
	require.NoError(t, err)
}

// A release that fails leaves the lock to its expiry, and to whether the backend comes
// back.
func releaseNotPossible(t *testing.T, b *bench) {
	one, two := b.contender(t, "one"), b.contender(t, "two")
	l := b.acquire(t, one)
	one.store.SetAll(Cut)
	ctx, cancel := context.WithTimeout(context.Background(), b.TTL/10)
	defer cancel()
	require.ErrorIs(t, l.Release(ctx), ErrInjected)
	require.ErrorIs(t, l.Err(), lock.ErrReleased)
	require.False(t, l.Valid())
	b.requireHeld(t, two)
	one.store.SetAll(None)
	start := time.Now()
	b.acquire(t, two)
	require.Less(t, time.Since(start), b.TTL/2, "the release is repeated")
}

// A key that could not be deleted must expire although the process lives on and holds
// other locks.
func neighbourSurvives(t *testing.T, b *bench) {
	one, two := b.contender(t, "one"), b.contender(t, "two")
	l := b.acquire(t, one)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	neighbour, err := one.Acquire(ctx, b.lock+"-neighbour", b.options())
	require.NoError(t, err)
	one.store.Set(Cut, Release)
	short, stop := context.WithTimeout(context.Background(), b.TTL/10)
	defer stop()
	require.Error(t, l.Release(short))
	next := b.acquire(t, two)
	require.True(t, next.Valid())
	select {
	case <-neighbour.Done():
		require.FailNow(t, "the neighbour ended", "%v", neighbour.Err())
	case <-time.After(2 * b.TTL):
	}
	require.True(t, neighbour.Valid())
}

func closing(t *testing.T, b *bench) {
	two := b.contender(t, "two")
	one := lock.New(b.Open(t), lock.EngineOptions{Instance: "one"})
	l, err := one.Acquire(context.Background(), b.lock, b.options())
	require.NoError(t, err)
	waiting := make(chan error, 1)
	go func() {
		_, err := one.Acquire(context.Background(), b.lock, b.options())
		waiting <- err
	}()
	require.NoError(t, one.Close())
	require.ErrorIs(t, l.Err(), lock.ErrReleased)
	require.ErrorIs(t, <-waiting, lock.ErrClosed)
	_, err = one.TryAcquire(context.Background(), b.lock, b.options())
	require.ErrorIs(t, err, lock.ErrClosed)
	_, err = two.TryAcquire(context.Background(), b.lock, b.options())
	require.NoError(t, err)
}

func waitEnds(t *testing.T, b *bench) {
	one, two := b.contender(t, "one"), b.contender(t, "two")
	b.acquire(t, one)
	ctx, cancel := context.WithTimeout(context.Background(), b.TTL/3)
	defer cancel()
	_, err := two.Acquire(ctx, b.lock, b.options())
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, err, lock.ErrHeld)
	require.Contains(t, err.Error(), b.lock)
}
