package testutil

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// LoadOptions describe a load. Zero values take the stated defaults.
type LoadOptions struct {
	URL      string
	Name     string   // label job of all its series; "load"
	Protocol Protocol // RW1
	Content  Content
	Series   int           // 200
	Target   int           // series of one target, which have one instance and are scraped together; 1
	Batch    int           // series in a request; 100
	Senders  int           // 2; each owns a stripe of the series
	Rate     int           // samples in a second of all senders; 0 is as fast as accepted
	Rounds   int           // rounds to send; 0 is until Stop
	Start    time.Time     // of the first round; now
	Step     time.Duration // between the timestamps of two rounds; 50 ms
	Pause    time.Duration // between two attempts; 50 ms. Retry-After is noted, not obeyed
}

func (o LoadOptions) withDefaults() LoadOptions {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	set(&o.Series, 200)
	set(&o.Target, 1)
	set(&o.Batch, 100)
	set(&o.Senders, 2)
	if o.Name == "" {
		o.Name = "load"
	}
	if o.Protocol == "" {
		o.Protocol = RW1
	}
	if o.Start.IsZero() {
		o.Start = time.Now()
	}
	if o.Step == 0 {
		o.Step = 50 * time.Millisecond
	}
	if o.Pause == 0 {
		o.Pause = 50 * time.Millisecond
	}
	return o
}

// Load sends rounds of valid samples and repeats each request until it is
// acknowledged, as a Prometheus does. It remembers what was acknowledged. Its
// methods may be called from several goroutines.
type Load struct {
	opts   LoadOptions
	gen    *generator
	client *http.Client

	stop   chan struct{} // closed by Stop: no new rounds
	once   sync.Once
	cancel context.CancelFunc
	idle   chan struct{} // closed when all senders have returned

	mu       sync.Mutex
	acked    []int // per series: rounds [0, acked) are acknowledged or refused for good
	tried    []int // per series: rounds [0, tried) may have been sent
	refused  map[refusal]bool
	points   int // acknowledged
	answers  map[int]int
	problems []string
	after    string // newest Retry-After header
}

// refusal is a round of a series that was answered with a permanent error.
type refusal struct{ series, round int }

// StartLoad starts the senders. They end with the test.
func StartLoad(t testing.TB, opts LoadOptions) *Load {
	t.Helper()
	require.NotEmpty(t, opts.URL, "a load needs a URL")
	opts = opts.withDefaults()
	ctx, cancel := context.WithCancel(context.Background())
	l := &Load{
		opts:    opts,
		gen:     newGenerator(opts),
		client:  &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: opts.Senders}},
		stop:    make(chan struct{}),
		cancel:  cancel,
		idle:    make(chan struct{}),
		acked:   make([]int, opts.Series),
		tried:   make([]int, opts.Series),
		refused: map[refusal]bool{},
		answers: map[int]int{},
	}
	var senders sync.WaitGroup
	for i := range opts.Senders {
		from, to := i*opts.Series/opts.Senders, (i+1)*opts.Series/opts.Senders
		senders.Go(func() { l.send(ctx, from, to) })
	}
	go func() {
		senders.Wait()
		l.client.CloseIdleConnections()
		close(l.idle)
	}()
	t.Cleanup(func() {
		l.halt()
		cancel()
		<-l.idle
	})
	return l
}

func (l *Load) halt() { l.once.Do(func() { close(l.stop) }) }

// Stop starts no new requests and returns when those begun are acknowledged. It
// fails the test when that takes longer than the limit.
func (l *Load) Stop(t testing.TB, limit time.Duration) {
	t.Helper()
	l.halt()
	l.Wait(t, limit)
}

// Wait returns when all rounds are acknowledged; see LoadOptions.Rounds.
func (l *Load) Wait(t testing.TB, limit time.Duration) {
	t.Helper()
	select {
	case <-l.idle:
	case <-time.After(limit):
		require.FailNow(t, "load was not acknowledged", "after %v; answers so far: %v; last problem: %s", limit, l.Answers(), l.lastProblem())
	}
}

// send sends the series [from, to), round after round.
func (l *Load) send(ctx context.Context, from, to int) {
	begun, sent := time.Now(), 0
	for round := 0; l.opts.Rounds == 0 || round < l.opts.Rounds; round++ {
		for at := from; at < to; at += l.opts.Batch {
			end := min(at+l.opts.Batch, to)
			if l.opts.Rate > 0 {
				due := time.Duration(float64(sent) / (float64(l.opts.Rate) * float64(to-from) / float64(l.opts.Series)) * float64(time.Second))
				l.sleep(ctx, time.Until(begun.Add(due)))
			}
			select {
			case <-l.stop:
				return
			case <-ctx.Done():
				return
			default:
			}
			if !l.deliver(ctx, round, at, end) {
				return
			}
			sent += end - at
		}
	}
}

// sleep waits for d, or less when the load ends.
func (l *Load) sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.stop:
	case <-ctx.Done():
	}
}

// deliver repeats one request until it is answered for good; false when ctx ended.
func (l *Load) deliver(ctx context.Context, round, from, to int) bool {
	body, counts, err := l.gen.encode(l.opts.Protocol, round, from, to)
	if err != nil {
		l.problem(0, err.Error())
		return false
	}
	l.mu.Lock()
	for i := from; i < to; i++ {
		l.tried[i] = round + 1
	}
	l.mu.Unlock()
	for ctx.Err() == nil {
		status := l.post(ctx, body, counts)
		if status/100 == 2 || status/100 == 4 && status != http.StatusTooManyRequests {
			l.settle(round, from, to, status, counts)
			return true
		}
		timer := time.NewTimer(l.opts.Pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
	return false
}

func (l *Load) settle(round, from, to, status int, counts [3]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := from; i < to; i++ {
		l.acked[i] = round + 1
		if status/100 != 2 {
			l.refused[refusal{i, round}] = true
		}
	}
	if status/100 == 2 {
		l.points += counts[0] + counts[1] + counts[2]
	}
}

// post makes one attempt and returns the status, 0 for none.
func (l *Load) post(ctx context.Context, body []byte, counts [3]int) int {
	req, err := NewWriteRequest(ctx, l.opts.URL, l.opts.Protocol, body)
	if err != nil {
		l.problem(0, err.Error())
		return http.StatusBadRequest
	}
	resp, err := l.client.Do(req)
	if err != nil {
		l.problem(0, err.Error())
		return 0
	}
	message, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		if after := resp.Header.Get("Retry-After"); after != "" {
			l.mu.Lock()
			l.after = after
			l.mu.Unlock()
		}
		l.problem(resp.StatusCode, string(message))
		return resp.StatusCode
	}
	l.mu.Lock()
	l.answers[resp.StatusCode]++
	l.mu.Unlock()
	if l.opts.Protocol == RW2 {
		l.checkWritten(resp.Header, counts)
	}
	return resp.StatusCode
}

// checkWritten compares the Written headers of an answer with what was sent.
func (l *Load) checkWritten(h http.Header, counts [3]int) {
	for i, class := range []string{"Samples", "Histograms", "Exemplars"} {
		name := "X-Prometheus-Remote-Write-" + class + "-Written"
		if got := h.Get(name); got != strconv.Itoa(counts[i]) {
			l.problem(-1, fmt.Sprintf("%s is %q, want %d", name, got, counts[i]))
		}
	}
}

// problem counts an answer that was not a success; status -1 is a success with wrong
// headers.
func (l *Load) problem(status int, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers[status]++
	if len(l.problems) < 1000 {
		l.problems = append(l.problems, fmt.Sprintf("status %d: %s", status, strings.TrimSpace(text)))
	}
}

func (l *Load) lastProblem() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.problems) == 0 {
		return "none"
	}
	return l.problems[len(l.problems)-1]
}

// Answers counts the answers by status: 0 is none at all, -1 a success whose
// Written headers were wrong.
func (l *Load) Answers() map[int]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.answers)
}

// RetryAfter is the newest Retry-After header of an answer, or empty.
func (l *Load) RetryAfter() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.after
}

// Acknowledged is how many points were acknowledged so far.
func (l *Load) Acknowledged() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.points
}

// Keys lists the load's series in their order; see SeriesKey.
func (l *Load) Keys() []string {
	keys := make([]string, len(l.gen.series))
	for i := range keys {
		keys[i] = l.gen.series[i].key
	}
	return keys
}

// Types lists metric type and help of the load's series as RW 2.0 sends them, with
// Content.Metadata.
func (l *Load) Types() []Row {
	rows := make([]Row, len(l.gen.series))
	for i := range rows {
		s := &l.gen.series[i]
		rows[i] = Row{Key: s.key, Type: string(s.metricType()), Help: s.help()}
	}
	return rows
}

// NewWriteRequest makes a POST with the headers of the version.
func NewWriteRequest(ctx context.Context, url string, p Protocol, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make a write request: %w", err)
	}
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("Content-Type", ContentTypeRW1)
	req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	if p == RW2 {
		req.Header.Set("Content-Type", ContentTypeRW2)
		req.Header.Set("X-Prometheus-Remote-Write-Version", "2.0.0")
	}
	req.Header.Set("User-Agent", "sluice-test")
	return req, nil
}
