package thinning

import (
	"github.com/sluice-metrics/sluice/sampler"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// Decisions are what a Thinner decides by, beside the journal and the steps.
type Decisions struct {
	// Digest is how the ledger names them.
	Digest     string
	Config     sampler.Config
	Describer  *sampler.Describer
	OutOfOrder bool // the backend takes samples out of order
}

// newSampler returns a sampler that knows nothing. start is about the time of the samples
// that it will see.
func (d *Decisions) newSampler(start int64) (*sampler.Sampler, error) {
	return sampler.New(sampler.Options{Config: d.Config, Start: start, OutOfOrder: d.OutOfOrder})
}

// Decisions are what the Thinner decides by.
func (t *Thinner) Decisions() Decisions { return t.own }

// decisions are those of an entry; nil where they are not known.
func (t *Thinner) decisions(e *ledger.Entry) *Decisions {
	if e.Digest == t.own.Digest {
		return &t.own
	}
	for i := range t.o.Earlier {
		if e.Digest == t.o.Earlier[i].Digest {
			return &t.o.Earlier[i]
		}
	}
	return nil
}
