// Package remotewrite reads and writes the remote-write wire format, versions 1.0 and
// 2.0 (2.0-rc.4, tolerating rc.3), without building objects: a Message is an index
// over the decompressed bytes of a request.
package remotewrite

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"unsafe"

	"github.com/sluice-metrics/sluice/internal/series"
)

// Message is the index over one decompressed request. It borrows the request's bytes
// and is reused for the next one by Index or Scan; nothing taken from it outlives that,
// but copies. A Message is used by one goroutine at a time. The zero Message is an
// empty one.
//
// All methods that take an ordinal i want 0 <= i < len(Series), after an Index or Scan
// that returned no error.
type Message struct {
	Version series.Version
	Data    []byte
	Series  []Series // in body order

	// Totals over Series.
	Counts  series.Counts
	MinTime int64 // math.MaxInt64 when there is no timestamp
	MaxTime int64 // math.MinInt64 when there is no timestamp

	generation uint64 // counts the requests, so that a Builder notices another one

	symbols  []span       // V2: place of each symbol in Data
	symHash  []series.Key // V2, by Index: hash of each symbol
	metadata []span       // V1: content of each MetricMetadata message

	refs           []uint32     // V2: labels_refs of the series at hand
	family         metadataRefs // V2: what the series at hand says about its family
	otherRefs      []uint32     // V2: references elsewhere in the series at hand
	gathered       []byte       // label fields that do not stand together, put together
	exemplarLabels []Label      // what AppendExemplars lends
}

type span struct{ from, to uint32 }

// Series is where one TimeSeries message stands and what it holds.
type Series struct {
	From, To   uint32     // the whole field in Data, tag and length included
	Key        series.Key // of the labels as they are spelled here; only after Index; zero with FlagBadRefs
	Samples    uint32
	Histograms uint32
	Exemplars  uint32
	Flags      Flags
	plain      bool  // bits are of the first sample, which stands where encoders put it
	MinTime    int64 // ms, of samples and histograms; as in Message when there are none
	MaxTime    int64

	// bits are here and not only in Data, so that a reader of all samples goes through the
	// index from front to back and waits for nothing of Data that is not in the cache.
	bits uint64

	content   uint32 // where the message's content starts
	labelsEnd uint32 // end of the leading run of label fields (V1) or of the leading packed refs (V2)
}

// Flags are what the walk noticed about one series.
type Flags uint16

const (
	// The following make a series invalid; see Series.Invalid.

	FlagNoContent      Flags = 1 << iota // V2: neither sample nor histogram (M3)
	FlagBadRefs                          // V2: odd number of refs, or one out of range, in labels, metadata or exemplars (M2)
	FlagBadHistogram                     // a native histogram breaks a rule of section 1.5
	FlagExemplarNoTime                   // an exemplar without a timestamp (M14)

	// The following need the series to be written anew before it goes on.

	FlagCreated     // V2: a created timestamp in field 6 (rc.3), to become the samples' start timestamp
	FlagMixed       // samples and histograms in one message (M3)
	FlagSplitLabels // the label fields are not one leading run (V1), or the refs not one leading packed field (V2)

	// The following are only told.

	FlagStale         // holds a stale marker
	FlagStart         // V2: a start timestamp is set on a sample or histogram
	FlagCustomBuckets // holds a native histogram with custom buckets (schema -53)
	FlagMetadata      // V2: carries type, help or unit
)

const (
	invalid = FlagNoContent | FlagBadRefs | FlagBadHistogram | FlagExemplarNoTime
	unfit   = FlagCreated | FlagMixed | FlagSplitLabels // to go on as they are
)

// ErrMalformed is wrapped by every error about bytes that are not the message they
// should be. The whole request is refused then (400).
var ErrMalformed = errors.New("malformed remote-write message")

// ErrTooManySeries is returned for a request most of whose series are empty messages:
// a Series takes 72 bytes, an empty one on the wire two. A series that holds a sample
// has four bytes or more, so a request of len(Data)/4 series is always taken, and the
// index of a request stays within 18 times its bytes, besides the room that slices
// grow by. It wraps ErrMalformed.
var ErrTooManySeries = fmt.Errorf("%w: more series than one in four bytes", ErrMalformed)

// fewSeries is how many series a request may hold whatever its length.
const fewSeries = 1024

// Index walks over data once and fills the Message, keys included: Key is a 128-bit
// hash with the given seed of a series' labels as they are spelled, the raw bytes of
// the label fields for V1, the contents of the referenced symbols in their order for
// V2. So a V1 and a V2 key of the same labels differ, and so do the keys of two
// orders.
//
// The Message borrows data. An error wraps ErrMalformed, says what is broken at which
// byte, and leaves the Message empty. What is wrong with single series is no error
// but told by their Flags. The inside of V1 labels is not looked at before
// AppendLabels, so that series that are known by their key do not pay for it.
func (m *Message) Index(v series.Version, data []byte, seed uint64) error {
	return m.walk(v, data, keying{on: true, seed: seed})
}

// Scan is Index without the keys.
func (m *Message) Scan(v series.Version, data []byte) error {
	return m.walk(v, data, keying{})
}

// keying says whether a walk computes keys.
type keying struct {
	on   bool
	seed uint64
}

func (m *Message) walk(v series.Version, data []byte, k keying) (err error) {
	m.reset(v, data)
	switch {
	case uint64(len(data)) > math.MaxUint32:
		err = fmt.Errorf("%w: %d bytes long, the limit is 4 GiB - 1", ErrMalformed, len(data))
	case v == series.V1:
		err = m.walkV1(k)
	case v == series.V2:
		err = m.walkV2(k)
	default:
		err = fmt.Errorf("%w: unknown version %d", ErrMalformed, v)
	}
	if err != nil {
		m.reset(v, nil)
	}
	return err
}

func (m *Message) reset(v series.Version, data []byte) {
	m.generation++
	m.Version, m.Data = v, data
	m.Series = m.Series[:0]
	m.Counts = series.Counts{}
	m.MinTime, m.MaxTime = math.MaxInt64, math.MinInt64
	m.symbols, m.symHash, m.metadata = m.symbols[:0], m.symHash[:0], m.metadata[:0]
	m.exemplarLabels = m.exemplarLabels[:0]
}

// Footprint is the number of bytes that the Message keeps for its next use. Who pools
// Messages gives up those that one big request has blown up.
func (m *Message) Footprint() int {
	return cap(m.Series)*int(unsafe.Sizeof(Series{})) +
		cap(m.symHash)*int(unsafe.Sizeof(series.Key{})) +
		(cap(m.symbols)+cap(m.metadata))*int(unsafe.Sizeof(span{})) +
		cap(m.exemplarLabels)*int(unsafe.Sizeof(Label{})) +
		(cap(m.refs)+cap(m.otherRefs))*4 + cap(m.gathered)
}

// addSeries appends the entry of the series field from..to whose content starts at
// content. The pointer is good until the next call.
func (m *Message) addSeries(from, content, to uint) (*Series, error) {
	n := len(m.Series)
	if n >= fewSeries && n >= len(m.Data)/4 {
		return nil, ErrTooManySeries
	}
	if n == cap(m.Series) {
		m.Series = slices.Grow(m.Series, 1)
	}
	m.Series = m.Series[:n+1]
	s := &m.Series[n]
	*s = Series{
		From: uint32(from), To: uint32(to), content: uint32(content), labelsEnd: uint32(content),
		MinTime: math.MaxInt64, MaxTime: math.MinInt64,
	}
	return s, nil
}

// count adds what a walked series holds to the totals.
func (m *Message) count(s *Series) {
	m.Counts.Samples += uint64(s.Samples)
	m.Counts.Histograms += uint64(s.Histograms)
	m.Counts.Exemplars += uint64(s.Exemplars)
	m.MinTime = min(m.MinTime, s.MinTime)
	m.MaxTime = max(m.MaxTime, s.MaxTime)
}

// see widens the time range by a sample's or histogram's timestamp.
func (s *Series) see(t int64) {
	s.MinTime = min(s.MinTime, t)
	s.MaxTime = max(s.MaxTime, t)
}

// Invalid is the reason for which the series must not be accepted, "" when the walk
// found none. ReasonExemplarWithoutSample is the one that another series of the request
// can cure: one with the same labels and a sample (M3); who knows of one may accept
// this series. The labels are not judged here, see CanonicalLabels.
func (s *Series) Invalid() Reason {
	switch f := s.Flags; {
	case f&invalid == 0:
		return ""
	case f&FlagBadRefs != 0:
		return ReasonInvalidRefs
	case f&FlagBadHistogram != 0:
		return ReasonInvalidHistogram
	case f&FlagExemplarNoTime != 0:
		return ReasonExemplarWithoutTimestamp
	case s.Exemplars > 0:
		return ReasonExemplarWithoutSample
	default:
		return ReasonNoSamples
	}
}

// NeedsRewrite reports whether the series must be written anew before it goes on,
// because of what it holds besides its labels' spelling.
func (s *Series) NeedsRewrite() bool {
	return s.Flags&unfit != 0
}

// Content is the inside of the TimeSeries message of series i.
func (m *Message) Content(i int) []byte {
	s := &m.Series[i]
	return m.Data[s.content:s.To:s.To]
}

// LabelBytes is the leading run of label fields (V1), or the leading packed refs field
// with its tag and length (V2), of series i. It is only part of the labels when the
// series has FlagSplitLabels.
func (m *Message) LabelBytes(i int) []byte {
	s := &m.Series[i]
	return m.Data[s.content:s.labelsEnd:s.labelsEnd]
}

// Rest is the content of series i behind LabelBytes. It still holds label fields when
// the series has FlagSplitLabels.
func (m *Message) Rest(i int) []byte {
	s := &m.Series[i]
	return m.Data[s.labelsEnd:s.To:s.To]
}

// Symbols is the number of symbols of a V2 message.
func (m *Message) Symbols() int { return len(m.symbols) }

// Symbol is the content of symbol i, 0 <= i < Symbols.
func (m *Message) Symbol(i int) []byte {
	s := m.symbols[i]
	return m.Data[s.from:s.to:s.to]
}
