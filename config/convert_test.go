package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	remotewritebackend "github.com/sluice-metrics/sluice/exporter/remotewrite"
)

func convert(t *testing.T, directory, text string) *Conversion {
	t.Helper()
	c, err := FromPrometheus(PrometheusFile{Name: "prometheus.yml", Directory: directory, Data: []byte(text), Gateway: "http://127.0.0.1:9201/"})
	require.NoError(t, err)
	return c
}

const fullPrometheus = `
global: {scrape_interval: 15s, external_labels: {cluster: shop}}
scrape_configs: [{job_name: node}]
remote_write:
  - url: https://mimir.example.org/api/v1/push
    remote_timeout: 20s
    headers: {X-Scope-OrgID: team-a}
    basic_auth: {username: "0123", password_file: secret}
    tls_config: {ca_file: /ca.crt, insecure_skip_verify: true}
    send_exemplars: true
    queue_config: {capacity: 10000, max_shards: 200, min_shards: 2, max_samples_per_send: 2000, min_backoff: 30ms, max_backoff: 5s, sample_age_limit: 1d, batch_send_deadline: 5s, retry_on_http_429: true}
    write_relabel_configs:
      - {source_labels: [job], regex: node|api, action: keep}
      - {source_labels: [__name__], regex: go_.*, action: drop}
      - {source_labels: [a, b], regex: x;y, action: keep}
      - {target_label: team, replacement: core}
      - {source_labels: [team], regex: core, action: keep}
    metadata_config: {send: false}
  - url: https://mimir.example.org/api/v1/push
    authorization: {credentials: sesame}
    sigv4: {region: eu-west-1}
    write_relabel_configs: [{source_labels: [le], regex: .+, action: drop}]
    flavour: x
  - {name: "old store!", url: "http://h/w", protobuf_message: prometheus.WriteRequest, bearer_token_file: token}
`

func TestConvertPrometheus(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"secret", "token"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, f), []byte("x"), 0o600))
	}
	got := convert(t, dir, fullPrometheus)
	require.Equal(t, "remote_write:\n  - url: http://127.0.0.1:9201/api/v1/write\n    send_exemplars: true\n", got.RemoteWrite)
	require.Equal(t, strings.ReplaceAll(`# Made of the remote_write of prometheus.yml. In its place belongs there:
#
#   remote_write:
#     - url: http://127.0.0.1:9201/api/v1/write
#       send_exemplars: true
#
# Nothing is withheld from a backend that lags unless there is a section adaptive_sampling,
# and given back only to one with out_of_order_time_window; see docs/sampling.md.

backends:
  # not carried over: queue_config.capacity: the journal on disk takes its place
  # not carried over: queue_config.max_shards: 200 is more than the 64 that Sluice has at most
  # not carried over: queue_config.batch_send_deadline: a lane sends as soon as there is room for a request
  # not carried over: queue_config.retry_on_http_429: 429 is always tried again, after the pause that the backend asks for
  # not carried over: write_relabel_configs[2] (keep): a selector matches one label at a time; say it as match
  # not carried over: write_relabel_configs[3] (replace): Sluice does not change labels; relabel in Prometheus, before it sends to Sluice
  # not carried over: write_relabel_configs[4] (keep): comes after write_relabel_configs[3]
  # not carried over: metadata_config: metadata is passed on as it is received
  - name: mimir-example-org
    max_backlog:
      age: 1d
    match:
    - '{job=~"node|api",__name__!~"go_.*"}'
    remote_write:
      url: https://mimir.example.org/api/v1/push
      timeout: 20s
      headers: {X-Scope-OrgID: team-a}
      basic_auth: {username: "0123", password_file: DIR/secret}
      tls_config: {ca_file: /ca.crt, insecure_skip_verify: true}
      max_shards: 64
      min_shards: 2
      max_samples_per_send: 2000
      min_backoff: 30ms
      max_backoff: 5s
  # not carried over: sigv4: Sluice does not sign requests for AWS; put a signing proxy between, such as aws-sigv4-proxy
  # not carried over: flavour: Sluice has nothing like it
  - name: mimir-example-org-2
    match:
    - '{le!~".+"}'
    remote_write:
      url: https://mimir.example.org/api/v1/push
      authorization: {credentials: sesame}
  - name: old-store
    remote_write:
      url: "http://h/w"
      protocol: rw1
      authorization:
        credentials_file: DIR/token
`, "DIR", dir), got.Config)

	c := mustParse(t, got.Config)
	require.NoError(t, validate(t, compiledSchema(t), got.Config))
	first := c.Backends[0].KindConfig().(*remotewritebackend.Config)
	require.Equal(t, 2000, first.Lane.MaxSamplesPerSend)
	require.Equal(t, "0123", first.HTTP.BasicAuth.Username)
	require.Equal(t, model.Duration(24*time.Hour), c.Backends[0].MaxBacklog.Age)
}

// What a selector takes is what the rules keep.
func TestConvertedSelectorsKeepWhatTheRulesKeep(t *testing.T) {
	got := convert(t, "", fullPrometheus)
	matchers := mustParse(t, got.Config).Backends[0].Selectors()[0]
	for series, want := range map[string]bool{
		`{__name__="up", job="node"}`:            true,
		`{__name__="up", job="node2"}`:           false,
		`{__name__="up"}`:                        false,
		`{__name__="go_goroutines", job="node"}`: false,
	} {
		s, err := parseLabels(series)
		require.NoError(t, err)
		kept := true
		for _, m := range matchers {
			kept = kept && m.Matches(s.Get(m.Name))
		}
		require.Equal(t, want, kept, series)
	}
}

func parseLabels(text string) (labels.Labels, error) {
	var s Selector
	if err := s.UnmarshalText([]byte(text)); err != nil {
		return labels.EmptyLabels(), err
	}
	b := labels.NewBuilder(labels.EmptyLabels())
	for _, m := range s.Matchers() {
		b.Set(m.Name, m.Value)
	}
	return b.Labels(), nil
}

func TestConvertSharedSettings(t *testing.T) {
	got := convert(t, "", "x: &x {max_shards: 5}\nremote_write:\n  - &a {url: 'http://h/w', queue_config: *x}\n  - {<<: *a, name: b}\n")
	c := mustParse(t, got.Config)
	require.Equal(t, "b", c.Backends[1].Name)
	require.Equal(t, 5, c.Backends[1].KindConfig().(*remotewritebackend.Config).Lane.MaxShards)
}

func TestConvertSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"":                         "prometheus.yml has no remote_write: there is nothing to convert",
		"remote_write: []":         "has no remote_write",
		"remote_write: [":          "prometheus.yml is no YAML",
		"\nremote_write:\n- x":     "prometheus.yml:3: remote_write[0]: expected a section",
		"remote_write: [{a: b}]":   "remote_write[0]: has no url",
		"remote_write: [{url: x}]": "backends[0].remote_write.url: must start with http:// or https://",
	} {
		_, err := FromPrometheus(PrometheusFile{Name: "prometheus.yml", Data: []byte(text), Gateway: "http://g"})
		require.ErrorContains(t, err, want, text)
	}
}
