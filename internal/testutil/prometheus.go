package testutil

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// PrometheusOptions configure a real Prometheus.
type PrometheusOptions struct {
	// Config is the text of prometheus.yml; empty is an empty configuration. The
	// text {{.Self}} in it stands for the server's own address.
	Config string
	// Receiver makes it accept remote write.
	Receiver bool
}

// Prometheus is a running Prometheus of the distribution (2.42) with native
// histograms and exemplars on.
type Prometheus struct {
	*Process
	Address string // host:port
	Config  string // text of its configuration file
	file    string
}

// StartPrometheus starts a Prometheus with its data in the test's folder and waits
// until it is ready.
func StartPrometheus(t testing.TB, opts PrometheusOptions) *Prometheus {
	t.Helper()
	dir, address := t.TempDir(), FreeAddress(t)
	config := opts.Config
	if config == "" {
		config = "global: {}\n"
	}
	p := &Prometheus{Address: address, file: filepath.Join(dir, "prometheus.yml")}
	p.Configure(t, config)
	args := []string{
		"--config.file=" + p.file, "--storage.tsdb.path=" + filepath.Join(dir, "data"),
		"--web.listen-address=" + address, "--log.level=info",
		"--enable-feature=native-histograms,exemplar-storage",
	}
	if opts.Receiver {
		args = append(args, "--web.enable-remote-write-receiver")
	}
	p.Process = StartProcess(t, Command{Name: "prometheus", Path: Tool(t, "prometheus"), Args: args, Dir: dir})
	AwaitReady(t, p.Process, p.URL("/-/ready"), 60*time.Second)
	return p
}

// Configure writes the configuration file, in which {{.Self}} stands for the server's
// address. A running Prometheus reads it at SIGHUP.
func (p *Prometheus) Configure(t testing.TB, config string) {
	t.Helper()
	p.Config = strings.ReplaceAll(config, "{{.Self}}", p.Address)
	require.NoError(t, os.WriteFile(p.file, []byte(p.Config), 0o600))
}

// URL is the server's URL with the path.
func (p *Prometheus) URL(path string) string { return "http://" + p.Address + path }

// AwaitReady polls the URL until it answers 200. It fails the test at the limit, or
// at once when the process ends.
func AwaitReady(t testing.TB, p *Process, url string, limit time.Duration) {
	t.Helper()
	last := "no answer yet"
	for deadline := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		if !p.Running() {
			require.FailNow(t, "process ended before it was ready", "%s", lastLines(p.Log(), 40))
		}
		status, body, err := Get(url)
		switch {
		case err != nil:
			last = err.Error()
		case status == http.StatusOK:
			return
		default:
			last = fmt.Sprintf("status %d: %s", status, body)
		}
		if time.Now().After(deadline) {
			require.FailNow(t, "process did not get ready", "after %v: %s", limit, last)
		}
	}
}

// Get fetches the URL on a connection of its own.
func Get(url string) (status int, body string, err error) {
	return do(http.MethodGet, url, nil)
}

// Post sends an empty body to the URL on a connection of its own.
func Post(url string) (status int, body string, err error) {
	return do(http.MethodPost, url, nil)
}

func do(method, url string, body io.Reader) (int, string, error) {
	req, err := http.NewRequestWithContext(context.Background(), method, url, body)
	if err != nil {
		return 0, "", fmt.Errorf("%s %s: %w", method, url, err)
	}
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return 0, "", fmt.Errorf("%s %s: read the answer: %w", method, url, err)
	}
	return resp.StatusCode, string(b), nil
}

// Query is one question to a Prometheus query API. A zero Step asks for one instant,
// End.
type Query struct {
	Expr       string
	Start, End time.Time
	Step       time.Duration
}

// Result is the answer to a Query as text: one line a series, sorted, with the values
// as the server wrote them.
type Result []string

// Ask sends the query to the API below base (http://host:port, possibly with a
// prefix).
func Ask(base string, q Query) (Result, error) {
	v := url.Values{"query": {q.Expr}}
	path := "/api/v1/query"
	if q.Step > 0 {
		path = "/api/v1/query_range"
		v.Set("start", seconds(q.Start))
		v.Set("end", seconds(q.End))
		v.Set("step", strconv.FormatFloat(q.Step.Seconds(), 'f', -1, 64))
	} else {
		v.Set("time", seconds(q.End))
	}
	status, body, err := Get(base + path + "?" + v.Encode())
	if err != nil {
		return nil, err
	}
	var answer struct {
		Status string
		Error  string
		Data   struct {
			Result json.RawMessage
		}
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		return nil, fmt.Errorf("query %s: status %d: %w: %s", q.Expr, status, err, body)
	}
	if answer.Status != "success" {
		return nil, fmt.Errorf("query %s: status %d: %s", q.Expr, status, answer.Error)
	}
	return lines(answer.Data.Result)
}

func seconds(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64)
}

func lines(raw json.RawMessage) (Result, error) {
	var series []struct {
		Metric     map[string]string
		Value      json.RawMessage
		Values     []json.RawMessage
		Histogram  json.RawMessage
		Histograms []json.RawMessage
	}
	if err := json.Unmarshal(raw, &series); err != nil {
		// A scalar or a string is a value without series.
		return Result{string(raw)}, nil //nolint:nilerr // the other shape of an answer
	}
	out := make(Result, 0, len(series))
	for _, s := range series {
		labels, err := json.Marshal(s.Metric) // sorted by name
		if err != nil {
			return nil, fmt.Errorf("query answer: %w", err)
		}
		out = append(out, fmt.Sprintf("%s %s%s %s%s", labels, s.Value, s.Values, s.Histogram, s.Histograms))
	}
	slices.Sort(out)
	return out, nil
}
