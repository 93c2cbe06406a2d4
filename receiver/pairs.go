package receiver

import (
	"context"
	"net/http"
	"sync"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// Pairs judges samples of HA pairs: it accepts those of one replica at a time.
type Pairs interface {
	// Admit does not wait. It returns nil for a request without samples of HA pairs. An error
	// is a *Refusal, or Unsettled.
	Admit(r PairRequest) (PairAdmission, error)
}

// Unsettled is the error of Admit for a request about which a store has to be asked first.
type Unsettled interface {
	error
	// Settle asks it, which may take seconds, and needs nothing of the request. Then Admit is
	// asked again, with PairRequest.Settled. An error is a *Refusal, or that of ctx, and
	// ends the request.
	Settle(ctx context.Context) error
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
	// Settled is what Admit returned for this request before, after its Settle; nil at first.
	Settled Unsettled
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
func (in *Ingester) admit(s *scratch, v series.Version, plain []byte, settled Unsettled) (PairAdmission, []byte, error) {
	if in.o.Pairs == nil {
		return nil, plain, nil
	}
	pairs, err := in.o.Pairs.Admit(PairRequest{Version: v, Plain: plain, Message: s.msg, Room: s.paired, Settled: settled})
	if err != nil || pairs == nil {
		return nil, plain, err
	}
	s.paired = pairs.Body()
	return pairs, s.paired, nil
}

// waitingRoom bounds the requests that wait for Pairs to settle: each holds its body, as it
// was sent, and its place among those in flight, half of which is left to others.
type waitingRoom struct {
	most      int   // requests
	mostBytes int64 // of their bodies

	mu    sync.Mutex
	count int
	bytes int64
}

func newWaitingRoom(c Config) *waitingRoom {
	return &waitingRoom{most: max(1, c.MaxInFlight/2), mostBytes: int64(c.MaxInFlightBytes) / 2}
}

// enter reports whether there is room for a body of the size. One is always let in where
// nobody waits.
func (w *waitingRoom) enter(size int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.count > 0 && (w.count >= w.most || w.bytes+size > w.mostBytes) {
		return false
	}
	w.count++
	w.bytes += size
	return true
}

func (w *waitingRoom) leave(size int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count--
	w.bytes -= size
}

// settle waits until a request can be judged. It holds no place of the decoding meanwhile.
func (in *Ingester) settle(ctx context.Context, u Unsettled, size int64) error {
	if !in.waiting.enter(size) {
		return refuse(http.StatusServiceUnavailable, "too many requests of HA pairs wait for the store of the elections")
	}
	defer in.waiting.leave(size)
	return u.Settle(ctx)
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
