package receiver_test

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

func TestR1_WrittenIs204WithoutBody(t *testing.T) {
	g := newGate(t)
	for _, a := range []answer{
		g.sendV1(oneV1()),
		g.sendV2(newV2().sample(1, "__name__", "up").done()),
		g.sendV1(&prompb.WriteRequest{}),
		g.sendV2(&writev2.Request{}),
		g.sendV2(&writev2.Request{Symbols: []string{""}}),
	} {
		require.Equal(t, 204, a.status)
		require.Empty(t, a.text)
	}
	require.Len(t, g.kept(), 2, "an empty request is nothing to keep")
}

// mixedV2 holds 2 good samples, 1 good histogram with an exemplar, and one bad series of
// each kind, 4 samples, 1 histogram and 2 exemplars in all.
func mixedV2() *writev2.Request {
	b := newV2()
	b.sample(1, "__name__", "good", "n", "1")
	b.sample(2, "__name__", "twice", "a", "1", "a", "2")
	b.add(writev2.TimeSeries{Histograms: []writev2.Histogram{intHistogram()}, Exemplars: []writev2.Exemplar{b.exemplar("x")}}, "__name__", "good_histogram")
	bad := intHistogram()
	bad.Count = &writev2.Histogram_CountInt{CountInt: 1}
	b.add(writev2.TimeSeries{Histograms: []writev2.Histogram{bad}, Exemplars: []writev2.Exemplar{b.exemplar("y"), b.exemplar("z")}}, "__name__", "bad_histogram")
	b.sample(3, "job", "nameless")
	b.add(writev2.TimeSeries{Samples: []writev2.Sample{{Value: 1, Timestamp: startMs}, {Value: 2, Timestamp: startMs + 1}}, LabelsRefs: []uint32{1, 2, 3}})
	b.sample(4, "__name__", "good", "n", "2")
	return b.done()
}

// R2, R4, R7: what is acceptable is kept, the rest is told, and the headers are exact.
func TestR7_PartialWrite(t *testing.T) {
	g := newGate(t)
	req := mixedV2()
	all := seriesV2(t, &writev2.Request{Symbols: req.Symbols, Timeseries: append(append([]writev2.TimeSeries(nil), req.Timeseries[:5]...), req.Timeseries[6])})
	a := g.sendV2(req)
	require.Equal(t, 400, a.status)
	require.Equal(t, [3]int{2, 1, 1}, a.written(t))
	require.Equal(t, []string{all[0], all[2], all[5]}, seriesV2(t, g.keptOne().v2))
	require.Equal(t, series.Counts{Samples: 2, Histograms: 1, Exemplars: 1}, g.booked())

	require.Contains(t, a.text, "7 of 11 samples rejected:")
	for _, part := range []string{" duplicate_label=1", " invalid_histogram=3", " missing_name=1", " invalid_refs=2", `"twice"`, `"bad_histogram"`, `"nameless"`} {
		require.Contains(t, a.text, part)
	}
	for reason, n := range map[string]float64{"duplicate_label": 1, "invalid_histogram": 3, "missing_name": 1, "invalid_refs": 2} {
		require.Equal(t, n, g.counter("sluice_receiver_refused_samples_total", "reason", reason), reason)
	}
	require.Equal(t, 7.0, g.counter("sluice_receiver_refused_samples_total"))
}

func TestR7_PartialWriteV1(t *testing.T) {
	g := newGate(t)
	req := &prompb.WriteRequest{
		Timeseries: []prompb.TimeSeries{
			{Labels: named("first"), Samples: sampleV1(1)},
			{Labels: labelsV1("job", "x"), Samples: sampleV1(2)},
			{Labels: named("second"), Samples: sampleV1(3), Exemplars: []prompb.Exemplar{{Labels: labelsV1("trace_id", "1"), Value: 1, Timestamp: startMs}}},
		},
		Metadata: []prompb.MetricMetadata{{Type: prompb.MetricMetadata_GAUGE, MetricFamilyName: "first", Help: "Help.", Unit: "s"}},
	}
	a := g.sendV1(req)
	require.Equal(t, 400, a.status)
	a.noWritten(t)
	require.Contains(t, a.text, "1 of 4 samples rejected: missing_name=1")
	k := g.keptOne().v1
	all := seriesV1(t, req)
	require.Equal(t, []string{all[0], all[2]}, seriesV1(t, k))
	require.Equal(t, req.Metadata, k.Metadata)
}

// Nothing of a request is acceptable but its metadata.
func TestR7_MetadataOutlivesBadSeries(t *testing.T) {
	g := newGate(t)
	md := []prompb.MetricMetadata{{Type: prompb.MetricMetadata_COUNTER, MetricFamilyName: "a_total", Help: "Help."}}
	a := g.sendV1(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Samples: sampleV1(1)}}, Metadata: md})
	require.Equal(t, 400, a.status)
	require.Equal(t, md, g.keptOne().v1.Metadata)
	got, ok := g.metadata.Get([]byte("a_total"))
	require.True(t, ok)
	require.Equal(t, "Help.", string(got.Help))
}

func TestR2_NothingWrittenIsNo2xx(t *testing.T) {
	g := newGate(t)
	for name, a := range map[string]answer{
		"v1": g.sendV1(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Samples: sampleV1(1)}}}),
		"v2": g.sendV2(newV2().sample(1, "job", "x").done()),
	} {
		require.Equal(t, 400, a.status, name)
		require.Contains(t, a.text, "1 of 1 samples rejected: missing_name=1", name)
	}
	require.Empty(t, g.kept())
}

// R3: senders read 1 KiB at most; whatever labels are, an answer is no longer, says the
// counts and reasons in any case, and names five series when they are of usual length.
func TestR3_Text(t *testing.T) {
	g := newGate(t)
	bad := func(n int, value string) *writev2.Request {
		b := newV2()
		for i := range n {
			b.sample(1, "job", fmt.Sprint(value, i))
		}
		return b.done()
	}
	a := g.sendV2(bad(7, "job-"))
	require.True(t, strings.HasPrefix(a.text, "7 of 7 samples rejected: missing_name=7; first: "), a.text)
	for i := range 7 {
		require.Equal(t, i < 5, strings.Contains(a.text, fmt.Sprintf(`{"job"="job-%d"}`, i)), a.text)
	}
	for value, reason := range map[string]string{
		strings.Repeat("long", 1000):       "missing_name",
		strings.Repeat("\x01\n\x7f", 1000): "missing_name",
		strings.Repeat("日本語", 1000):        "missing_name",
		strings.Repeat("\xff", 1000):       "invalid_utf8",
	} {
		a := g.sendV2(bad(2000, value))
		require.Equal(t, 400, a.status)
		require.LessOrEqual(t, len(a.text), 1024)
		require.Contains(t, a.text, "2000 of 2000 samples rejected: "+reason+"=2000")
		require.True(t, utf8.ValidString(a.text))
		require.NotRegexp(t, `[\x00-\x09\x0b-\x1f\x7f]`, a.text)
		require.Equal(t, 1, strings.Count(a.text, "\n"))
		require.Equal(t, "text/plain; charset=utf-8", a.header.Get("Content-Type"))
		require.Equal(t, "nosniff", a.header.Get("X-Content-Type-Options"))
	}
}

// R4: RW 2.0 answers tell what was written, whatever they are; RW 1.0 answers never do.
func TestR4_WrittenHeaders(t *testing.T) {
	g := newGate(t)
	b := newV2()
	b.sample(1, "__name__", "a").sample(1, "__name__", "b").sample(1, "__name__", "c")
	b.add(writev2.TimeSeries{Histograms: []writev2.Histogram{intHistogram(), floatHistogram()}, Exemplars: []writev2.Exemplar{b.exemplar("1")}}, "__name__", "h")
	require.Equal(t, [3]int{3, 2, 1}, g.sendV2(b.done()).written(t))
	require.Equal(t, [3]int{}, g.sendV2(&writev2.Request{}).written(t))
	for status, body := range map[int][]byte{400: []byte("nonsense"), 413: make([]byte, 33<<20)} {
		a := g.do(g.request(typeV2, body))
		require.Equal(t, status, a.status)
		require.Equal(t, [3]int{}, a.written(t))
		a = g.do(g.request(typeV1, body))
		require.Equal(t, status, a.status)
		a.noWritten(t)
	}
	g.sendV1(oneV1()).noWritten(t)
	g.sendV1(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Samples: sampleV1(1)}}}).noWritten(t)
	g.fs.Inject(vfs.Fault{Ops: []vfs.Op{vfs.OpWrite}, Err: syscall.EIO, Forever: true})
	a := g.sendV2(b.done())
	require.Equal(t, 503, a.status)
	require.Equal(t, [3]int{}, a.written(t))
	a = g.sendV1(oneV1())
	require.Equal(t, 503, a.status)
	a.noWritten(t)
}

// R8: what will never succeed is 400; nothing that a sender sent makes a 5xx.
func TestR8_BadDataIsNeverRetried(t *testing.T) {
	g := newGate(t)
	future := newV2().add(writev2.TimeSeries{Samples: []writev2.Sample{{Timestamp: startMs + 3_600_000}}}, "__name__", "f").done()
	for name, a := range map[string]answer{
		"future":        g.sendV2(future),
		"duplicate":     g.sendV2(newV2().sample(1, "__name__", "a", "b", "1", "b", "1").done()),
		"nothing in it": g.sendV2(newV2().add(writev2.TimeSeries{}, "__name__", "a").done()),
		"not snappy":    g.do(g.request(typeV2, []byte("xxxx"))),
		"not protobuf":  g.do(g.request(typeV2, literal([]byte("\x07\x07\x07\x07")))),
		"not utf-8":     g.sendV1(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Labels: named("\xff\xfe"), Samples: sampleV1(1)}}}),
	} {
		require.Equal(t, 400, a.status, name)
		require.Empty(t, a.header.Get("Retry-After"), name)
	}
	require.Empty(t, g.kept())
}

// R9: 503 with Retry-After when the journal is full, and nothing kept.
func TestR9_JournalFull(t *testing.T) {
	g := newGate(t, func(s *setup) {
		s.journal = disk.DefaultConfig()
		s.journal.SegmentSize = 4 * bytesize.KiB
		s.journal.MaxDisk = 16 * bytesize.KiB
	})
	sent := 0
	var a answer
	for ; ; sent++ {
		require.Less(t, sent, 1000)
		if a = g.sendV2(newV2().sample(float64(sent), "__name__", "up", "pad", strings.Repeat(strconv.Itoa(sent), 100)).done()); a.status != 204 {
			break
		}
		require.Equal(t, [3]int{1, 0, 0}, a.written(t))
	}
	require.Equal(t, 503, a.status, a.text)
	require.Contains(t, a.text, "full")
	require.Equal(t, [3]int{}, a.written(t))
	require.NotEmpty(t, a.header.Get("Retry-After"))
	require.Len(t, g.kept(), sent)
	require.Equal(t, uint64(sent), g.booked().Samples)
}

// R9: an append that fails is 503, the batch is not kept, and what comes after it is.
func TestR9_DiskErrors(t *testing.T) {
	for _, fault := range []vfs.Fault{
		{Ops: []vfs.Op{vfs.OpWrite}, Err: syscall.EIO, Path: "segments"},
		{Ops: []vfs.Op{vfs.OpWrite}, Err: syscall.ENOSPC, Path: "segments", Partial: 30},
		{Ops: []vfs.Op{vfs.OpCreate}, Err: syscall.EMFILE, Path: "segments"},
	} {
		g := newGate(t)
		g.fs.Inject(fault)
		a := g.sendV1(oneV1())
		require.Equal(t, 503, a.status)
		require.Contains(t, a.text, "not durable now")
		require.NotEmpty(t, a.header.Get("Retry-After"))
		require.Equal(t, 204, g.sendV1(oneV1()).status)
		require.Len(t, g.kept(), 1)
		require.Equal(t, series.Counts{Samples: 1}, g.booked())
	}
}

// R9a: Retry-After grows with Retry-Attempt, is bounded, and differs between senders.
func TestR9a_RetryAfter(t *testing.T) {
	var h heldJournal
	g := newGate(t, holdJournal(&h))
	retryAfter := func(attempt string) int {
		r := g.request(typeV1, packV1(t, oneV1()))
		if attempt != "" {
			r.Header.Set("Retry-Attempt", attempt)
		}
		got := g.later(r)
		<-h.arrived
		h.release <- journal.ErrFull
		a := <-got
		require.Equal(t, 503, a.status)
		n, err := strconv.Atoi(a.header.Get("Retry-After"))
		require.NoError(t, err)
		require.Positive(t, n)
		return n
	}
	sums := map[string]int{}
	for _, tc := range []struct {
		attempt  string
		min, max int
	}{
		{"", 1, 2},
		{"0", 1, 2},
		{"-3", 1, 2},
		{"x", 1, 2},
		{"99999999999999999999", 1, 2},
		{"1", 1, 2},
		{"3", 2, 6},
		{"5", 8, 24},
		{"7", 32, 96},
		{"1000000", 32, 96},
	} {
		seen := map[int]bool{}
		for range 25 {
			n := retryAfter(tc.attempt)
			require.GreaterOrEqual(t, n, tc.min, tc.attempt)
			require.LessOrEqual(t, n, tc.max, tc.attempt)
			seen[n] = true
			sums[tc.attempt] += n
		}
		if tc.max > 6 {
			require.Greater(t, len(seen), 3, "no jitter at attempt %s", tc.attempt)
		}
	}
	require.Less(t, sums["1"], sums["3"])
	require.Less(t, sums["3"], sums["5"])
	require.Less(t, sums["5"], sums["7"])
}

// R10, G2: a request of which a part is acceptable is kept whole or not at all.
func TestR10_NoRetriablePartialWrite(t *testing.T) {
	var h heldJournal
	g := newGate(t, holdJournal(&h))
	got := g.later(g.request(typeV2, packV2(t, mixedV2())))
	<-h.arrived
	h.release <- errors.New("disk on fire")
	a := <-got
	require.Equal(t, 503, a.status)
	require.Contains(t, a.text, "disk on fire")
	require.Equal(t, [3]int{}, a.written(t))
	require.Empty(t, g.kept())
	require.Zero(t, g.booked())
}

// G3: no answer before the journal has it.
func TestG3_AnswerComesAfterTheJournal(t *testing.T) {
	var h heldJournal
	g := newGate(t, holdJournal(&h))
	for contentType, body := range map[string][]byte{
		typeV1: packV1(t, oneV1()),
		typeV2: packV2(t, mixedV2()), // also the 400 of a partial write says that something was written
	} {
		before := g.booked()
		got := g.later(g.request(contentType, body))
		<-h.arrived
		select {
		case a := <-got:
			t.Fatalf("answered %d before the append returned", a.status)
		case <-time.After(30 * time.Millisecond):
		}
		require.Equal(t, before, g.booked())
		h.release <- nil
		a := <-got
		require.Contains(t, []int{204, 400}, a.status)
		require.Len(t, g.kept(), 1)
		require.NotEqual(t, before, g.booked())
	}
}

// A sender that ends its half of the connection after the request is answered like
// others: never 2xx for what the journal refused, and the books know what it keeps.
func TestG3_HalfClosedConnection(t *testing.T) {
	var h heldJournal
	g := newGate(t, holdJournal(&h))
	for status, outcome := range map[int]error{204: nil, 503: journal.ErrFull} {
		before := g.booked()
		conn := g.dial()
		body := packV2(t, newV2().sample(1, "__name__", "up").done())
		fmt.Fprintf(conn, "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", typeV2, len(body), body)
		<-h.arrived
		require.NoError(t, conn.CloseWrite())
		time.Sleep(20 * time.Millisecond) // for the server to notice, which nobody is told of
		h.release <- outcome
		resp := responseOf(t, conn)
		require.Equal(t, status, resp.status)
		added := g.booked()
		added.Sub(before)
		require.Equal(t, status == 204, added == series.Counts{Samples: 1})
		require.Len(t, g.kept(), int(added.Samples))
	}
}

// A sender that is gone before its turn comes is not kept, and not answered 2xx.
func TestG3_SenderLeavesWhileItWaits(t *testing.T) {
	var h heldJournal
	g := newGate(t, holdJournal(&h), func(s *setup) {
		s.receiver.MaxInFlight = 1
		s.receiver.AdmissionTimeout *= 600
	})
	first := g.later(g.request(typeV1, packV1(t, oneV1())))
	<-h.arrived
	conn := g.dial()
	body := packV1(t, oneV1())
	fmt.Fprintf(conn, "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	require.NoError(t, conn.CloseWrite())
	require.Equal(t, 503, responseOf(t, conn).status)
	h.release <- nil
	require.Equal(t, 204, (<-first).status)
	require.Len(t, g.kept(), 1)
}

// The same where it leaves while requests wait to be decoded.
func TestG3_SenderLeavesBeforeDecoding(t *testing.T) {
	g := newGate(t)
	requests := runtime.GOMAXPROCS(0) + 3 // two more than are decoded at a time
	conns := make([]*net.TCPConn, requests)
	err := g.ingester.Exclusive(func() error { // holds those that are decoded
		body := packV1(t, oneV1())
		for i := range conns {
			conns[i] = g.dial()
			fmt.Fprintf(conns[i], "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
		eventually(t, func() bool { return g.counter("sluice_receiver_requests_in_flight") == float64(requests) })
		for _, c := range conns {
			require.NoError(t, c.CloseWrite())
		}
		eventually(t, func() bool { return g.counter("sluice_receiver_requests_total", "code", "gone") >= 2 })
		return nil
	})
	require.NoError(t, err)
	count := map[int]int{}
	for _, c := range conns {
		count[responseOf(t, c).status]++
	}
	require.Equal(t, requests, count[204]+count[503], "%v", count)
	require.Equal(t, float64(count[503]), g.counter("sluice_receiver_requests_total", "code", "gone"))
	require.Len(t, g.kept(), count[204])
}

func TestMetrics(t *testing.T) {
	g := newGate(t)
	body := packV1(t, oneV1())
	require.Equal(t, 204, g.do(g.request(typeV1, body)).status)
	require.Equal(t, 204, g.do(g.request(typeV1, body)).status)
	require.Equal(t, 400, g.do(g.request(typeV2, []byte("x"))).status)
	require.Equal(t, 415, g.do(g.request("text/plain", nil)).status)
	require.Equal(t, 2.0, g.counter("sluice_receiver_requests_total", "protocol", "rw1", "code", "204"))
	require.Equal(t, 1.0, g.counter("sluice_receiver_requests_total", "protocol", "rw2", "code", "400"))
	require.Equal(t, 1.0, g.counter("sluice_receiver_requests_total", "protocol", "unknown", "code", "415"))
	require.Equal(t, float64(2*len(body)), g.counter("sluice_receiver_bytes_total", "protocol", "rw1"))
	require.Equal(t, 1.0, g.counter("sluice_series_created_total"))
	require.Zero(t, g.counter("sluice_series_overflowed_total"))
	require.Zero(t, g.counter("sluice_receiver_requests_in_flight"))
	problems, err := testutil.GatherAndLint(g.registry)
	require.NoError(t, err)
	require.Empty(t, problems)
}

// Series beyond the table's bound are kept like others and are no new series each time.
func TestMetrics_Overflow(t *testing.T) {
	g := newGate(t, func(s *setup) { s.series = 1 })
	for range 3 {
		require.Equal(t, 204, g.sendV2(newV2().sample(1, "__name__", "a").sample(2, "__name__", "b").done()).status)
	}
	require.Len(t, g.kept(), 3)
	require.Equal(t, 1.0, g.counter("sluice_series_created_total"))
	require.Equal(t, 3.0, g.counter("sluice_series_overflowed_total"))
}
