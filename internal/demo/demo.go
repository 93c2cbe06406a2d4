// Package demo runs a Sluice that has everything it needs in one process: a fleet that is
// scraped, a store, and a second backend that is slow at times, so that one can watch what
// a gateway does about it.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/internal/gateway"
)

// Options is what a demonstration is made of.
type Options struct {
	// Listener is where the gateway is reached. Run closes it.
	Listener net.Listener
	// StoragePath is the directory of all data. Empty: a temporary one, which is removed
	// at the end.
	StoragePath string
	Schedule    Schedule
	// Out takes the few lines that say what to look at.
	Out    io.Writer
	Logger *slog.Logger
	Now    func() time.Time
}

// Schedule is the loop that the slow backend goes through.
type Schedule struct {
	// Well is how long it takes whatever comes, first and in each round of the loop.
	Well time.Duration
	// Slow is how long it takes Capacity only.
	Slow time.Duration
	// Recovered is how long it takes whatever comes afterwards.
	Recovered time.Duration
	// Capacity of the slow backend, in samples a second.
	Capacity int
}

// DefaultSchedule is a loop of two minutes. The load is about 300 samples a second.
func DefaultSchedule() Schedule {
	return Schedule{Well: 20 * time.Second, Slow: 40 * time.Second, Recovered: time.Minute, Capacity: 100}
}

// closeAfter is how long clients are waited for at the end, such as a browser that watches
// the page.
const closeAfter = 500 * time.Millisecond

// Run demonstrates until ctx ends, or until something fails that it needs.
func Run(ctx context.Context, o Options) (err error) {
	d := &demo{o: o, began: o.Now(), dir: o.StoragePath}
	if d.dir == "" {
		if d.dir, err = os.MkdirTemp("", "sluice-demo-"); err != nil {
			return errors.Join(fmt.Errorf("make a directory for the data (choose one with --storage.path): %w", err), o.Listener.Close())
		}
		defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	}
	return d.run(ctx)
}

// demo is one Run.
type demo struct {
	o        Options
	began    time.Time
	dir      string
	throttle *throttle
}

func (d *demo) run(ctx context.Context) error {
	slowListener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return errors.Join(fmt.Errorf("listen for the slow backend on the loopback: %w", err), d.o.Listener.Close())
	}
	d.throttle = newThrottle(ctx.Done())
	// The slow backend lives as long as there is something to deliver to it.
	slowCtx, stopSlow := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSlow()
	slow, err := d.gateway(gatewayOptions{
		life: slowCtx, name: "slow", text: storeConfig, listener: slowListener, logger: d.o.Logger.With("component", "slow_backend"),
		wrap: func(h http.Handler) http.Handler { d.throttle.next = h; return d.throttle },
	})
	if err != nil {
		return errors.Join(err, slowListener.Close(), d.o.Listener.Close())
	}
	slowDone := make(chan error, 1)
	go func() { slowDone <- slow.Run(slowCtx) }()

	err = d.runGateway(ctx, "http://"+slowListener.Addr().String())
	stopSlow()
	return errors.Join(err, <-slowDone)
}

// runGateway runs the gateway that everybody looks at, and the fleet that writes to it.
func (d *demo) runGateway(ctx context.Context, slowURL string) error {
	rules, err := d.writeRules()
	if err != nil {
		return errors.Join(err, d.o.Listener.Close())
	}
	g, err := d.gateway(gatewayOptions{
		life: ctx, name: "gateway", text: gatewayConfig(slowURL, rules), listener: d.o.Listener, logger: d.o.Logger,
		wrap: func(h http.Handler) http.Handler { return h },
	})
	if err != nil {
		return errors.Join(err, d.o.Listener.Close())
	}
	base := "http://" + reachable(d.o.Listener.Addr())
	d.introduce(base, slowURL)
	load, stopLoad := context.WithCancel(ctx)
	var beside sync.WaitGroup
	beside.Go(func() {
		awaitReady(load, slowURL)
		newFleet(base+"/api/v1/write", d.o.Logger, d.o.Now).run(load)
	})
	beside.Go(func() { d.follow(load) })
	err = g.Run(ctx)
	stopLoad()
	beside.Wait()
	return err
}

// awaitReady waits until the gateway at a URL takes data, or ctx ends: nothing is to be
// refused, and logged, before the demo has begun.
func awaitReady(ctx context.Context, url string) {
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		if req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/-/ready", nil); err == nil {
			if resp, err := http.DefaultClient.Do(req); err == nil {
				resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					tick.Stop()
					return
				}
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return
		}
	}
}

// gatewayOptions is what differs between the two gateways.
type gatewayOptions struct {
	life       context.Context // the one that its Run gets
	name, text string
	listener   net.Listener
	logger     *slog.Logger
	wrap       func(http.Handler) http.Handler
}

func (d *demo) gateway(o gatewayOptions) (*gateway.Gateway, error) {
	c, err := config.Parse("demo "+o.name, []byte(o.text))
	if err != nil {
		return nil, fmt.Errorf("BUG: the configuration of the demo is refused: %w", err)
	}
	g, err := gateway.New(gateway.Options{
		Config:      c,
		StoragePath: filepath.Join(d.dir, o.name),
		Listener:    o.listener,
		Scheme:      "http",
		Serve: func(l net.Listener, s *http.Server) error {
			s.Handler = o.wrap(s.Handler)
			defer context.AfterFunc(o.life, func() { time.AfterFunc(closeAfter, func() { _ = s.Close() }) })()
			return s.Serve(l)
		},
		Logger: o.logger,
		Now:    d.o.Now,
	})
	if err != nil {
		return nil, fmt.Errorf("start the demo's %s: %w", o.name, err)
	}
	return g, nil
}

// reachable is an address under which a client on this machine reaches a listener.
func reachable(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return addr.String()
	}
	return (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: tcp.Port}).String()
}
