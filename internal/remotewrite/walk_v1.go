package remotewrite

import (
	"github.com/zeebo/xxh3"

	"github.com/sluice-metrics/sluice/internal/series"
)

// Tags of prometheus.WriteRequest, TimeSeries and Exemplar.
const (
	tagV1Series    = 1<<3 | wireBytes
	tagV1Metadata  = 3<<3 | wireBytes
	tagV1Label     = 1<<3 | wireBytes
	tagV1Sample    = 2<<3 | wireBytes
	tagV1Exemplar  = 3<<3 | wireBytes
	tagV1Histogram = 4<<3 | wireBytes
	lastV1Series   = 4
)

func (m *Message) walkV1(k keying) error {
	data := m.Data
	for at := uint(0); at < uint(len(data)); {
		if data[at] != tagV1Series {
			next, err := m.walkOtherV1(k, at)
			if err != nil {
				return err
			}
			at = next
			continue
		}
		content, to, ok := delimited(data, at+1)
		if !ok {
			return malformed(at, "broken length of a TimeSeries")
		}
		if err := m.walkSeriesV1(k, at, content, to); err != nil {
			return err
		}
		at = to
	}
	return nil
}

// walkOtherV1 walks over one field of the WriteRequest of any kind, and returns where
// the next one starts.
func (m *Message) walkOtherV1(k keying, at uint) (next uint, err error) {
	tag, from, to, ok := fieldAt(m.Data, at)
	if !ok {
		return 0, malformed(at, "broken field in WriteRequest")
	}
	switch tag {
	case tagV1Series: // its tag is longer than it need be
		return to, m.walkSeriesV1(k, at, from, to)
	case tagV1Metadata:
		if _, ok := parseMetadataV1(m.Data[from:to]); !ok {
			return 0, malformed(at, "broken MetricMetadata")
		}
		m.metadata = append(m.metadata, span{uint32(from), uint32(to)})
	default:
		if f := tag >> 3; f == tagV1Series>>3 || f == tagV1Metadata>>3 {
			return 0, malformed(at, "wrong wire type in WriteRequest")
		}
	}
	return to, nil
}

// walkSeriesV1 adds the series field at..to.
func (m *Message) walkSeriesV1(k keying, at, content, to uint) error {
	s, err := m.addSeries(at, content, to)
	if err != nil {
		return err
	}
	b := m.Data[:to]
	p, ok := hopLabels(b, content)
	if !ok {
		return malformed(p, "broken length of a label")
	}
	s.labelsEnd = uint32(p)
	if bits, t, _, n := plainSample(m.Data, p); n > 0 && p+n <= to {
		s.Samples, s.plain, s.bits = 1, true, bits
		s.MinTime, s.MaxTime = t, t
		if bits == staleBits {
			s.Flags = FlagStale
		}
		p += n
	}
	if p < to {
		if err := m.walkRestV1(s, b[p:]); err != nil {
			return err
		}
	}
	if k.on {
		h := xxh3.Hash128Seed(m.labelFieldsV1(s), k.seed)
		s.Key = series.Key{Hi: h.Hi, Lo: h.Lo}
	}
	m.count(s)
	return nil
}

// hopLabels steps over the label fields that start at b[p], without looking inside.
// It returns where they end, or where one has a broken length.
func hopLabels(b []byte, p uint) (end uint, ok bool) {
	for {
		for p+2 < uint(len(b)) && b[p] == tagV1Label {
			n := uint(b[p+1])
			if n >= 0x80 {
				c := uint(b[p+2])
				if c >= 0x80 {
					break
				}
				n = n&0x7f | c<<7 + 1
			}
			p += 2 + n
		}
		if p > uint(len(b)) {
			return p, false
		}
		// What the fast loop leaves: very long labels, and empty ones at the end.
		if p == uint(len(b)) || b[p] != tagV1Label {
			return p, true
		}
		_, to, ok := delimited(b, p+1)
		if !ok {
			return p, false
		}
		p = to
	}
}

// walkRestV1 walks over b, the fields of s behind what was read already.
func (m *Message) walkRestV1(s *Series, b []byte) error {
	for len(b) > 0 {
		at := uint(s.To) - uint(len(b))
		tag, rest, ok := nextField(b)
		if !ok {
			return malformed(at, "broken tag in TimeSeries")
		}
		if tag != tagV1Label && tag != tagV1Sample && tag != tagV1Exemplar && tag != tagV1Histogram {
			if tag>>3 <= lastV1Series {
				return malformed(at, "wrong wire type in TimeSeries")
			}
			if b, ok = skipField(rest, tag); !ok {
				return malformed(at, "broken unknown field in TimeSeries")
			}
			continue
		}
		p, after, ok := lenDelim(rest)
		if !ok {
			return malformed(at, "broken length in TimeSeries")
		}
		b = after
		switch tag {
		case tagV1Label:
			s.Flags |= FlagSplitLabels
		case tagV1Sample:
			ok = s.addSample(p, series.V1)
		case tagV1Histogram:
			ok = s.addHistogram(p, series.V1)
		case tagV1Exemplar:
			ok = s.addExemplarV1(p)
		}
		if !ok {
			return malformed(at, "broken sample, histogram or exemplar")
		}
	}
	if s.Samples > 0 && s.Histograms > 0 {
		s.Flags |= FlagMixed
	}
	return nil
}

// labelFieldsV1 is all label fields of s: a part of Data where they stand together,
// else a copy that is good until the next call.
func (m *Message) labelFieldsV1(s *Series) []byte {
	if s.Flags&FlagSplitLabels == 0 {
		return m.Data[s.content:s.labelsEnd]
	}
	m.gathered = m.gathered[:0]
	for b := m.Data[s.content:s.To]; len(b) > 0; {
		tag, rest, _ := nextField(b)
		rest, _ = skipField(rest, tag)
		if tag == tagV1Label {
			m.gathered = append(m.gathered, b[:len(b)-len(rest)]...)
		}
		b = rest
	}
	return m.gathered
}
