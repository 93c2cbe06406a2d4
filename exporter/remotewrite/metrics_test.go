package remotewrite

import (
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
)

func newNamed(t *testing.T, reg prometheus.Registerer, name, address string) *Backend {
	t.Helper()
	c := DefaultConfig()
	c.URL = mustURL(t, address)
	b, err := New(Options{Config: c, Name: name, Registerer: reg})
	require.NoError(t, err)
	return b
}

func TestMetrics_SharedRegistry(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	s := newServer(t, accept)
	one, two := newNamed(t, reg, "one", s.URL), newNamed(t, reg, "two", s.URL)
	for _, b := range []*Backend{one, two, two} {
		d, err := b.Prepare(parcel(batchOf(t, series.V1, requestV1("a", 3))))
		require.NoError(t, err)
		_, err = d.Send(t.Context(), 0)
		require.NoError(t, err)
		d.Close()
	}
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP sluice_backend_requests_total Remote-write requests made to the backend, by the status code of the answer; none where there was no answer.
# TYPE sluice_backend_requests_total counter
sluice_backend_requests_total{backend="one",code="204"} 1
sluice_backend_requests_total{backend="two",code="204"} 2
# HELP sluice_backend_confirmed_total What the backend says it wrote, by the Written headers of remote write 2.0.
# TYPE sluice_backend_confirmed_total counter
sluice_backend_confirmed_total{backend="one",kind="exemplars"} 0
sluice_backend_confirmed_total{backend="one",kind="histograms"} 0
sluice_backend_confirmed_total{backend="one",kind="samples"} 3
sluice_backend_confirmed_total{backend="two",kind="exemplars"} 0
sluice_backend_confirmed_total{backend="two",kind="histograms"} 0
sluice_backend_confirmed_total{backend="two",kind="samples"} 6
# HELP sluice_backend_protocol_info 1 for the remote-write version that the backend is spoken to in now, 0 for the other.
# TYPE sluice_backend_protocol_info gauge
sluice_backend_protocol_info{backend="one",protocol="rw1"} 0
sluice_backend_protocol_info{backend="one",protocol="rw2"} 1
sluice_backend_protocol_info{backend="two",protocol="rw1"} 0
sluice_backend_protocol_info{backend="two",protocol="rw2"} 1
# HELP sluice_backend_parts_total Batches put into requests: forwarded as they were received, or encoded anew.
# TYPE sluice_backend_parts_total counter
sluice_backend_parts_total{backend="one",form="encoded"} 1
sluice_backend_parts_total{backend="one",form="forwarded"} 0
sluice_backend_parts_total{backend="two",form="encoded"} 2
sluice_backend_parts_total{backend="two",form="forwarded"} 0
`), "sluice_backend_requests_total", "sluice_backend_confirmed_total", "sluice_backend_protocol_info", "sluice_backend_parts_total"))

	require.NoError(t, one.Close())
	require.Equal(t, 2, testutil.CollectAndCount(two.metrics.protocol), "the gauges of a closed backend go")
	again := newNamed(t, reg, "one", s.URL)
	require.Equal(t, 1.0, testutil.ToFloat64(again.metrics.requests.WithLabelValues("204")), "its counters go on")
	require.NoError(t, again.Close())
	require.NoError(t, two.Close())

	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
}

// refusing is a Registerer that takes nothing.
type refusing struct{ prometheus.Registerer }

func (refusing) Register(prometheus.Collector) error { return errors.New("full") }

func TestMetrics_RegistrationFails(t *testing.T) {
	c := DefaultConfig()
	c.URL = mustURL(t, "http://127.0.0.1/")
	_, err := New(Options{Config: c, Name: "main", Registerer: refusing{}})
	require.ErrorContains(t, err, `remote_write backend "main": registering a metric of the backend: full`)
}
