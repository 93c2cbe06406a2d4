package gateway

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// certificate collects until when the certificate holds that the gateway shows its
// clients. It is read anew each time, as it is for each connection.
type certificate struct {
	read func() ([]byte, error) // nil: there is none
	desc *prometheus.Desc
}

func newCertificate(read func() ([]byte, error)) *certificate {
	return &certificate{read: read, desc: prometheus.NewDesc("sluice_server_certificate_expiry_timestamp_seconds",
		"Unix time in seconds at which the certificate ends that the gateway shows its clients, or the first of its chain. Absent where it speaks no TLS. It is never 0.", nil, nil)}
}

// Describe implements prometheus.Collector.
func (c *certificate) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect implements prometheus.Collector. A certificate that cannot be read is absent:
// connections fail, and say why.
func (c *certificate) Collect(ch chan<- prometheus.Metric) {
	if c.read == nil {
		return
	}
	text, err := c.read()
	if err != nil {
		return
	}
	if end, err := firstEnd(text); err == nil {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(end.Unix()))
	}
}

// firstEnd is the time at which the first of the certificates in a PEM text ends.
func firstEnd(text []byte) (time.Time, error) {
	var end time.Time
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return time.Time{}, fmt.Errorf("read a certificate of the web server: %w", err)
		}
		if end.IsZero() || c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	if end.IsZero() {
		return end, errors.New("read the certificates of the web server: there is none in the PEM text")
	}
	return end, nil
}
