package web

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

// browser is a headless Chromium that notes what a page must not do.
type browser struct {
	ctx context.Context

	mu       sync.Mutex
	asked    []string // URLs
	troubles []string
}

// startBrowser starts one that shows a window of the size.
func startBrowser(t *testing.T) *browser {
	t.Helper()
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(testutil.Program(t, "chromium")),
		chromedp.NoSandbox, // Chromium refuses to run as root otherwise
		chromedp.UserDataDir(profile(t)),
		chromedp.DisableGPU,
	)
	allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
	tab, cancel := chromedp.NewContext(allocator)
	ctx, timeout := context.WithTimeout(tab, 2*time.Minute)
	b := &browser{ctx: ctx}
	t.Cleanup(func() {
		_ = chromedp.Cancel(tab) // the browser ends either way
		timeout()
		cancel()
		end()
	})
	require.NoError(t, chromedp.Listen(ctx, b.note))
	call(t, b, network.Enable, network.EnableParams{})
	call(t, b, cdplog.Enable, cdp.Empty{})
	b.size(t, 1280, 800)
	return b
}

// profile is a directory that the browser may write to for a moment after its end.
func profile(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "chromium")
	require.NoError(t, err)
	t.Cleanup(func() {
		testutil.Await(t, 10*time.Second, "the browser leaves its profile alone", func() string {
			if err := os.RemoveAll(dir); err != nil {
				return err.Error()
			}
			return ""
		})
	})
	return dir
}

func (b *browser) note(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.asked = append(b.asked, e.Request.URL)
	case *runtime.EventExceptionThrown:
		b.troubles = append(b.troubles, fmt.Sprintf("exception: %+v", e.ExceptionDetails))
	case *runtime.EventConsoleAPICalled:
		b.troubles = append(b.troubles, fmt.Sprintf("console.%s: %+v", e.Type, e.Args))
	case *cdplog.EventEntryAdded:
		b.troubles = append(b.troubles, fmt.Sprintf("%s: %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL))
	}
}

// step is what is done in the browser for its effect.
type step = chromedp.Action[chromedp.Void]

func (b *browser) do(t *testing.T, steps ...step) {
	t.Helper()
	require.NoError(t, chromedp.Do(b.ctx, steps...), "troubles: %v", b.complaints())
}

// get does what has a result.
func get[T any](t *testing.T, b *browser, a chromedp.Action[T]) T {
	t.Helper()
	v, err := chromedp.Run(b.ctx, a)
	require.NoError(t, err, "troubles: %v", b.complaints())
	return v
}

func call[P, R any](t *testing.T, b *browser, c cdp.Command[P, R], params P) {
	t.Helper()
	_, err := chromedp.Call(b.ctx, c, params)
	require.NoError(t, err)
}

func (b *browser) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.troubles)
}

func (b *browser) size(t *testing.T, width, height int64) {
	t.Helper()
	call(t, b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 600,
	})
}

// scheme makes the browser prefer light or dark.
func (b *browser) scheme(t *testing.T, name string) {
	t.Helper()
	call(t, b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
	})
}

// text is what people read in the element.
func (b *browser) text(t *testing.T, selector string) string {
	t.Helper()
	return get(t, b, chromedp.Text(selector))
}

// await waits until people read the text in the element.
func (b *browser) await(t *testing.T, selector, want string) {
	t.Helper()
	_, err := chromedp.Run(b.ctx, chromedp.Poll[bool](fmt.Sprintf(`document.querySelector(%q).innerText.includes(%q)`, selector, want),
		chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(30*time.Second)))
	if err != nil {
		require.NoError(t, err, "%s has no %q but %q; troubles: %v", selector, want, b.text(t, selector), b.complaints())
	}
}

// holds reports what a JavaScript expression says.
func (b *browser) holds(t *testing.T, expression string) bool {
	t.Helper()
	return get(t, b, chromedp.Evaluate[bool](expression))
}

func (b *browser) number(t *testing.T, expression string) float64 {
	t.Helper()
	return get(t, b, chromedp.Evaluate[float64](expression))
}

// requireClean fails where the page complained, or asked another server.
func (b *browser) requireClean(t *testing.T, base string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Empty(t, b.troubles)
	require.NotEmpty(t, b.asked)
	for _, url := range b.asked {
		require.True(t, strings.HasPrefix(url, base+"/") || strings.HasPrefix(url, "data:"), "the page asks for %s", url)
	}
}

// screenshot puts what the window shows, or all of the page, into docs/img where the
// variable UPDATE_SCREENSHOTS is set.
func (b *browser) screenshot(t *testing.T, name string, all bool) {
	t.Helper()
	if os.Getenv("UPDATE_SCREENSHOTS") == "" {
		return
	}
	take := chromedp.CaptureScreenshot()
	if all {
		const lossless = 100
		take = chromedp.FullScreenshot(lossless)
	}
	picture := smaller(t, get(t, b, take))
	dir := filepath.Join("..", "docs", "img")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o644))
	require.Less(t, len(picture), 200<<10)
}

// smaller is the same picture in fewer bytes.
func smaller(t *testing.T, picture []byte) []byte {
	t.Helper()
	img, err := png.Decode(bytes.NewReader(picture))
	require.NoError(t, err)
	var b bytes.Buffer
	require.NoError(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, img))
	return b.Bytes()
}

// show serves the site, live, until the test ends.
func show(t *testing.T, w *world) (base string) {
	t.Helper()
	base, _ = serve(t, w)
	return base
}

// serve is show with an end of the live part.
func serve(t *testing.T, w *world) (base string, stop func()) {
	t.Helper()
	w.site.SetRoutes(http.NewServeMux())
	server := httptest.NewServer(w.site)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { w.site.Run(ctx) })
	stop = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(func() {
		stop()
		server.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	testutil.Await(t, 10*time.Second, "the site is live", func() string {
		if _, ok := w.site.stream.next(); !ok {
			return "not yet"
		}
		return ""
	})
	return server.URL, stop
}

// Two backends, one of which is thinned and failing, a cluster, a lease: all of it is seen
// without scrolling on a small screen, and without scrolling sideways on a phone.
func TestBrowser_Layout(t *testing.T) {
	w := newWorld(t, "")
	w.hour()
	w.change(func(st *Status) { st.Lanes[0].State = "throttled" })
	base := show(t, w)
	b := startBrowser(t)
	const wide, high = `document.documentElement.scrollWidth`, `document.documentElement.scrollHeight`
	for _, c := range []struct {
		name          string
		scheme        string
		width, height int64
	}{
		{"status-light", "light", 1280, 800},
		{"status-dark", "dark", 1280, 800},
		{"status-narrow", "light", 390, 844},
	} {
		b.size(t, c.width, c.height)
		b.scheme(t, c.scheme)
		b.do(t, chromedp.Navigate(base+"/?series=up%7Bjob%3D%22node%22%7D"))
		b.await(t, "#link", "live")
		b.screenshot(t, c.name, c.width < 600)
		require.LessOrEqual(t, b.number(t, wide), float64(c.width), c.name)
		if c.width > 600 {
			require.LessOrEqual(t, b.number(t, high), float64(c.height), c.name)
			for _, part := range []string{".backends", "#databases", "#leases", "#happened", "#answer"} {
				require.True(t, b.holds(t, fmt.Sprintf(`(({scrollHeight, clientHeight}) => scrollHeight <= clientHeight)(document.querySelector(%q))`, part)), "%s: %s scrolls", c.name, part)
			}
		}
	}
	b.requireClean(t, base)
}

func TestBrowser_Live(t *testing.T) {
	w := newWorld(t, "")
	w.pass(10*time.Second, 120, 1)
	base := show(t, w)
	b := startBrowser(t)
	b.do(t, chromedp.Navigate(base+"/"))
	b.await(t, "#link", "live")
	require.Contains(t, b.text(t, "#headline"), "database db3:5432 of orders is down: connection refused")

	// What the reader has done stays while the page goes on.
	b.do(t, chromedp.Click("#databases summary"), chromedp.SendKeys("#series", `up{job="node"`))
	w.pass(10*time.Second, 120, 0.25)
	w.change(func(st *Status) { st.Lanes[0].State = "failing" })
	b.await(t, "#headline", "main is failing since")
	b.await(t, "#pipeline", "withheld")
	b.await(t, "#pipeline", "queue_age is 14.2 of 10")
	require.True(t, b.holds(t, `document.activeElement.id === "series" && document.activeElement.value === 'up{job="node"'`))
	require.False(t, b.holds(t, `document.querySelector("#databases details").open`))

	// The look-up does not load the page anew: the mark stays.
	b.do(t, chromedp.Evaluate[chromedp.Void](`window.mark = true`), chromedp.SendKeys("#series", "}\n"))
	b.await(t, "#answer", `up{job="node"}`)
	b.await(t, "#answer", "everything else")
	b.await(t, "#answer", "25 %")
	b.await(t, "#answer", "not selected")
	require.True(t, b.holds(t, `window.mark`))
	b.requireClean(t, base)
}

// Without JavaScript all is there, and the form works.
func TestBrowser_WithoutScripts(t *testing.T) {
	w := newWorld(t, "")
	w.pass(10*time.Second, 120, 0.25)
	base := show(t, w)
	b := startBrowser(t)
	call(t, b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	b.do(t, chromedp.Navigate(base+"/"), chromedp.SendKeys("#series", `up{job="node"}`), chromedp.Submit("#lookup"), chromedp.WaitVisible("#answer table"))
	require.Contains(t, b.text(t, "#answer"), "everything else")
	require.Contains(t, b.text(t, ".when"), "Refresh or every 10 s")
	b.requireClean(t, base)
}
