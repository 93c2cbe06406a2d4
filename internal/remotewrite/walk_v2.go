package remotewrite

import (
	"math"
	"math/bits"

	"github.com/zeebo/xxh3"

	"github.com/sluice-metrics/sluice/internal/series"
)

// Tags of io.prometheus.write.v2.Request and TimeSeries.
const (
	tagV2Symbol    = 4<<3 | wireBytes
	tagV2Series    = 5<<3 | wireBytes
	tagV2Refs      = 1<<3 | wireBytes
	tagV2OneRef    = 1<<3 | wireVarint
	tagV2Sample    = 2<<3 | wireBytes
	tagV2Histogram = 3<<3 | wireBytes
	tagV2Exemplar  = 4<<3 | wireBytes
	tagV2Metadata  = 5<<3 | wireBytes
	tagV2Created   = 6<<3 | wireVarint // rc.3
	lastV2Series   = 5
)

func (m *Message) walkV2(k keying) error {
	data := m.Data
	late := false // symbols behind a series: its refs could not be judged yet
	for at := uint(0); at < uint(len(data)); {
		var content, to uint
		ok := false
		tag := uint64(data[at])
		switch tag {
		case tagV2Symbol, tagV2Series:
			if content, to, ok = delimited(data, at+1); !ok {
				return malformed(at, "broken length in Request")
			}
		default:
			var err error
			if tag, content, to, err = m.otherFieldV2(at); err != nil {
				return err
			}
		}
		switch tag {
		case tagV2Symbol:
			if err := m.addSymbol(k, content, to); err != nil {
				return err
			}
			late = late || len(m.Series) > 0
		case tagV2Series:
			s, err := m.addSeries(at, content, to)
			if err != nil {
				return err
			}
			if err := m.walkSeriesV2(k, s); err != nil {
				return err
			}
			m.count(s)
		}
		at = to
	}
	if len(m.Series) > 0 && len(m.symbols) == 0 {
		return malformed(uint(len(data)), "series without a symbol table")
	}
	if late {
		return m.judgeRefsAgain(k)
	}
	return nil
}

// otherFieldV2 reads a field of any kind and spelling at a place of the Request.
func (m *Message) otherFieldV2(at uint) (tag uint64, content, to uint, err error) {
	tag, content, to, ok := fieldAt(m.Data, at)
	if !ok {
		return 0, 0, 0, malformed(at, "broken field in Request")
	}
	known := tag == tagV2Symbol || tag == tagV2Series
	if f := tag >> 3; !known && (f == tagV2Symbol>>3 || f == tagV2Series>>3) {
		return 0, 0, 0, malformed(at, "wrong wire type in Request")
	}
	return tag, content, to, nil
}

// addSymbol adds the symbol with the content from..to.
func (m *Message) addSymbol(k keying, from, to uint) error {
	if len(m.symbols) == 0 && from != to {
		return malformed(from, "the first symbol is not the empty string")
	}
	m.symbols = append(m.symbols, span{uint32(from), uint32(to)})
	if k.on {
		h := xxh3.Hash128Seed(m.Data[from:to], k.seed)
		m.symHash = append(m.symHash, series.Key{Hi: h.Hi, Lo: h.Lo})
	}
	return nil
}

// judgeRefsAgain walks over all series once more, now that the symbol table is whole.
func (m *Message) judgeRefsAgain(k keying) error {
	for i := range m.Series {
		s := &m.Series[i]
		*s = Series{
			From: s.From, To: s.To, content: s.content, labelsEnd: s.content,
			MinTime: math.MaxInt64, MaxTime: math.MinInt64,
		}
		if err := m.walkSeriesV2(k, s); err != nil {
			return err
		}
	}
	return nil
}

// walkSeriesV2 fills s.
func (m *Message) walkSeriesV2(k keying, s *Series) error {
	b := m.Data[:s.To]
	p, to := uint(s.content), uint(s.To)
	var refs []byte
	if p < to && b[p] == tagV2Refs {
		from, end, ok := delimited(b, p+1)
		if !ok {
			return malformed(p, "broken length of labels_refs")
		}
		refs = b[from:end]
		p = end
		s.labelsEnd = uint32(p)
	}
	if bits, t, start, n := plainSample(m.Data, p); n > 0 && p+n <= to {
		s.Samples, s.plain, s.bits = 1, true, bits
		s.MinTime, s.MaxTime = t, t
		if bits == staleBits {
			s.Flags |= FlagStale
		}
		if start != 0 {
			s.Flags |= FlagStart
		}
		p += n
	}
	if p < to {
		m.family = metadataRefs{}
		if err := m.walkRestV2(s, b[p:]); err != nil {
			return err
		}
		m.judgeFamily(s)
	}
	switch {
	case s.Samples == 0 && s.Histograms == 0:
		s.Flags |= FlagNoContent
	case s.Samples > 0 && s.Histograms > 0:
		s.Flags |= FlagMixed
	}
	return m.judgeRefs(k, s, refs)
}

// judgeRefs looks at the references of s, packed those of its leading field, and gives
// s its key.
func (m *Message) judgeRefs(k keying, s *Series, packed []byte) error {
	ok := false
	if s.Flags&FlagSplitLabels == 0 {
		if k.on {
			s.Key, ok = m.hashPacked(packed)
		} else {
			ok = m.packedFit(packed)
		}
		if ok {
			return nil
		}
	}
	if m.refs, ok = appendRefs(m.refs[:0], packed); !ok {
		return malformed(uint(s.content), "broken labels_refs")
	}
	if s.Flags&FlagSplitLabels != 0 {
		m.gatherRefs(s)
	}
	switch {
	case !m.refsFit(m.refs):
		s.Flags |= FlagBadRefs
	case k.on:
		s.Key = m.hashRefs(m.refs)
	}
	return nil
}

// walkRestV2 walks over b, the fields of s behind what was read already.
func (m *Message) walkRestV2(s *Series, b []byte) error {
	for len(b) > 0 {
		at := uint(s.To) - uint(len(b))
		tag, rest, ok := nextField(b)
		if !ok {
			return malformed(at, "broken tag in TimeSeries")
		}
		switch tag {
		case tagV2Refs, tagV2Sample, tagV2Histogram, tagV2Exemplar, tagV2Metadata:
			var p []byte
			if p, b, ok = lenDelim(rest); !ok {
				return malformed(at, "broken length in TimeSeries")
			}
			if !m.addFieldV2(s, tag, p) {
				return malformed(at, "broken field in TimeSeries")
			}
		case tagV2OneRef, tagV2Created:
			v, n := uvarint(rest)
			if n <= 0 {
				return malformed(at, "broken varint in TimeSeries")
			}
			b = rest[n:]
			switch {
			case tag == tagV2OneRef:
				s.Flags |= FlagSplitLabels
			case v != 0:
				s.Flags |= FlagCreated
			default: // the last one wins, and 0 is none
				s.Flags &^= FlagCreated
			}
		default:
			if tag>>3 <= lastV2Series {
				return malformed(at, "wrong wire type in TimeSeries")
			}
			if b, ok = skipField(rest, tag); !ok {
				return malformed(at, "broken unknown field in TimeSeries")
			}
		}
	}
	return nil
}

// addFieldV2 notes a length-delimited field of s with content p.
func (m *Message) addFieldV2(s *Series, tag uint64, p []byte) (ok bool) {
	switch tag {
	case tagV2Refs:
		s.Flags |= FlagSplitLabels
		m.otherRefs, ok = appendRefs(m.otherRefs[:0], p)
		return ok
	case tagV2Sample:
		return s.addSample(p, series.V2)
	case tagV2Histogram:
		return s.addHistogram(p, series.V2)
	case tagV2Exemplar:
		return m.addExemplarV2(s, p)
	default:
		return m.family.parse(p)
	}
}

// judgeFamily looks at what the metadata fields of s say together.
func (m *Message) judgeFamily(s *Series) {
	r := m.family
	if r == (metadataRefs{}) {
		return
	}
	s.Flags |= FlagMetadata
	if symbols := uint64(len(m.symbols)); r.help >= symbols || r.unit >= symbols {
		s.Flags |= FlagBadRefs
	}
}

// appendRefs appends the packed references in p. One too big for 32 bits becomes
// one that is outside of every table.
func appendRefs(dst []uint32, p []byte) ([]uint32, bool) {
	for i := 0; i < len(p); {
		if v := p[i]; v < 0x80 {
			dst = append(dst, uint32(v))
			i++
			continue
		}
		if i+1 < len(p) && p[i+1] < 0x80 {
			dst = append(dst, uint32(p[i]&0x7f)|uint32(p[i+1])<<7)
			i += 2
			continue
		}
		v, n := uvarint(p[i:])
		if n <= 0 {
			return dst, false
		}
		dst = append(dst, uint32(min(v, math.MaxUint32)))
		i += n
	}
	return dst, true
}

// gatherRefs collects the references of all label fields of s, which was walked.
func (m *Message) gatherRefs(s *Series) {
	m.refs = m.refs[:0]
	for b := m.Data[s.content:s.To]; len(b) > 0; {
		tag, rest, _ := nextField(b)
		b, _ = skipField(rest, tag)
		switch tag {
		case tagV2Refs:
			p, _, _ := lenDelim(rest)
			m.refs, _ = appendRefs(m.refs, p)
		case tagV2OneRef:
			v, _ := uvarint(rest)
			m.refs = append(m.refs, uint32(min(v, math.MaxUint32)))
		}
	}
}

// refsFit reports whether refs are pairs and inside of the symbol table.
func (m *Message) refsFit(refs []uint32) bool {
	n := uint32(len(m.symbols))
	for _, r := range refs {
		if r >= n {
			return false
		}
	}
	return len(refs)%2 == 0
}

// refsHash is the state of the hash over references. The hash depends on the contents
// of the symbols and their order, not on the numbering of the table.
//
// Each step multiplies by an odd number, rotates and adds, so it is a bijection of
// the state for given symbols: entropy that came in stays in. Name and value enter
// with different factors, so that they cannot change places.
type refsHash struct{ lo, hi uint64 }

const (
	mix1 = 0x9e3779b97f4a7c15
	mix2 = 0xc2b2ae3d27d4eb4f
	mix3 = 0xd6e8feb86659fd93
)

func newRefsHash() refsHash { return refsHash{mix1, mix2} }

// add takes in one label.
func (h refsHash) add(name, value series.Key) refsHash {
	return refsHash{
		lo: (bits.RotateLeft64(h.lo, 29) ^ (name.Lo*mix1 + value.Lo)) * mix2,
		hi: (bits.RotateLeft64(h.hi, 31) + (name.Hi*mix2 ^ value.Hi)) * mix3,
	}
}

func (h refsHash) key() series.Key {
	lo, hi := h.lo+bits.RotateLeft64(h.hi, 17), h.hi+bits.RotateLeft64(h.lo, 41)
	lo, hi = avalanche(lo), avalanche(hi)
	return series.Key{Hi: hi + lo, Lo: lo}
}

// hashRefs is the key of the labels that refs, which fit, spell.
func (m *Message) hashRefs(refs []uint32) series.Key {
	h := newRefsHash()
	for ; len(refs) > 1; refs = refs[2:] {
		h = h.add(m.symHash[refs[0]], m.symHash[refs[1]])
	}
	return h.key()
}

// hashPacked is hashRefs for packed references of up to two bytes each. ok is false
// when one is longer, or they are not pairs within the symbol table.
func (m *Message) hashPacked(p []byte) (key series.Key, ok bool) {
	symbols := m.symHash
	h := newRefsHash()
	for i := uint(0); i < uint(len(p)); {
		name := uint(p[i])
		i++
		if name >= 0x80 {
			if i >= uint(len(p)) || p[i] >= 0x80 {
				return series.Key{}, false
			}
			name = name&0x7f | uint(p[i])<<7
			i++
		}
		if i >= uint(len(p)) {
			return series.Key{}, false
		}
		value := uint(p[i])
		i++
		if value >= 0x80 {
			if i >= uint(len(p)) || p[i] >= 0x80 {
				return series.Key{}, false
			}
			value = value&0x7f | uint(p[i])<<7
			i++
		}
		if name >= uint(len(symbols)) || value >= uint(len(symbols)) {
			return series.Key{}, false
		}
		h = h.add(symbols[name], symbols[value])
	}
	return h.key(), true
}

// packedFit is refsFit for packed references of up to two bytes each; false also when
// one is longer.
func (m *Message) packedFit(p []byte) bool {
	symbols := uint(len(m.symbols))
	odd := false
	for i := uint(0); i < uint(len(p)); i++ {
		ref := uint(p[i])
		if ref >= 0x80 {
			i++
			if i >= uint(len(p)) || p[i] >= 0x80 {
				return false
			}
			ref = ref&0x7f | uint(p[i])<<7
		}
		if ref >= symbols {
			return false
		}
		odd = !odd
	}
	return !odd
}

// avalanche spreads each bit of x over all bits, reversibly.
func avalanche(x uint64) uint64 {
	x ^= x >> 32
	x *= 0xe9846af9b1a615d
	x ^= x >> 32
	x *= 0xe9846af9b1a615d
	x ^= x >> 28
	return x
}

// Refs is the packed references of the labels of V2 series i: name, value, name,
// value. They lie in Data, or where the series has FlagSplitLabels in memory that is
// good until the next call of Refs.
func (m *Message) Refs(i int) []byte {
	s := &m.Series[i]
	if s.Flags&FlagSplitLabels == 0 {
		if s.labelsEnd == s.content {
			return nil
		}
		p, _, _ := lenDelim(m.Data[s.content+1 : s.labelsEnd])
		return p
	}
	m.gatherRefs(s)
	m.gathered = m.gathered[:0]
	for _, r := range m.refs {
		m.gathered = appendUvarint(m.gathered, uint64(r))
	}
	return m.gathered
}
