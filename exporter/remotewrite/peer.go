package remotewrite

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"
)

// The values of the label certificate.
const (
	certificateClient  = "client"
	certificateBackend = "backend"
)

// peer is what the answers say about the backend beside what they answer: its clock, and
// until when the certificates of both sides hold. It is collected as metrics.
type peer struct {
	tls    *config.TLSConfig
	skew   *prometheus.Desc
	expiry *prometheus.Desc

	mu      sync.Mutex
	known   bool // the clock difference
	ahead   time.Duration
	expires time.Time // of the backend's certificates the first; zero: none was seen
}

func newPeer(backend string, c *config.TLSConfig) *peer {
	own := prometheus.Labels{"backend": backend}
	return &peer{
		tls: c,
		skew: prometheus.NewDesc("sluice_backend_clock_skew_seconds",
			"By how many seconds the backend's clock is ahead of ours, by the Date of its last answer; negative: behind. 0: no difference that the answer, which has whole seconds and takes its time, can show.", nil, own),
		expiry: prometheus.NewDesc("sluice_backend_certificate_expiry_timestamp_seconds",
			"Unix time in seconds at which a certificate ends: client, which we show the backend, or backend, the first to end of those that it showed us last. Absent where none is in use. It is never 0.", []string{"certificate"}, own),
	}
}

// answered takes what res, the answer to a request that took from start to end, shows.
func (p *peer) answered(res *http.Response, start, end time.Time) {
	date, err := http.ParseTime(res.Header.Get("Date"))
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.known, p.ahead = true, ahead(date, start, end)
	}
	if res.TLS == nil {
		return
	}
	p.expires = time.Time{}
	for _, c := range res.TLS.PeerCertificates {
		if p.expires.IsZero() || c.NotAfter.Before(p.expires) {
			p.expires = c.NotAfter
		}
	}
}

// ahead is the least difference between the clocks that explains a date, in whole seconds,
// that was written between start and end by our clock.
func ahead(date, start, end time.Time) time.Duration {
	switch earliest := start.Add(-time.Second); {
	case date.Before(earliest):
		return date.Sub(earliest)
	case date.After(end):
		return date.Sub(end)
	}
	return 0
}

// Describe implements prometheus.Collector.
func (p *peer) Describe(ch chan<- *prometheus.Desc) {
	ch <- p.skew
	ch <- p.expiry
}

// Collect implements prometheus.Collector. The client's certificate is read again each
// time, as it is for connections.
func (p *peer) Collect(ch chan<- prometheus.Metric) {
	p.mu.Lock()
	known, ahead, expires := p.known, p.ahead, p.expires
	p.mu.Unlock()
	if known {
		ch <- prometheus.MustNewConstMetric(p.skew, prometheus.GaugeValue, ahead.Seconds())
	}
	if !expires.IsZero() {
		ch <- prometheus.MustNewConstMetric(p.expiry, prometheus.GaugeValue, float64(expires.Unix()), certificateBackend)
	}
	// A file that cannot be read fails requests, which tells more than a missing metric.
	if leaf, err := clientCertificate(p.tls); err == nil && leaf != nil {
		ch <- prometheus.MustNewConstMetric(p.expiry, prometheus.GaugeValue, float64(leaf.NotAfter.Unix()), certificateClient)
	}
}

// clientCertificate reads the certificate that names us to the backend; nil when none is
// configured.
func clientCertificate(c *config.TLSConfig) (*x509.Certificate, error) {
	if tlsFiles(c).Cert == nil && c.Cert == "" {
		return nil, nil
	}
	tlsConfig, err := config.NewTLSConfig(c)
	if err != nil {
		return nil, fmt.Errorf("tls_config: %w", err)
	}
	if tlsConfig.GetClientCertificate == nil {
		return nil, nil
	}
	cert, err := tlsConfig.GetClientCertificate(&tls.CertificateRequestInfo{})
	if err != nil {
		return nil, fmt.Errorf("tls_config: read the client certificate: %w", err)
	}
	if len(cert.Certificate) == 0 {
		return nil, nil
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("tls_config: read the client certificate: %w", err)
	}
	return leaf, nil
}
