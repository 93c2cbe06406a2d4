package remotewrite

import (
	"math"

	"github.com/sluice-metrics/sluice/internal/series"
)

// MetricType is the type of a metric family. The numbers are those of both versions on
// the wire.
type MetricType uint8

// The metric types of the wire format.
const (
	MetricUnspecified MetricType = iota
	MetricCounter
	MetricGauge
	MetricHistogram
	MetricGaugeHistogram
	MetricSummary
	MetricInfo
	MetricStateset
)

// metricType is the type for a number on the wire, of which 32 bits count; unknown
// ones are unspecified.
func metricType(v uint64) MetricType {
	if v &= math.MaxUint32; v > uint64(MetricStateset) {
		return MetricUnspecified
	}
	return MetricType(v)
}

// String is the name as the Prometheus API writes it.
func (t MetricType) String() string {
	switch t {
	case MetricCounter:
		return "counter"
	case MetricGauge:
		return "gauge"
	case MetricHistogram:
		return "histogram"
	case MetricGaugeHistogram:
		return "gaugehistogram"
	case MetricSummary:
		return "summary"
	case MetricInfo:
		return "info"
	case MetricStateset:
		return "stateset"
	}
	return "unknown"
}

// Metadata describes a metric family. The byte slices are borrowed from the Message
// that it was read from.
type Metadata struct {
	Family     []byte // V1: metric_family_name; V2: nil, the series' name says it
	Type       MetricType
	Help, Unit []byte
}

// AppendMetadata appends the entries of the metadata field of a V1 request. A V2
// request has them with its series, see SeriesMetadata.
func (m *Message) AppendMetadata(dst []Metadata) []Metadata {
	for _, s := range m.metadata {
		md, _ := parseMetadataV1(m.Data[s.from:s.to])
		dst = append(dst, md)
	}
	return dst
}

// SeriesMetadata is what V2 series i says about its family. ok is false when it says
// nothing (no FlagMetadata), and for a series with FlagBadRefs.
func (m *Message) SeriesMetadata(i int) (md Metadata, ok bool) {
	s := &m.Series[i]
	if m.Version != series.V2 || s.Flags&FlagMetadata == 0 || s.Flags&FlagBadRefs != 0 {
		return Metadata{}, false
	}
	var r metadataRefs
	for b := m.Rest(i); len(b) > 0; {
		tag, rest, _ := nextField(b)
		b, _ = skipField(rest, tag)
		if tag == tagV2Metadata {
			p, _, _ := lenDelim(rest)
			r.parse(p)
		}
	}
	return Metadata{Type: r.typ, Help: m.Symbol(int(r.help)), Unit: m.Symbol(int(r.unit))}, true
}

const (
	tagFamilyType   = 1<<3 | wireVarint // of both versions
	tagV1FamilyName = 2<<3 | wireBytes
	tagV1Help       = 4<<3 | wireBytes
	tagV1Unit       = 5<<3 | wireBytes
	tagV2HelpRef    = 3<<3 | wireVarint
	tagV2UnitRef    = 4<<3 | wireVarint
)

// parseMetadataV1 reads the content of a MetricMetadata message.
func parseMetadataV1(p []byte) (md Metadata, ok bool) {
	for len(p) > 0 {
		tag, rest, ok := nextField(p)
		if !ok {
			return Metadata{}, false
		}
		if p, ok = skipField(rest, tag); !ok {
			return Metadata{}, false
		}
		switch tag {
		case tagFamilyType:
			v, _ := uvarint(rest)
			md.Type = metricType(v)
		case tagV1FamilyName:
			md.Family, _, _ = lenDelim(rest)
		case tagV1Help:
			md.Help, _, _ = lenDelim(rest)
		case tagV1Unit:
			md.Unit, _, _ = lenDelim(rest)
		default:
			if f := tag >> 3; f == 1 || f == 2 || f == 4 || f == 5 {
				return Metadata{}, false
			}
		}
	}
	return md, true
}

// metadataRefs is the content of a V2 Metadata message.
type metadataRefs struct {
	typ        MetricType
	help, unit uint64
}

// parse adds the content p: a field that comes several times is merged.
func (r *metadataRefs) parse(p []byte) bool {
	for len(p) > 0 {
		tag, rest, ok := nextField(p)
		if !ok {
			return false
		}
		if f := tag >> 3; tag&7 != wireVarint {
			if p, ok = skipField(rest, tag); !ok || f == 1 || f == 3 || f == 4 {
				return false
			}
			continue
		}
		v, n := uvarint(rest)
		if n <= 0 {
			return false
		}
		p = rest[n:]
		switch tag {
		case tagFamilyType:
			r.typ = metricType(v)
		case tagV2HelpRef:
			r.help = v
		case tagV2UnitRef:
			r.unit = v
		}
	}
	return true
}
