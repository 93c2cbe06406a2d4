package remotewrite

import (
	"net/http"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/sluice-metrics/sluice/exporter/exportertest"
)

// shelf is a server that keeps what it is sent.
type shelf struct {
	t      *testing.T
	mu     sync.Mutex
	fail   int
	stored []exportertest.Arrival
}

func (s *shelf) answer(w http.ResponseWriter, r request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail > 0 {
		s.fail--
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	add := func(ls labels.Labels, kind string, at int64, v float64) {
		s.stored = append(s.stored, exportertest.Arrival{Series: ls.String(), Kind: kind, Time: at, Value: v})
	}
	var b labels.ScratchBuilder
	if r.isV2() {
		m := r.v2(s.t)
		for i := range m.Timeseries {
			x := &m.Timeseries[i]
			ls, err := x.ToLabels(&b, m.Symbols)
			if err != nil {
				s.t.Error(err)
			}
			for _, p := range x.Samples {
				add(ls, "sample", p.Timestamp, p.Value)
			}
			for _, h := range x.Histograms {
				add(ls, "histogram", h.Timestamp, 0)
			}
		}
	} else {
		for _, x := range r.v1(s.t).Timeseries {
			ls := x.ToLabels(&b, nil)
			for _, p := range x.Samples {
				add(ls, "sample", p.Timestamp, p.Value)
			}
			for _, h := range x.Histograms {
				add(ls, "histogram", h.Timestamp, 0)
			}
		}
	}
	accept(w, r)
}

func TestConformance(t *testing.T) {
	for _, p := range []Protocol{ProtocolRW1, ProtocolRW2, ProtocolAuto} {
		t.Run(string(p), func(t *testing.T) {
			exportertest.Run(t, func(t *testing.T) exportertest.Fixture {
				s := &shelf{t: t}
				return exportertest.Fixture{
					Backend: newBackend(t, newServer(t, s.answer).URL, protocol(p)).Backend,
					Stored: func(testing.TB) []exportertest.Arrival {
						s.mu.Lock()
						defer s.mu.Unlock()
						return s.stored
					},
					Fail: func(n int) {
						s.mu.Lock()
						defer s.mu.Unlock()
						s.fail = n
					},
				}
			})
		})
	}
}
