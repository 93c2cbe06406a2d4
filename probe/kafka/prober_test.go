package kafka_test

import (
	"bufio"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/kafka"
	"github.com/sluice-metrics/sluice/probe/probetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	topic = "orders"
	group = "billing"
)

// start starts an imitation of a broker with one topic of two partitions.
func start(t *testing.T, opts ...kfake.Opt) string {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(2, topic)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c.ListenAddrs()[0]
}

func client(t *testing.T, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(addr), kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// produce adds n records to a partition and returns when that began.
func produce(t *testing.T, c *kgo.Client, partition int32, n int) time.Time {
	t.Helper()
	at := time.Now()
	for range n {
		err := c.ProduceSync(context.Background(), &kgo.Record{Topic: topic, Partition: partition, Value: []byte("v")}).FirstErr()
		require.NoError(t, err)
	}
	return at
}

func commit(t *testing.T, c *kgo.Client, partition int32, next int64) {
	t.Helper()
	var offsets kadm.Offsets
	offsets.AddOffset(topic, partition, next, -1)
	require.NoError(t, kadm.NewClient(c).CommitAllOffsets(context.Background(), group, offsets))
}

func newProber(t *testing.T, c kafka.Config) *kafka.Prober {
	t.Helper()
	require.NoError(t, c.Validate())
	p, err := kafka.New(c)
	require.NoError(t, err)
	return p
}

func at(addr string) kafka.Config {
	c := kafka.DefaultConfig()
	c.Targets = []kafka.Target{{DSN: kafka.DSN("kafka://" + addr)}}
	return c
}

func once(t *testing.T, p probe.Prober) (probe.Reading, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return p.Probe(ctx)
}

func TestGroupLag(t *testing.T) {
	t.Parallel()
	addr := start(t)
	c := client(t, addr)
	produce(t, c, 0, 10)
	commit(t, c, 0, 10)
	w := probetest.Start(t, newProber(t, at(addr)))
	lag := func(v *probe.TargetView) probe.GroupLag {
		for _, g := range v.Groups {
			if g.Group == group && g.Topic == topic && g.Partition == 0 {
				return g
			}
		}
		return probe.GroupLag{Records: 1 << 60}
	}
	w.Await(t, 5*time.Second, addr, func(v *probe.TargetView) bool { return lag(v).Records == 0 })
	v := w.View(t, addr)
	require.Len(t, v.Groups, 1, "a partition without a commit is absent while nobody consumes")
	require.Equal(t, probe.Some(uint64(0)), v.Reading.ConsumerGroups[0].Members)

	since := produce(t, c, 0, 4)
	w.Holds(t, addr, 3*time.Second, func(v *probe.TargetView) bool {
		truth := time.Since(since)
		return (lag(v).Age - truth).Abs() < probetest.Tolerance
	})
	v = w.View(t, addr)
	require.Equal(t, uint64(4), lag(&v).Records)

	// Part of it is committed: what is left is as old as it was, for it came at once.
	commit(t, c, 0, 12)
	w.Await(t, 3*time.Second, addr, func(v *probe.TargetView) bool { return lag(v).Records == 2 })
	w.Holds(t, addr, time.Second, func(v *probe.TargetView) bool {
		return (lag(v).Age - time.Since(since)).Abs() < probetest.Tolerance
	})
	commit(t, c, 0, 14)
	w.Await(t, 3*time.Second, addr, func(v *probe.TargetView) bool { return lag(v).Records == 0 && lag(v).Age == 0 })
}

func TestActiveGroup(t *testing.T) {
	t.Parallel()
	addr := start(t)
	produce(t, client(t, addr), 1, 3)
	consumer := client(t, addr, kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, consumer.PollFetches(ctx).Err())

	c := at(addr)
	c.Groups = []string{group, "nobody"}
	p := newProber(t, c)
	defer p.Close()
	r, err := once(t, p)
	require.NoError(t, err)
	require.Len(t, r.ConsumerGroups, 1, "a group that does not exist is absent")
	require.Equal(t, group, r.ConsumerGroups[0].Group)
	require.Equal(t, probe.Some(uint64(1)), r.ConsumerGroups[0].Members)
	require.Len(t, r.ConsumerGroups[0].Partitions, 2)
	for _, partition := range r.ConsumerGroups[0].Partitions {
		require.False(t, partition.Committed.Known, "nothing was committed")
	}
	require.Len(t, r.Streams, 2)
	require.Equal(t, []string{group, "nobody"}, c.Groups)
}

// The published rules are enough, and what is missing is named.
func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	const password = "s3cret"
	describe := func(resource kmsg.ACLResourceType) kfake.ACL {
		return kfake.ACL{
			Resource: resource, Name: "*", Pattern: kmsg.ACLResourcePatternTypeLiteral,
			Operation: kmsg.ACLOperationDescribe, Allow: true,
		}
	}
	published := rules(t)
	require.Len(t, published, 2)
	var all []kfake.ACL
	for _, resource := range published {
		all = append(all, describe(resource))
	}
	addr := start(
		t, kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("PLAIN", "admin", password),
		kfake.User("PLAIN", "gateway-probe", password, all...),
		kfake.User("PLAIN", "groups-only", password, describe(kmsg.ACLResourceTypeGroup)),
		kfake.User("PLAIN", "nothing", password),
	)
	admin := client(t, addr, kgo.SASL(plain.Auth{User: "admin", Pass: password}.AsMechanism()))
	produce(t, admin, 0, 5)
	commit(t, admin, 0, 2)

	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte(password+"\n"), 0o600))
	as := func(user string) (probe.Reading, error) {
		c := at(addr)
		c.SASLMechanism = kafka.MechanismPlain
		c.Groups = []string{group}
		c.Targets[0] = kafka.Target{DSN: kafka.DSN("kafka://" + user + "@" + addr), PasswordFile: file}
		p := newProber(t, c)
		defer p.Close()
		return once(t, p)
	}
	r, err := as("gateway-probe")
	require.NoError(t, err)
	require.Equal(t, map[string]bool{"groups": true, "topics": true}, r.Privileged)
	require.Equal(t, probe.Some(uint64(2)), r.ConsumerGroups[0].Partitions[0].Committed)
	require.Equal(t, []probe.Stream{{Name: "orders/0", Head: probe.Some(uint64(5))}}, r.Streams)

	r, err = as("groups-only")
	require.NoError(t, err)
	require.False(t, r.Privileged["topics"])

	r, err = as("nothing")
	require.NoError(t, err)
	require.False(t, r.Privileged["groups"])
	require.Empty(t, r.ConsumerGroups)

	account := client(t, addr, kgo.SASL(plain.Auth{User: "gateway-probe", Pass: password}.AsMechanism()))
	err = account.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("v")}).FirstErr()
	require.ErrorContains(t, err, "AUTHORIZATION_FAILED")
}

// rules are the resources on which docs/probe/kafka-acls.txt grants Describe.
func rules(t *testing.T) (resources []kmsg.ACLResourceType) {
	t.Helper()
	root, err := testutil.Root()
	require.NoError(t, err)
	f, err := os.Open(filepath.Join(root, "docs", "probe", "kafka-acls.txt"))
	require.NoError(t, err)
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		line := s.Text()
		if !strings.HasPrefix(line, "kafka-acls.sh ") {
			continue
		}
		require.Contains(t, line, "--operation Describe")
		require.Contains(t, line, "User:gateway-probe")
		switch {
		case strings.Contains(line, "--group '*'"):
			resources = append(resources, kmsg.ACLResourceTypeGroup)
		case strings.Contains(line, "--topic '*'"):
			resources = append(resources, kmsg.ACLResourceTypeTopic)
		}
	}
	return resources
}

// What is set up wrongly gives one clear error, without the password.
func TestBadSetups(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("PLAIN", "admin", "right"))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	// The imitation hangs up on a wrong password; a broker says why.
	cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		answer := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		answer.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return answer, nil, true
	})
	addr := cluster.ListenAddrs()[0]
	silent := testutil.StartProxy(t, addr)
	silent.Set(testutil.Network{HalfOpen: true})
	other := testutil.StartPostgres(t, testutil.PostgresOptions{})
	for name, c := range map[string]struct{ dsn, want string }{
		"wrong password": {"kafka://admin:hush@" + addr, "see password_file and docs/probe/kafka-acls.txt"},
		"no server":      {"kafka://admin:hush@" + testutil.FreeAddress(t), "connection refused: does the server run"},
		"no such host":   {"kafka://admin:hush@db.invalid:9092", "the name has no address"},
		"silent network": {"kafka://admin:hush@" + silent.Address(), "from " + silent.Address() + ": is a firewall dropping packets"},
		"PostgreSQL":     {"kafka://admin:hush@" + other.Addr, "is it a Kafka"},
	} {
		cfg := at("")
		cfg.SASLMechanism = kafka.MechanismPlain
		cfg.Targets[0].DSN = kafka.DSN(c.dsn)
		p := newProber(t, cfg)
		start := time.Now()
		_, err := once(t, p)
		require.ErrorContains(t, err, c.want, name)
		require.ErrorContains(t, err, "Kafka at "+p.Target()+": ", name)
		require.NotContains(t, err.Error(), "\n", name)
		require.Equal(t, name == "wrong password", errors.Is(err, probe.ErrDenied), name)
		require.NotContains(t, err.Error(), "hush", name)
		t.Log(err)
		require.Less(t, time.Since(start), 3*time.Second, name)
		require.NoError(t, p.Close(), name)
	}
}
