package remotewrite

import (
	"bytes"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/zeebo/xxh3"

	"github.com/sluice-metrics/sluice/internal/series"
)

// Label is one label. Both slices are borrowed from the Message they were read from.
type Label struct{ Name, Value []byte }

const nameLabel = "__name__"

// MaxLabels is how many labels a series may have. A label takes 48 bytes once it is
// read, and as little as two on the wire.
const MaxLabels = 1 << 16

const (
	tagLabelName  = 1<<3 | wireBytes
	tagLabelValue = 2<<3 | wireBytes
	lastLabel     = 2
)

// AppendLabels appends the labels of series i as they are spelled, in any order, with
// empty and duplicate ones. An error means that the inside of a V1 label is broken or
// that there are more than MaxLabels (ReasonMalformedLabels), or that V2 references do
// not fit the symbol table (FlagBadRefs); it wraps ErrMalformed and concerns this
// series only.
func (m *Message) AppendLabels(dst []Label, i int) ([]Label, error) {
	s := &m.Series[i]
	if m.Version == series.V2 {
		return m.appendLabelsV2(dst, i)
	}
	end := uint(s.labelsEnd)
	if s.Flags&FlagSplitLabels != 0 {
		end = uint(s.To)
	}
	b := m.Data[:end]
	most := len(dst) + MaxLabels
	for at := uint(s.content); at < end; {
		tag, from, to, _ := fieldAt(b, at)
		if tag == tagV1Label {
			if len(dst) == most {
				return dst, malformed(at, "more labels than a series may have")
			}
			l, ok := parseLabel(b[from:to])
			if !ok {
				return dst, malformed(at, "broken Label")
			}
			dst = append(dst, l)
		}
		at = to
	}
	return dst, nil
}

func (m *Message) appendLabelsV2(dst []Label, i int) ([]Label, error) {
	s := &m.Series[i]
	if s.Flags&FlagSplitLabels != 0 {
		m.gatherRefs(s)
	} else {
		m.refs, _ = appendRefs(m.refs[:0], m.Refs(i))
	}
	if !m.refsFit(m.refs) {
		return dst, malformed(uint(s.From), fmt.Sprintf("%d labels_refs that are not pairs within %d symbols",
			len(m.refs), len(m.symbols)))
	}
	if len(m.refs) > 2*MaxLabels {
		return dst, malformed(uint(s.From), "more labels than a series may have")
	}
	for r := m.refs; len(r) > 1; r = r[2:] {
		dst = append(dst, Label{m.Symbol(int(r[0])), m.Symbol(int(r[1]))})
	}
	return dst, nil
}

// parseLabel reads the content of a V1 Label message.
func parseLabel(p []byte) (Label, bool) {
	if len(p) > 3 && p[0] == tagLabelName {
		from, end, ok := delimited(p, 1)
		if ok && end < uint(len(p)) && p[end] == tagLabelValue {
			start, last, ok := delimited(p, end+1)
			if ok && last == uint(len(p)) {
				return Label{p[from:end:end], p[start:last:last]}, true
			}
		}
	}
	return parseOddLabel(p)
}

// parseOddLabel reads one that is not just name and value.
func parseOddLabel(p []byte) (l Label, ok bool) {
	for len(p) > 0 {
		tag, rest, ok := nextField(p)
		if !ok {
			return Label{}, false
		}
		if p, ok = skipField(rest, tag); !ok {
			return Label{}, false
		}
		switch tag {
		case tagLabelName:
			l.Name, _, _ = lenDelim(rest)
		case tagLabelValue:
			l.Value, _, _ = lenDelim(rest)
		default:
			if tag>>3 <= lastLabel {
				return Label{}, false
			}
		}
	}
	return l, true
}

// CanonicalLabels brings ls, in place, into the one spelling that labels have within
// the gateway: sorted by name, without empty values (M8). changed tells that ls was
// spelled otherwise. reason tells why no series may have these labels; "" when one
// may. Metric and label names may be any UTF-8 (M5).
func CanonicalLabels(ls []Label) (sorted []Label, changed bool, reason Reason) {
	kept := ls[:0]
	ordered := true
	for _, l := range ls {
		if len(l.Name) == 0 {
			reason = ReasonEmptyLabelName
		}
		if len(l.Value) == 0 {
			continue
		}
		if n := len(kept); n > 0 && bytes.Compare(kept[n-1].Name, l.Name) >= 0 {
			ordered = false
		}
		kept = append(kept, l)
	}
	changed = len(kept) < len(ls)
	if !ordered {
		byName := func(a, b Label) int { return bytes.Compare(a.Name, b.Name) }
		changed = changed || !slices.IsSortedFunc(kept, byName)
		slices.SortFunc(kept, byName)
	}
	if reason == "" {
		reason = judgeLabels(kept, ordered)
	}
	return kept, changed, reason
}

// judgeLabels looks for what no series may have in sorted labels. distinct says that
// their names are known to differ.
func judgeLabels(ls []Label, distinct bool) Reason {
	named := false
	for i, l := range ls {
		if !distinct && i > 0 && bytes.Equal(ls[i-1].Name, l.Name) {
			return ReasonDuplicateLabel
		}
		if !utf8.Valid(l.Name) || !utf8.Valid(l.Value) {
			return ReasonInvalidUTF8
		}
		named = named || string(l.Name) == nameLabel
	}
	if !named {
		return ReasonMissingName
	}
	return ""
}

// CanonicalKey is the Key that Index gives with the same seed to a V1 series that
// spells exactly these labels in this order with lengths as short as possible.
func CanonicalKey(ls []Label, seed uint64) series.Key {
	var room [1024]byte
	b := room[:0]
	for _, l := range ls {
		b = appendLabel(b, l)
	}
	h := xxh3.Hash128Seed(b, seed)
	return series.Key{Hi: h.Hi, Lo: h.Lo}
}

// appendLabel appends l as a label field of a V1 TimeSeries. As in every proto3
// encoder, empty strings are left out.
func appendLabel(dst []byte, l Label) []byte {
	n := 0
	if len(l.Name) > 0 {
		n += sizeBytesField(1, len(l.Name))
	}
	if len(l.Value) > 0 {
		n += sizeBytesField(2, len(l.Value))
	}
	dst = append(dst, tagV1Label)
	dst = appendUvarint(dst, uint64(n))
	if len(l.Name) > 0 {
		dst = appendBytesField(dst, 1, l.Name)
	}
	if len(l.Value) > 0 {
		dst = appendBytesField(dst, 2, l.Value)
	}
	return dst
}

// LegacyNames reports whether the metric name and all label names fit the charset of
// RW 1.0: letters, digits and underscores, no digit in front, and colons in the
// metric name.
func LegacyNames(ls []Label) bool {
	for _, l := range ls {
		if !legacyName(l.Name, false) {
			return false
		}
		if string(l.Name) == nameLabel && !legacyName(l.Value, true) {
			return false
		}
	}
	return true
}

func legacyName(p []byte, colon bool) bool {
	for i, c := range p {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z' || c == '_' || colon && c == ':'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return len(p) > 0
}
