package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

// A running gateway with two backends: the page is live, tells where a series goes and that
// a backend has begun to fail, and ends when the gateway is told to stop.
func TestBrowser_Gateway(t *testing.T) {
	main, archive := testutil.StartSink(t, testutil.SinkOptions{}), testutil.StartSink(t, testutil.SinkOptions{})
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: fmt.Sprintf(`
adaptive_sampling: {}
backends:
  - name: main
    remote_write: {url: %q, max_backoff: 1s}
  - name: archive
    match: ['{job="load"}']
    remote_write: {url: %q, max_backoff: 1s}
`, main.URL(), archive.URL())})
	base := s.URL("")
	b := startBrowser(t)
	b.do(t, chromedp.Navigate(base+"/"))
	b.await(t, "#link", "live")
	require.Contains(t, b.text(t, "#headline"), "Ready. Every backend takes what it is sent")
	b.await(t, "#pipeline", "Nobody has sent anything yet")
	b.await(t, "#send pre", s.WriteURL())

	const enough = 30 * time.Second
	testutil.StartLoad(t, testutil.LoadOptions{URL: s.WriteURL(), Rounds: 20}).Wait(t, enough)
	b.await(t, "#pipeline", "remote write")
	s.AwaitEmpty(t, "main", enough)
	requireSameTotals(t, base, main)

	b.do(t, chromedp.SendKeys("#series", "up{job=\"x\"}\n"))
	b.await(t, "#answer", `{__name__="up", job="x"}`)
	b.await(t, "#answer", "critical")
	b.await(t, "#answer", "not selected")
	b.await(t, "#answer", "100 %")
	b.do(t, chromedp.SendKeys("#series", "~\n"))
	b.await(t, "#answer", "not a series selector")

	archive.Down()
	testutil.StartLoad(t, testutil.LoadOptions{URL: s.WriteURL(), Rounds: 20}).Wait(t, enough)
	b.await(t, "#headline", "archive is failing since")
	b.await(t, "#happened", "The backend fails; everything stays in the journal")
	b.await(t, "#pipeline", "Last error")
	archive.Up(t)
	b.await(t, "#headline", "Ready. Every backend takes")
	b.requireClean(t, base)

	s.Signal(t, syscall.SIGTERM)
	b.await(t, "#link", "not connected")
	require.Zero(t, s.Wait(t, enough))
}

// requireSameTotals compares what the page says was delivered with what has arrived.
func requireSameTotals(t *testing.T, base string, sink *testutil.Sink) {
	t.Helper()
	arrived := uint64(sink.Arrivals().Total()[0])
	testutil.Await(t, 5*time.Second, "the page has what was delivered last", func() string {
		p := pictureOf(t, base)
		require.GreaterOrEqual(t, p.Received.Samples, p.Lanes[0].Delivered.Samples)
		if p.Lanes[0].Delivered.Samples != arrived {
			return fmt.Sprintf("%d of %d samples", p.Lanes[0].Delivered.Samples, arrived)
		}
		return ""
	})
}

func pictureOf(t *testing.T, base string) (p Picture) {
	t.Helper()
	resp, err := http.Get(base + "/api/v1/status")
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&p))
	return p
}
