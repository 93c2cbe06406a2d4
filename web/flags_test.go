package web

import (
	"log/slog"
	"net/http"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

func TestFlagsInForce(t *testing.T) {
	s := New(Options{
		Gatherer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
		Status: func() Status { return Status{} }, Ready: func() string { return "" }, Config: func() string { return "" },
		Flags: []string{"--config.file=sluice.yaml", "--log.level=info"},
	})
	r := do(s, http.MethodGet, "/flags")
	require.Equal(t, http.StatusOK, r.Code)
	require.Equal(t, "--config.file=sluice.yaml\n--log.level=info\n", r.Body.String())
	page := do(newWorld(t, "").site, http.MethodGet, "/").Body.String()
	for _, link := range []string{"metrics", "config", "flags", "https://github.com/sluice-metrics/sluice/blob/main/README.md", "https://github.com/sluice-metrics/sluice/blob/main/docs/dashboards.md"} {
		require.Contains(t, page, `<a href="`+link+`"`)
	}
}
