package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/config"
)

// BenchmarkEndToEnd posts requests of 2,000 known series and waits until the backend has
// them: HTTP in, journal, lane, HTTP out. CPU is of the process, the backend and the
// sender in it included.
func BenchmarkEndToEnd(b *testing.B) {
	const samples = 2000
	var arrived atomic.Int64
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		arrived.Add(n)
		w.WriteHeader(http.StatusNoContent)
	}))
	defer sink.Close()
	url, stop := startGateway(b, fmt.Sprintf("backends:\n- name: sink\n  remote_write: {url: %s/api/v1/write, protocol: rw1}\n", sink.URL), slog.New(slog.DiscardHandler))
	defer stop()

	body := requestOf(b, samples)
	post := func() {
		res, err := http.Post(url, "application/x-protobuf", bytes.NewReader(body))
		require.NoError(b, err)
		require.NoError(b, res.Body.Close())
		require.Equal(b, http.StatusNoContent, res.StatusCode)
	}
	post()
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		post()
	}
	// Joined bodies are a few bytes shorter than their parts.
	for want := int64(b.N) * int64(len(body)-8); arrived.Load() < want; {
		time.Sleep(time.Millisecond) // the last ones are on their way
	}
	b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N)/samples, "cpu-ns/sample")
}

// startGateway runs a gateway with the configuration and returns the URL to write to. stop
// may be called once.
func startGateway(b testing.TB, text string, logger *slog.Logger) (url string, stop func()) {
	b.Helper()
	c, err := config.Parse("sluice.yaml", []byte(text))
	require.NoError(b, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	g, err := New(Options{
		Config:      c,
		StoragePath: b.TempDir(),
		Listener:    l,
		Scheme:      "http",
		Serve:       func(l net.Listener, s *http.Server) error { return s.Serve(l) },
		Logger:      logger,
		Now:         time.Now,
	})
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	for g.ready.get() != "" {
		time.Sleep(time.Millisecond) // opening the backend is all that is waited for
	}
	return g.writeURL(), func() {
		cancel()
		require.NoError(b, <-ended)
	}
}

func requestOf(b testing.TB, samples int) []byte {
	b.Helper()
	var r prompb.WriteRequest
	now := time.Now().UnixMilli()
	for i := range samples {
		ls := []prompb.Label{{Name: "__name__", Value: "http_request_duration_seconds_bucket"}}
		for k := range 10 {
			ls = append(ls, prompb.Label{Name: fmt.Sprintf("label_%02d", k), Value: fmt.Sprintf("some-value-of-usual-length-%d", i/(k+1))})
		}
		r.Timeseries = append(r.Timeseries, prompb.TimeSeries{Labels: ls, Samples: []prompb.Sample{{Value: float64(i), Timestamp: now}}})
	}
	plain, err := r.Marshal()
	require.NoError(b, err)
	return snappy.Encode(nil, plain)
}

// cpuTime is the user and system time of the process, in ns.
func cpuTime(b *testing.B) int64 {
	b.Helper()
	var r syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return r.Utime.Nano() + r.Stime.Nano()
}
