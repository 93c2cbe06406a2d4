package lockbench_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/internal/lockbench"
	"github.com/sluice-metrics/sluice/internal/testutil"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		testutil.RemovePostgres()
		os.Exit(code)
	}))
}

// All kinds on real servers: the order of the medians is what a kept lease is for, and the
// rest is there.
func TestCompareAllKinds(t *testing.T) {
	var redis []string
	for range 3 {
		redis = append(redis, testutil.StartRedis(t, testutil.RedisOptions{}).Addr)
	}
	subjects, err := lockbench.Servers{
		Etcd:     testutil.StartEtcd(t, testutil.EtcdOptions{Members: 3}).Endpoints(),
		Redis:    redis,
		Postgres: testutil.StartPostgres(t, testutil.PostgresOptions{}).DSN("postgres"),
	}.Subjects()
	require.NoError(t, err)
	var order []string
	report, err := lockbench.Run(context.Background(), lockbench.Options{
		Subjects: subjects, Acquisitions: 300, Contenders: 4, TTL: time.Second,
		Progress: func(name string) { order = append(order, name) },
	})
	require.NoError(t, err)
	require.Equal(t, []string{"local", "etcd", "etcdcas", "redis", "redlock", "postgres"}, order)
	var table strings.Builder
	require.NoError(t, report.Write(&table, lockbench.Table))
	t.Log("\n" + table.String())

	results := map[string]lockbench.Result{}
	for _, r := range report.Results {
		require.Empty(t, r.Error, r.Name)
		require.Equal(t, r.Name != "redlock", r.Fences, r.Name)
		require.Positive(t, r.Acquire.P50, r.Name)
		require.GreaterOrEqual(t, r.Acquire.P99, r.Acquire.P50, r.Name)
		require.GreaterOrEqual(t, r.Acquire.P999, r.Acquire.P99, r.Name)
		require.Positive(t, r.Handovers, r.Name)
		require.LessOrEqual(t, r.Crash, 3., r.Name)
		require.Equal(t, r.Name == "etcd" || r.Name == "etcdcas" || r.Name == "redlock", r.Stalled != nil, r.Name)
		results[r.Name] = r
	}
	require.LessOrEqual(t, results["etcd"].Acquire.P50, 0.6*results["etcdcas"].Acquire.P50)
	require.Zero(t, results["redlock"].Stalled.Failures, "a minority that is stalled stops nothing")
	require.Less(t, results["redlock"].Stalled.Acquire.P50, 0.1, "nor does it cost each acquisition a time-out")

	var text bytes.Buffer
	require.NoError(t, report.Write(&text, lockbench.JSON))
	var again lockbench.Report
	require.NoError(t, json.Unmarshal(text.Bytes(), &again))
	require.Equal(t, report, &again)
	text.Reset()
	require.NoError(t, report.Write(&text, lockbench.HTML))
	svg := text.String()[strings.Index(text.String(), "<svg"):]
	svg = svg[:strings.Index(svg, "</svg>")+len("</svg>")]
	require.NoError(t, xml.Unmarshal([]byte(svg), new(struct{})))
	require.Equal(t, 6, strings.Count(svg, "<g>"))
}

// A server that is not there is one line of the report.
func TestServerNotThere(t *testing.T) {
	subjects, err := lockbench.Servers{Postgres: "postgres://u:hidden@" + testutil.FreeAddress(t) + "/d"}.Subjects()
	require.NoError(t, err)
	report, err := lockbench.Run(context.Background(), lockbench.Options{Subjects: subjects, Acquisitions: 1, Contenders: 1, TTL: time.Second})
	require.NoError(t, err)
	require.Len(t, report.Results, 2)
	require.Empty(t, report.Results[0].Error)
	require.Contains(t, report.Results[1].Error, "connection refused")
	for _, format := range []lockbench.Format{lockbench.Table, lockbench.JSON, lockbench.HTML} {
		var text strings.Builder
		require.NoError(t, report.Write(&text, format))
		require.Contains(t, text.String(), "connection refused")
		require.NotContains(t, text.String(), "hidden")
	}

	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("interrupted"))
	_, err = lockbench.Run(ctx, lockbench.Options{Subjects: subjects, Acquisitions: 1, Contenders: 1, TTL: time.Second})
	require.EqualError(t, err, "interrupted")
}

// Servers that are not there, or take connections and never answer, cost seconds and a line
// each; the others are measured.
func TestServersThatDoNotAnswer(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	for name, address := range map[string]string{"not there": testutil.FreeAddress(t), "silent": silent.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			servers := lockbench.Servers{
				Etcd: []string{address}, Redis: []string{address, testutil.FreeAddress(t), testutil.FreeAddress(t)},
				Postgres: "postgres://u:hidden@" + address + "/d",
			}
			subjects, err := servers.Subjects()
			require.NoError(t, err)
			failed := map[string]string{}
			start := time.Now()
			report, err := lockbench.Run(context.Background(), lockbench.Options{
				Subjects: subjects, Acquisitions: 1, Contenders: 1, TTL: time.Second,
				Failed: func(name, reason string) { failed[name] += reason },
			})
			require.NoError(t, err)
			require.Less(t, time.Since(start), 25*time.Second, "5 kinds, and the local one")
			require.Len(t, report.Results, 6)
			for _, r := range report.Results {
				require.Equal(t, r.Name != "local", r.Error != "", r.Name)
				require.Equal(t, r.Error, failed[r.Name], "told once")
				require.NotContains(t, r.Error, "\n")
			}
		})
	}
}

func TestParse(t *testing.T) {
	subjects, err := lockbench.Parse("f.yaml", "", []byte(`
leases:
  - {name: a, etcd: {endpoints: [127.0.0.1:2379]}}
  - {name: b, etcdcas: {endpoints: [127.0.0.1:2379]}}
  - {name: c, redlock: {addresses: [127.0.0.1:1, 127.0.0.1:2, 127.0.0.1:3]}}
  - {name: d, redis: {address: 127.0.0.1:1}}
  - {name: e, postgres: {dsn: "postgres://u@127.0.0.1/d"}}
  - {name: f, local: {}}
`))
	require.NoError(t, err)
	var kinds []string
	for _, s := range subjects {
		kinds = append(kinds, s.Kind)
		store, err := s.Open(s.Addresses)
		require.NoError(t, err)
		require.Equal(t, s.Kind, store.Kind())
		require.NoError(t, store.Close())
	}
	require.Equal(t, []string{"etcd", "etcdcas", "redlock", "redis", "postgres", "local"}, kinds)

	tests := map[string]struct{ text, want string }{
		"nothing":        {"", "leases: is missing"},
		"unknown key":    {"leases: [{name: a, redis: {adress: x}}]", "f.yaml:1:28: leases[0].redis.adress: unknown field"},
		"two kinds":      {"leases: [{name: a, local: {}, redis: {address: 'h:1'}}]", "leases[0]: 2 kinds"},
		"no kind":        {"leases: [{name: a}]", "leases[0]: 0 kinds"},
		"no name":        {"leases: [{local: {}}]", "leases[0].name: is missing"},
		"few redis":      {"leases: [{name: a, redlock: {addresses: ['h:1']}}]", "leases[0].redlock.addresses: has 1; list 3 or more"},
		"even redis":     {"leases: [{name: a, redlock: {addresses: ['h:1','h:2','h:3','h:4']}}]", "an even number"},
		"redis twice":    {"leases: [{name: a, redlock: {addresses: ['h:1','h:1','h:3']}}]", "stands there twice"},
		"no endpoints":   {"leases: [{name: a, etcd: {}}]", "leases[0].etcd.endpoints: is missing"},
		"wrong endpoint": {"leases: [{name: a, etcdcas: {endpoints: [h]}}]", `leases[0].etcdcas.endpoints[0]: "h" is not host:port`},
		"https":          {"leases: [{name: a, etcd: {endpoints: ['https://h:1']}}]", "does not go with tls_config"},
		"password alone": {"leases: [{name: a, etcd: {endpoints: ['h:1'], password_file: x}}]", "etcd.username: needs a password"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := lockbench.Parse("f.yaml", "", []byte(test.text))
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestQuantiles(t *testing.T) {
	require.Equal(t, lockbench.Quantiles{}, lockbench.QuantilesOf(nil))
	var d []time.Duration
	for i := range 1000 {
		d = append(d, time.Duration(1000-i)*time.Second)
	}
	require.Equal(t, lockbench.Quantiles{P50: 501, P99: 991, P999: 1000}, lockbench.QuantilesOf(d))
}
