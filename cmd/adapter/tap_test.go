package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTapPrintsWhatGoesOut(t *testing.T) {
	var query string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query = r.URL.Path + "?" + r.URL.RawQuery
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = w.Write([]byte("data: {\"backend\":\"main\",\"series\":\"up{job=\\\"x\\\"}\",\"timestamp_ms\":1500,\"value\":\"1\"}\n\n"))
	}))
	defer s.Close()
	code, out, errs := sluice(t, "tap", "--backend=main", `--match={job="x"}`, "--limit=1", "--address="+s.URL+"/sub")
	require.Zero(t, code, errs)
	require.Equal(t, "00:00:01.500  up{job=\"x\"}  1\n", out)
	require.Equal(t, "/sub/api/v1/tap?backend=main&limit=1&match=%7Bjob%3D%22x%22%7D", query)

	require.Empty(t, errs, "all that was asked for")

	code, out, errs = sluice(t, "tap", "--format=json", "--address="+s.URL)
	require.Zero(t, code)
	require.Contains(t, errs, "has ended it")
	require.JSONEq(t, `{"backend":"main","series":"up{job=\"x\"}","timestamp_ms":1500,"value":"1"}`, out)
}

func TestTapSaysWhatIsWrong(t *testing.T) {
	answer := func(status int, text string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if strings.HasPrefix(text, "data:") {
				w.Header().Set("Content-Type", "text/event-stream")
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(text))
		}))
		t.Cleanup(s.Close)
		return "--address=" + s.URL
	}
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{answer(400, `{"error":"no backend \"x\""}`)}, exitUsage, `no backend "x"; try --help`},
		{[]string{answer(503, "4 look already")}, exitError, "answers 503: 4 look already"},
		{[]string{answer(200, "data: x\n")}, exitError, "does not answer like a Sluice"},
		{[]string{answer(200, "data: x\n"), "--format=json"}, exitError, "does not answer like a Sluice"},
		{[]string{answer(200, "data: "+strings.Repeat("x", 2<<20))}, exitError, "does not answer like a Sluice"},
		{[]string{answer(200, "<html>")}, exitError, `does not answer like a Sluice, but with "text/html; charset=utf-8"`},
		{[]string{"--limt=1"}, exitUsage, "did you mean --limit?"},
		{[]string{"--address=http://127.0.0.1:1"}, exitError, "no gateway answers at"},
		{[]string{"--address=x"}, exitUsage, "is no URL"},
		{[]string{"--limit=-1"}, exitUsage, "must not be negative"},
	} {
		code, _, errs := sluice(t, append([]string{"tap"}, test.args...)...)
		require.Equal(t, test.code, code, errs)
		require.Contains(t, errs, test.says)
	}
}
