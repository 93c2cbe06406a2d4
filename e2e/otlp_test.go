package e2e

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

// TestOTLP posts what an OTLP exporter posts, on both paths, and asks for it by the names
// that Prometheus would have given it.
func TestOTLP(t *testing.T) {
	t.Parallel()
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: "backends:\n- name: local\n  tsdb: {}\n"})
	for _, path := range []string{"/v1/metrics", "/api/v1/otlp/v1/metrics"} {
		metric := "otlp" + strings.ReplaceAll(path, "/", ".") + ".requests"
		body := `{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},
			"scopeMetrics":[{"metrics":[{"name":"` + metric + `","unit":"1","sum":{"isMonotonic":true,"aggregationTemporality":2,
			"dataPoints":[{"asInt":"42","timeUnixNano":"` + strconv.FormatInt(time.Now().UnixNano(), 10) + `"}]}}]}]}]}`
		res, err := http.Post(s.URL(path), "application/json", bytes.NewReader([]byte(body)))
		require.NoError(t, err)
		answer, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusOK, res.StatusCode, "%s", answer)

		name := strings.ReplaceAll(metric, ".", "_") + "_total"
		testutil.Await(t, 10*time.Second, name, func() string {
			got, err := testutil.Ask(s.URL(""), testutil.Query{Expr: name, End: time.Now()})
			if err != nil {
				return err.Error()
			}
			if len(got) != 1 || !strings.Contains(got[0], `"42"`) || !strings.Contains(got[0], `"job":"shop"`) {
				return strings.Join(got, "\n") + " (not yet)"
			}
			return ""
		})
	}
}
