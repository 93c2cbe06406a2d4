package router

import (
	"fmt"
	"slices"

	"github.com/golang/snappy"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// Picker tells what one backend takes of batches from the journal. It is used by one
// goroutine.
type Picker struct {
	router  *Router
	backend string

	table *Table
	bit   uint

	plain []byte
	msg   remotewrite.Message
	res   Resolution
	md    []remotewrite.Metadata
	meta  *remotewrite.MetadataCache
}

// NewPicker returns a Picker for the named backend. Metadata that it comes across in
// bodies it reads goes to meta.
func NewPicker(r *Router, backend string, meta *remotewrite.MetadataCache) *Picker {
	return &Picker{router: r, backend: backend, meta: meta}
}

// Pick returns the ordinals of the series that the backend takes and their number; a nil
// set takes the batch as it is. It gives the batch its ids where it has none, so a
// batch without ids must be the caller's alone.
func (p *Picker) Pick(b *series.Batch) (set series.Set, n int, err error) {
	if err := p.refresh(); err != nil {
		return nil, 0, err
	}
	if b.IDs != nil || b.Series == 0 {
		if set, n, ok := p.router.TakesOf(p.table, p.bit, b); ok {
			return set, n, nil
		}
	}
	if err := p.resolve(b); err != nil {
		return nil, 0, err
	}
	if b.IDs == nil {
		b.IDs, b.Epoch = slices.Clone(p.res.IDs), p.res.Epoch
	}
	set, n = p.res.Takes(p.table, p.bit)
	return set, n, nil
}

// Count returns how much of the batch the backend takes.
func (p *Picker) Count(b *series.Batch) (series.Counts, error) {
	if err := p.refresh(); err != nil {
		return series.Counts{}, err
	}
	if p.table.TakesAll(p.bit) {
		return b.Counts, nil
	}
	if err := p.resolve(b); err != nil {
		return series.Counts{}, err
	}
	if p.res.Routed == nil {
		return b.Counts, nil
	}
	return p.res.Routed[p.bit], nil
}

func (p *Picker) refresh() error {
	t := p.router.Table()
	if t == p.table {
		return nil
	}
	bit, ok := t.Bit(p.backend)
	if !ok {
		return fmt.Errorf("BUG: backend %s is not in the router's list", p.backend)
	}
	p.table, p.bit = t, bit
	return nil
}

// pickerLimit is the size above which a Picker does not keep what it read a body with:
// a rare huge request must not cost its memory for ever.
const pickerLimit = 8 << 20

// resolve reads the body and resolves its series for the present table.
func (p *Picker) resolve(b *series.Batch) error {
	defer func() {
		if cap(p.plain) > pickerLimit || p.msg.Footprint() > pickerLimit {
			p.plain, p.msg, p.md = nil, remotewrite.Message{}, nil
		}
	}()
	p.plain = slices.Grow(p.plain[:0], b.Decoded)[:b.Decoded]
	plain, err := snappy.Decode(p.plain, b.Body)
	if err != nil {
		return fmt.Errorf("journal body: %w", err)
	}
	if err := p.msg.Index(b.Version, plain, p.router.Seed()); err != nil {
		return fmt.Errorf("journal body: %w", err)
	}
	if b.Version == series.V1 && p.meta != nil {
		p.md = p.msg.AppendMetadata(p.md[:0])
		for _, md := range p.md {
			p.meta.Observe(md)
		}
	}
	// The list of backends may change between refresh and here; what was resolved
	// for a newer one is asked again.
	for {
		p.router.Resolve(&p.msg, &p.res)
		if p.res.Epoch == p.table.Epoch {
			return nil
		}
		if err := p.refresh(); err != nil {
			return err
		}
	}
}
