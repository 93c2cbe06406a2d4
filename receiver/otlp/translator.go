// Package otlp translates OTLP metrics to remote write, with Prometheus' own converter. It
// stands apart from receiver because the converter brings libraries of storages with it.
package otlp

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/otlptranslator"
	promconfig "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/storage/remote/otlptranslator/prometheusremotewrite"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/sluice-metrics/sluice/receiver"
)

// Translator is a receiver.Translator. It holds no state and may be used concurrently.
type Translator struct {
	settings prometheusremotewrite.Settings
}

// New returns a Translator for a valid configuration.
func New(c receiver.OTLPConfig) *Translator {
	// What Sluice has no key for is as Prometheus has it by default.
	pc := promconfig.DefaultOTLPConfig
	pc.TranslationStrategy = otlptranslator.TranslationStrategyOption(c.TranslationStrategy)
	pc.PromoteResourceAttributes = c.PromoteResourceAttributes
	return &Translator{settings: prometheusremotewrite.Settings{
		AddMetricSuffixes:                    pc.TranslationStrategy.ShouldAddSuffixes(),
		AllowUTF8:                            !pc.TranslationStrategy.ShouldEscape(),
		PromoteResourceAttributes:            prometheusremotewrite.NewPromoteResourceAttributes(pc),
		KeepIdentifyingResourceAttributes:    c.KeepIdentifyingResourceAttributes,
		ConvertHistogramsToNHCB:              c.ConvertHistogramsToNHCB,
		LabelNameUnderscoreSanitization:      pc.LabelNameUnderscoreSanitization,
		LabelNamePreserveMultipleUnderscores: pc.LabelNamePreserveMultipleUnderscores,
	}}
}

// Translate implements receiver.Translator. What the converter would stumble over is
// taken out of md before, so that one bad data point costs no other.
func (t *Translator) Translate(ctx context.Context, md pmetric.Metrics, o receiver.TranslateOptions) (receiver.Translation, error) {
	s := newScreen(t.settings, o.Horizon)
	s.metrics(md)
	result := receiver.Translation{Points: s.points, Rejected: s.rejected, Example: s.example, Exemplars: s.exemplars}
	if s.points == s.sum() {
		return result, nil
	}
	settings := t.settings
	settings.LookbackDelta = s.lookback(md.ResourceMetrics().Len())
	req := newRequest(o.Limit)
	// Its warnings are about metrics without data points and attributes whose names
	// become one label: both are kept as far as Prometheus would.
	if _, err := prometheusremotewrite.NewPrometheusConverter(req).FromMetrics(ctx, md, settings); err != nil {
		if ctx.Err() != nil {
			return receiver.Translation{}, ctx.Err()
		}
		if req.full != nil {
			err = req.full
		}
		return receiver.Translation{}, &receiver.Refusal{Status: http.StatusBadRequest, Err: fmt.Errorf("translate OTLP metrics: %w", err)}
	}
	var err error
	if result.Request, err = req.marshal(); err != nil {
		return receiver.Translation{}, &receiver.Refusal{Status: http.StatusBadRequest, Err: fmt.Errorf("translate OTLP metrics: %w", err)}
	}
	return result, nil
}

const (
	// lookback is what Prometheus looks back in queries by default. The converter writes
	// target_info twice as often.
	lookback = 5 * time.Minute

	// maxTargetInfo is roughly how many samples of target_info a request may make: the
	// distance of two timestamps must not decide on how many there are.
	maxTargetInfo = 10_000
)

// lookback is the look-back for which the converter is to write target_info of so many
// resources.
func (s *screen) lookback(resources int) time.Duration {
	each := max(4, maxTargetInfo/max(1, resources))
	return max(lookback, 2*(time.Duration(s.latest-s.earliest)/time.Duration(each))+2)
}
