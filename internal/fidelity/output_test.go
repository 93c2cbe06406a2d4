package fidelity_test

import (
	"bytes"
	"encoding/xml"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/fidelity"
)

func sample() *fidelity.Report {
	return &fidelity.Report{
		Series: 1955, Samples: 970660, Duration: 35*time.Minute + 9*time.Second, Episodes: 48, Pages: 28,
		Rows: []fidelity.Row{
			{
				Rate: 0.25, Method: fidelity.Frames, Kept: 0.25, Bytes: 0.231, P95: 0.145, P99: 0.612, Missing: 0.0049, Bad: 0.0697,
				AlertAgreement: 0.999, PageAgreement: 1, DelayMax: 5,
			},
			{
				Rate: 0.25, Method: fidelity.Random, Kept: 0.25, Bytes: 0.302, P50: 0.0297, P95: 0.903, P99: 4.016, Missing: 0.0576, Extra: 0.0291, Bad: 0.3689,
				AlertAgreement: 0.589, PageAgreement: 0.681, Missed: 2, False: 28, DelayMean: 13, DelayMax: 235, PagesMissed: 2, PagesFalse: 2,
			},
			{Rate: 0.1, Method: fidelity.Frames, Kept: 0.103, Bad: 0.2385, AlertAgreement: 0.968, PageAgreement: 0.981, DelayMean: -0.4},
		},
	}
}

func write(t *testing.T, r *fidelity.Report, f fidelity.Format) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, r.Write(&b, f))
	return b.String()
}

func TestTable(t *testing.T) {
	require.Equal(t, `rate  method  kept   bytes  p50    p95    p99     missing  extra  bad     alerts agree (missed, false of 48)  pages agree (missed, false of 28)  delay mean/max s
0.25  frames  0.250  0.231  0.00%  14.5%  61.2%   0.49%    0.00%  6.97%   99.9% (0, 0)                        100.0% (0, 0)                      0/5
0.25  random  0.250  0.302  2.97%  90.3%  401.6%  5.76%    2.91%  36.89%  58.9% (2, 28)                       68.1% (2, 2)                       13/235
0.1   frames  0.103  0.000  0.00%  0.0%   0.0%    0.00%    0.00%  23.85%  96.8% (0, 0)                        98.1% (0, 0)                       0/0
`, write(t, sample(), fidelity.Table))
}

func TestJSON(t *testing.T) {
	r := sample()
	r.Rows = r.Rows[1:2]
	require.Equal(t, `{
  "rows": [
    {
      "rate": 0.25,
      "method": "random",
      "kept": 0.25,
      "bytes": 0.302,
      "p50": 0.0297,
      "p95": 0.903,
      "p99": 4.016,
      "missing": 0.0576,
      "extra": 0.0291,
      "bad": 0.3689,
      "alert_agreement": 0.589,
      "page_agreement": 0.681,
      "missed": 2,
      "false": 28,
      "delay_mean": 13,
      "delay_max": 235
    }
  ]
}
`, write(t, r, fidelity.JSON))
}

// TestPage: well formed, nothing from outside, a line for each method and a dot for each
// row in each plot, every cell of the table.
func TestPage(t *testing.T) {
	text := write(t, sample(), fidelity.HTML)
	require.NotContains(t, text, "://")
	require.NotContains(t, text, "ZgotmplZ")
	require.Contains(t, text, "prefers-color-scheme: dark")

	count := map[string]int{}
	d := xml.NewDecoder(strings.NewReader(strings.TrimPrefix(text, "<!doctype html>")))
	d.Strict, d.AutoClose, d.Entity = true, xml.HTMLAutoClose, xml.HTMLEntity
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		if e, ok := token.(xml.StartElement); ok {
			count[e.Name.Local]++
		}
	}
	const plots, legend = 6, 2
	require.Equal(t, plots, count["figure"])
	require.Equal(t, plots*2+legend, count["polyline"])
	require.Equal(t, plots*3+legend, count["circle"])
	require.Equal(t, 3*13, count["td"])
	for _, want := range []string{"1955 series, 970660 samples, 35m9s.", "<td>36.89%</td>", "random at 0.25: 36.89%", "<td>58.9% (2, 28)</td>"} {
		require.Contains(t, text, want)
	}
	// Full agreement is at the top of a plot, 58.9 % of it further down.
	require.Contains(t, text, `cy="12" r="3.5"><title>frames at 0.25: 100.00%`)
	require.Contains(t, text, `cy="85.2" r="3.5"><title>random at 0.25: 58.90%`)
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestWriteErrors(t *testing.T) {
	for _, f := range []fidelity.Format{fidelity.Table, fidelity.JSON, fidelity.HTML} {
		require.ErrorIs(t, sample().Write(full{}, f), io.ErrShortWrite)
	}
	require.EqualError(t, sample().Write(io.Discard, "xml"), `unknown format "xml": it is table, json or html`)
}
