package remotewrite

import (
	"encoding/binary"
	"math"

	"github.com/sluice-metrics/sluice/internal/series"
)

const (
	tagExemplarLabel  = 1<<3 | wireBytes // a Label in V1, packed references in V2
	tagExemplarOneRef = 1<<3 | wireVarint
	tagExemplarValue  = 2<<3 | wireFixed64
	tagExemplarTime   = 3<<3 | wireVarint
	lastExemplar      = 3
)

// Exemplar is one exemplar. Its labels are as they are spelled, in any order; they
// are borrowed from the Message, see AppendExemplars.
type Exemplar struct {
	Labels []Label
	Value  float64
	Time   int64 // Unix ms
}

// AppendExemplars appends the exemplars of series i in body order, none for a series
// with FlagBadRefs. Their Labels hold until the next Index or Scan and until the next
// call with an empty dst.
func (m *Message) AppendExemplars(dst []Exemplar, i int) []Exemplar {
	if len(dst) == 0 {
		m.exemplarLabels = m.exemplarLabels[:0]
	}
	if s := &m.Series[i]; s.Exemplars == 0 || s.Flags&FlagBadRefs != 0 {
		return dst
	}
	field := uint64(tagV1Exemplar)
	if m.Version == series.V2 {
		field = tagV2Exemplar
	}
	for b := m.Rest(i); len(b) > 0; {
		tag, rest, _ := nextField(b)
		b, _ = skipField(rest, tag)
		if tag == field {
			p, _, _ := lenDelim(rest)
			dst = append(dst, m.exemplar(p))
		}
	}
	return dst
}

// exemplar reads the content of an Exemplar message that was walked.
func (m *Message) exemplar(p []byte) (e Exemplar) {
	from := len(m.exemplarLabels)
	m.refs = m.refs[:0]
	for len(p) > 0 {
		tag, rest, _ := nextField(p)
		p, _ = skipField(rest, tag)
		switch tag {
		case tagExemplarLabel:
			q, _, _ := lenDelim(rest)
			if m.Version == series.V2 {
				m.refs, _ = appendRefs(m.refs, q)
				continue
			}
			l, _ := parseLabel(q)
			m.exemplarLabels = append(m.exemplarLabels, l)
		case tagExemplarOneRef:
			v, _ := uvarint(rest)
			m.refs = append(m.refs, uint32(min(v, math.MaxUint32)))
		case tagExemplarValue:
			e.Value = math.Float64frombits(binary.LittleEndian.Uint64(rest))
		case tagExemplarTime:
			v, _ := uvarint(rest)
			e.Time = int64(v)
		}
	}
	for r := m.refs; len(r) > 1; r = r[2:] {
		m.exemplarLabels = append(m.exemplarLabels, Label{m.Symbol(int(r[0])), m.Symbol(int(r[1]))})
	}
	e.Labels = m.exemplarLabels[from:len(m.exemplarLabels):len(m.exemplarLabels)]
	return e
}

// addExemplarV1 notes the Exemplar message p.
func (s *Series) addExemplarV1(p []byte) bool {
	var time uint64
	for len(p) > 0 {
		tag, rest, ok := nextField(p)
		if !ok {
			return false
		}
		if p, ok = skipField(rest, tag); !ok {
			return false
		}
		switch {
		case tag == tagExemplarLabel:
			q, _, _ := lenDelim(rest)
			if _, ok := parseLabel(q); !ok {
				return false
			}
		case tag == tagExemplarTime:
			time, _ = uvarint(rest)
		case tag != tagExemplarValue && tag>>3 <= lastExemplar:
			return false
		}
	}
	s.countExemplar(time)
	return true
}

// addExemplarV2 notes the Exemplar message p of s.
func (m *Message) addExemplarV2(s *Series, p []byte) bool {
	var time uint64
	refs := m.otherRefs[:0]
	for len(p) > 0 {
		tag, rest, ok := nextField(p)
		if !ok {
			return false
		}
		if p, ok = skipField(rest, tag); !ok {
			return false
		}
		switch {
		case tag == tagExemplarLabel:
			q, _, _ := lenDelim(rest)
			if refs, ok = appendRefs(refs, q); !ok {
				return false
			}
		case tag == tagExemplarOneRef:
			v, _ := uvarint(rest)
			refs = append(refs, uint32(min(v, math.MaxUint32)))
		case tag == tagExemplarTime:
			time, _ = uvarint(rest)
		case tag != tagExemplarValue && tag>>3 <= lastExemplar:
			return false
		}
	}
	m.otherRefs = refs
	if !m.refsFit(refs) {
		s.Flags |= FlagBadRefs
	}
	s.countExemplar(time)
	return true
}

func (s *Series) countExemplar(time uint64) {
	s.Exemplars++
	if time == 0 {
		s.Flags |= FlagExemplarNoTime
	}
}
