package otlp

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/otlptranslator"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/storage/remote/otlptranslator/prometheusremotewrite"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
)

// Reasons for which data points and exemplars are rejected, beside those of remotewrite.
const (
	// ReasonDeltaTemporality: the data points tell of the time since the ones before,
	// which remote write has no type for.
	ReasonDeltaTemporality remotewrite.Reason = "delta_temporality"
	// ReasonUnspecifiedTemporality: the metric does not say what its data points tell of.
	ReasonUnspecifiedTemporality remotewrite.Reason = "unspecified_temporality"
	// ReasonInvalidName: the name of the metric or of an attribute has no translation.
	ReasonInvalidName remotewrite.Reason = "invalid_name"
	// ReasonInvalidTimestamp: the timestamp is missing or before 1970-01-01.
	ReasonInvalidTimestamp remotewrite.Reason = "invalid_timestamp"
	// ReasonNoValue: there is no value, nor the flag that tells of its absence.
	ReasonNoValue remotewrite.Reason = "no_value"
	// ReasonScaleTooSmall: an exponential histogram with buckets wider than native
	// histograms can have.
	ReasonScaleTooSmall remotewrite.Reason = "histogram_scale_too_small"
	// ReasonTooManyAttributes: more attributes than maxAttributes.
	ReasonTooManyAttributes remotewrite.Reason = "too_many_attributes"
	// ReasonExemplarOnGauge: an exemplar of a gauge, which the converter has no place for.
	ReasonExemplarOnGauge remotewrite.Reason = "exemplar_on_gauge"
	// ReasonInvalidExemplar: an exemplar without value, or with attributes that are not
	// acceptable.
	ReasonInvalidExemplar remotewrite.Reason = "invalid_exemplar"
)

// maxAttributes is how many attributes a data point, a resource or an exemplar may have.
// The converter's time grows with their square.
const maxAttributes = 1024

// screen takes out of metrics what cannot be translated, and counts it.
type screen struct {
	horizon int64 // the largest acceptable timestamp, Unix ms
	metric  otlptranslator.MetricNamer
	label   otlptranslator.LabelNamer

	points           uint64 // all there were
	rejected         map[remotewrite.Reason]uint64
	example          string
	exemplars        map[remotewrite.Reason]uint64
	earliest, latest pcommon.Timestamp // of the points that are left
}

func newScreen(s prometheusremotewrite.Settings, horizon int64) *screen {
	return &screen{
		horizon: horizon,
		metric:  otlptranslator.MetricNamer{WithMetricSuffixes: s.AddMetricSuffixes, UTF8Allowed: s.AllowUTF8},
		label: otlptranslator.LabelNamer{
			UTF8Allowed: s.AllowUTF8,
			//lint:ignore SA1019 the converter goes by it, and names must be judged as it makes them
			UnderscoreLabelSanitization: s.LabelNameUnderscoreSanitization,
			PreserveMultipleUnderscores: s.LabelNamePreserveMultipleUnderscores,
		},
		rejected:  map[remotewrite.Reason]uint64{},
		exemplars: map[remotewrite.Reason]uint64{},
		earliest:  math.MaxUint64,
	}
}

// sum is how many data points were rejected.
func (s *screen) sum() (n uint64) {
	for _, k := range s.rejected {
		n += k
	}
	return n
}

// metrics takes out of md what cannot be translated, and what is empty then.
func (s *screen) metrics(md pmetric.Metrics) {
	md.ResourceMetrics().RemoveIf(func(rm pmetric.ResourceMetrics) bool {
		bad := s.attributes(rm.Resource().Attributes())
		rm.ScopeMetrics().RemoveIf(func(sm pmetric.ScopeMetrics) bool {
			sm.Metrics().RemoveIf(func(m pmetric.Metric) bool { return s.screenMetric(m, bad) })
			return sm.Metrics().Len() == 0
		})
		return rm.ScopeMetrics().Len() == 0
	})
}

// screenMetric reports whether nothing of m is left. bad is the reason for which its
// resource is rejected; it may be empty.
func (s *screen) screenMetric(m pmetric.Metric, bad remotewrite.Reason) (empty bool) {
	bad = cmp.Or(bad, s.name(m))
	m.SetDescription(strings.ToValidUTF8(m.Description(), "\uFFFD"))
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		points := m.Gauge().DataPoints()
		points.RemoveIf(func(p pmetric.NumberDataPoint) bool {
			if s.reject(m, s.point(p, cmp.Or(bad, numberReason(p)))) {
				return true
			}
			s.tellExemplars(ReasonExemplarOnGauge, p.Exemplars().Len())
			return false
		})
		return points.Len() == 0
	case pmetric.MetricTypeSum:
		bad = cmp.Or(bad, temporalityReason(m.Sum().AggregationTemporality()))
		points := m.Sum().DataPoints()
		points.RemoveIf(func(p pmetric.NumberDataPoint) bool {
			return s.reject(m, s.point(p, cmp.Or(bad, numberReason(p)))) || s.screenExemplars(p.Exemplars())
		})
		return points.Len() == 0
	case pmetric.MetricTypeHistogram:
		bad = cmp.Or(bad, temporalityReason(m.Histogram().AggregationTemporality()))
		points := m.Histogram().DataPoints()
		points.RemoveIf(func(p pmetric.HistogramDataPoint) bool {
			return s.reject(m, s.point(p, cmp.Or(bad, bucketsReason(p)))) || s.screenExemplars(p.Exemplars())
		})
		return points.Len() == 0
	case pmetric.MetricTypeExponentialHistogram:
		bad = cmp.Or(bad, temporalityReason(m.ExponentialHistogram().AggregationTemporality()))
		points := m.ExponentialHistogram().DataPoints()
		points.RemoveIf(func(p pmetric.ExponentialHistogramDataPoint) bool {
			return s.reject(m, s.point(p, cmp.Or(bad, scaleReason(p)))) || s.screenExemplars(p.Exemplars())
		})
		return points.Len() == 0
	case pmetric.MetricTypeSummary:
		points := m.Summary().DataPoints()
		points.RemoveIf(func(p pmetric.SummaryDataPoint) bool { return s.reject(m, s.point(p, bad)) })
		return points.Len() == 0
	}
	return true // a metric without data has no data points to tell of
}

// reject counts a data point of m, as rejected where there is a reason for it.
func (s *screen) reject(m pmetric.Metric, reason remotewrite.Reason) bool {
	s.points++
	if reason == "" {
		return false
	}
	s.rejected[reason]++
	if s.example == "" {
		s.example = fmt.Sprintf("metric %.100q: %s", m.Name(), reason)
	}
	return true
}

// name is the reason for which the name of m cannot be translated.
func (s *screen) name(m pmetric.Metric) remotewrite.Reason {
	if !utf8.ValidString(m.Name()) || !utf8.ValidString(m.Unit()) {
		return remotewrite.ReasonInvalidUTF8
	}
	if _, err := s.metric.Build(prometheusremotewrite.TranslatorMetricFromOtelMetric(m)); err != nil {
		return ReasonInvalidName
	}
	return ""
}

func temporalityReason(t pmetric.AggregationTemporality) remotewrite.Reason {
	switch t {
	case pmetric.AggregationTemporalityCumulative:
		return ""
	case pmetric.AggregationTemporalityDelta:
		return ReasonDeltaTemporality
	}
	return ReasonUnspecifiedTemporality
}

func numberReason(p pmetric.NumberDataPoint) remotewrite.Reason {
	if p.ValueType() == pmetric.NumberDataPointValueTypeEmpty && !p.Flags().NoRecordedValue() {
		return ReasonNoValue
	}
	return ""
}

// bucketsReason demands what OTLP does of bounds and counts: each bound, and +Inf, becomes
// a series.
func bucketsReason(p pmetric.HistogramDataPoint) remotewrite.Reason {
	bounds, counts := p.ExplicitBounds(), p.BucketCounts()
	if counts.Len() != bounds.Len()+1 && counts.Len()+bounds.Len() > 0 {
		return remotewrite.ReasonInvalidHistogram
	}
	for i := range bounds.Len() {
		b := bounds.At(i)
		if math.IsNaN(b) || math.IsInf(b, 0) || i > 0 && b <= bounds.At(i-1) {
			return remotewrite.ReasonInvalidHistogram
		}
	}
	return ""
}

func scaleReason(p pmetric.ExponentialHistogramDataPoint) remotewrite.Reason {
	if p.Scale() < histogram.ExponentialSchemaMin {
		return ReasonScaleTooSmall
	}
	return ""
}

// dataPoint is what data points of all types have.
type dataPoint interface {
	Attributes() pcommon.Map
	Timestamp() pcommon.Timestamp
	StartTimestamp() pcommon.Timestamp
	SetStartTimestamp(pcommon.Timestamp)
}

// point is the reason for which p is rejected: bad, or one of what all types of data
// points have. It notes the timestamp of a point that is not rejected.
func (s *screen) point(p dataPoint, bad remotewrite.Reason) remotewrite.Reason {
	if bad != "" {
		return bad
	}
	if reason := s.attributes(p.Attributes()); reason != "" {
		return reason
	}
	t := p.Timestamp()
	switch {
	case milliseconds(t) <= 0:
		return ReasonInvalidTimestamp
	case t > math.MaxInt64 || milliseconds(t) > s.horizon:
		return remotewrite.ReasonTooFarInFuture
	}
	if p.StartTimestamp() > t {
		p.SetStartTimestamp(0) // it cannot be true, and does not make the value wrong
	}
	s.earliest, s.latest = min(s.earliest, t), max(s.latest, t)
	return ""
}

func milliseconds(t pcommon.Timestamp) int64 { return int64(t / 1e6) }

// attributes is the reason for which attributes cannot become labels.
func (s *screen) attributes(attributes pcommon.Map) (reason remotewrite.Reason) {
	if attributes.Len() > maxAttributes {
		return ReasonTooManyAttributes
	}
	for k, v := range attributes.All() {
		if !utf8.ValidString(k) || !utf8.ValidString(v.AsString()) {
			return remotewrite.ReasonInvalidUTF8
		}
		if k == model.MetricNameLabel {
			continue // the converter leaves it out
		}
		if name, err := s.label.Build(k); err != nil || name == model.MetricNameLabel {
			return ReasonInvalidName
		}
	}
	return ""
}

// screenExemplars takes out exemplars that cannot be kept, and sorts the others by value,
// in which order the converter deals them out to buckets. It returns false, for it takes
// no data points out.
func (s *screen) screenExemplars(exemplars pmetric.ExemplarSlice) bool {
	var keep []int
	for i := range exemplars.Len() {
		if reason := s.exemplar(exemplars.At(i)); reason != "" {
			s.tellExemplars(reason, 1)
			continue
		}
		keep = append(keep, i)
	}
	slices.SortStableFunc(keep, func(a, b int) int {
		return cmp.Compare(exemplarValue(exemplars.At(a)), exemplarValue(exemplars.At(b)))
	})
	sorted := pmetric.NewExemplarSlice()
	sorted.EnsureCapacity(len(keep))
	for _, i := range keep {
		exemplars.At(i).CopyTo(sorted.AppendEmpty())
	}
	sorted.CopyTo(exemplars)
	return false
}

func exemplarValue(e pmetric.Exemplar) float64 {
	if e.ValueType() == pmetric.ExemplarValueTypeInt {
		return float64(e.IntValue())
	}
	return e.DoubleValue()
}

// exemplar is the reason for which e cannot be kept.
func (s *screen) exemplar(e pmetric.Exemplar) remotewrite.Reason {
	t, attributes := e.Timestamp(), e.FilteredAttributes()
	if milliseconds(t) <= 0 || t > math.MaxInt64 {
		return remotewrite.ReasonExemplarWithoutTimestamp
	}
	if e.ValueType() == pmetric.ExemplarValueTypeEmpty || attributes.Len() > maxAttributes {
		return ReasonInvalidExemplar
	}
	seen := map[string]bool{}
	if !e.TraceID().IsEmpty() {
		seen["trace_id"] = true
	}
	if !e.SpanID().IsEmpty() {
		seen["span_id"] = true
	}
	bad := false
	// The converter takes their names as they are.
	attributes.RemoveIf(func(k string, v pcommon.Value) bool {
		bad = bad || k == "" || !utf8.ValidString(k) || !utf8.ValidString(v.AsString())
		again := seen[k]
		seen[k] = true
		return again
	})
	if bad {
		return ReasonInvalidExemplar
	}
	return ""
}

func (s *screen) tellExemplars(reason remotewrite.Reason, n int) {
	if n > 0 {
		s.exemplars[reason] += uint64(n)
	}
}
