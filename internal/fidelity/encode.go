package fidelity

import (
	"encoding/binary"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/sampler"
)

// Fields of the RW 1.0 messages, all of them length-delimited.
const (
	fieldTimeSeries = 1 // in WriteRequest
	fieldLabel      = 1 // in TimeSeries
	fieldSample     = 2 // in TimeSeries
	fieldHistogram  = 4 // in TimeSeries
	fieldName       = 1 // in Label
	fieldValue      = 2 // in Label
)

// Tags of the fields of a Sample.
const (
	tagValue = 1<<3 | 1 // fixed64
	tagTime  = 2 << 3   // varint
)

func appendField(dst []byte, field byte, content []byte) []byte {
	dst = append(dst, field<<3|2)
	dst = binary.AppendUvarint(dst, uint64(len(content)))
	return append(dst, content...)
}

func appendLabel(dst []byte, l remotewrite.Label) []byte {
	var content []byte
	content = appendField(content, fieldName, l.Name)
	content = appendField(content, fieldValue, l.Value)
	return appendField(dst, fieldLabel, content)
}

// appendSample leaves zeros out, as encoders in the field do.
func appendSample(dst []byte, p sampler.Sample) []byte {
	var content [1 + 8 + 1 + binary.MaxVarintLen64]byte
	c := content[:0]
	if p.Bits != 0 {
		c = binary.LittleEndian.AppendUint64(append(c, tagValue), p.Bits)
	}
	if p.Time != 0 {
		c = binary.AppendUvarint(append(c, tagTime), uint64(p.Time))
	}
	return appendField(dst, fieldSample, c)
}
