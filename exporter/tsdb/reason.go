package tsdb

import (
	"errors"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/series"
)

// The reasons for which the store refuses a sample, a histogram or an exemplar.
const (
	// ReasonOutOfOrder: not newer than the newest of its series, and the store takes
	// no samples out of order.
	ReasonOutOfOrder = "out_of_order"
	// ReasonTooOld: out of order, and further behind than the out-of-order window.
	ReasonTooOld = "too_old"
	// ReasonOutOfBounds: more than an hour behind the newest of the store, and the
	// store takes no samples out of order.
	ReasonOutOfBounds = "out_of_bounds"
	// ReasonDuplicateTimestamp: the series has another value at this timestamp.
	ReasonDuplicateTimestamp = "duplicate_timestamp"
	// ReasonTooFarInFuture: more than ten minutes ahead of the clock. One such sample
	// would make the present of all other series too old.
	ReasonTooFarInFuture = "too_far_in_future"
	// ReasonInvalidHistogram: a native histogram that contradicts itself.
	ReasonInvalidHistogram = "invalid_histogram"
	// ReasonInvalidLabels: labels that name no series.
	ReasonInvalidLabels = "invalid_labels"
	// ReasonOutOfOrderExemplar: an exemplar older than the newest of its series by more
	// than the out-of-order window.
	ReasonOutOfOrderExemplar = "out_of_order_exemplar"
	// ReasonExemplarTooLarge: an exemplar whose labels have more than 128 characters.
	ReasonExemplarTooLarge = "exemplar_too_large"
	// ReasonExemplarWithoutSeries: an exemplar of a series that has no samples in the
	// last hours.
	ReasonExemplarWithoutSeries = "exemplar_without_series"
	// ReasonExemplarsDisabled: the configuration says max_exemplars: 0.
	ReasonExemplarsDisabled = "exemplars_disabled"
)

// reason is the index of a reason in reasons.
type reason int

const (
	outOfOrder reason = iota
	tooOld
	outOfBounds
	duplicateTimestamp
	tooFarInFuture
	invalidHistogram
	invalidLabels
	outOfOrderExemplar
	exemplarTooLarge
	exemplarWithoutSeries
	exemplarsDisabled
	numReasons
)

var reasons = [numReasons]string{
	outOfOrder:            ReasonOutOfOrder,
	tooOld:                ReasonTooOld,
	outOfBounds:           ReasonOutOfBounds,
	duplicateTimestamp:    ReasonDuplicateTimestamp,
	tooFarInFuture:        ReasonTooFarInFuture,
	invalidHistogram:      ReasonInvalidHistogram,
	invalidLabels:         ReasonInvalidLabels,
	outOfOrderExemplar:    ReasonOutOfOrderExemplar,
	exemplarTooLarge:      ReasonExemplarTooLarge,
	exemplarWithoutSeries: ReasonExemplarWithoutSeries,
	exemplarsDisabled:     ReasonExemplarsDisabled,
}

// verdict says for which reason the store refused a sample or an exemplar; ok is false
// when err is not about what was appended but about the store.
func verdict(err error) (r reason, ok bool) {
	var h histogram.Error
	switch {
	case errors.Is(err, storage.ErrOutOfOrderSample):
		return outOfOrder, true
	case errors.Is(err, storage.ErrTooOldSample):
		return tooOld, true
	case errors.Is(err, storage.ErrOutOfBounds):
		return outOfBounds, true
	case errors.Is(err, storage.ErrDuplicateSampleForTimestamp):
		return duplicateTimestamp, true
	case errors.As(err, &h):
		return invalidHistogram, true
	case errors.Is(err, tsdb.ErrInvalidSample):
		return invalidLabels, true
	case errors.Is(err, storage.ErrOutOfOrderExemplar):
		return outOfOrderExemplar, true
	case errors.Is(err, storage.ErrExemplarLabelLength):
		return exemplarTooLarge, true
	}
	return 0, false
}

// refusals counts what was refused, by reason.
type refusals [numReasons]series.Counts

func (r *refusals) add(o *refusals) {
	for i := range r {
		r[i].Add(o[i])
	}
}

// drops returns what was refused as the lane counts it; nil when nothing was.
func (r *refusals) drops() []exporter.Drop {
	var ds []exporter.Drop
	for i, c := range r {
		if !c.Zero() {
			ds = append(ds, exporter.Drop{Reason: reasons[i], Counts: c})
		}
	}
	return ds
}
