package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/exporter"
	remotewritebackend "github.com/sluice-metrics/sluice/exporter/remotewrite"
	"github.com/sluice-metrics/sluice/exporter/tsdb"
	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/strictyaml"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/receiver"
)

const smallest = "backends: [{name: main, remote_write: {url: 'http://h/w'}}]\n"

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("test.yaml", []byte(text))
	require.NoError(t, err)
	return c
}

func TestSmallestFileHasAllDefaults(t *testing.T) {
	c := mustParse(t, smallest)
	require.Equal(t, receiver.DefaultConfig(), c.Receiver)
	require.Equal(t, disk.DefaultConfig(), c.Journal)
	require.Equal(t, Series{Max: 2_000_000, IdleAfter: model.Duration(30 * time.Minute)}, c.Series)
	require.Nil(t, c.OwnMetrics)
	require.Equal(t, model.Duration(time.Hour), c.OrphanRetention)
	require.Equal(t, model.Duration(30*time.Second), c.ShutdownTimeout)
	require.Len(t, c.Backends, 1)

	b := &c.Backends[0]
	require.Equal(t, "remote_write", b.Kind())
	require.Empty(t, b.Selectors())
	require.Equal(t, "all", b.Digest())
	require.Equal(t, exporter.Backlog{}, b.MaxBacklog)
	want := remotewritebackend.DefaultConfig()
	got := *b.KindConfig().(*remotewritebackend.Config)
	require.Equal(t, "http://h/w", got.URL.String())
	want.URL = got.URL
	require.Equal(t, want, got)
	require.Equal(t, want.Lane, b.Lane())
}

// TestConfigurationOfTheBenchmarks reads the shape that the load generator writes.
func TestConfigurationOfTheBenchmarks(t *testing.T) {
	c := mustParse(t, `
backends:
  - name: main
    remote_write: {url: "http://127.0.0.1:1/api/v1/write", protocol: auto, out_of_order_time_window: 0s}
  - name: local
    tsdb: {retention: 15d, out_of_order_time_window: 1h}
    match: ['{job=~"node|api"}']
`)
	require.Equal(t, []string{"remote_write", "tsdb"}, []string{c.Backends[0].Kind(), c.Backends[1].Kind()})
	store := c.Backends[1].KindConfig().(*tsdb.Config)
	require.Equal(t, model.Duration(15*24*time.Hour), store.Retention)
	require.Len(t, c.Backends[1].Selectors(), 1)
	require.True(t, c.Backends[1].Selectors()[0][0].Matches("api"))
	lane := c.Backends[1].Lane()
	require.NoError(t, lane.Validate())
}

func TestOwnMetricsAndBacklog(t *testing.T) {
	c := mustParse(t, smallest+"own_metrics: {}\n")
	require.Equal(t, &OwnMetrics{Interval: model.Duration(15 * time.Second)}, c.OwnMetrics)

	c = mustParse(t, `
own_metrics: {interval: 1m}
backends: [{name: main, tsdb: {}, max_backlog: {bytes: 5GiB, age: 1d}}]
`)
	require.Equal(t, model.Duration(time.Minute), c.OwnMetrics.Interval)
	require.Equal(t, exporter.Backlog{Bytes: 5 * bytesize.GiB, Age: model.Duration(24 * time.Hour)}, c.Backends[0].MaxBacklog)
}

func TestZeroNeedsNoUnit(t *testing.T) {
	c := mustParse(t, "receiver: {future_limit: 0}\nbackends: [{name: m, tsdb: {retention_size: 0}}]")
	require.Zero(t, c.Receiver.FutureLimit)
	require.Contains(t, c.String(), "bytes: 0 # default\n")
}

func TestDefaultIsValidAndReadsBack(t *testing.T) {
	c := Default()
	require.NoError(t, c.Validate())
	require.Equal(t, "tsdb", c.Backends[0].Kind())
	require.Equal(t, "local", c.Backends[0].Name)
	require.Equal(t, model.Duration(15*time.Second), c.OwnMetrics.Interval)
	require.Equal(t, c, mustParse(t, c.String()))
	require.NotSame(t, Default().Backends[0].KindConfig(), c.Backends[0].KindConfig())
}

func TestStringReadsBackAndHidesSecrets(t *testing.T) {
	text := `
receiver: {max_in_flight: 7, protocols: [rw2]}
journal: {durability: fsync, max_disk: 1TiB}
own_metrics: {interval: 20s}
backends:
  - name: main
    match: ['up', '{job=~"a|b", x!=""}']
    remote_write:
      url: https://user:hunter2@h/w
      basic_auth: {username: u, password: hunter2}
      headers: {X-Api-Key: hunter2, X-Scope-OrgID: team}
      http_headers: {X-Other: {values: [v], secrets: [hunter2], files: [f]}}
      tls_config: {min_version: TLS12, key: hunter2, cert: c}
  - name: other
    remote_write:
      url: http://h/w
      oauth2:
        client_id: c
        client_secret: hunter2
        token_url: http://h/t
        scopes: [a]
        endpoint_params: {p: q}
  - name: local
    tsdb: {retention_size: 0, max_exemplars: 0}
`
	c := mustParse(t, text)
	once := c.String()
	require.NotContains(t, once, "hunter2")
	require.NotContains(t, once, "BUG")
	for _, line := range []string{
		"max_in_flight: 7\n", "durability: fsync\n", "max_disk: 1TiB\n", "segment_size: 64MiB # default\n",
		"protocol: auto # default\n", "password: <secret>\n", "client_secret: <secret>\n", "X-Api-Key: <secret>\n",
		"X-Scope-OrgID: team\n", "max_exemplars: 0\n", "min_version: TLS12\n", "interval: 20s\n",
		"https://user:xxxxx@h/w\n", "retention: 15d # default\n",
	} {
		require.Contains(t, once, line)
	}
	require.Equal(t, once, mustParse(t, once).String())

	require.Equal(t, c.Receiver, mustParse(t, once).Receiver)
	require.Equal(t, c.Journal, mustParse(t, once).Journal)
}

func TestSameDelivery(t *testing.T) {
	parse := func(backend string) *Backend {
		return &mustParse(t, "backends:\n  - "+backend+"\n").Backends[0]
	}
	a := "{name: m, remote_write: {url: 'http://h/w', basic_auth: {username: u, password: p}}}"
	require.True(t, parse(a).SameDelivery(parse(a)))
	for _, other := range []string{
		strings.Replace(a, "password: p", "password: q", 1),
		strings.Replace(a, "name: m", "name: n", 1),
		strings.Replace(a, "//h/", "//i/", 1),
		strings.Replace(a, "name: m,", "name: m, max_backlog: {bytes: 1GiB},", 1),
		"{name: m, tsdb: {}}",
	} {
		require.False(t, parse(a).SameDelivery(parse(other)), other)
	}
	require.True(t, parse(a).SameDelivery(parse(strings.Replace(a, "name: m,", "name: m, match: [up],", 1))), "selectors are the router's")
}

func TestLoadResolvesFilesBesideTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sluice.yaml")
	text := `backends:
  - name: main
    remote_write:
      url: http://h/w
      basic_auth: {username: u, password_file: secrets/pw}
`
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	_, err := Load(path)
	require.EqualError(t, err, path+`:5:48: backends[0].remote_write.basic_auth.password_file: the file cannot be read: stat `+dir+`/secrets/pw: no such file or directory
  5 |       basic_auth: {username: u, password_file: secrets/pw}
    |                                                ^^^^^^^^^^`)

	require.NoError(t, os.MkdirAll(filepath.Join(dir, "secrets", "pw"), 0o700))
	_, err = Load(path)
	require.ErrorContains(t, err, "is a directory")

	require.NoError(t, os.Remove(filepath.Join(dir, "secrets", "pw")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "secrets", "pw"), []byte("x"), 0o600))
	c, err := Load(path)
	require.NoError(t, err)
	auth := c.Backends[0].KindConfig().(*remotewritebackend.Config).HTTP.BasicAuth
	require.Equal(t, filepath.Join(dir, "secrets/pw"), auth.PasswordFile)

	_, err = Load(filepath.Join(dir, "none.yaml"))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "--config.file")
}

func TestEnvironmentVariablesAreNotExpanded(t *testing.T) {
	t.Setenv("SLUICE_TEST_HOST", "elsewhere")
	c := mustParse(t, "backends: [{name: m, remote_write: {url: 'http://h/w', headers: {X-A: '${SLUICE_TEST_HOST}$SLUICE_TEST_HOST'}}}]")
	require.Equal(t, "${SLUICE_TEST_HOST}$SLUICE_TEST_HOST", c.Backends[0].KindConfig().(*remotewritebackend.Config).Headers["X-A"])
}

func TestCheck(t *testing.T) {
	report, ok := Check("../docs/sluice.example.yaml")
	require.True(t, ok, report)
	require.Equal(t, `../docs/sluice.example.yaml: valid, 2 backends
  main: remote_write, takes [{job=~"node|api"} up]
  local: tsdb, takes all series
`, report)

	path := filepath.Join(t.TempDir(), "f.yaml")
	require.NoError(t, os.WriteFile(path, []byte("shutdown_timeout: 0s\nbackend: []\n"), 0o600))
	report, ok = Check(path)
	require.False(t, ok)
	require.Equal(t, strings.ReplaceAll(`F:1:19: shutdown_timeout: must be longer than 0s
  1 | shutdown_timeout: 0s
    |                   ^^
F:2:1: backend: unknown field; did you mean "backends"?
  2 | backend: []
    | ^^^^^^^
F: 2 problems
`, "F", path), report)

	report, ok = Check(path + ".none")
	require.False(t, ok)
	require.Contains(t, report, "no such file")
}

func TestExampleSaysNoDefaultWrong(t *testing.T) {
	data, err := os.ReadFile("../docs/sluice.example.yaml")
	require.NoError(t, err)
	c := mustParse(t, string(data))
	want := Standard()
	require.Equal(t, want.Receiver, c.Receiver)
	require.Equal(t, want.Journal, c.Journal)
	require.Equal(t, want.Series, c.Series)
	require.Equal(t, want.OrphanRetention, c.OrphanRetention)
	require.Equal(t, want.ShutdownTimeout, c.ShutdownTimeout)
}

func FuzzParse(f *testing.F) {
	example, err := os.ReadFile("../docs/sluice.example.yaml")
	require.NoError(f, err)
	f.Add(string(example))
	f.Add(smallest)
	f.Add(Default().String())
	f.Add("backends:\n  - &b\n    name: a\n    match: [up, '{a=\"b']\n    tsdb: {}\n    remote_write: *b\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("f.yaml", []byte(text))
		if err != nil {
			require.IsType(t, &strictyaml.Error{}, err)
			require.NotEmpty(t, err.Error())
			return
		}
		once := c.String()
		again, err := Parse("again.yaml", []byte(once))
		require.NoError(t, err, once)
		require.Equal(t, once, again.String())
		require.Equal(t, c.Backends[0].Digest(), again.Backends[0].Digest())
	})
}
