package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

const ledgerAPI = `{"backends": [
 {"backend": "main", "sampling": true, "missing": [
  {"entry": 1, "kind": "sampled", "state": "owed", "from": "2026-11-22T10:00:00.000Z", "to": "2026-11-22T10:07:30.000Z", "min_rate": 0.107, "max_rate": 0.8,
   "taken": {"samples": 900, "histograms": 100}, "withheld": {"samples": 700, "histograms": 50}, "sent": {"samples": 10},
   "outstanding": {"samples": 690, "histograms": 50}, "given_up": {}},
  {"entry": 2, "kind": "gap", "state": "given_back", "cause": "outage", "from": "2026-11-22T10:10:00.000Z", "to": "2026-11-22T10:11:00.000Z", "min_rate": 0, "max_rate": 0,
   "taken": {"samples": 20}, "withheld": {"samples": 20}, "given_back": {"samples": 20}, "outstanding": {}, "given_up": {}}
 ], "debt": {"samples": 740, "eta_seconds": 75}},
 {"backend": "well", "sampling": true, "missing": [], "debt": {"samples": 0, "eta_seconds": 0}},
 {"backend": "plain", "sampling": false, "missing": [], "debt": {"samples": 0}},
 {"backend": "off", "sampling": false, "missing": [
  {"entry": 1, "kind": "sampled", "state": "kept", "from": "2026-11-22T10:00:00.000Z", "to": "2026-11-22T10:07:30.000Z", "min_rate": 0.5, "max_rate": 0.5,
   "taken": {"samples": 9}, "withheld": {"samples": 7}, "outstanding": {"samples": 7}, "given_up": {}, "estimated": true}
 ], "debt": {"samples": 8}}
]}`

const ledgerTable = `BACKEND  FROM                      TO                        KIND     STATE       RATE          TAKEN  WITHHELD  SENT SOON AFTER  GIVEN BACK  GIVEN UP  MISSING
main     2026-11-22T10:00:00.000Z  2026-11-22T10:07:30.000Z  sampled  owed        0.11 to 0.80  1000   750       10               0           0         740
main     2026-11-22T10:10:00.000Z  2026-11-22T10:11:00.000Z  gap      given_back  0.00          20     20        0                20          0         0
off      2026-11-22T10:00:00.000Z  2026-11-22T10:07:30.000Z  sampled  kept        0.50          9      7         0                0           0         7
main: 740 samples are missing; 740 of all times are to be given back, which takes about 1m15s
well: nothing is missing of that time
plain: everything is sent; adaptive_sampling is off
off: 7 samples are missing; what came of parts of stretches is estimated, of whole ones it is exact; adaptive_sampling is off now; 8 of all times were withheld and are not given back so far
`

// gatewayAnswering is a gateway that knows one answer. It keeps the last request.
func gatewayAnswering(t *testing.T, status int, answer string) (address string, last func() *http.Request) {
	t.Helper()
	var asked *http.Request
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r
		w.WriteHeader(status)
		_, _ = w.Write([]byte(answer))
	}))
	t.Cleanup(s.Close)
	return s.URL, func() *http.Request { return asked }
}

func TestLedgerAsksTheGateway(t *testing.T) {
	address, last := gatewayAnswering(t, http.StatusOK, ledgerAPI)
	var out, errs bytes.Buffer
	code := run([]string{"ledger", "--address=" + address + "/sluice/", "--backend=main", "--from=2026-11-22T10:00:00Z", "--to=1795342800.5"}, &out, &errs)
	require.Zero(t, code, errs.String())
	require.Equal(t, ledgerTable, out.String())
	require.Equal(t, "/sluice/api/v1/ledger", last().URL.Path)
	q := last().URL.Query()
	require.Equal(t, "main", q.Get("backend"))
	require.True(t, sameTime(t, "2026-11-22T10:00:00Z", q.Get("from")))
	require.True(t, sameTime(t, "2026-11-22T10:20:00.5Z", q.Get("to")), q.Get("to"))

	out.Reset()
	require.Zero(t, run([]string{"ledger", "--address=" + address, "--format=json"}, &out, &errs), errs.String())
	require.NotContains(t, out.String(), "BACKEND")
	var answer ledgerAnswer
	require.NoError(t, json.Unmarshal(out.Bytes(), &answer))
	require.Len(t, answer.Backends, 4)
	require.Equal(t, uint64(740), answer.Backends[0].Debt.Samples)
	require.Equal(t, uint64(690), answer.Backends[0].Missing[0].Outstanding.Samples)
	q = last().URL.Query()
	from, err := time.Parse(time.RFC3339Nano, q.Get("from"))
	require.NoError(t, err)
	require.InDelta(t, (24 * time.Hour).Seconds(), time.Since(from).Seconds(), 60)
}

// endless is a server whose answers have no end.
func endless(t *testing.T) (address string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for chunk := bytes.Repeat([]byte("["), 1<<20); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestLedgerErrors(t *testing.T) {
	unknown, _ := gatewayAnswering(t, http.StatusNotFound, `no backend is named "x"`)
	garbled, _ := gatewayAnswering(t, http.StatusOK, `<html>`)
	for _, c := range []struct {
		name string
		args []string
		code int
		text string
	}{
		{"time", []string{"--from=yesterday"}, exitUsage, `--from: "yesterday" is neither a time`},
		{"order", []string{"--from=1h", "--to=2h"}, exitUsage, "--to is before --from"},
		{"address", []string{"--address=localhost:9201"}, exitUsage, "--address"},
		{"no gateway", []string{"--address=http://127.0.0.1:1"}, exitError, "no gateway answers at http://127.0.0.1:1 (is it running? --address names another): dial tcp 127.0.0.1:1: connect: connection refused; --storage.path reads its files instead"},
		{"no web address", []string{"--address=ftp://127.0.0.1"}, exitUsage, "is no URL such as"},
		{"password", []string{"--address=http://me:secret@127.0.0.1:1"}, exitError, "at http://me:xxxxx@127.0.0.1:1 ("},
		{"answer without end", []string{"--address=" + endless(t)}, exitError, "has more than 64 MiB"},
		{"backend", []string{"--address=" + unknown, "--backend=x"}, exitError, `no backend is named "x"`},
		{"something else answers", []string{"--address=" + garbled}, exitError, "does not answer like a Sluice"},
		{"no directory", []string{"--storage.path=" + filepath.Join(t.TempDir(), "nope")}, exitError, "--storage.path: stat "},
		{"files and gateway", []string{"--storage.path=" + t.TempDir(), "--address=http://127.0.0.1:1"}, exitUsage, "give one of them"},
		{"files of another", []string{"--storage.path=" + t.TempDir(), "--backend=x"}, exitError, `nothing was ever withheld from a backend named "x"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			require.Equal(t, c.code, run(append([]string{"ledger"}, c.args...), &out, &errs), errs.String())
			require.Contains(t, errs.String(), c.text)
			require.Empty(t, out.String())
		})
	}
}

func TestLedgerOfNothingSaysSo(t *testing.T) {
	storage := t.TempDir()
	code, out, errs := sluice(t, "ledger", "--storage.path="+storage)
	require.Zero(t, code, errs)
	require.Equal(t, "nothing was ever withheld from any backend\n", out)
	code, out, errs = sluice(t, "ledger", "--storage.path="+storage, "--format=json")
	require.Zero(t, code, errs)
	require.JSONEq(t, `{"backends": []}`, out)
}

func TestLedgerReadsFiles(t *testing.T) {
	storage := t.TempDir()
	now := time.Now()
	at := func(n int64) journal.Position { return journal.Position{Segment: 1, Offset: n} }
	l, err := ledger.Open(ledger.Options{Dir: filepath.ToSlash(storage) + "/ledger", Backend: "main", FS: vfs.OS{}, Backfill: true, Logger: slog.New(slog.DiscardHandler), Now: time.Now})
	require.NoError(t, err)
	_, err = l.Resume(ledger.Resumption{})
	require.NoError(t, err)
	require.NoError(t, l.Begin(ledger.Session{From: at(100), Rebuild: at(0), Digest: "d", Config: []byte("c"), Setting: ledger.Setting{Rate: 0.25}}))
	tally := ledger.Tally{
		Taken: series.Counts{Samples: 100}, Withheld: series.Counts{Samples: 75},
		Min: ledger.TimeOf(now.Add(-time.Minute)), Max: ledger.TimeOf(now.Add(-time.Second)),
	}
	_, err = l.Settle(ledger.Settlement{Mark: ledger.Mark{Position: at(200)}, Deltas: []ledger.Delta{{At: at(100), Tally: tally}}})
	require.NoError(t, err)

	for _, state := range []string{"in use", "closed"} {
		var out, errs bytes.Buffer
		require.Zero(t, run([]string{"ledger", "--storage.path=" + storage, "--from=1h"}, &out, &errs), errs.String())
		require.Regexp(t, `(?m)^main +\S+ +\S+ +sampled +open +0\.25 +100 +75 +0 +0 +0 +75$`, out.String())
		require.Contains(t, out.String(), "main: 75 samples are missing")
		out.Reset()
		require.Zero(t, run([]string{"ledger", "--storage.path=" + storage, "--from=3h", "--to=2h"}, &out, &errs), errs.String())
		require.Contains(t, out.String(), "main: nothing is missing of that time", state)
		if state == "in use" {
			require.NoError(t, l.Close())
		}
	}
}

func sameTime(t *testing.T, a, b string) bool {
	t.Helper()
	x, err := time.Parse(time.RFC3339Nano, a)
	require.NoError(t, err)
	y, err := time.Parse(time.RFC3339Nano, b)
	require.NoError(t, err)
	return x.Equal(y)
}
