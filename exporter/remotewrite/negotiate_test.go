package remotewrite

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/series"
)

// The receivers that a sender meets.
var receivers = map[string]struct {
	answer func(http.ResponseWriter, request)
	speaks series.Version // after negotiation
	held   Protocol       // the protocol with which it can take nothing
}{
	"2.0": {func(w http.ResponseWriter, r request) {
		if !r.isV2() {
			w.WriteHeader(http.StatusUnsupportedMediaType)
			return
		}
		accept(w, r)
	}, series.V2, ProtocolRW1},
	"both": {accept, series.V2, ""},
	"1.0 that says 415": {func(w http.ResponseWriter, r request) {
		if r.isV2() {
			w.WriteHeader(http.StatusUnsupportedMediaType)
			return
		}
		accept(w, r)
	}, series.V1, ProtocolRW2},
	"1.0 that says 400": {func(w http.ResponseWriter, r request) {
		if r.isV2() {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		accept(w, r)
	}, series.V1, ""},
	"1.0 that answers 204 and drops everything": {func(w http.ResponseWriter, _ request) {
		w.WriteHeader(http.StatusNoContent)
	}, series.V1, ProtocolRW2},
	"1.0 that answers 200 and drops everything": {func(w http.ResponseWriter, _ request) {
		w.WriteHeader(http.StatusOK)
	}, series.V1, ProtocolRW2},
}

func TestH9_H10_NegotiationMatrix(t *testing.T) {
	for name, receiver := range receivers {
		for _, p := range []Protocol{ProtocolAuto, ProtocolRW1, ProtocolRW2} {
			t.Run(name+"/"+string(p), func(t *testing.T) {
				s := newServer(t, receiver.answer)
				b := newBackend(t, s.URL, protocol(p))
				batch := batchOf(t, series.V2, requestV2("a", 3))
				_, err := b.deliver(t.Context(), parcel(batch))
				switch {
				case p == receiver.held:
					e := failure(t, err, exporter.Denied)
					require.ErrorContains(t, e, "protocol")
					return
				case p == ProtocolRW2 && name == "1.0 that says 400":
					failure(t, err, exporter.Rejected)
					return
				}
				require.NoError(t, err)
				version := map[Protocol]series.Version{ProtocolRW1: series.V1, ProtocolRW2: series.V2, ProtocolAuto: receiver.speaks}[p]
				last := s.got()[len(s.got())-1]
				require.Equal(t, version == series.V2, last.isV2())
				if version == series.V1 {
					require.Len(t, last.v1(t).Timeseries, 3)
				}
				for _, v := range []series.Version{series.V1, series.V2} {
					want := 0.0
					if v == version {
						want = 1
					}
					require.Equal(t, want, b.metric(t, b.metrics.protocol.WithLabelValues("main", v.String())))
				}
				before := len(s.got())
				_, err = b.deliver(t.Context(), parcel(batch))
				require.NoError(t, err)
				require.LessOrEqual(t, len(s.got())-before, 2, "one request, and a trial where a 400 left a doubt")
				_, err = b.deliver(t.Context(), parcel(batch))
				require.NoError(t, err)
				require.LessOrEqual(t, len(s.got())-before, 3, "the choice is remembered")
			})
		}
	}
}

func TestH10_FallbackLosesNothing(t *testing.T) {
	s := newServer(t, receivers["1.0 that answers 204 and drops everything"].answer)
	b := newBackend(t, s.URL)
	p := parcel(batchOf(t, series.V2, requestV2("a", 3)))
	d, err := b.Prepare(p)
	require.NoError(t, err)
	r, err := d.Send(t.Context(), 0)
	d.Close()
	e := failure(t, err, exporter.Renegotiate)
	require.True(t, e.Unknown)
	require.Equal(t, exporter.Receipt{}, r)
	require.Equal(t, 1.0, b.metric(t, b.metrics.fallback.WithLabelValues("no_written_headers")))
	_, err = b.send(t, p)
	require.NoError(t, err)
	require.Len(t, s.got()[1].v1(t).Timeseries, 3)
}

// H9: a 400 to the first 2.0 request may have meant its content.
func TestH9_BadContentFirst(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, r request) {
		if len(r.body) < 10 { // empty
			accept(w, r)
			return
		}
		w.WriteHeader(http.StatusBadRequest)
	})
	b := newBackend(t, s.URL)
	_, err := b.deliver(t.Context(), parcel(batchOf(t, series.V2, requestV2("a", 3))))
	failure(t, err, exporter.Rejected)
	got := s.got()
	require.Len(t, got, 3)
	require.True(t, got[0].isV2())
	require.True(t, got[1].isV2(), "the empty trial")
	require.False(t, got[2].isV2())
	require.Equal(t, series.V2, b.negotiation.choose().version, "the trial told that it was the content")
	_, err = b.deliver(t.Context(), parcel(batchOf(t, series.V2, requestV2("a", 3))))
	failure(t, err, exporter.Rejected)
	require.Len(t, s.got(), 4, "no doubt is left")
}

func TestH9_HourlyTrial(t *testing.T) {
	var mu sync.Mutex
	upgraded := false
	s := newServer(t, func(w http.ResponseWriter, r request) {
		mu.Lock()
		defer mu.Unlock()
		if r.isV2() && !upgraded {
			w.WriteHeader(http.StatusUnsupportedMediaType)
			return
		}
		accept(w, r)
	})
	b := newBackend(t, s.URL)
	p := parcel(batchOf(t, series.V1, requestV1("a", 3)))
	deliver := func() (v2 int) {
		before := len(s.got())
		_, err := b.deliver(t.Context(), p)
		require.NoError(t, err)
		for _, r := range s.got()[before:] {
			if r.isV2() {
				v2++
			}
		}
		return v2
	}
	require.Equal(t, 1, deliver())
	b.clock.advance(time.Hour - time.Second)
	require.Zero(t, deliver())
	b.clock.advance(time.Second)
	require.Equal(t, 1, deliver(), "the trial")
	require.Zero(t, deliver())
	mu.Lock()
	upgraded = true
	mu.Unlock()
	b.clock.advance(time.Hour)
	require.Equal(t, 1, deliver(), "the accepted trial; the parcel was prepared before")
	require.Equal(t, 1.0, b.metric(t, b.metrics.protocol.WithLabelValues("main", "rw2")))
	require.Equal(t, 1, deliver(), "the parcel itself")
	require.Equal(t, 1.0, b.metric(t, b.metrics.fallback.WithLabelValues("415")))
}

func TestH9_TrialAfterReconnect(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, r request) {
		if r.isV2() {
			w.WriteHeader(http.StatusUnsupportedMediaType)
			return
		}
		accept(w, r)
	})
	b := newBackend(t, s.URL)
	p := parcel(batchOf(t, series.V1, requestV1("a", 3)))
	_, err := b.deliver(t.Context(), p)
	require.NoError(t, err)
	b.clock.advance(5 * time.Minute)

	up := b.request.URL
	down := mustURL(t, "http://"+closedPort(t)).URL
	b.request.URL = down
	_, err = b.deliver(t.Context(), p)
	failure(t, err, exporter.Retry)
	b.request.URL = up
	for _, want := range []int{1, 2, 1} { // the success, the trial before the next, back to normal
		before := len(s.got())
		_, err = b.deliver(t.Context(), p)
		require.NoError(t, err)
		require.Len(t, s.got()[before:], want)
	}
}

// H9: requests in flight when the protocol changes neither change it back nor fail.
func TestH9_ConcurrentDeliveries(t *testing.T) {
	for name, receiver := range receivers {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, receiver.answer)
			b := newBackend(t, s.URL)
			batch := batchOf(t, series.V1, requestV1("a", 20))
			var wg sync.WaitGroup
			errs := make(chan error, 16*5)
			for range 16 {
				wg.Go(func() {
					for range 5 {
						_, err := b.deliver(t.Context(), parcel(batch))
						errs <- err
					}
				})
			}
			wg.Wait()
			close(errs)
			for err := range errs {
				require.NoError(t, err)
			}
			require.Equal(t, receiver.speaks, b.negotiation.choose().version)
			fallbacks := 0.0
			for _, how := range []refusal{refusedType, refusedBad, refusedNoWritten} {
				fallbacks += b.metric(t, b.metrics.fallback.WithLabelValues(string(how)))
			}
			require.Equal(t, float64(series.V2-receiver.speaks), fallbacks, "one turn at most")
			require.Zero(t, b.metric(t, b.metrics.inFlight))
		})
	}
}

func TestR4_R5_WrittenHeaders(t *testing.T) {
	for _, tt := range []struct {
		name    string
		code    int
		headers map[string]string
		want    exporter.Receipt
		confirm [2]float64 // samples confirmed, unconfirmed
	}{
		{"all", 204, map[string]string{headerSamples: "3", headerHistograms: "0", headerExemplars: "0"}, exporter.Receipt{Written: series.Counts{Samples: 3}, Told: true}, [2]float64{3, 0}},
		{"a missing one is 0", 204, map[string]string{headerExemplars: "0"}, exporter.Receipt{Told: true}, [2]float64{0, 3}},
		{"less", 200, map[string]string{headerSamples: "1"}, exporter.Receipt{Written: series.Counts{Samples: 1}, Told: true}, [2]float64{1, 2}},
		{"not a number", 200, map[string]string{headerSamples: "x", headerExemplars: "0"}, exporter.Receipt{}, [2]float64{0, 0}},
		{"negative", 200, map[string]string{headerSamples: "-1"}, exporter.Receipt{}, [2]float64{0, 0}},
		{"partial write", 400, map[string]string{headerSamples: "2"}, exporter.Receipt{}, [2]float64{2, 0}},
		{"not written", 500, map[string]string{headerSamples: "0"}, exporter.Receipt{}, [2]float64{0, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, func(w http.ResponseWriter, _ request) {
				for k, v := range tt.headers {
					w.Header().Set(k, v)
				}
				w.WriteHeader(tt.code)
			})
			b := newBackend(t, s.URL, protocol(ProtocolRW2))
			r, err := b.send(t, parcel(batchOf(t, series.V2, requestV2("a", 3))))
			require.Equal(t, tt.code > 299, err != nil)
			require.Equal(t, tt.want, r)
			require.Equal(t, tt.confirm[0], b.metric(t, b.metrics.written.WithLabelValues("samples")))
			require.Equal(t, tt.confirm[1], b.metric(t, b.metrics.missing.WithLabelValues("samples")))
		})
	}
}

// R5: a 1.0 request is not judged by Written headers.
func TestR5_NotForV1(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ request) {
		w.Header().Set(headerSamples, "0")
		w.WriteHeader(http.StatusNoContent)
	})
	b := newBackend(t, s.URL, protocol(ProtocolRW1))
	r, err := b.send(t, parcel(batchOf(t, series.V1, requestV1("a", 3))))
	require.NoError(t, err)
	require.Equal(t, exporter.Receipt{}, r)
}

// H8: what the answer says about its own version changes nothing.
func TestH8_VersionHeadersOfAnswersAreIgnored(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, r request) {
		w.Header().Set("X-Prometheus-Remote-Write-Version", "0.1.0")
		w.Header().Set("Content-Type", typeV1)
		accept(w, r)
	})
	b := newBackend(t, s.URL)
	for range 3 {
		_, err := b.deliver(t.Context(), parcel(batchOf(t, series.V1, requestV1("a", 1))))
		require.NoError(t, err)
	}
	for _, r := range s.got() {
		require.True(t, r.isV2())
	}
}
