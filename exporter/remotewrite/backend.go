// Package remotewrite is the backend that takes Prometheus remote write over HTTP, 1.0
// or 2.0 (2.0-rc.4): Prometheus, Mimir, Thanos, VictoriaMetrics and their kin. What it is
// given as it was received goes out as the very bytes that came in; only what is divided,
// routed in part or translated between the versions is encoded anew.
package remotewrite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"strconv"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/version"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// Options are what a Backend is made of.
type Options struct {
	Config Config // after SetDirectory; validated by New
	Name   string // of the backend, in metrics and logs
	// Instance is what the gateway calls itself to the backend where no client
	// certificate names it.
	Instance string
	// Process is sent along with each request, in remotewrite.ProcessHeader; empty: nothing.
	Process string

	// Metadata is asked for the metadata of series that came by remote write 1.0 and go
	// out by 2.0. Nil: they go without.
	Metadata *remotewrite.MetadataCache

	Logger *slog.Logger // nil: nothing is logged
	// Registerer takes the metrics. Backends of different names share one. Nil, for
	// tests: the metrics are kept and not registered.
	Registerer prometheus.Registerer
	Now        func() time.Time // nil: time.Now
}

// Backend is one remote-write endpoint. It implements exporter.Backend; it has no
// goroutine of its own and keeps connections open until Close.
type Backend struct {
	config   Config
	process  string
	identity string
	now      func() time.Time
	client   *http.Client
	metrics  *metrics
	peer     *peer
	// registerer has the metrics of the peer; nil: nobody has.
	registerer prometheus.Registerer

	connections connections
	// request is what all requests have in common, headers what those of one version do.
	request http.Request
	headers [series.V2 + 1]http.Header

	negotiation *negotiation
	encoders    encoders
	// throttle keeps metadata that comes with each series of a 2.0 batch from going out
	// with each 1.0 request.
	throttle *remotewrite.MetadataThrottle
}

var _ exporter.Backend = (*Backend)(nil)

// New returns a Backend. It reads the certificate files of the configuration and makes
// no connection. Its error joins all that Validate finds.
func New(o Options) (*Backend, error) {
	if err := o.Config.Validate(); err != nil {
		return nil, fmt.Errorf("remote_write backend %q: %w", o.Name, err)
	}
	b := &Backend{config: o.Config, process: o.Process, now: o.Now}
	if b.now == nil {
		b.now = time.Now
	}
	logger := o.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	logger = logger.With("backend", o.Name)
	var err error
	if b.client, err = newClient(&b.config, &b.connections); err != nil {
		return nil, fmt.Errorf("remote_write backend %q: %w", o.Name, err)
	}
	if b.identity, err = identity(&b.config.HTTP.TLSConfig, o.Instance); err != nil {
		return nil, fmt.Errorf("remote_write backend %q: %w", o.Name, err)
	}
	if b.metrics, err = newMetrics(o.Registerer, o.Name); err != nil {
		return nil, fmt.Errorf("remote_write backend %q: %w", o.Name, err)
	}
	b.peer = newPeer(o.Name, &b.config.HTTP.TLSConfig)
	if o.Registerer != nil {
		if err := o.Registerer.Register(b.peer); err != nil {
			return nil, fmt.Errorf("remote_write backend %q: registering its metrics: %w", o.Name, err)
		}
		b.registerer = o.Registerer
	}
	u := b.config.URL.URL
	b.request = http.Request{
		Method: http.MethodPost, URL: u, Host: u.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	for _, v := range []series.Version{series.V1, series.V2} {
		b.headers[v] = b.header(v)
	}
	b.negotiation = newNegotiation(b.config.Protocol, func(to series.Version, why string) {
		b.metrics.speaks(to)
		if to == series.V1 {
			b.metrics.fallback.WithLabelValues(why).Inc()
		}
		logger.Info("Backend is spoken to in another protocol", "protocol", to.String(), "reason", why)
	})
	b.metrics.speaks(b.negotiation.choose().version)
	b.throttle = remotewrite.NewMetadataThrottle(remotewrite.MetadataThrottleOptions{Now: b.now})
	b.encoders.setup(b.config.Lane.MaxShards, func(v series.Version) *remotewrite.Builder {
		return remotewrite.NewBuilder(b.builderOptions(v, o.Metadata))
	})
	return b, nil
}

func (b *Backend) builderOptions(v series.Version, metadata *remotewrite.MetadataCache) remotewrite.BuilderOptions {
	o := remotewrite.BuilderOptions{
		Version:  v,
		Escaping: b.config.escaping(v),
		NHCBOnV1: b.config.NHCBOnRW1,
		Throttle: b.throttle,
	}
	if metadata != nil {
		o.Metadata = metadata
	}
	return o
}

// UserAgent is what the program calls itself to backends.
func UserAgent() string {
	if version.Version == "" {
		return "Sluice/devel"
	}
	return "Sluice/" + version.Version
}

// header returns the headers of requests of one version (H5). Those of a request are
// shared and never changed.
func (b *Backend) header(v series.Version) http.Header {
	h := make(http.Header, len(b.config.Headers)+4)
	for name, value := range b.config.Headers {
		h.Set(name, value)
	}
	h.Set("Content-Encoding", "snappy")
	h.Set("User-Agent", UserAgent())
	if b.process != "" {
		h.Set(remotewrite.ProcessHeader, b.process)
	}
	h.Set("Content-Type", "application/x-protobuf")
	h.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	if v == series.V2 {
		h.Set("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
		h.Set("X-Prometheus-Remote-Write-Version", "2.0.0")
	}
	return h
}

// post makes one request. When it returns, nothing reads c any more.
func (b *Backend) post(ctx context.Context, v series.Version, c *content, attempt int) (a answer) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(b.config.Timeout))
	defer cancel()
	req := b.request.WithContext(ctx)
	req.Header = maps.Clone(b.headers[v])
	req.Header.Set(provenanceHeader, provenance(b.identity, c.kept))
	if attempt > 0 {
		req.Header.Set("Retry-Attempt", strconv.Itoa(attempt))
	}
	req.ContentLength = int64(c.src.Len())
	req.Body = c.begin()
	req.GetBody = func() (io.ReadCloser, error) { return c.open(), nil }

	b.metrics.inFlight.Inc()
	start := b.now()
	res, err := b.client.Do(req)
	if err != nil {
		a.err = withoutURL(err)
	} else {
		b.peer.answered(res, start, b.now())
		a.take(res)
	}
	a.taken = c.revoke()
	b.metrics.inFlight.Dec()
	b.metrics.answered(a.status, b.now().Sub(start))
	b.metrics.sentBytes.Add(float64(a.taken))
	if err != nil && !errors.Is(context.Cause(ctx), context.Canceled) {
		b.negotiation.disconnected()
	}
	return a
}

// Protocol is the remote-write version that the backend is spoken to in: rw1 or rw2.
func (b *Backend) Protocol() string { return b.negotiation.choose().version.String() }

// judge says what an answer to a request of the given choice means to a lane. sent is
// what the request held.
func (b *Backend) judge(c choice, a *answer, sent series.Counts) (exporter.Receipt, error) {
	var receipt exporter.Receipt
	now := b.now()
	speaks := true
	if c.version == series.V2 && a.status != 0 {
		receipt.Written, receipt.Told, speaks = written(a.header)
		if receipt.Told {
			b.metrics.confirm(receipt.Written, sent, a.success())
		}
	}
	if a.success() && speaks {
		b.negotiation.accepted(c, now)
		return receipt, nil
	}
	if a.success() {
		return exporter.Receipt{}, &exporter.Error{
			Class: b.negotiation.refused(c, refusedNoWritten, now), Status: a.status, Unknown: true,
			Err: errors.New("answered without Written headers: the backend, or a proxy before it, does not speak remote write 2.0; use protocol: rw1 or auto"),
		}
	}
	e := classify(a, now)
	switch a.status {
	case http.StatusUnsupportedMediaType:
		if e.Class = b.negotiation.refused(c, refusedType, now); e.Class == exporter.Denied {
			e.Err = fmt.Errorf("the backend does not take %s; see protocol", c.version)
		}
	case http.StatusBadRequest:
		e.Class = b.negotiation.refused(c, refusedBad, now)
	}
	return exporter.Receipt{}, e
}

// emptyRequest returns a request that asks for nothing.
func emptyRequest(v series.Version) *content {
	var message []byte
	if v == series.V2 {
		message = []byte{4<<3 | 2, 0} // symbols: [""]
	}
	return &content{src: &stored{body: s2.EncodeSnappy(nil, message)}, kept: 1}
}

// trial asks a backend that is spoken to in 1.0 whether it takes 2.0 now, if that is
// due.
func (b *Backend) trial(ctx context.Context) {
	if !b.negotiation.startTrial(b.now()) {
		return
	}
	v := verdictNone
	defer func() { b.negotiation.endTrial(v, b.now()) }()
	a := b.post(ctx, series.V2, emptyRequest(series.V2), 0)
	_, _, speaks := written(a.header)
	switch {
	case a.success() && speaks:
		v = verdictTakes
	case a.success(), a.status == http.StatusBadRequest, a.status == http.StatusUnsupportedMediaType:
		v = verdictNot
	}
}

// Probe sends an empty request in the current protocol. It returns nil when the backend
// answers, unless the answer denies everything: then, and when there is no answer, an
// *exporter.Error.
func (b *Backend) Probe(ctx context.Context) error {
	c := b.negotiation.choose()
	a := b.post(ctx, c.version, emptyRequest(c.version), 0)
	_, _, speaks := written(a.header)
	forced := b.config.Protocol != ProtocolAuto
	switch {
	case a.success() && (c.version == series.V1 || speaks || !forced):
		return nil
	case a.success():
		_, err := b.judge(c, &a, series.Counts{})
		return err
	}
	e := classify(&a, b.now())
	if a.status == 0 || e.Class == exporter.Denied && (a.status != http.StatusUnsupportedMediaType || forced) {
		return e
	}
	return nil
}

// Close closes the connections and lets the gauges of the backend go. Deliveries must
// have been closed. A backend of the same name on the same Registerer is to be made later.
func (b *Backend) Close() error {
	b.client.CloseIdleConnections()
	b.connections.closeAll()
	b.metrics.close()
	if b.registerer != nil {
		b.registerer.Unregister(b.peer)
	}
	return nil
}
