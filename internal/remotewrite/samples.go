package remotewrite

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/prometheus/model/value"

	"github.com/sluice-metrics/sluice/internal/series"
)

const (
	tagSampleValue = 1<<3 | wireFixed64
	tagSampleTime  = 2<<3 | wireVarint
	tagSampleStart = 3<<3 | wireVarint // V2
	lastV1Sample   = 2
	lastV2Sample   = 3

	// tagSample is the tag of a sample in a TimeSeries of both versions.
	tagSample = tagV1Sample

	staleBits = value.StaleNaN
)

// Sample is one float sample.
type Sample struct {
	Value float64 // all bits as they came: a stale marker stays one
	Time  int64   // Unix ms
	Start int64   // V2: start timestamp, Unix ms; 0 when there is none
}

// AppendSamples appends the samples of series i in body order. Start is the series'
// created timestamp (rc.3) where the sample has none of its own.
func (m *Message) AppendSamples(dst []Sample, i int) []Sample {
	s := &m.Series[i]
	var created int64
	if s.Flags&FlagCreated != 0 {
		created = m.Created(i)
	}
	for at := uint(s.labelsEnd); at < uint(s.To); {
		bits, t, start, n := plainSample(m.Data, at)
		if n == 0 {
			tag, from, to, _ := fieldAt(m.Data[:s.To], at)
			n = to - at
			if tag != tagSample {
				at = to
				continue
			}
			bits, t, start, _ = parseSample(m.Data[from:to], m.Version)
		}
		at += n
		if m.Version == series.V1 {
			start = 0
		} else if start == 0 {
			start = created
		}
		dst = append(dst, Sample{Value: math.Float64frombits(bits), Time: t, Start: start})
	}
	return dst
}

// Only is the sample of a series that holds one float sample and no histogram; ok is
// false for all others, and for spellings that AppendSamples has to be asked about. It
// looks at Data only for a start timestamp.
func (m *Message) Only(i int) (bits uint64, t, start int64, ok bool) {
	s := &m.Series[i]
	if !s.plain || s.Samples != 1 || s.Histograms != 0 || s.Flags&FlagCreated != 0 {
		return 0, 0, 0, false
	}
	if s.Flags&FlagStart != 0 {
		_, _, start, _ = plainSample(m.Data, uint(s.labelsEnd))
	}
	return s.bits, s.MinTime, start, true
}

// Created is the created timestamp (field 6 of rc.3, Unix ms) of V2 series i, 0 when
// there is none. AppendSamples and AppendHistograms have applied it.
func (m *Message) Created(i int) (t int64) {
	if m.Series[i].Flags&FlagCreated == 0 {
		return 0
	}
	for b := m.Rest(i); len(b) > 0; {
		tag, rest, _ := nextField(b)
		if tag == tagV2Created {
			v, _ := uvarint(rest)
			t = int64(v)
		}
		b, _ = skipField(rest, tag)
	}
	return t
}

// addSample notes the Sample message p.
func (s *Series) addSample(p []byte, v series.Version) bool {
	bits, t, start, ok := parseSample(p, v)
	if !ok {
		return false
	}
	s.Samples++
	s.see(t)
	if bits == staleBits {
		s.Flags |= FlagStale
	}
	if start != 0 && v == series.V2 {
		s.Flags |= FlagStart
	}
	return true
}

// plainSample reads a whole sample field at b[at] that is written as encoders in the
// field write it: the value, left out when it is 0, a timestamp and perhaps a start
// timestamp (V2), both between 2004 and 2109, when varints have six bytes. n is the
// length of the field, 0 for any other spelling and too near to the end of b. The
// field may reach beyond its series when b does.
func plainSample(b []byte, at uint) (bits uint64, t, start int64, n uint) {
	if at+27 > uint(len(b)) {
		return 0, 0, 0, 0
	}
	f := b[at : at+27]
	if f[0] != tagSample {
		return 0, 0, 0, 0
	}
	size := uint(f[1])
	var w, w2 uint64
	switch {
	case f[2] == tagSampleValue && f[11] == tagSampleTime:
		bits = binary.LittleEndian.Uint64(f[3:])
		w, w2 = binary.LittleEndian.Uint64(f[12:]), binary.LittleEndian.Uint64(f[18:])
		n = 18
	case f[2] == tagSampleTime:
		w, w2 = binary.LittleEndian.Uint64(f[3:]), binary.LittleEndian.Uint64(f[9:])
		n = 9
	}
	if n == 0 || !isSixByteVarint(w) {
		return 0, 0, 0, 0
	}
	if size+2 != n {
		w2 >>= 8
		if size+2 != n+7 || byte(w>>48) != tagSampleStart || !isSixByteVarint(w2) {
			return 0, 0, 0, 0
		}
		n += 7
		start = sixByteVarint(w2)
	}
	return bits, sixByteVarint(w), start, n
}

// isSixByteVarint reports whether the varint in the low bytes of w has six bytes.
func isSixByteVarint(w uint64) bool { return w&0x8080_8080_8080 == 0x80_8080_8080 }

// sixByteVarint is the value of the varint in the six low bytes of w.
func sixByteVarint(w uint64) int64 {
	w = w&0x007f_007f_007f | w>>1&0x3f80_3f80_3f80
	return int64(w&0x3fff | w>>2&(0x3fff<<14) | w>>4&(0x3fff<<28))
}

// parseSample reads the content of a Sample message. bits are those of the value;
// start means something in V2 only.
func parseSample(p []byte, v series.Version) (bits uint64, t, start int64, ok bool) {
	for len(p) > 0 {
		tag, rest, ok := nextField(p)
		if !ok {
			return 0, 0, 0, false
		}
		if p, ok = skipField(rest, tag); !ok {
			return 0, 0, 0, false
		}
		switch {
		case tag == tagSampleValue:
			bits = binary.LittleEndian.Uint64(rest)
		case tag == tagSampleTime:
			u, _ := uvarint(rest)
			t = int64(u)
		case tag == tagSampleStart:
			u, _ := uvarint(rest)
			start = int64(u)
		case tag>>3 <= lastV1Sample || tag>>3 == lastV2Sample && v == series.V2:
			return 0, 0, 0, false
		}
	}
	return bits, t, start, true
}
