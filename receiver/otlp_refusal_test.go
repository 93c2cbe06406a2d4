package receiver_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/receiver"
)

func TestOTLPRefusals(t *testing.T) {
	tel := of("service.name", "s")
	tel.gauge("x", 1)
	good := packProto(t, tel.Metrics)
	small := func(s *setup) { s.receiver.MaxDecodedSize, s.receiver.MaxRequestSize = 4<<10, 2<<10 }

	wide := of("service.name", "s")
	bounds, counts := make([]float64, 300), make([]uint64, 301)
	for i := range bounds {
		bounds[i] = float64(i)
	}
	for i := range 3 {
		wide.histogram("w"+strconv.Itoa(i), bounds, counts...)
	}

	crowd := pmetric.NewMetrics()
	points := crowd.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty().SetEmptyGauge().DataPoints()
	for range 900 {
		points.AppendEmpty()
	}

	deep := []byte{}
	for range 150 { // ArrayValue in AnyValue
		deep = field(5, field(1, deep))
	}
	deep = field(1, field(2, field(2, field(5, field(1, field(7, field(2, deep)))))))

	for name, c := range map[string]struct {
		request func(e *exports) *http.Request
		change  func(*setup)
		status  int
		text    string
	}{
		"method": {func(e *exports) *http.Request {
			r := e.export(typeProto, good)
			r.Method = http.MethodPut
			return r
		}, nil, 405, "POST"},
		"no type":    {func(e *exports) *http.Request { return e.export("", good) }, nil, 415, "application/x-protobuf"},
		"other type": {func(e *exports) *http.Request { return e.export("text/plain", good) }, nil, 415, "application/json"},
		"other compression": {func(e *exports) *http.Request {
			r := e.export(typeProto, good)
			r.Header.Set("Content-Encoding", "zstd")
			return r
		}, nil, 415, "gzip"},
		"too large":    {func(e *exports) *http.Request { return e.export(typeProto, make([]byte, 3<<10)) }, small, 413, "receiver.max_request_size"},
		"bad protobuf": {func(e *exports) *http.Request { return e.export(typeProto, good[:len(good)-3]) }, nil, 400, "ExportMetricsServiceRequest"},
		"bad json":     {func(e *exports) *http.Request { return e.export(typeJSON, []byte(`{"resourceMetrics":[`)) }, nil, 400, "ExportMetricsServiceRequest"},
		"bad gzip":     {func(e *exports) *http.Request { return packed(e.export(typeProto, good)) }, nil, 400, "not gzip"},
		"cut gzip":     {func(e *exports) *http.Request { z := zip(t, good); return packed(e.export(typeProto, z[:len(z)-9])) }, nil, 400, "not gzip"},
		"gzip bomb":    {func(e *exports) *http.Request { return packed(e.export(typeProto, zip(t, make([]byte, 1<<20)))) }, small, 400, "receiver.max_decoded_size"},
		"memory bomb":  {func(e *exports) *http.Request { return packed(e.export(typeProto, zip(t, packProto(t, crowd)))) }, small, 400, "too much memory"},
		"memory bomb in json": {func(e *exports) *http.Request {
			return packed(e.export(typeJSON, zip(t, []byte(`{"resourceMetrics":[`+strings.Repeat("{},", 1200)+`{}]}`))))
		}, small, 400, "too much memory"},
		"nesting in json": {func(e *exports) *http.Request {
			return e.export(typeJSON, []byte(`{"resourceMetrics":[{"resource":{"attributes":[{"key":"a","value":`+strings.Repeat(`{"arrayValue":{"values":[`, 100_000)))
		}, nil, 400, "ExportMetricsServiceRequest"},
		"nesting": {func(e *exports) *http.Request { return e.export(typeProto, deep) }, nil, 400, "nested"},
		"much of little": {func(e *exports) *http.Request { return packed(e.export(typeProto, zip(t, packProto(t, wide.Metrics)))) }, func(s *setup) {
			s.receiver.MaxDecodedSize = 16 << 10
		}, 400, "more remote write"},
	} {
		t.Run(name, func(t *testing.T) {
			var change []func(*setup)
			if c.change != nil {
				change = append(change, c.change)
			}
			e := newExports(t, change...)
			r := c.request(e)
			a := e.do(r)
			require.Equal(t, c.status, a.status, a.text)
			require.Contains(t, refused(t, a), c.text)
			if r.Header.Get("Content-Type") == typeProto || r.Header.Get("Content-Type") == typeJSON {
				require.Equal(t, r.Header.Get("Content-Type"), a.header.Get("Content-Type"))
				require.InDelta(t, 1, e.counter("sluice_receiver_requests_total", "protocol", "otlp", "code", strconv.Itoa(c.status)), 0)
			} else {
				require.InDelta(t, 1, e.counter("sluice_receiver_requests_total", "protocol", "unknown", "code", strconv.Itoa(c.status)), 0)
			}
			require.Empty(t, a.header.Get("Retry-After"))
			require.Empty(t, e.kept())
			require.Zero(t, e.counter("sluice_receiver_requests_in_flight"))

			rejected, _ := accepted(t, e.do(e.export(typeProto, good)))
			require.Zero(t, rejected, "the next is taken in")
		})
	}
}

func packed(r *http.Request) *http.Request {
	r.Header.Set("Content-Encoding", "gzip")
	return r
}

// field is a field of a protobuf message with content.
func field(num byte, content []byte) []byte {
	b := []byte{num<<3 | 2}
	for n := len(content); ; n >>= 7 {
		if n < 0x80 {
			b = append(b, byte(n))
			break
		}
		b = append(b, byte(n)|0x80)
	}
	return append(b, content...)
}

// R9: 503 with Retry-After when the journal is full, and nothing kept.
func TestOTLPJournalFullIs503(t *testing.T) {
	for _, contentType := range []string{typeProto, typeJSON} {
		t.Run(contentType, func(t *testing.T) {
			e := newExports(t, func(s *setup) {
				s.journal.SegmentSize = 4 * bytesize.KiB
				s.journal.MaxDisk = 16 * bytesize.KiB
			})
			pack := packProto
			if contentType == typeJSON {
				pack = packJSON
			}
			var a answer
			sent := 0
			for ; ; sent++ {
				require.Less(t, sent, 1000)
				tel := of("service.name", strings.Repeat(strconv.Itoa(sent), 100))
				tel.gauge("x", 1)
				if a = e.do(e.export(contentType, pack(t, tel.Metrics))); a.status != http.StatusOK {
					break
				}
			}
			require.Equal(t, http.StatusServiceUnavailable, a.status, a.text)
			require.Contains(t, refused(t, a), "full")
			require.Equal(t, contentType, a.header.Get("Content-Type"))
			require.NotEmpty(t, a.header.Get("Retry-After"))
			require.Len(t, e.kept(), sent)
			require.Equal(t, uint64(sent), e.booked().Samples)
		})
	}
}

func TestOTLPIsRefusedAfterClose(t *testing.T) {
	e := newExports(t)
	e.handler.Close()
	a := e.do(e.export(typeProto, nil))
	require.Equal(t, http.StatusServiceUnavailable, a.status)
	require.Equal(t, "shutting down", refused(t, a))
	require.NotEmpty(t, a.header.Get("Retry-After"))
}

// The limits are those of remote write: what holds one holds the other.
func TestOTLPSharesAdmission(t *testing.T) {
	var held heldJournal
	e := newExports(t, holdJournal(&held), func(s *setup) { s.receiver.MaxInFlight = 1 })
	first := e.later(e.request(typeV2, packV2(t, newV2().sample(1, "__name__", "a").done())))
	<-held.arrived
	tel := of("service.name", "s")
	tel.gauge("x", 1)
	a := e.do(e.export(typeProto, packProto(t, tel.Metrics)))
	require.Equal(t, http.StatusServiceUnavailable, a.status)
	require.Equal(t, "too many requests in flight", refused(t, a))
	held.release <- nil
	require.Equal(t, http.StatusNoContent, (<-first).status)
}

func TestOTLPConfigIsChecked(t *testing.T) {
	for path, change := range map[string]func(c *receiver.OTLPConfig){
		"otlp.translation_strategy":           func(c *receiver.OTLPConfig) { c.TranslationStrategy = "Escape" },
		"otlp.promote_resource_attributes[0]": func(c *receiver.OTLPConfig) { c.PromoteResourceAttributes = []string{" a"} },
		"otlp.promote_resource_attributes[1]": func(c *receiver.OTLPConfig) { c.PromoteResourceAttributes = []string{"a", "a"} },
	} {
		c := receiver.DefaultConfig()
		change(&c.OTLP)
		require.ErrorContains(t, c.Validate(), path+": ")
	}
}
