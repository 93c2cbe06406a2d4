package demo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/sluice-metrics/sluice/internal/ownmetrics"
)

// scrapeInterval is short, so that things move.
const scrapeInterval = 2 * time.Second

// crew is the instances of a job.
type crew struct {
	job   string
	size  int
	port  int
	start func(prometheus.Registerer, *rand.Rand) process
}

// process is what an instance does: it takes its metrics on by dt. at is the time since the
// start.
type process func(at, dt time.Duration)

func crews() []crew {
	return []crew{
		{job: "shop", size: 8, port: 8080, start: newShop},
		{job: "queue", size: 4, port: 8081, start: newQueue},
		{job: "node", size: 8, port: 9100, start: newNode},
	}
}

// instances is how many there are.
func instances() (n int) {
	for _, c := range crews() {
		n += c.size
	}
	return n
}

// fleet scrapes instances that are made up, and writes what it finds to a gateway.
type fleet struct {
	url     string
	client  *http.Client
	writers []*ownmetrics.Writer
}

func newFleet(url string, logger *slog.Logger, now func() time.Time) *fleet {
	f := &fleet{url: url, client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: instances()}}}
	began := now()
	for _, c := range crews() {
		for i := range c.size {
			registry := prometheus.NewRegistry()
			run := c.start(registry, rand.New(rand.NewPCG(uint64(c.port), uint64(i))))
			last := began.Add(-scrapeInterval)
			f.writers = append(f.writers, ownmetrics.New(ownmetrics.Options{
				Gatherer: prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
					at := now()
					run(at.Sub(began), at.Sub(last))
					last = at
					return registry.Gather()
				}),
				Job:      c.job,
				Instance: fmt.Sprintf("%s-%d:%d", c.job, i+1, c.port),
				Interval: scrapeInterval,
				Write:    f.write,
				Logger:   logger.With("component", "fleet", "job", c.job),
				Now:      now,
			}))
		}
	}
	return f
}

// run scrapes until ctx ends, the instances spread over the interval.
func (f *fleet) run(ctx context.Context) {
	var wg sync.WaitGroup
	for i, w := range f.writers {
		wg.Go(func() {
			if rest(ctx, scrapeInterval*time.Duration(i)/time.Duration(len(f.writers))) {
				_ = w.Run(ctx) // returns no error
			}
		})
	}
	wg.Wait()
	f.client.CloseIdleConnections()
}

func (f *fleet) write(ctx context.Context, body []byte) error {
	for {
		status, err := f.post(ctx, body)
		switch {
		case err == nil && status/100 == 2:
			return nil
		case err == nil && status/100 != 5:
			return fmt.Errorf("the gateway answers %d to the demo's load", status)
		case !rest(ctx, 100*time.Millisecond): // it starts, or has no room at present
			return ctx.Err()
		}
	}
}

func (f *fleet) post(ctx context.Context, body []byte) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url, bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("write the demo's load: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("X-Prometheus-Remote-Write-Version", "2.0.0")
	resp, err := f.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("write the demo's load: %w", err)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, closed(resp.Body, err)
}

func closed(c io.Closer, err error) error {
	if cerr := c.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("read the answer to the demo's load: %w", err)
	}
	return nil
}

// wave goes from 0 to 1 and back once in a period.
func wave(at, period time.Duration, phase float64) float64 {
	return 0.5 + 0.5*math.Sin(2*math.Pi*(at.Seconds()/period.Seconds()+phase))
}
