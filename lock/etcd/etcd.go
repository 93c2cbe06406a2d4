// Package etcd is the kind of lock on etcd that keeps one etcd lease alive and takes a
// lock by a single compare-and-swap on it. The fencing token is the revision at which the
// lock's key was created.
package etcd

import (
	"context"
	"errors"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sluice-metrics/sluice/lock"
)

// Kind is the key of this kind in the configuration.
const Kind = "etcd"

// Store is a lock.Store on etcd. All its locks of one TTL hang on one etcd lease, its
// session.
//
// A key that nobody knows of any more must not be kept alive by its neighbours. So a
// session is retired when it may have such a key: after a release that was not confirmed,
// after a grant with an unknown outcome, and when a lock has not been renewed for the
// whole TTL. A retired session is not renewed; locks that are still on it move to the next
// one with their next renewal.
type Store struct {
	client *Client
	now    func() time.Time
	ctx    context.Context // ends with Close
	stop   context.CancelFunc
	wg     sync.WaitGroup

	making chan struct{} // held while a session is made

	mu       sync.Mutex
	sessions map[time.Duration]*session // by the TTL that was asked for
}

// session is an etcd lease that is kept alive.
type session struct {
	id      clientv3.LeaseID
	granted time.Duration
	retire  context.CancelFunc // ends the goroutine that keeps it

	mu    sync.Mutex
	since time.Time            // when the last renewal that was confirmed was sent
	held  map[string]time.Time // by holder: locks that may be on it, and their last renewals
}

var (
	_ lock.Store    = (*Store)(nil)
	_ lock.Awaiter  = (*Store)(nil)
	_ lock.Recorder = (*Store)(nil)
)

// New returns a Store. The configuration is valid; now is the clock of the Engine, nil is
// time.Now. It does not connect yet.
func New(c Config, now func() time.Time) *Store {
	if now == nil {
		now = time.Now
	}
	s := &Store{client: NewClient(c), now: now, making: make(chan struct{}, 1), sessions: map[time.Duration]*session{}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// Kind implements lock.Store.
func (*Store) Kind() string { return Kind }

// closeLimit bounds what Close tells etcd; the sessions expire anyway.
const closeLimit = time.Second

// Close implements lock.Store.
func (s *Store) Close() error {
	s.stop()
	s.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	var errs []error
	for _, session := range s.sessions {
		errs = append(errs, s.client.RevokeLease(ctx, session.id))
	}
	return errors.Join(append(errs, s.client.Close())...)
}

// Grant implements lock.Store.
func (s *Store) Grant(ctx context.Context, c lock.Claim) (lock.Grant, error) {
	session, err := s.session(ctx, c.TTL)
	if err != nil {
		return lock.Grant{}, Unsent(err)
	}
	since := session.confirmed()
	session.renewed(c.Holder, s.now())
	g, err := s.client.Create(ctx, c, session.id)
	switch {
	case errors.Is(err, lock.ErrHeld):
		if !g.Unsure {
			session.left(c.Holder)
		}
		return lock.Grant{}, err
	case err != nil:
		s.check(ctx, session)
		return lock.Grant{}, err
	}
	g.Granted, g.Since = session.granted, since
	return g, nil
}

// check retires a session whose etcd lease is gone.
func (s *Store) check(ctx context.Context, session *session) {
	if errors.Is(s.renew(ctx, session), lock.ErrLost) {
		s.retire(session.id)
	}
}

// Find implements lock.Store.
func (s *Store) Find(ctx context.Context, c lock.Claim) (lock.Grant, error) {
	return s.client.Find(ctx, c)
}

// Renew implements lock.Store.
func (s *Store) Renew(ctx context.Context, g lock.Grant) (lock.Grant, error) {
	session, err := s.session(ctx, g.TTL)
	if err != nil {
		return g, err
	}
	if int64(session.id) != g.Handle {
		since := session.confirmed()
		session.renewed(g.Holder, s.now()) // before, because the outcome may be unknown
		if err := s.client.Move(ctx, g, session.id); err != nil {
			return g, err
		}
		g.Handle, g.Granted, g.Since = int64(session.id), session.granted, since
		return g, nil
	}
	sent := s.now()
	if err := s.renew(ctx, session); err != nil {
		if errors.Is(err, lock.ErrLost) {
			s.retire(session.id)
		}
		return g, err
	}
	if err := s.client.Check(ctx, g); err != nil {
		return g, err
	}
	session.renewed(g.Holder, sent)
	g.Granted, g.Since = session.granted, sent
	return g, nil
}

// Release implements lock.Store.
func (s *Store) Release(ctx context.Context, g lock.Grant) error {
	err := s.client.Delete(ctx, g.Claim)
	s.mu.Lock()
	session := s.sessions[g.TTL]
	s.mu.Unlock()
	if session == nil || !session.left(g.Holder) {
		return err // a retired one, or not the first attempt
	}
	if err != nil || g.Unsure {
		s.retire(session.id)
	}
	return err
}

// Holder implements lock.Store.
func (s *Store) Holder(ctx context.Context, name string) (lock.HolderInfo, error) {
	return s.client.Holder(ctx, name)
}

// Await implements lock.Awaiter.
func (s *Store) Await(ctx context.Context, name string) error { return s.client.Await(ctx, name) }

// ReadRecord implements lock.Recorder.
func (s *Store) ReadRecord(ctx context.Context, name string) (value []byte, revision uint64, err error) {
	return s.client.ReadRecord(ctx, name)
}

// SwapRecord implements lock.Recorder.
func (s *Store) SwapRecord(ctx context.Context, name string, revision uint64, value []byte) (written uint64, swapped bool, err error) {
	return s.client.SwapRecord(ctx, name, revision, value)
}

func (s *session) confirmed() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since
}

// renewed notes that the lock of a holder may be on the session, and was renewed.
func (s *session) renewed(holder string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[holder] = at
}

// left notes that the lock of a holder is not on the session any more, and reports
// whether it may have been.
func (s *session) left(holder string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, was := s.held[holder]
	delete(s.held, holder)
	return was
}

// state says whether no lock is on the session, and whether one is that nobody renews.
func (s *session) state(now time.Time) (idle, forgotten bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, renewed := range s.held {
		forgotten = forgotten || now.Sub(renewed) > s.granted
	}
	return len(s.held) == 0, forgotten
}

// renew keeps the session's etcd lease alive.
func (s *Store) renew(ctx context.Context, session *session) error {
	sent := s.now()
	if _, err := s.client.KeepAlive(ctx, session.id); err != nil {
		return err
	}
	session.mu.Lock()
	defer session.mu.Unlock()
	if sent.After(session.since) {
		session.since = sent
	}
	return nil
}

// session returns the session for the TTL. It makes one where there is none, and renews
// one that has little time left.
func (s *Store) session(ctx context.Context, ttl time.Duration) (*session, error) {
	select {
	case s.making <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-s.making }()
	s.mu.Lock()
	there := s.sessions[ttl]
	s.mu.Unlock()
	if there != nil {
		if _, forgotten := there.state(s.now()); forgotten {
			s.retire(there.id)
			there = nil
		}
	}
	if there != nil {
		if s.now().Sub(there.confirmed()) < there.granted/3 {
			return there, nil
		}
		err := s.renew(ctx, there)
		if err == nil {
			return there, nil
		}
		if !errors.Is(err, lock.ErrLost) {
			return nil, err
		}
		s.retire(there.id)
	}
	since := s.now()
	id, granted, err := s.client.GrantLease(ctx, ttl)
	if err != nil {
		return nil, err
	}
	made := &session{id: id, granted: granted, since: since, held: map[string]time.Time{}}
	keeping, retire := context.WithCancel(s.ctx)
	made.retire = retire
	s.mu.Lock()
	s.sessions[ttl] = made
	s.mu.Unlock()
	s.wg.Go(func() { s.keep(keeping, made) })
	return made, nil
}

// retire stops renewing a session. An id that is not a session any more changes nothing.
func (s *Store) retire(id clientv3.LeaseID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ttl, session := range s.sessions {
		if session.id == id {
			session.retire()
			delete(s.sessions, ttl)
		}
	}
}

// retryPause is the pause after a renewal that failed.
const retryPause = 50 * time.Millisecond

// keep renews the session while it has no lock that does, so that the next lock needs one
// call only.
func (s *Store) keep(ctx context.Context, session *session) {
	every := session.granted / 4 // before a lock would have to do it
	timer := time.NewTimer(every)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if idle, _ := session.state(s.now()); !idle {
			timer.Reset(every)
			continue
		}
		limited, cancel := context.WithTimeout(ctx, min(session.granted/6, 300*time.Millisecond))
		err := s.renew(limited, session)
		cancel()
		switch {
		case err == nil:
			timer.Reset(every)
		case errors.Is(err, lock.ErrLost):
			s.retire(session.id)
		default:
			timer.Reset(retryPause)
		}
	}
}
