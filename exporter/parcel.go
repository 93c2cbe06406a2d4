package exporter

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/klauspost/compress/s2"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// message is one series message of a parcel.
type message struct {
	id      series.ID
	key     series.Key // of the labels where the id may stand for several series
	part    int
	ordinal int
	several bool // holds more than one sample
}

func (m *message) compare(o *message) int {
	return cmp.Or(cmp.Compare(m.id, o.id), cmp.Compare(m.key.Hi, o.key.Hi), cmp.Compare(m.key.Lo, o.key.Lo))
}

// opener opens batches one after the other.
type opener struct {
	plain []byte
	msg   remotewrite.Message
}

// open decodes a batch. The message holds until the next call.
func (o *opener) open(b *series.Batch) (*remotewrite.Message, error) {
	o.plain = slices.Grow(o.plain[:0], b.Decoded)[:b.Decoded]
	plain, err := s2.Decode(o.plain, b.Body)
	if err == nil {
		err = o.msg.Index(b.Version, plain, 0)
	}
	if err == nil && len(o.msg.Series) != len(b.IDs) {
		err = fmt.Errorf("%d series, but %d ids", len(o.msg.Series), len(b.IDs))
	}
	if err != nil {
		return nil, fmt.Errorf("batch of %d bytes: %w", len(b.Body), err)
	}
	return &o.msg, nil
}

// messages lists what the parcel takes, by series, and of each series in the order of the
// parcel. Parts that cannot be read are left out; their errors stand in failed by part,
// which is nil where all can be read.
func (p *Parcel) messages() (list []message, failed []error) {
	var o opener
	for k, part := range p.Parts {
		m, err := o.open(part.Batch)
		if err != nil {
			if failed == nil {
				failed = make([]error, len(p.Parts))
			}
			failed[k] = err
			continue
		}
		for i, id := range part.Batch.IDs {
			if !part.Take.Has(i) {
				continue
			}
			s := &m.Series[i]
			e := message{id: id, part: k, ordinal: i, several: s.Samples+s.Histograms > 1}
			if id.Shared() {
				e.key = s.Key
			}
			list = append(list, e)
		}
	}
	slices.SortStableFunc(list, func(a, b message) int { return a.compare(&b) })
	return list, failed
}

// pick returns the messages of a list as a load. Parts of which nothing is taken are left
// out.
func (p *Parcel) pick(list []message) *load {
	takes := make([]series.Set, len(p.Parts))
	for i := range list {
		m := &list[i]
		if takes[m.part] == nil {
			takes[m.part] = series.NewSet(len(p.Parts[m.part].Batch.IDs))
		}
		takes[m.part].Add(m.ordinal)
	}
	o := &load{parcel: Parcel{Kept: p.Kept}}
	for k, take := range takes {
		if take != nil {
			o.parcel.Parts = append(o.parcel.Parts, Part{Batch: p.Parts[k].Batch, Take: take})
			o.places = append(o.places, k)
		}
	}
	return o
}

// rounds divides a list into the newest message of each series, where that holds one
// sample, and everything else. A backend that has taken all of the list before takes
// newest again, since that repeats its last samples, but may find the others out of order.
func rounds(list []message) (others, newest []message) {
	for i := range list {
		if last := i+1 == len(list) || list[i].compare(&list[i+1]) != 0; last && !list[i].several {
			newest = append(newest, list[i])
		} else {
			others = append(others, list[i])
		}
	}
	return others, newest
}

// without returns the messages of a list that are of no series in others. Both are in
// order.
func without(list, others []message) (rest, common []message) {
	for i := range list {
		if _, found := slices.BinarySearchFunc(others, list[i], func(a, b message) int { return a.compare(&b) }); found {
			common = append(common, list[i])
		} else {
			rest = append(rest, list[i])
		}
	}
	return rest, common
}

// middle is where a list is cut between two series, near to its middle; 0 when it holds
// one series alone.
func middle(list []message) int {
	mid := len(list) / 2
	for d := 0; d <= mid; d++ {
		for _, i := range [...]int{mid - d, mid + d} {
			if i > 0 && i < len(list) && list[i].compare(&list[i-1]) != 0 {
				return i
			}
		}
	}
	return 0
}
