package testutil

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// EtcdOptions configure a real etcd cluster.
type EtcdOptions struct {
	// Members is the number of members; 0 is 1.
	Members int
	// Args are further arguments of every member.
	Args []string
}

// Etcd is a running etcd cluster with a heartbeat of 50 ms and an election timeout of
// 500 ms.
type Etcd struct {
	Members []*EtcdMember
	client  *clientv3.Client
}

// EtcdMember is one member. Pause and Resume freeze and thaw it, Kill ends it as a
// crash does, Restart brings it back with its data.
type EtcdMember struct {
	*Process
	Endpoint string // http://host:port
	name     string
	dir      string
	args     []string
}

// StartEtcd starts a cluster and waits until it has a leader that writes.
func StartEtcd(t testing.TB, opts EtcdOptions) *Etcd {
	t.Helper()
	e := &Etcd{}
	var peers, initial []string
	for i := range max(1, opts.Members) {
		m := &EtcdMember{name: fmt.Sprintf("m%d", i), dir: t.TempDir(), Endpoint: "http://" + FreeAddress(t)}
		e.Members = append(e.Members, m)
		peers = append(peers, "http://"+FreeAddress(t))
		initial = append(initial, m.name+"="+peers[i])
	}
	for i, m := range e.Members {
		m.args = append([]string{
			"--name", m.name, "--data-dir", filepath.Join(m.dir, "data"),
			"--listen-client-urls", m.Endpoint, "--advertise-client-urls", m.Endpoint,
			"--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i],
			"--initial-cluster", strings.Join(initial, ","), "--initial-cluster-state", "new",
			"--initial-cluster-token", filepath.Base(filepath.Dir(m.dir)),
			"--heartbeat-interval", "50", "--election-timeout", "500", "--logger", "zap", "--log-level", "error",
		}, opts.Args...)
		m.start(t)
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: e.Endpoints(), DialTimeout: 2 * time.Second, Logger: zap.NewNop(),
	})
	require.NoError(t, err)
	e.client = client
	t.Cleanup(func() { _ = client.Close() })
	awaitServer(t, e.Members[0].Process, 30*time.Second, func(ctx context.Context) error {
		_, err := client.Put(ctx, "harness", "ready")
		return err
	})
	return e
}

// Endpoints are the client URLs of all members.
func (e *Etcd) Endpoints() []string {
	out := make([]string, len(e.Members))
	for i, m := range e.Members {
		out[i] = m.Endpoint
	}
	return out
}

// Client is a client of the harness to all members, closed with the test.
func (e *Etcd) Client() *clientv3.Client { return e.client }

// Leader waits until a running member says that it leads, and returns it.
func (e *Etcd) Leader(t testing.TB) *EtcdMember {
	t.Helper()
	var leader *EtcdMember
	require.Eventually(t, func() bool {
		var term uint64
		leader = nil
		for _, m := range e.Members {
			// A frozen leader of an older term does not answer; one that was thawed
			// a moment ago may still believe in itself, so the highest term wins.
			status, err := e.status(m)
			if err == nil && status.Leader == status.Header.MemberId && status.RaftTerm > term {
				leader, term = m, status.RaftTerm
			}
		}
		return leader != nil
	}, 20*time.Second, 50*time.Millisecond, "no member of the etcd cluster says that it leads")
	return leader
}

// Followers are the members other than the leader.
func (e *Etcd) Followers(t testing.TB) []*EtcdMember {
	t.Helper()
	leader := e.Leader(t)
	var out []*EtcdMember
	for _, m := range e.Members {
		if m != leader {
			out = append(out, m)
		}
	}
	return out
}

func (e *Etcd) status(m *EtcdMember) (*clientv3.StatusResponse, error) {
	if !m.Running() {
		return nil, fmt.Errorf("etcd member %s does not run", m.name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	return e.client.Status(ctx, m.Endpoint)
}

// Restart starts the member again with the data it had. It is killed first when it
// still runs; waiting for the cluster is the caller's.
func (m *EtcdMember) Restart(t testing.TB) {
	t.Helper()
	m.Kill()
	m.past = true
	m.start(t)
}

func (m *EtcdMember) start(t testing.TB) {
	t.Helper()
	m.Process = StartProcess(t, Command{
		Name: "etcd " + m.name, Path: Program(t, "etcd"), Args: m.args, Dir: m.dir,
	})
}
