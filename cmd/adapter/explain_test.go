package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/alecthomas/kingpin/v2"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/gateway"
)

const explainAPI = `{"series": "up{job=\"x\"}", "backends": [
 {"backend": "main", "takes": true, "selector": "", "sampling": true, "class": "critical", "rule": "match: {__name__=~\"up|ALERTS.*\"}", "rate": 0.875, "why": "queue_age is 14.2 of 10"},
 {"backend": "archive", "takes": true, "selector": "{job=\"x\"}", "sampling": false, "rate": 1},
 {"backend": "other", "takes": false, "selector": "", "sampling": false, "rate": 0}
 ], "last_sent": {"at": "2026-03-01T09:15:20Z", "address": "10.1.0.7", "forwarded_for": "10.9.0.3", "user_agent": "Prometheus/3.1.0", "protocol": "rw2"}}`

const explainTable = `up{job="x"}
last sent at 2026-03-01T09:15:20Z by 10.1.0.7 for 10.9.0.3 (Prometheus/3.1.0, rw2)
BACKEND  GETS IT     CLASS     RULE                              SENT NOW
main     all series  critical  match: {__name__=~"up|ALERTS.*"}  87.5 %
archive  {job="x"}   -         -                                 100.0 %
other    no          -         -                                 -
main: queue_age is 14.2 of 10
`

// explain runs the command as the command line has it.
func explain(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	app := kingpin.New("sluice", "")
	cmd, do := explainCommand(app)
	picked, err := app.Parse(append([]string{"explain"}, args...))
	require.NoError(t, err)
	require.Equal(t, cmd.FullCommand(), picked)
	var out, errs bytes.Buffer
	code = do(&out, &errs)
	return code, out.String(), errs.String()
}

func TestExplainAsksTheGateway(t *testing.T) {
	address, last := gatewayAnswering(t, http.StatusOK, explainAPI)
	code, out, errs := explain(t, `up{job="x"}`, "--address="+address+"/sluice/")
	require.Zero(t, code, errs)
	require.Equal(t, explainTable, out)
	require.Equal(t, "/sluice/api/v1/explain", last().URL.Path)
	require.Equal(t, `up{job="x"}`, last().FormValue("series"))

	code, out, errs = explain(t, "up", "--address="+address, "--format=json")
	require.Zero(t, code, errs)
	var e gateway.Explanation
	require.NoError(t, json.Unmarshal([]byte(out), &e))
	require.Len(t, e.Routes, 3)
}

func TestExplainSaysWhatIsWrong(t *testing.T) {
	tests := map[string]struct {
		status     int
		answer     string
		code       int
		complaint  string
		badAddress string
	}{
		"no series":       {status: 400, answer: `{"error": "not a series selector"}`, code: exitUsage, complaint: "not a series selector; try --help"},
		"something else":  {status: 404, answer: "404 page not found", code: exitError, complaint: "answers 404: 404 page not found"},
		"not a gateway":   {status: 200, answer: "<html>", code: exitError, complaint: "does not answer like a Sluice"},
		"without end":     {badAddress: endless(t), code: exitError, complaint: "has more than 8 MiB"},
		"nobody there":    {badAddress: "http://127.0.0.1:1", code: exitError, complaint: "--address names another"},
		"not an address":  {badAddress: "main", code: exitUsage, complaint: "is no URL such as"},
		"no such refusal": {status: 400, answer: "no", code: exitError, complaint: "answers 400: no"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			address := test.badAddress
			if address == "" {
				address, _ = gatewayAnswering(t, test.status, test.answer)
			}
			code, _, errs := explain(t, "up", "--address="+address)
			require.Equal(t, test.code, code, errs)
			require.Contains(t, errs, test.complaint)
		})
	}
}
