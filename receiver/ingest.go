package receiver

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/golang/snappy"
	"github.com/klauspost/compress/s2"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/router"
)

// Journal is what the receiver needs of the journal.
type Journal interface {
	Append(ctx context.Context, b *series.Batch) error
}

// Resolver finds out the ids and the routes of a request's series.
type Resolver interface {
	Resolve(m *remotewrite.Message, res *router.Resolution)
	Seed() uint64
}

// IngestOptions is what an Ingester is made of.
type IngestOptions struct {
	Config   Config
	Resolver Resolver
	Journal  Journal
	// Metadata is told the metadata of RW 1.0 requests.
	Metadata *remotewrite.MetadataCache
	// Appended is called after each successful append, before the sender is
	// answered; the batch must not be kept.
	Appended func(*series.Batch)
	// Shelf is where requests are left that were opened; nil where nobody wants them.
	Shelf *remotewrite.Shelf
	// Pairs judges samples of HA pairs; nil where there are none.
	Pairs   Pairs
	Metrics *Metrics
	Now     func() time.Time
}

// Ingester turns request bodies into batches in the journal: it decompresses, walks,
// checks, resolves and appends. Requests that hold something invalid are written anew
// without it.
type Ingester struct {
	o       IngestOptions
	slots   chan *scratch
	waiting *waitingRoom

	// gate is held for reading from the resolving of a request to the end of its
	// append, so that Exclusive can change routes and journal together.
	gate sync.RWMutex
}

// NewIngester returns an Ingester; it starts nothing.
func NewIngester(o IngestOptions) *Ingester {
	// Decoding is bound by CPU: more at a time only costs memory.
	n := min(o.Config.MaxInFlight, runtime.GOMAXPROCS(0)+1)
	in := &Ingester{o: o, slots: make(chan *scratch, n), waiting: newWaitingRoom(o.Config)}
	for range n {
		in.slots <- &scratch{}
	}
	return in
}

// Exclusive calls f while no request is between routing and journal.
func (in *Ingester) Exclusive(f func() error) error {
	in.gate.Lock()
	defer in.gate.Unlock()
	return f()
}

// scratch is what one decoding needs, kept for the next.
type scratch struct {
	open   *remotewrite.Opened  // nil: lent
	msg    *remotewrite.Message // of open
	mend   []byte
	paired []byte // what Pairs left of the request
	res    router.Resolution
	md     []remotewrite.Metadata // of the request at hand
	v1     *remotewrite.Builder
	v2     *remotewrite.Builder
	ls     []remotewrite.Label

	carriers map[series.ID]bool // see judgeLonely
	kept     []int              // ordinals of the series given to the Builder, in its order
}

// scratchLimit is the size above which a decoding buffer is not kept: a rare huge
// request must not cost its memory for ever.
const scratchLimit = 8 << 20

// Result is what became of a request.
type Result struct {
	// Written is what the journal has.
	Written series.Counts
	// Deduplicated is what is not in the journal because another replica of an HA pair
	// is believed. Senders are told that it was written.
	Deduplicated series.Counts
	// Refused is what was not acceptable; Reasons counts its samples and histograms
	// by reason, and Examples names the first series concerned.
	Refused  series.Counts
	Reasons  map[remotewrite.Reason]uint64
	Examples []string
}

// Refusal is the error for a request that nothing was kept of.
type Refusal struct {
	Status int // the HTTP status that tells the sender what to do
	Err    error
}

func (r *Refusal) Error() string { return r.Err.Error() }
func (r *Refusal) Unwrap() error { return r.Err }

func refuse(status int, format string, args ...any) error {
	return &Refusal{Status: status, Err: fmt.Errorf(format, args...)}
}

// Request is what Ingest is given.
type Request struct {
	Version series.Version
	Body    *series.Buffer // as it was sent: a snappy block
	Sender  series.Sender  // 0: nobody knows
}

// Ingest keeps the request, whose body it owns from now on, whatever the outcome. A
// nil error with Refused counts is a partial write. The error is a *Refusal, or that of
// ctx; after either nothing was kept.
func (in *Ingester) Ingest(ctx context.Context, r Request) (Result, error) {
	d, err := in.judged(ctx, r)
	if err != nil {
		return Result{}, err
	}
	if d.batch == nil {
		d.end(true)
		return d.result, nil
	}
	defer in.gate.RUnlock() // decode took it with the routes
	defer d.batch.Release()
	if err := d.check(); err != nil {
		d.end(false)
		return Result{}, err
	}
	// The books have to know what the journal keeps, also when the sender has gone.
	if err := in.o.Journal.Append(context.WithoutCancel(ctx), d.batch); err != nil {
		d.end(false)
		return Result{}, &Refusal{http.StatusServiceUnavailable, fmt.Errorf("not durable now: %w", err)}
	}
	in.o.Appended(d.batch)
	d.result.Written = d.batch.Counts
	d.end(true)
	return d.result, nil
}

// settleTries is how often a request may have to wait until it can be judged: the answer of
// one time can be out of date before the request has a place for its decoding.
const settleTries = 3

// judged is decode of a request that may have to wait for Pairs. It is decoded anew after
// that: while it waits, its memory is that of its body.
func (in *Ingester) judged(ctx context.Context, r Request) (decoded, error) {
	var settled Unsettled
	for tries := 0; ; tries++ {
		d, err := in.decode(ctx, r, settled)
		if !errors.As(err, &settled) {
			return d, err
		}
		if tries == settleTries {
			err = refuse(http.StatusServiceUnavailable, "%w, again and again", err)
		} else {
			err = in.settle(ctx, settled, int64(len(r.Body.B)))
		}
		if err != nil {
			r.Body.Free()
			return decoded{}, err
		}
	}
}

// decode makes a batch of the request. Where it returns one, the gate is held for
// reading. It owns the body, but after an error that is Unsettled.
func (in *Ingester) decode(ctx context.Context, r Request, settled Unsettled) (decoded, error) {
	v, buf := r.Version, r.Body
	free := buf
	defer func() {
		if free != nil {
			free.Free()
		}
	}()
	// Not s2, which also reads its own extensions of the format: bodies go on as they
	// are, and backends would refuse those.
	n, err := snappy.DecodedLen(buf.B)
	if err != nil {
		return decoded{}, refuse(http.StatusBadRequest, "the body is not a snappy block: %w", err)
	}
	if n > int(in.o.Config.MaxDecodedSize) {
		return decoded{}, refuse(http.StatusBadRequest, "the body says that it decompresses to %d bytes; the limit (receiver.max_decoded_size) is %d", n, int(in.o.Config.MaxDecodedSize))
	}
	// A copy element of 3 bytes makes at most 64: a larger claim is a lie, and not
	// worth its memory.
	if n > 32*len(buf.B)+64 {
		return decoded{}, refuse(http.StatusBadRequest, "the body says that its %d bytes decompress to %d, which snappy cannot do", len(buf.B), n)
	}
	var s *scratch
	select {
	case s = <-in.slots:
	case <-ctx.Done():
		return decoded{}, ctx.Err()
	}
	defer func() { s.trim(); in.slots <- s }()

	if s.open == nil {
		s.open = in.o.Shelf.New()
	}
	s.msg = &s.open.Message
	plain, err := snappy.Decode(s.open.Room(n), buf.B)
	if err != nil {
		return decoded{}, refuse(http.StatusBadRequest, "the body is not a snappy block: %w", err)
	}
	pairs, plain, err := in.admit(s, v, plain, settled)
	if err != nil {
		if errors.As(err, &settled) {
			free = nil
		}
		return decoded{}, err
	}
	if err := s.msg.Index(v, plain, in.o.Resolver.Seed()); err != nil {
		return decoded{}, refuse(http.StatusBadRequest, "%w", err)
	}
	s.md = s.md[:0]
	if v == series.V2 && len(plain) > 0 && s.msg.Symbols() == 0 {
		// Mostly RW 1.0 under the wrong name: all of its fields are unknown here, and a
		// 2xx would lose them without a word.
		return decoded{}, refuse(http.StatusBadRequest, "the body is not an io.prometheus.write.v2.Request: it has no symbols")
	}
	if v == series.V1 {
		in.observeMetadata(s)
		if pairs == nil && len(plain) > 0 && len(s.msg.Series)+len(s.md) == 0 {
			// Mostly RW 2.0 under the wrong name, likewise.
			return decoded{}, refuse(http.StatusBadRequest, "the body is not a prometheus.WriteRequest: it has neither series nor metadata")
		}
	}

	in.gate.RLock()
	keep := false
	defer func() {
		if !keep {
			in.gate.RUnlock()
		}
	}()
	s.res.Sender = r.Sender
	in.o.Resolver.Resolve(s.msg, &s.res)
	in.o.Metrics.newSeries.Add(float64(s.res.New - s.res.Overflowed))
	in.o.Metrics.overflowed.Add(float64(s.res.Overflowed))

	var result Result
	rewritten := pairs != nil
	if len(s.res.Invalid)+len(s.res.Respell) > 0 || in.amiss(s.msg) {
		if result, err = in.mend(s); err != nil {
			return decoded{}, err
		}
		rewritten = true
	}
	if pairs != nil {
		result.Deduplicated = pairs.Deduplicated()
	}
	if len(s.msg.Series)+len(s.md) == 0 {
		return decoded{result: result, pairs: pairs}, nil // nothing was in it, or nothing is left
	}
	if rewritten {
		mended := series.NewBuffer(s2.MaxEncodedLen(len(s.msg.Data)))
		mended.B = s2.EncodeSnappy(mended.B[:cap(mended.B)], s.msg.Data)
		buf.Free()
		buf, free = mended, mended
	}
	b := series.NewBatch(buf)
	free = nil
	b.Version, b.Decoded, b.Received = v, len(s.msg.Data), in.o.Now().UnixMilli()
	b.MinTime, b.MaxTime, b.Counts = s.msg.MinTime, s.msg.MaxTime, s.msg.Counts
	b.Legacy, b.CustomBuckets = !s.res.NonLegacy, hasCustomBuckets(s.msg)
	b.Series, b.IDs, b.Epoch = len(s.msg.Series), slices.Clone(s.res.IDs), s.res.Epoch
	b.Routed = s.res.Routed
	if !rewritten && in.o.Shelf.Leave(b, s.open) {
		s.open, s.msg = nil, nil
	}
	keep = true
	return decoded{b, result, pairs}, nil
}

func (s *scratch) trim() {
	if cap(s.mend) > scratchLimit || cap(s.paired) > scratchLimit || s.open != nil && s.open.Footprint() > scratchLimit {
		*s = scratch{}
	}
}

func (in *Ingester) observeMetadata(s *scratch) {
	s.md = s.msg.AppendMetadata(s.md)
	for _, md := range s.md {
		in.o.Metadata.Observe(md)
	}
}

// amiss reports whether the walk noticed something that has to be refused or mended.
func (in *Ingester) amiss(m *remotewrite.Message) bool {
	if m.MaxTime > in.horizon() {
		return true
	}
	for i := range m.Series {
		if s := &m.Series[i]; s.Flags != 0 && (s.NeedsRewrite() || s.Invalid() != "") {
			return true
		}
	}
	return false
}

func hasCustomBuckets(m *remotewrite.Message) bool {
	return m.Counts.Histograms > 0 && slices.ContainsFunc(m.Series, func(s remotewrite.Series) bool {
		return s.Flags&remotewrite.FlagCustomBuckets != 0
	})
}

// horizon is the largest acceptable timestamp.
func (in *Ingester) horizon() int64 {
	if in.o.Config.FutureLimit == 0 {
		return math.MaxInt64
	}
	return in.o.Now().Add(time.Duration(in.o.Config.FutureLimit)).UnixMilli()
}
