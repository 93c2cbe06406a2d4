package receiver

import (
	"context"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// Pairs judges samples of HA pairs: it accepts those of one replica at a time.
type Pairs interface {
	// Admit returns nil for a request without samples of HA pairs. An error is a
	// *Refusal, or that of ctx.
	Admit(ctx context.Context, r PairRequest) (PairAdmission, error)
}

// PairRequest is what Pairs judges. All of it is lent until Admit returns, but Room, which
// holds until the request is decoded.
type PairRequest struct {
	Version series.Version
	Plain   []byte // the request, decompressed
	// Message may be used for reading it.
	Message *remotewrite.Message
	// Room may be used to write the Body into, from its start.
	Room []byte
}

// PairAdmission is what became of a request with samples of HA pairs.
type PairAdmission interface {
	// Body is what to go on with, decompressed.
	Body() []byte
	// Deduplicated is what is not in it because another replica is believed.
	Deduplicated() series.Counts
	// Check is asked right before Body is appended; after an error, a *Refusal, it must
	// not be.
	Check() error
	// Done is called once, after everything: appended says that Body is in the journal,
	// or that nothing was in it to append.
	Done(appended bool)
}

// admit asks Pairs, where there are any. plain is what to go on with. The admission is
// dropped without Done where the request is refused before it can be appended: then it has
// no effect.
func (in *Ingester) admit(ctx context.Context, s *scratch, v series.Version, plain []byte) (PairAdmission, []byte, error) {
	if in.o.Pairs == nil {
		return nil, plain, nil
	}
	pairs, err := in.o.Pairs.Admit(ctx, PairRequest{Version: v, Plain: plain, Message: &s.msg, Room: s.paired})
	if err != nil || pairs == nil {
		return nil, plain, err
	}
	s.paired = pairs.Body()
	return pairs, s.paired, nil
}

// decoded is a request on its way to the journal.
type decoded struct {
	batch  *series.Batch // nil when there is nothing to append
	result Result
	pairs  PairAdmission // nil when it has no samples of HA pairs
}

func (d *decoded) check() error {
	if d.pairs == nil {
		return nil
	}
	return d.pairs.Check()
}

func (d *decoded) end(appended bool) {
	if d.pairs != nil {
		d.pairs.Done(appended)
	}
}
