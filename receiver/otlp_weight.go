package receiver

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// An OTLP message takes much more memory than bytes on the wire: an empty data point has
// 2 bytes there. So a body is weighed before it is decoded, and refused when it would
// take more than maxExpansion times what a body may have.
const (
	maxExpansion  = 8
	messageWeight = 64  // what most decoded messages take, in bytes
	pointWeight   = 256 // a data point or an exemplar takes half to all of it
	numberWeight  = 24  // a bucket count, which is copied twice
)

// maxNesting is how deep messages may be in each other, as in other decoders of protobuf.
// Values of attributes can hold each other without end, and decoders are recursive.
const maxNesting = 100

// fields are the messages inside of a message, by field number.
type fields map[protowire.Number]*message

// message is what has to be known of a type of OTLP to weigh it.
type message struct {
	fields fields
	weight int // 0: messageWeight
	// numbers is the field with packed numbers that may take a byte each; 0: none.
	numbers protowire.Number
}

// exportRequest is the type ExportMetricsServiceRequest.
func exportRequest() *message {
	anyValue, keyValue := &message{}, &message{}
	keyValue.fields = fields{2: anyValue}
	anyValue.fields = fields{
		5: {fields: fields{1: anyValue}}, // ArrayValue
		6: {fields: fields{1: keyValue}}, // KeyValueList
	}
	exemplar := &message{fields: fields{7: keyValue}, weight: pointWeight}
	buckets := &message{numbers: 2}
	points := func(f fields) *message {
		return &message{fields: fields{1: {fields: f, weight: pointWeight}}}
	}
	number := points(fields{7: keyValue, 5: exemplar})
	metric := &message{fields: fields{
		5:  number, // Gauge
		7:  number, // Sum
		9:  points(fields{9: keyValue, 8: exemplar}),
		10: points(fields{1: keyValue, 8: buckets, 9: buckets, 11: exemplar}),
		11: points(fields{7: keyValue, 6: {}}), // Summary and its quantiles
		12: keyValue,
	}}
	scope := &message{fields: fields{3: keyValue}}
	scopeMetrics := &message{fields: fields{1: scope, 2: metric}}
	resource := &message{fields: fields{1: keyValue, 3: {}}}
	return &message{fields: fields{1: {fields: fields{1: resource, 2: scopeMetrics, 1000: scopeMetrics}}}}
}

var (
	errTooHeavy = errors.New("it would take too much memory once decoded; send fewer data points at a time or raise receiver.max_decoded_size")
	errTooDeep  = fmt.Errorf("messages are nested more than %d deep", maxNesting)
)

// weighProto fails for a body that would take more than limit bytes once it is decoded.
func weighProto(b []byte, limit int) error {
	s := scale{left: limit}
	return s.weigh(b, exportRequest(), 0)
}

type scale struct{ left int }

func (s *scale) weigh(b []byte, m *message, depth int) error {
	if depth > maxNesting {
		return errTooDeep
	}
	if s.left -= cmp.Or(m.weight, messageWeight); s.left < 0 {
		return errTooHeavy
	}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if typ != protowire.BytesType {
			if num == m.numbers {
				s.left -= numberWeight
			}
			if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if num == m.numbers {
			if s.left -= numberWeight * len(v); s.left < 0 {
				return errTooHeavy
			}
		}
		if inner := m.fields[num]; inner != nil {
			if err := s.weigh(v, inner, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// weighJSON is weighProto for JSON. It counts braces and commas, also those inside of
// strings. Of the depth the decoder takes care.
func weighJSON(b []byte, limit int) error {
	const brace = 2 * messageWeight // it may be a data point
	if brace*bytes.Count(b, []byte("{"))+numberWeight*bytes.Count(b, []byte(",")) > limit {
		return errTooHeavy
	}
	return nil
}
