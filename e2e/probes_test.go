package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

// watching is a configuration with a PostgreSQL cluster whose probing is led by a lease.
func watching(etcd *testutil.Etcd, servers ...*testutil.Postgres) string {
	var b strings.Builder
	fmt.Fprintf(&b, "clusters:\n  - name: orders\n    postgres:\n      targets:\n")
	for _, s := range servers {
		fmt.Fprintf(&b, "        - dsn: %q\n", s.DSN("postgres"))
	}
	fmt.Fprintf(&b, "lease:\n  etcd: {endpoints: [%s]}\n", strings.Join(etcd.Endpoints(), ", "))
	return b.String()
}

// Two gateways share a cluster: one probes it, what it finds is in its metrics and reaches
// the backends, and when it dies the other takes over.
func TestProbes_OneOfTwoGatewaysLeads(t *testing.T) {
	t.Parallel()
	primary := testutil.StartPostgres(t, testutil.PostgresOptions{})
	replica := primary.StartReplica(t, testutil.PostgresOptions{Name: "r1"})
	etcd := testutil.StartEtcd(t, testutil.EtcdOptions{})
	sink := testutil.StartSink(t, testutil.SinkOptions{})
	text := configText(watching(etcd, primary, replica), backend{name: "main", url: sink.URL()})
	gateways := [2]*testutil.Sluice{}
	for i := range gateways {
		gateways[i] = testutil.StartSluice(t, testutil.SluiceOptions{Config: text})
	}
	knows := func(s *testutil.Sluice) bool {
		_, found := s.Metrics(t).Sum("replica_lag_seconds", "target", replica.Addr)
		return found
	}
	leader := -1
	testutil.Await(t, 20*time.Second, "one of the gateways knows the lag", func() string {
		for i, s := range gateways {
			if knows(s) {
				leader = i
				return ""
			}
		}
		return "none does"
	})
	other := gateways[1-leader]
	require.False(t, knows(other), "both probe")

	// It steers by it, tells readers where to read, and hands it on.
	replica.Exec(t, "SELECT pg_wal_replay_pause()")
	primary.Exec(t, "CREATE TABLE x (i int)")
	testutil.Await(t, 10*time.Second, "the replica lags", func() string {
		if v := value(t, gateways[leader], "replica_lag_seconds", "target", replica.Addr); v < 2 {
			return fmt.Sprintf("lag is %v", v)
		}
		return ""
	})
	status, body, err := testutil.Get(gateways[leader].URL("/api/v1/replicas?cluster=orders&max_lag=1s"))
	require.NoError(t, err)
	require.Equal(t, 200, status, body)
	require.Contains(t, body, `"why":"max_lag"`)
	replica.Exec(t, "SELECT pg_wal_replay_resume()")
	testutil.Await(t, 20*time.Second, "the lag reaches the backend", func() string {
		for _, key := range sink.Arrivals().Keys() {
			if strings.Contains(key, `"replica_lag_seconds"`) && strings.Contains(key, replica.Addr) && !strings.Contains(key, "instance=") {
				return ""
			}
		}
		return "no such series"
	})

	killed := time.Now()
	gateways[leader].Kill()
	testutil.Await(t, 10*time.Second, "the other takes over", func() string {
		if !knows(other) {
			return "it does not know the lag"
		}
		return ""
	})
	t.Log("taken over after", time.Since(killed))

	out, err := exec.Command(testutil.BuildSluice(t), "probe", "once", "--config.file="+other.File).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), replica.Addr)
	require.Contains(t, string(out), "primary")
}
