package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

const writePath = "/api/v1/write"

// Names of the backends.
const (
	fastBackend = "local"
	slowBackend = "remote"
)

// storeConfig is of the store behind the slow backend.
const storeConfig = `
journal: {max_disk: 256MiB}
shutdown_timeout: 300ms
backends:
- name: store
  tsdb: {retention: 6h, out_of_order_time_window: 1h}
`

// gatewayConfig is of the gateway. Its times are short, so that a loop of two minutes shows
// everything; those of a real one are the defaults. The slow backend does not get the
// gateway's own metrics: those tell of it.
func gatewayConfig(slowURL, rules string) string {
	return fmt.Sprintf(`
journal: {max_disk: 512MiB}
own_metrics: {interval: 2s}
shutdown_timeout: 300ms
backends:
- name: %[1]s
  tsdb: {retention: 6h, out_of_order_time_window: 1h}
- name: %[2]s
  match: ['{job=~"shop|queue|node"}']
  remote_write:
    url: %[3]s
    protocol: rw2
    out_of_order_time_window: 1h
    max_samples_per_send: 200
    max_shards: 1
  adaptive_sampling:
    backpressure_thresholds:
      queue_age_seconds: 4
      write_latency_ms: 4000
    backfill: true
    backfill_after: 8s
    backfill_share: 1 # the debt is to be gone before the loop begins anew
    key_frame_min: 10s
    classes:
    - {name: critical, max_gap: 10s, weight: 8, keep_change: 0.1, match: ['up'], from_rules: {files: [%[4]s]}}
    - {name: low, max_gap: 2m, weight: 0.25, match: ['{__name__=~"go_.*|process_.*"}']}
    - {name: normal, max_gap: 1m, weight: 1}
`, fastBackend, slowBackend, strconv.Quote(slowURL+writePath), strconv.Quote(rules))
}

// ruleFile is of alert rules such as a user has. What they read is of the class critical.
const ruleFile = `groups:
- name: demo
  rules:
  - alert: ShopErrors
    expr: sum by (instance) (rate(http_requests_total{job="shop",code="500"}[1m])) / sum by (instance) (rate(http_requests_total{job="shop"}[1m])) > 0.05
    for: 1m
    labels: {severity: page}
    annotations: {summary: 'The shop answers with errors.'}
  - alert: QueueStuck
    expr: queue_oldest_seconds > 60
    for: 1m
    labels: {severity: page}
    annotations: {summary: 'A queue is not worked off.'}
`

// writeRules writes the rules, and returns the name of the file.
func (d *demo) writeRules() (string, error) {
	dir, err := filepath.Abs(filepath.Join(d.dir, "rules"))
	if err != nil {
		return "", fmt.Errorf("find the directory of the demo's rules: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make the directory of the demo's rules (choose another with --storage.path): %w", err)
	}
	file := filepath.Join(dir, "demo.yml")
	if err := os.WriteFile(file, []byte(ruleFile), 0o600); err != nil {
		return "", fmt.Errorf("write the demo's rules (choose another directory with --storage.path): %w", err)
	}
	return file, nil
}
