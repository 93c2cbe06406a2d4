package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/prometheus/common/config"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluice-metrics/sluice/internal/etcddial"
	"github.com/sluice-metrics/sluice/lock"
)

// Client makes the single calls of which both kinds on etcd consist. The key of a lock
// holds the claim's holder; the revision at which it was created is the token. Its methods
// may be called from several goroutines.
type Client struct {
	config Config
	dialer *etcddial.Dialer
	sem    chan struct{} // guards etcd
	etcd   *clientv3.Client
	alive  keepAlive
}

// NewClient returns a Client. The configuration is valid. It connects with the first
// call, so that an etcd which is down does not stop a start.
func NewClient(c Config) *Client {
	return &Client{config: c, dialer: etcddial.New(), sem: make(chan struct{}, 1), alive: keepAlive{sem: make(chan struct{}, 1)}}
}

// Keep-alive pings of the connection. Servers close connections that ping more often than
// every 5 s.
const (
	pingTime    = 10 * time.Second
	pingTimeout = 3 * time.Second
)

// connected returns the connection, which the first call makes.
func (c *Client) connected(ctx context.Context) (*clientv3.Client, error) {
	select {
	case c.sem <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-c.sem }()
	if c.etcd != nil {
		return c.etcd, nil
	}
	password := string(c.config.Password)
	if c.config.PasswordFile != "" {
		text, err := os.ReadFile(c.config.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("password_file: %w", err)
		}
		password = strings.TrimSpace(string(text))
	}
	var secure *tls.Config
	if c.config.TLSConfig != nil {
		var err error
		if secure, err = config.NewTLSConfig(c.config.TLSConfig); err != nil {
			return nil, fmt.Errorf("TLS to etcd: %w", err)
		}
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: c.config.Endpoints, Username: c.config.Username, Password: password, TLS: secure,
		DialTimeout: time.Duration(c.config.DialTimeout), DialKeepAliveTime: pingTime, DialKeepAliveTimeout: pingTimeout,
		// The second attempt is for a login that has expired; all else is repeated by
		// the lease.
		MaxUnaryRetries: 2,
		Logger:          zap.NewNop(),
		DialOptions:     []grpc.DialOption{c.dialer.Option()},
	})
	if err != nil {
		return nil, err
	}
	c.etcd = client
	return client, nil
}

// Close ends the connection.
func (c *Client) Close() error {
	c.alive.drop()
	if c.etcd == nil {
		return nil
	}
	return c.etcd.Close()
}

func (c *Client) key(name string) string { return c.config.Prefix + name }

// failed says in one line what failed where, and why where the library only says that there
// was no answer.
func (c *Client) failed(what string, err error) error {
	said := fmt.Errorf("%s at etcd: %w", what, err)
	switch {
	case refused(err):
		return lock.Marked(lock.ErrRefused, fmt.Errorf("%s at etcd %s: %w", what, c.addresses(), err))
	case errors.Is(err, context.Canceled):
	case errors.Is(err, context.DeadlineExceeded), status.Code(err) == codes.Unavailable, status.Code(err) == codes.DeadlineExceeded:
		said = &silence{fmt.Sprintf("%s at etcd: no answer; %s", what, c.dialer.Why(c.config.Endpoints...)), err}
		if !c.dialer.Reached(c.config.Endpoints...) {
			return lock.Marked(lock.ErrUnsent, said)
		}
	}
	return said
}

// silence is an error in other words than the library's.
type silence struct {
	text string
	err  error
}

func (e *silence) Error() string { return e.text }
func (e *silence) Unwrap() error { return e.err }

// Unsent marks the error of a step before the one that would take the lock.
func Unsent(err error) error {
	if errors.Is(err, lock.ErrRefused) {
		return err
	}
	return lock.Marked(lock.ErrUnsent, err)
}

func (c *Client) addresses() string {
	var list []string
	for _, e := range c.config.Endpoints {
		list = append(list, etcddial.Address(e))
	}
	return strings.Join(list, ", ")
}

// refused reports whether etcd answered that the account is not known or may not do this.
func refused(err error) bool {
	switch status.Code(err) {
	case codes.PermissionDenied, codes.Unauthenticated:
		return true
	}
	for _, e := range []error{
		rpctypes.ErrAuthFailed, rpctypes.ErrPermissionDenied, rpctypes.ErrUserEmpty, rpctypes.ErrUserNotFound,
		rpctypes.ErrAuthNotEnabled,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// tries is how many members a call asks one after the other when they do not answer: the
// library hands calls to all of them in turn, also to one that is stopped.
const tries = 3

// anyMember makes a call that may be made twice. Each try has half of the time that is left,
// the last one all of it. repeated says that an earlier try got no answer, so that it may
// still have its effect.
func anyMember[T any](ctx context.Context, call func(context.Context) (T, error)) (answer T, repeated bool, err error) {
	for left := tries; ; left-- {
		share := time.Minute
		if deadline, ok := ctx.Deadline(); ok {
			share = time.Until(deadline) / time.Duration(min(left, 2))
		}
		limited, cancel := context.WithTimeout(ctx, share)
		answer, err = call(limited)
		silent := err != nil && (limited.Err() != nil || errors.Is(err, context.DeadlineExceeded))
		cancel()
		if !silent || left == 1 || ctx.Err() != nil {
			return answer, repeated, err
		}
		repeated = true
	}
}

// GrantLease makes an etcd lease. etcd counts in whole seconds, and raises a TTL that is
// below one and a half election timeouts: the TTL that counts is the answer.
func (c *Client) GrantLease(ctx context.Context, ttl time.Duration) (clientv3.LeaseID, time.Duration, error) {
	etcd, err := c.connected(ctx)
	if err != nil {
		return 0, 0, c.failed("connect", err)
	}
	answer, _, err := anyMember(ctx, func(ctx context.Context) (*clientv3.LeaseGrantResponse, error) {
		return etcd.Grant(clientv3.WithRequireLeader(ctx), int64((ttl+time.Second-1)/time.Second))
	}) // one too many expires
	if err != nil {
		return 0, 0, c.failed("grant", err)
	}
	return answer.ID, time.Duration(answer.TTL) * time.Second, nil
}

// RevokeLease ends an etcd lease and deletes its keys. One that is not there is no error.
func (c *Client) RevokeLease(ctx context.Context, id clientv3.LeaseID) error {
	etcd, err := c.connected(ctx)
	if err != nil {
		return c.failed("connect", err)
	}
	_, _, err = anyMember(ctx, func(ctx context.Context) (*clientv3.LeaseRevokeResponse, error) { return etcd.Revoke(ctx, id) })
	if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return c.failed("revoke", err)
	}
	return nil
}

// KeepAlive renews an etcd lease. One that is not there is lock.ErrLost.
func (c *Client) KeepAlive(ctx context.Context, id clientv3.LeaseID) (time.Duration, error) {
	etcd, err := c.connected(ctx)
	if err != nil {
		return 0, c.failed("connect", err)
	}
	ttl, _, err := anyMember(ctx, func(ctx context.Context) (int64, error) { return c.alive.once(ctx, etcd, id) })
	switch {
	case err != nil:
		return 0, c.failed("keep alive", err)
	case ttl <= 0:
		return 0, fmt.Errorf("etcd lease %x: %w", int64(id), lock.ErrLost)
	}
	return time.Duration(ttl) * time.Second, nil
}

// Create makes the key of the claim's name, attached to an etcd lease, if there is none.
// The key of another claim is a lock.HeldError; the claim's own is a success. The grant is
// marked as Unsure, also beside an error, when a member was asked that did not answer.
func (c *Client) Create(ctx context.Context, claim lock.Claim, id clientv3.LeaseID) (lock.Grant, error) {
	g := lock.Grant{Claim: claim, Handle: int64(id)}
	etcd, err := c.connected(ctx)
	if err != nil {
		return g, c.failed("connect", err)
	}
	key := c.key(claim.Name)
	answer, repeated, err := anyMember(ctx, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return etcd.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
			Then(clientv3.OpPut(key, claim.Holder, clientv3.WithLease(id))).
			Else(clientv3.OpGet(key)).
			Commit()
	})
	g.Unsure = g.Unsure || repeated
	if err != nil {
		return g, c.failed("create the key", err)
	}
	if answer.Succeeded {
		g.Token = uint64(answer.Header.Revision)
		return g, nil
	}
	kv := answer.Responses[0].GetResponseRange().Kvs[0]
	if string(kv.Value) != claim.Holder {
		return g, &lock.HeldError{By: info(kv)}
	}
	g.Token = uint64(kv.CreateRevision)
	if kv.Lease != int64(id) {
		// An earlier request made it, on an etcd lease that nobody renews.
		return g, c.Move(ctx, g, id)
	}
	return g, nil
}

// Move attaches the key of a grant to another etcd lease. Its token stays.
func (c *Client) Move(ctx context.Context, g lock.Grant, id clientv3.LeaseID) error {
	etcd, err := c.connected(ctx)
	if err != nil {
		return c.failed("connect", err)
	}
	key := c.key(g.Name)
	answer, _, err := anyMember(ctx, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return etcd.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(key), "=", int64(g.Token))).
			Then(clientv3.OpPut(key, g.Holder, clientv3.WithLease(id))).
			Commit()
	})
	if err != nil {
		return c.failed("move the key", err)
	}
	if !answer.Succeeded {
		return lock.ErrLost
	}
	return nil
}

// get reads the key of a name; nil when there is none.
func (c *Client) get(ctx context.Context, name string) (*mvccpb.KeyValue, int64, error) {
	etcd, err := c.connected(ctx)
	if err != nil {
		return nil, 0, c.failed("connect", err)
	}
	answer, _, err := anyMember(ctx, func(ctx context.Context) (*clientv3.GetResponse, error) { return etcd.Get(ctx, c.key(name)) })
	if err != nil {
		return nil, 0, c.failed("read the key", err)
	}
	if len(answer.Kvs) == 0 {
		return nil, answer.Header.Revision, nil
	}
	return answer.Kvs[0], answer.Header.Revision, nil
}

// Find returns the grant of a claim whose key exists, with the etcd lease as its handle;
// else lock.ErrNotHeld.
func (c *Client) Find(ctx context.Context, claim lock.Claim) (lock.Grant, error) {
	kv, _, err := c.get(ctx, claim.Name)
	if err != nil {
		return lock.Grant{}, err
	}
	if kv == nil || string(kv.Value) != claim.Holder {
		return lock.Grant{}, lock.ErrNotHeld
	}
	return lock.Grant{Claim: claim, Token: uint64(kv.CreateRevision), Handle: kv.Lease}, nil
}

// Check returns lock.ErrLost when the key of the grant is not there any more, or hangs on
// another etcd lease: the one that is renewed may outlive the key. It is asked after each keep-alive, also
// because a leader that has lost its majority answers keep-alives for a while, and such a
// read never.
func (c *Client) Check(ctx context.Context, g lock.Grant) error {
	kv, _, err := c.get(ctx, g.Name)
	if err == nil && (kv == nil || uint64(kv.CreateRevision) != g.Token || kv.Lease != g.Handle) {
		return fmt.Errorf("key %q: %w", c.key(g.Name), lock.ErrLost)
	}
	return err
}

// Delete deletes the key of the claim's name if it is the claim's.
func (c *Client) Delete(ctx context.Context, claim lock.Claim) error {
	etcd, err := c.connected(ctx)
	if err != nil {
		return c.failed("connect", err)
	}
	key := c.key(claim.Name)
	_, _, err = anyMember(ctx, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return etcd.Txn(ctx).
			If(clientv3.Compare(clientv3.Value(key), "=", claim.Holder)).
			Then(clientv3.OpDelete(key)).
			Commit()
	})
	if err != nil {
		return c.failed("delete the key", err)
	}
	return nil
}

// Holder is lock.Store's.
func (c *Client) Holder(ctx context.Context, name string) (lock.HolderInfo, error) {
	kv, _, err := c.get(ctx, name)
	if err != nil || kv == nil {
		return lock.HolderInfo{}, err
	}
	return info(kv), nil
}

func info(kv *mvccpb.KeyValue) lock.HolderInfo {
	return lock.HolderInfo{Held: true, Instance: lock.InstanceOf(string(kv.Value)), Token: uint64(kv.CreateRevision)}
}

// Await is lock.Awaiter's.
func (c *Client) Await(ctx context.Context, name string) error {
	kv, revision, err := c.get(ctx, name)
	if err != nil || kv == nil {
		return err
	}
	etcd, err := c.connected(ctx)
	if err != nil {
		return c.failed("connect", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch := etcd.Watch(clientv3.WithRequireLeader(ctx), c.key(name), clientv3.WithRev(revision+1), clientv3.WithFilterPut())
	for answer := range watch {
		if err := answer.Err(); err != nil {
			return c.failed("watch", err)
		}
		if len(answer.Events) > 0 {
			return nil
		}
	}
	return c.failed("watch", context.Cause(ctx))
}

// keepAlive renews etcd leases over one stream. A stream per renewal would log in per
// renewal, and the library's own KeepAliveOnce repeats a refused connection without a
// pause.
type keepAlive struct {
	sem    chan struct{} // guards the rest
	stream pb.Lease_LeaseKeepAliveClient
	cancel context.CancelFunc
}

// once renews a lease and returns its TTL in seconds; 0 says that it is not there.
func (k *keepAlive) once(ctx context.Context, etcd *clientv3.Client, id clientv3.LeaseID) (int64, error) {
	select {
	case k.sem <- struct{}{}:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	defer func() { <-k.sem }()
	if k.stream == nil {
		if err := k.open(ctx, etcd); err != nil {
			return 0, err
		}
	}
	stop := context.AfterFunc(ctx, k.cancel)
	defer stop()
	err := k.stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(id)})
	var answer *pb.LeaseKeepAliveResponse
	if err == nil {
		answer, err = k.stream.Recv()
	}
	if err == nil && answer.ID != int64(id) {
		err = fmt.Errorf("answer for the lease %x to a request for %x", answer.ID, int64(id))
	}
	if err != nil {
		// What comes later on this stream would be taken for an answer to the next
		// request.
		k.drop()
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return 0, err
	}
	return answer.TTL, nil
}

func (k *keepAlive) open(ctx context.Context, etcd *clientv3.Client) error {
	streaming, cancel := context.WithCancel(clientv3.WithRequireLeader(context.Background()))
	stop := context.AfterFunc(ctx, cancel)
	defer stop()
	stream, err := pb.NewLeaseClient(etcd.ActiveConnection()).LeaseKeepAlive(streaming)
	if err != nil {
		cancel()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	k.stream, k.cancel = stream, cancel
	return nil
}

func (k *keepAlive) drop() {
	if k.stream != nil {
		k.cancel()
		k.stream = nil
	}
}
