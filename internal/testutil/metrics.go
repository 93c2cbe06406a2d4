package testutil

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
)

// Kinds are the values of the label kind of the accounting metrics.
func Kinds() []string { return []string{"samples", "histograms", "exemplars"} }

// Metrics is one scrape of a /metrics page in the text format.
type Metrics map[string]*dto.MetricFamily

// ScrapeMetrics reads the metrics page at the URL.
func ScrapeMetrics(url string) (Metrics, error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return nil, fmt.Errorf("scrape: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("scrape %s: status %d", url, resp.StatusCode)
	}
	return ParseMetrics(resp.Body)
}

// ParseMetrics reads metrics in the text format.
func ParseMetrics(r io.Reader) (Metrics, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(r)
	if err != nil {
		return nil, fmt.Errorf("parse metrics: %w", err)
	}
	return families, nil
}

// Sum adds up the values of all series of the name whose labels hold the given
// pairs (name, value, name, value, …). found is false when there is none.
func (m Metrics) Sum(name string, pairs ...string) (sum float64, found bool) {
	f := m[name]
	if f == nil {
		return 0, false
	}
	for _, s := range f.GetMetric() {
		if !holds(s, pairs) {
			continue
		}
		found = true
		switch {
		case s.Counter != nil:
			sum += s.GetCounter().GetValue()
		case s.Gauge != nil:
			sum += s.GetGauge().GetValue()
		case s.Histogram != nil:
			sum += float64(s.GetHistogram().GetSampleCount())
		default:
			sum += s.GetUntyped().GetValue()
		}
	}
	return sum, found
}

// Get is Sum with 0 for a series that is not there.
func (m Metrics) Get(name string, pairs ...string) float64 {
	v, _ := m.Sum(name, pairs...)
	return v
}

// Labels lists the values that the label has among the series of the name.
func (m Metrics) Labels(name, label string) []string {
	values := map[string]bool{}
	for _, s := range m[name].GetMetric() {
		for _, l := range s.GetLabel() {
			if l.GetName() == label {
				values[l.GetValue()] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(values))
}

func holds(s *dto.Metric, pairs []string) bool {
	for i := 0; i+1 < len(pairs); i += 2 {
		if !slices.ContainsFunc(s.GetLabel(), func(l *dto.LabelPair) bool {
			return l.GetName() == pairs[i] && l.GetValue() == pairs[i+1]
		}) {
			return false
		}
	}
	return true
}

// Account is one line of the accounting equation: Routed is the sum of the others.
type Account struct {
	Routed, Delivered, Withheld, Rejected, GivenUp, InJournal float64
	Error                                                     float64 // what the program itself says is missing
}

// Accounts reads the accounting equation of one backend and kind.
func (m Metrics) Accounts(backend, kind string) Account {
	get := func(name string) float64 { return m.Get(name, "backend", backend, "kind", kind) }
	return Account{
		Routed:    get("sluice_routed_total"),
		Delivered: get("sluice_delivered_total"),
		Withheld:  get("sluice_withheld"),
		Rejected:  get("sluice_rejected_total"),
		GivenUp:   get("sluice_given_up_total"),
		InJournal: get("sluice_in_journal"),
		Error:     get("sluice_conservation_error_samples"),
	}
}

// Gap is what the equation lacks; 0 when it holds.
func (a Account) Gap() float64 {
	return a.Routed - a.Delivered - a.Withheld - a.Rejected - a.GivenUp - a.InJournal
}

// RequireConservation fails the test unless the accounting equation of the backend
// holds exactly, by the metrics and by the program's own check, for every kind. It
// is meant for a program at rest.
func RequireConservation(t testing.TB, m Metrics, backend string) {
	t.Helper()
	var wrong []string
	for _, kind := range Kinds() {
		for _, name := range []string{"sluice_routed_total", "sluice_delivered_total", "sluice_in_journal", "sluice_conservation_error_samples"} {
			if _, ok := m.Sum(name, "backend", backend, "kind", kind); !ok {
				wrong = append(wrong, fmt.Sprintf("%s{backend=%q,kind=%q} is not exported", name, backend, kind))
			}
		}
		if a := m.Accounts(backend, kind); a.Gap() != 0 || a.Error != 0 {
			wrong = append(wrong, fmt.Sprintf("%s of %s: gap %v in %v", kind, backend, a.Gap(), a))
		}
	}
	require.Empty(t, wrong, "the accounting equation does not hold:\n%s", strings.Join(wrong, "\n"))
}

func (a Account) String() string {
	return fmt.Sprintf("routed %v = delivered %v + withheld %v + rejected %v + given up %v + in journal %v (own check: %v)",
		a.Routed, a.Delivered, a.Withheld, a.Rejected, a.GivenUp, a.InJournal, a.Error)
}
