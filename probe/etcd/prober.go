package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/common/config"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluice-metrics/sluice/internal/etcddial"
	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/internal/dsn"
	"github.com/sluice-metrics/sluice/probe/internal/failure"
)

// kindMembers is the one kind of information that may need a permission: the key of
// Reading.Privileged.
const kindMembers = "members"

// Prober reads one etcd member over one connection.
type Prober struct {
	dsn          dsn.DSN
	passwordFile string
	secure       *tls.Config
	dialer       *etcddial.Dialer
	client       *clientv3.Client // nil: not connected
}

var _ probe.Prober = (*Prober)(nil)

// New makes a Prober. It opens no connection.
func New(t Target) (*Prober, error) {
	d, err := format.Parse(string(t.DSN))
	if err != nil {
		return nil, fmt.Errorf("dsn: %w", err)
	}
	section := t.TLS
	if section == nil && d.Scheme == schemeTLS {
		section = &config.TLSConfig{}
	}
	secure, err := d.TLSConfig(section)
	if err != nil {
		return nil, err
	}
	return &Prober{dsn: d, passwordFile: t.PasswordFile, secure: secure, dialer: etcddial.New()}, nil
}

// Target is host:port.
func (p *Prober) Target() string { return p.dsn.Address }

// Engine is etcd.
func (p *Prober) Engine() probe.Engine { return probe.EngineEtcd }

// Close drops the connection.
func (p *Prober) Close() error {
	if p.client == nil {
		return nil
	}
	client := p.client
	p.client = nil
	if err := client.Close(); err != nil {
		return fmt.Errorf("close the connection: %w", err)
	}
	return nil
}

// Probe reads the member in one round trip. After an error the connection is dropped: the
// library would wait longer and longer before it tries a member again that is gone.
func (p *Prober) Probe(ctx context.Context) (probe.Reading, error) {
	start := time.Now()
	r, err := p.probe(ctx)
	if err != nil {
		return r, p.explain(err, time.Since(start))
	}
	return r, nil
}

// explain says in one line what went wrong. The library knows no cause for an answer that
// did not come: the dialer does.
func (p *Prober) explain(err error, waited time.Duration) error {
	f := failure.Finding{Within: waited, Denied: denied(err)}
	silence := errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded || status.Code(err) == codes.Unavailable
	if silence && !f.Denied {
		why := strings.TrimPrefix(p.dialer.Why(p.dsn.Address), p.dsn.Address+": ")
		f.Cause = why
		if p.dialer.Reached(p.dsn.Address) {
			f.Cause = fmt.Sprintf("no answer within %v: %s", waited.Round(10*time.Millisecond), why)
		}
		if text := err.Error(); strings.Contains(text, "handshake") {
			f.Cause += "; " + text
		}
	}
	return failure.Server{Name: "etcd", Address: p.dsn.Address, Grants: "docs/probe/etcd-roles.txt"}.Explain(err, f)
}

// denied reports whether the member does not let the account in.
func denied(err error) bool {
	for _, e := range []error{rpctypes.ErrAuthFailed, rpctypes.ErrUserEmpty, rpctypes.ErrUserNotFound, rpctypes.ErrPermissionDenied} {
		if errors.Is(err, e) {
			return true
		}
	}
	return status.Code(err) == codes.Unauthenticated
}

func (p *Prober) probe(ctx context.Context) (probe.Reading, error) {
	if err := p.connect(ctx); err != nil {
		return probe.Reading{}, fmt.Errorf("connect: %w", err)
	}
	// The library's own call would open a connection for itself each time.
	s, err := etcdserverpb.NewMaintenanceClient(p.client.ActiveConnection()).Status(ctx, &etcdserverpb.StatusRequest{})
	switch {
	case refused(err):
		return probe.Reading{Privileged: map[string]bool{kindMembers: false}}, nil
	case err != nil:
		_ = p.Close() // the error that led here says more
		return probe.Reading{}, fmt.Errorf("read the member's status: %w", err)
	}
	return probe.Reading{
		Privileged: map[string]bool{kindMembers: true},
		Member: &probe.Member{
			HasLeader: s.Leader != 0,
			IsLeader:  s.Leader != 0 && s.Leader == s.Header.MemberId,
			Term:      s.RaftTerm,
			Index:     s.RaftIndex,
			Applied:   s.RaftAppliedIndex,
		},
	}, nil
}

// connect makes sure that there is a client. An account logs in here.
func (p *Prober) connect(ctx context.Context) error {
	if p.client != nil {
		return nil
	}
	password, err := p.dsn.ReadPassword(p.passwordFile)
	if err != nil {
		return err
	}
	scheme := "http"
	if p.secure != nil {
		scheme = schemeTLS
	}
	limit := time.Second
	if deadline, ok := ctx.Deadline(); ok {
		limit = max(time.Millisecond, time.Until(deadline))
	}
	p.client, err = clientv3.New(clientv3.Config{
		Endpoints:   []string{scheme + "://" + p.dsn.Address},
		TLS:         p.secure,
		Username:    p.dsn.User,
		Password:    password,
		DialTimeout: limit,
		Logger:      zap.NewNop(),
		DialOptions: []grpc.DialOption{p.dialer.Option()},
	})
	if err != nil {
		p.client = nil
		return err
	}
	return nil
}

// refused reports whether the member answered that the account may not ask.
func refused(err error) bool {
	switch err := rpctypes.Error(err); {
	case err == nil:
		return false
	case err == rpctypes.ErrPermissionDenied, err == rpctypes.ErrUserEmpty: //nolint:errorlint // the library compares them like that
		return true
	default:
		return status.Code(err) == codes.PermissionDenied
	}
}
