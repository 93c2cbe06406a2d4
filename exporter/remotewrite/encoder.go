package remotewrite

import (
	"fmt"
	"runtime"
	"sort"
	"sync"

	"github.com/klauspost/compress/s2"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// keepScratch is the size in bytes above which a scratch buffer is not kept for the next
// parcel: a request of max_samples_per_send ordinary samples fits.
const keepScratch = 8 << 20

// encoders lends encoders. Each holds several times its request in memory and waits for
// nothing but the processor, so no more are lent at once than there are processors. Idle
// ones are left to the garbage collector.
type encoders struct {
	slots chan struct{}
	idle  sync.Pool
	build func(series.Version) *remotewrite.Builder
}

// setup must be called once before lend.
func (e *encoders) setup(shards int, build func(series.Version) *remotewrite.Builder) {
	e.slots = make(chan struct{}, min(shards, runtime.GOMAXPROCS(0)))
	e.build = build
}

// lend returns an empty encoder for version v, to be given back soon.
func (e *encoders) lend(v series.Version) *encoder {
	e.slots <- struct{}{}
	enc, ok := e.idle.Get().(*encoder)
	if !ok {
		enc = new(encoder)
	}
	if enc.builders[v] == nil {
		enc.builders[v] = e.build(v)
	}
	enc.version, enc.Builder = v, enc.builders[v]
	return enc
}

func (e *encoders) giveBack(enc *encoder) {
	enc.reset()
	e.idle.Put(enc)
	<-e.slots
}

// encoder writes parts of a parcel into one new body.
type encoder struct {
	*remotewrite.Builder // that of version
	version              series.Version
	builders             [series.V2 + 1]*remotewrite.Builder

	message  remotewrite.Message
	decoded  []byte // of the part being added
	plain    []byte
	packed   []byte
	metadata []remotewrite.Metadata
	parts    []addedPart
	added    int // calls of Add since reset
}

// addedPart is a part of the parcel and the ordinal of the Builder's Add from which on
// series are of it.
type addedPart struct{ part, first int }

// reset empties the encoder and lets go what is too big to keep.
func (enc *encoder) reset() {
	if enc.Size() > keepScratch {
		enc.builders[enc.version] = nil
	} else {
		enc.Reset()
	}
	enc.Builder = nil
	if cap(enc.decoded) > keepScratch {
		enc.decoded, enc.message = nil, remotewrite.Message{}
	}
	if cap(enc.plain) > keepScratch {
		enc.plain = nil
	}
	if cap(enc.packed) > keepScratch {
		enc.packed = nil
	}
	clear(enc.metadata)
	enc.parts, enc.metadata, enc.added = enc.parts[:0], enc.metadata[:0], 0
}

// open decompresses a batch's body and indexes it.
func (enc *encoder) open(b *series.Batch) error {
	n, err := s2.DecodedLen(b.Body)
	if err == nil && n != b.Decoded {
		err = fmt.Errorf("the body declares %d bytes, the batch %d", n, b.Decoded)
	}
	if err == nil {
		enc.decoded, err = s2.Decode(enc.decoded[:0], b.Body)
	}
	if err == nil {
		err = enc.message.Scan(b.Version, enc.decoded)
	}
	if err == nil && len(enc.message.Series) != b.Series {
		err = fmt.Errorf("the body holds %d series, the batch %d", len(enc.message.Series), b.Series)
	}
	if err != nil {
		return fmt.Errorf("opening a %s body of %d bytes out of the journal: %w", b.Version, len(b.Body), err)
	}
	return nil
}

// add adds the series that are taken of a part, and counts them in t. n is the part's
// number. After an error the encoder must not be used but for giving it back.
func (enc *encoder) add(n int, p *exporter.Part, t *exporter.Tally) error {
	if err := enc.open(p.Batch); err != nil {
		return err
	}
	enc.parts = append(enc.parts, addedPart{part: n, first: enc.added})
	enc.Begin(&enc.message)
	for i := range enc.message.Series {
		if !p.Take.Has(i) {
			continue
		}
		o := enc.Add(&enc.message, i)
		enc.added++
		t.Sent.Add(o.Written)
		if !o.Dropped.Zero() {
			drop(t, o.Reason, o.Dropped)
		}
	}
	return nil
}

// finish compresses what was added into a buffer that the caller frees; nil when there
// is nothing to send. It corrects the tallies by what was dropped late.
func (enc *encoder) finish(tallies []exporter.Tally) *series.Buffer {
	enc.plain = enc.AppendTo(enc.plain[:0])
	for _, late := range enc.Late() {
		after := sort.Search(len(enc.parts), func(i int) bool { return enc.parts[i].first > late.Ordinal })
		t := &tallies[enc.parts[after-1].part]
		t.Sent.Sub(late.Dropped)
		drop(t, late.Reason, late.Dropped)
	}
	if enc.version == series.V2 && enc.Len() == 0 || len(enc.plain) == 0 {
		return nil
	}
	enc.packed = s2.EncodeSnappy(enc.packed[:0], enc.plain)
	// The delivery may wait long for the backend: it gets no more room than it needs.
	buf := series.NewBuffer(len(enc.packed))
	buf.B = append(buf.B, enc.packed...)
	return buf
}

// drop counts in t what was left out for a reason.
func drop(t *exporter.Tally, reason remotewrite.Reason, c series.Counts) {
	for i := range t.Dropped {
		if t.Dropped[i].Reason == string(reason) {
			t.Dropped[i].Counts.Add(c)
			return
		}
	}
	t.Dropped = append(t.Dropped, exporter.Drop{Reason: string(reason), Counts: c})
}
