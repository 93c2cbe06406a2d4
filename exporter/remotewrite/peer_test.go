package remotewrite

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/config"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
)

func TestAhead(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 6e8, time.UTC)
	for name, c := range map[string]struct {
		date time.Time
		took time.Duration
		want time.Duration
	}{
		"same second":               {start.Truncate(time.Second), 0, 0},
		"written late":              {start.Truncate(time.Second).Add(20 * time.Second), 21 * time.Second, 0},
		"as far back as is rounded": {start.Add(-time.Second), 0, 0},
		"behind":                    {start.Add(-61 * time.Second), time.Second, -time.Minute},
		"ahead":                     {start.Add(time.Second + time.Minute), time.Second, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, ahead(c.date, start, start.Add(c.took)))
		})
	}
}

func send(t *testing.T, b *Backend) {
	t.Helper()
	d, err := b.Prepare(parcel(batchOf(t, series.V1, requestV1("a", 3))))
	require.NoError(t, err)
	defer d.Close()
	_, err = d.Send(t.Context(), 0)
	require.NoError(t, err)
}

// gathered are the values of a gauge by the label certificate.
func gathered(t *testing.T, g prometheus.Gatherer, name string) map[string]float64 {
	t.Helper()
	families, err := g.Gather()
	require.NoError(t, err)
	values := map[string]float64{}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			key := ""
			for _, l := range m.GetLabel() {
				if l.GetName() == "certificate" {
					key = l.GetValue()
				}
			}
			values[key] = m.GetGauge().GetValue()
		}
	}
	return values
}

func TestPeer_ClockSkew(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, r request) {
		w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		accept(w, r)
	})
	reg := prometheus.NewPedanticRegistry()
	b := newNamed(t, reg, "one", s.URL)
	require.Empty(t, gathered(t, reg, "sluice_backend_clock_skew_seconds"), "nobody knows before the first answer")
	send(t, b)
	skew := gathered(t, reg, "sluice_backend_clock_skew_seconds")[""]
	require.InDelta(t, -3600, skew, 5)
	require.NoError(t, b.Close())
	require.Empty(t, gathered(t, reg, "sluice_backend_clock_skew_seconds"), "it goes with the backend")
}

func TestPeer_CertificateExpiry(t *testing.T) {
	ca := newAuthority(t)
	s := newTLSServer(t, ca, tls.RequireAndVerifyClientCert)
	dir := t.TempDir()
	caFile := filepath.Join(dir, "ca.pem")
	require.NoError(t, os.WriteFile(caFile, ca.pem(), 0o600))
	pair := ca.leaf(t)
	certFile, keyFile := writePair(t, dir, pair)
	c := DefaultConfig()
	c.URL = mustURL(t, s.URL)
	c.HTTP.TLSConfig = config.TLSConfig{CAFile: caFile, CertFile: certFile, KeyFile: keyFile}
	reg := prometheus.NewPedanticRegistry()
	b, err := New(Options{Config: c, Name: "one", Registerer: reg})
	require.NoError(t, err)
	send(t, b)

	client, err := x509.ParseCertificate(pair.Certificate[0])
	require.NoError(t, err)
	require.Equal(t, map[string]float64{
		"client":  float64(client.NotAfter.Unix()),
		"backend": float64(s.Certificate().NotAfter.Unix()),
	}, gathered(t, reg, "sluice_backend_certificate_expiry_timestamp_seconds"))
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
	require.NoError(t, b.Close())
}
