package config

import (
	"net/url"

	"github.com/sluice-metrics/sluice/internal/fielderror"
)

// Tracing is where spans are sent.
type Tracing struct {
	// OTLP/HTTP address that takes spans, such as http://127.0.0.1:4318/v1/traces.
	// Required.
	Endpoint string `yaml:"endpoint"`
}

// Validate reports every value that is out of range.
func (t *Tracing) Validate() error {
	u, err := url.Parse(t.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fielderror.Errorf("endpoint", "must be the address of an OTLP/HTTP receiver, such as http://127.0.0.1:4318/v1/traces")
	}
	return nil
}
