package exporter

import (
	"slices"

	"github.com/sluice-metrics/sluice/internal/series"
)

// ids returns the distinct series ids of the parcel in ascending order.
func (p *Parcel) ids() []series.ID {
	var ids []series.ID
	for _, part := range p.Parts {
		for i, id := range part.Batch.IDs {
			if part.Take.Has(i) {
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// between returns what the parcel holds of the series with ids from lo to hi. All samples
// of a series stay together and in order. Parts keep their places, empty ones too, so
// that results can be told by part.
func (p *Parcel) between(lo, hi series.ID) Parcel {
	q := Parcel{Parts: make([]Part, len(p.Parts))}
	for k, part := range p.Parts {
		take := series.NewSet(len(part.Batch.IDs))
		for i, id := range part.Batch.IDs {
			if id >= lo && id <= hi && part.Take.Has(i) {
				take.Add(i)
			}
		}
		q.Parts[k] = Part{Batch: part.Batch, Take: take}
	}
	return q
}

// place is one series message of a parcel.
type place struct{ part, ordinal int }

// places lists the parcel's series messages in order.
func (p *Parcel) places() []place {
	var l []place
	for k, part := range p.Parts {
		for i := range part.Batch.IDs {
			if part.Take.Has(i) {
				l = append(l, place{k, i})
			}
		}
	}
	return l
}

// only returns the parcel with one series message alone.
func (p *Parcel) only(at place) Parcel {
	q := Parcel{Parts: make([]Part, len(p.Parts))}
	for k, part := range p.Parts {
		q.Parts[k] = Part{Batch: part.Batch, Take: series.NewSet(len(part.Batch.IDs))}
	}
	q.Parts[at.part].Take.Add(at.ordinal)
	return q
}
