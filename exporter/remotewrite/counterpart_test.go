package remotewrite

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	storageremote "github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// prometheusReceiver is Prometheus' own write handler over a store that remembers.
func prometheusReceiver(t *testing.T, store *teststorage.Appendable, types ...remote.WriteMessageType) *httptest.Server {
	s := httptest.NewServer(storageremote.NewWriteHandler(promslog.NewNopLogger(), prometheus.NewRegistry(), store, types, false, false, true))
	t.Cleanup(s.Close)
	return s
}

func TestPrometheusReceiver(t *testing.T) {
	for name, tt := range map[string]struct {
		types  []remote.WriteMessageType
		speaks series.Version
	}{
		"both":     {[]remote.WriteMessageType{remote.WriteV1MessageType, remote.WriteV2MessageType}, series.V2},
		"2.0 only": {[]remote.WriteMessageType{remote.WriteV2MessageType}, series.V2},
		"1.0 only": {[]remote.WriteMessageType{remote.WriteV1MessageType}, series.V1},
	} {
		t.Run(name, func(t *testing.T) {
			store := teststorage.NewAppendable()
			s := prometheusReceiver(t, store, tt.types...)
			b := newBackend(t, s.URL)
			b.cache.Observe(remotewrite.Metadata{Family: []byte("a"), Type: remotewrite.MetricGauge, Help: []byte("What a is.")})
			v1, v2 := batchOf(t, series.V1, requestV1("a", 5)), batchOf(t, series.V2, requestV2("b", 5))
			mixed := parcel(v1, v2)
			mixed.Parts[0].Take = take(v1, 0, 2)
			for _, p := range []*exporter.Parcel{parcel(v1), parcel(v2), mixed} {
				_, err := b.deliver(t.Context(), p)
				require.NoError(t, err)
			}
			require.Equal(t, tt.speaks, b.negotiation.choose().version)
			got := map[string]float64{}
			for _, r := range store.ResultSamples() {
				require.Equal(t, startTime+int64(r.V), r.T)
				got[r.L.String()] = r.V
			}
			want := map[string]float64{}
			for _, name := range []string{"a", "b"} {
				for i := range 5 {
					in := seriesV1(name, i)
					want[labels.FromStrings("__name__", name, "instance", in.Labels[1].Value, "job", "node").String()] = float64(i) + 0.5
				}
			}
			require.Equal(t, want, got)
			if tt.speaks == series.V2 {
				require.Equal(t, 12.0, b.metric(t, b.metrics.written.WithLabelValues("samples"))-5)
				require.Zero(t, b.metric(t, b.metrics.missing.WithLabelValues("samples")))
				for _, r := range store.ResultSamples() {
					require.NotEmpty(t, r.M.Help)
				}
			}
		})
	}
}

// What Prometheus refuses is refused to us, in the class that makes a lane divide.
func TestPrometheusReceiver_Refuses(t *testing.T) {
	store := teststorage.NewAppendable().WithErrs(func(ls labels.Labels) error {
		if ls.Get("instance") == "10.0.0.2:9100" {
			return storage.ErrOutOfOrderSample
		}
		return nil
	}, nil, nil)
	s := prometheusReceiver(t, store, remote.WriteV1MessageType, remote.WriteV2MessageType)
	for _, p := range []Protocol{ProtocolRW1, ProtocolRW2} {
		b := newBackend(t, s.URL, protocol(p))
		_, err := b.send(t, parcel(batchOf(t, series.V1, requestV1("a", 5))))
		e := failure(t, err, exporter.Rejected)
		require.Equal(t, http.StatusBadRequest, e.Status)
		require.Contains(t, e.Message, "out of order")
		if p == ProtocolRW2 {
			require.Equal(t, 4.0, b.metric(t, b.metrics.written.WithLabelValues("samples")))
			require.Zero(t, b.metric(t, b.metrics.missing.WithLabelValues("samples")), "the status promises nothing")
		}
	}
}

// counting is a store for the reference handler: it counts what it is given.
type counting struct {
	mu    sync.Mutex
	total series.Counts
}

func (c *counting) Store(r *http.Request, kind remote.WriteMessageType) (*remote.WriteResponse, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, fmt.Errorf("reading: %w", err)
	}
	v := series.V1
	if kind == remote.WriteV2MessageType {
		v = series.V2
	}
	var m remotewrite.Message
	w := remote.NewWriteResponse()
	if err := m.Scan(v, body); err != nil {
		w.SetStatusCode(http.StatusBadRequest)
		return w, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total.Add(m.Counts)
	w.Add(remote.WriteResponseStats{
		Samples: int(m.Counts.Samples), Histograms: int(m.Counts.Histograms), Exemplars: int(m.Counts.Exemplars),
	})
	w.SetStatusCode(http.StatusNoContent)
	return w, nil
}

func TestReferenceHandler(t *testing.T) {
	for name, types := range map[string]remote.MessageTypes{
		"both":     {remote.WriteV1MessageType, remote.WriteV2MessageType},
		"1.0 only": {remote.WriteV1MessageType},
		"2.0 only": {remote.WriteV2MessageType},
	} {
		t.Run(name, func(t *testing.T) {
			store := new(counting)
			s := httptest.NewServer(remote.NewWriteHandler(store, types))
			t.Cleanup(s.Close)
			b := newBackend(t, s.URL)
			for range 3 {
				r, err := b.deliver(t.Context(), parcel(batchOf(t, series.V1, requestV1("a", 50)), batchOf(t, series.V1, requestV1("b", 50))))
				require.NoError(t, err)
				require.Equal(t, types.Contains(remote.WriteV2MessageType), r.Told)
				if r.Told {
					require.Equal(t, series.Counts{Samples: 100}, r.Written)
				}
			}
			require.Equal(t, series.Counts{Samples: 300}, store.total)
			require.NoError(t, b.Probe(t.Context()))
		})
	}
}
