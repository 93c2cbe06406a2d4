package receiver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// Translator makes remote write of OTLP metrics. receiver/otlp has it; the interface keeps
// the libraries that it needs out of this package.
type Translator interface {
	// Translate may change md. horizon is the largest acceptable timestamp, in Unix ms;
	// sizes above limit, in bytes, are a *Refusal, as is all else that is the sender's
	// fault. The error may also be that of ctx.
	Translate(ctx context.Context, md pmetric.Metrics, o TranslateOptions) (Translation, error)
}

// TranslateOptions bounds a translation.
type TranslateOptions struct {
	Horizon int64 // the largest acceptable timestamp, Unix ms
	Limit   int   // of the Request, in bytes
}

// Translation is what became of OTLP metrics.
type Translation struct {
	// Request is an io.prometheus.write.v2.Request, not compressed. It is empty when
	// nothing is to be kept.
	Request []byte
	// Points is how many data points there were. Rejected counts those of them that are
	// not in Request, and Example tells of the first.
	Points   uint64
	Rejected map[remotewrite.Reason]uint64
	Example  string
	// Exemplars counts those that are not in Request though their data points are.
	Exemplars map[remotewrite.Reason]uint64
}

// OTLP returns what answers OTLP/HTTP exports of metrics. It shares the limits of h, and
// Close.
func (h *Handler) OTLP(t Translator) http.Handler { return &otlpHandler{h: h, translator: t} }

type otlpHandler struct {
	h          *Handler
	translator Translator
}

func (o *otlpHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := otlpAnswer{h: o.h, w: w, r: r, start: o.h.o.Now()}
	rc := o.h.startReading(w)
	enc, known := exportEncoding(r.Header.Get("Content-Type"))
	a.encoding = enc // also a refusal is written in it
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		a.fail(verdict{status: http.StatusMethodNotAllowed, text: "an OTLP export is a POST"})
		return
	}
	if !known {
		a.fail(verdict{status: http.StatusUnsupportedMediaType, text: "Content-Type must be one of application/x-protobuf, application/json"})
		return
	}
	packed, ok := gzipped(r.Header.Get("Content-Encoding"))
	if !ok {
		a.fail(verdict{status: http.StatusUnsupportedMediaType, text: "Content-Encoding must be gzip, identity or absent"})
		return
	}
	body, leave, err := o.h.admit(rc, r)
	if err != nil {
		a.refuse(err)
		return
	}
	defer leave()
	o.h.o.Metrics.receivedBytes.WithLabelValues(otlpProtocol).Add(float64(len(body.B)))

	buf, t, err := o.translate(r.Context(), export{encoding: enc, gzipped: packed, body: body})
	if err != nil {
		a.refuse(err)
		return
	}
	var result Result
	if buf != nil {
		if result, err = o.h.o.Ingester.Ingest(r.Context(), Request{Version: series.V2, Body: buf, Sender: o.h.sender(r, otlpProtocol)}); err != nil {
			a.refuse(err)
			return
		}
	}
	o.h.countRejected(&t) // and not before: what is answered 503 comes again
	a.finish(&t, &result)
}

// otlpProtocol is the name of OTLP in metrics.
const otlpProtocol = "otlp"

// export is a request as it was sent.
type export struct {
	encoding encoding
	gzipped  bool
	body     *series.Buffer
}

// translate makes the compressed body of a remote-write request of e; it is nil when
// nothing is to be kept. It frees e.body.
func (o *otlpHandler) translate(ctx context.Context, e export) (*series.Buffer, Translation, error) {
	defer e.body.Free()
	// Decoding is bound by CPU, and takes several times the memory of the body.
	if err := o.h.translations.Acquire(ctx, 1); err != nil {
		return nil, Translation{}, err
	}
	defer o.h.translations.Release(1)
	limit := int(o.h.o.Config.MaxDecodedSize)
	plain, err := e.plain(limit)
	if err != nil {
		return nil, Translation{}, err
	}
	md, err := e.encoding.decode(plain, limit)
	if err != nil {
		return nil, Translation{}, err
	}
	t, err := o.translator.Translate(ctx, md, TranslateOptions{Horizon: o.h.o.Ingester.horizon(), Limit: limit})
	if err != nil || len(t.Request) == 0 {
		return nil, t, err
	}
	buf := series.NewBuffer(s2.MaxEncodedLen(len(t.Request)))
	buf.B = s2.EncodeSnappy(buf.B[:cap(buf.B)], t.Request)
	t.Request = nil
	return buf, t, nil
}

// plain is the body decompressed. It is the body itself where that was not compressed.
func (e export) plain(limit int) ([]byte, error) {
	if !e.gzipped {
		if len(e.body.B) > limit {
			return nil, refuseDecoded(limit)
		}
		return e.body.B, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(e.body.B))
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "the body is not gzip: %w", err)
	}
	// The size that gzip tells of is not believed: what comes out is counted.
	plain, err := io.ReadAll(io.LimitReader(z, int64(limit)+1))
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "the body is not gzip: %w", err)
	}
	if len(plain) > limit {
		return nil, refuseDecoded(limit)
	}
	return plain, nil
}

func refuseDecoded(limit int) error {
	return refuse(http.StatusBadRequest, "the body has more than %d bytes after decompression (receiver.max_decoded_size)", limit)
}

// encoding is how OTLP messages are written; the zero value stands for one that is not
// known.
type encoding int

const (
	encodingProto encoding = iota + 1
	encodingJSON
)

func exportEncoding(contentType string) (e encoding, known bool) {
	t, _, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil:
		return 0, false
	case t == "application/x-protobuf":
		return encodingProto, true
	case t == "application/json":
		return encodingJSON, true
	}
	return 0, false
}

func gzipped(contentEncoding string) (yes, known bool) {
	switch strings.ToLower(contentEncoding) {
	case "", "identity":
		return false, true
	case "gzip":
		return true, true
	}
	return false, false
}

// decode returns the metrics in b, whose memory they may share.
func (e encoding) decode(b []byte, limit int) (pmetric.Metrics, error) {
	unmarshal, weigh := pmetricotlp.ExportRequest.UnmarshalProto, weighProto
	if e == encodingJSON {
		unmarshal, weigh = pmetricotlp.ExportRequest.UnmarshalJSON, weighJSON
	}
	if err := weigh(b, maxExpansion*limit); err != nil {
		return pmetric.Metrics{}, refuse(http.StatusBadRequest, "the body is not an ExportMetricsServiceRequest that can be accepted: %w", err)
	}
	req := pmetricotlp.NewExportRequest()
	if err := unmarshal(req, b); err != nil {
		return pmetric.Metrics{}, refuse(http.StatusBadRequest, "the body is not an ExportMetricsServiceRequest: %w", err)
	}
	return req.Metrics(), nil
}

func (h *Handler) countRejected(t *Translation) {
	for reason, n := range t.Rejected {
		h.o.Metrics.refused.WithLabelValues(string(reason)).Add(float64(n))
	}
	for reason, n := range t.Exemplars {
		h.o.Metrics.refused.WithLabelValues(string(reason)).Add(float64(n))
	}
}

// otlpAnswer is the answer to one export.
type otlpAnswer struct {
	h        *Handler
	w        http.ResponseWriter
	r        *http.Request
	encoding encoding
	start    time.Time
}

// finish answers 200, with what was rejected as a partial success.
func (a *otlpAnswer) finish(t *Translation, result *Result) {
	resp := pmetricotlp.NewExportResponse()
	if n, text := rejections(t, result); n > 0 {
		resp.PartialSuccess().SetRejectedDataPoints(int64(n))
		resp.PartialSuccess().SetErrorMessage(text)
	}
	marshal := resp.MarshalProto
	if a.encoding == encodingJSON {
		marshal = resp.MarshalJSON
	}
	b, err := marshal()
	if err != nil {
		a.refuse(fmt.Errorf("BUG: an ExportMetricsServiceResponse cannot be written: %w", err))
		return
	}
	a.write(http.StatusOK, b)
	a.h.count(otlpProtocol, http.StatusOK, false, a.start)
}

// rejections is how many data points were rejected, and why. What the Ingester refuses is
// counted in samples and histograms: a data point of several samples may count as more
// than one, but never are more rejected than were sent.
func rejections(t *Translation, result *Result) (n uint64, text string) {
	reasons := map[remotewrite.Reason]uint64{}
	for reason, k := range t.Rejected {
		reasons[reason] += k
		n += k
	}
	for reason, k := range result.Reasons {
		reasons[reason] += k
	}
	n = min(n+result.Refused.Samples+result.Refused.Histograms, t.Points)
	if n == 0 {
		return 0, ""
	}
	var why []string
	for reason, k := range reasons {
		why = append(why, fmt.Sprintf("%s=%d", reason, k))
	}
	slices.Sort(why)
	text = fmt.Sprintf("%d of %d data points rejected: %s", n, t.Points, strings.Join(why, " "))
	if examples := append(nonEmpty(t.Example), result.Examples...); len(examples) > 0 {
		text += "; first: " + strings.Join(examples, ", ")
	}
	return n, strings.ToValidUTF8(truncate(text, maxAnswer), "")
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func (a *otlpAnswer) refuse(err error) { a.fail(a.h.verdict(a.r, err)) }

// fail answers with a google.rpc.Status, whose code OTLP/HTTP does not use.
func (a *otlpAnswer) fail(v verdict) {
	askToRetry(a.w, a.r, v.status)
	st := &status.Status{Message: strings.ToValidUTF8(truncate(v.text, maxAnswer), "")}
	var b []byte
	var err error
	switch a.encoding {
	case encodingProto:
		b, err = proto.Marshal(st)
	case encodingJSON:
		b, err = protojson.Marshal(st)
	default:
		b = []byte(st.Message + "\n")
	}
	if err != nil {
		err = errors.Join(errors.New("BUG: a google.rpc.Status cannot be written"), err)
		a.h.o.Logger.Error("Answer has no text", "err", err)
	}
	a.write(v.status, b)
	a.h.count(a.protocol(), v.status, v.gone, a.start)
}

// protocol is what the request is counted as; as with remote write, one of an unknown
// encoding is not otlp yet.
func (a *otlpAnswer) protocol() string {
	if a.encoding == 0 {
		return series.Version(0).String()
	}
	return otlpProtocol
}

func (a *otlpAnswer) write(status int, b []byte) {
	h := a.w.Header()
	switch a.encoding {
	case encodingProto:
		h.Set("Content-Type", "application/x-protobuf")
	case encodingJSON:
		h.Set("Content-Type", "application/json")
	default:
		h.Set("Content-Type", "text/plain; charset=utf-8")
	}
	h.Set("X-Content-Type-Options", "nosniff")
	a.w.WriteHeader(status)
	_, _ = a.w.Write(b)
}
