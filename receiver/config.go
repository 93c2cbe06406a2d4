package receiver

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/otlptranslator"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/fielderror"
)

// Config bounds what the receiver takes in.
type Config struct {
	// Requests that are decoded and appended at the same time. Others wait, see
	// admission_timeout.
	MaxInFlight int `yaml:"max_in_flight"`
	// Bytes of request bodies held in memory, as they came over the wire. Requests
	// beyond it wait, see admission_timeout.
	MaxInFlightBytes bytesize.Size `yaml:"max_in_flight_bytes"`
	// How long a request waits for its turn before it is answered 503 with
	// Retry-After.
	AdmissionTimeout model.Duration `yaml:"admission_timeout"`
	// Largest accepted body, compressed. Larger ones are answered 413.
	MaxRequestSize bytesize.Size `yaml:"max_request_size"`
	// Largest accepted body after decompression, and after translation to remote write.
	// Larger ones are answered 400, those of remote write before any memory is taken for
	// them.
	MaxDecodedSize bytesize.Size `yaml:"max_decoded_size"`
	// How long a client may take to send its body.
	ReadTimeout model.Duration `yaml:"read_timeout"`
	// How far ahead of the gateway's clock a sample's timestamp may be. 0 does not
	// check.
	FutureLimit model.Duration `yaml:"future_limit"`
	// Accepted remote-write messages: rw1, rw2. A message that is not listed is
	// answered 415.
	Protocols []string `yaml:"protocols"`
	// How metrics of OpenTelemetry are taken in over HTTP, on /v1/metrics and
	// /api/v1/otlp/v1/metrics.
	OTLP OTLPConfig `yaml:"otlp"`
}

// OTLPConfig says how OTLP metrics become remote write. The keys mean what they mean in
// Prometheus.
type OTLPConfig struct {
	// Whether OTLP metrics are accepted at all.
	Enabled bool `yaml:"enabled"`
	// How names of metrics and attributes become names of metrics and labels, one of
	// UnderscoreEscapingWithSuffixes, UnderscoreEscapingWithoutSuffixes,
	// NoUTF8EscapingWithSuffixes, NoTranslation.
	TranslationStrategy string `yaml:"translation_strategy"`
	// Resource attributes that become labels of every series of the resource. The others
	// are labels of target_info alone.
	PromoteResourceAttributes []string `yaml:"promote_resource_attributes"`
	// Keep service.name, service.namespace and service.instance.id as labels of
	// target_info, beside job and instance, which are made of them.
	KeepIdentifyingResourceAttributes bool `yaml:"keep_identifying_resource_attributes"`
	// Turn histograms with explicit bounds into native histograms with custom buckets
	// (NHCB) rather than into classic ones.
	ConvertHistogramsToNHCB bool `yaml:"convert_histograms_to_nhcb"`
}

// TranslationStrategies are the values of OTLPConfig.TranslationStrategy.
func TranslationStrategies() []string {
	return []string{
		string(otlptranslator.UnderscoreEscapingWithSuffixes),
		string(otlptranslator.UnderscoreEscapingWithoutSuffixes),
		string(otlptranslator.NoUTF8EscapingWithSuffixes),
		string(otlptranslator.NoTranslation),
	}
}

// DefaultConfig is the configuration of an empty section.
func DefaultConfig() Config {
	return Config{
		MaxInFlight:      64,
		MaxInFlightBytes: 64 << 20,
		AdmissionTimeout: model.Duration(5 * time.Second),
		MaxRequestSize:   32 << 20,
		MaxDecodedSize:   32 << 20,
		ReadTimeout:      model.Duration(30 * time.Second),
		FutureLimit:      model.Duration(10 * time.Minute),
		Protocols:        []string{"rw1", "rw2"},
		OTLP: OTLPConfig{
			Enabled:             true,
			TranslationStrategy: string(otlptranslator.UnderscoreEscapingWithSuffixes),
		},
	}
}

// Validate reports every value that is out of range.
func (c *Config) Validate() error {
	var errs []error
	check := func(ok bool, path, format string, args ...any) {
		if !ok {
			errs = append(errs, fielderror.Errorf(path, format, args...))
		}
	}
	check(c.MaxInFlight >= 1, "max_in_flight", "must be at least 1")
	check(c.MaxRequestSize >= 1<<10, "max_request_size", "must be at least 1KiB")
	check(c.MaxDecodedSize >= 1<<10 && c.MaxDecodedSize <= 1<<30, "max_decoded_size", "must be between 1KiB and 1GiB")
	check(c.MaxInFlightBytes >= c.MaxRequestSize, "max_in_flight_bytes", "must be at least max_request_size, or a request of that size could never be admitted")
	check(c.AdmissionTimeout > 0, "admission_timeout", "must be longer than 0s")
	check(c.ReadTimeout > 0, "read_timeout", "must be longer than 0s")
	check(c.FutureLimit >= 0, "future_limit", "must not be negative")
	check(len(c.Protocols) > 0, "protocols", "must name at least one of rw1, rw2")
	for i, p := range c.Protocols {
		check(p == "rw1" || p == "rw2", fmt.Sprintf("protocols[%d]", i), "%q is not one of rw1, rw2", p)
	}
	strategies := TranslationStrategies()
	check(slices.Contains(strategies, c.OTLP.TranslationStrategy), "otlp.translation_strategy", "%q is not one of %s", c.OTLP.TranslationStrategy, strings.Join(strategies, ", "))
	for i, name := range c.OTLP.PromoteResourceAttributes {
		path := fmt.Sprintf("otlp.promote_resource_attributes[%d]", i)
		check(name != "" && strings.TrimSpace(name) == name, path, "%q must be the name of an attribute, without spaces around it", name)
		check(!slices.Contains(c.OTLP.PromoteResourceAttributes[:i], name), path, "%q is there twice", name)
	}
	return errors.Join(errs...)
}
