package receiver_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/receiver"
)

// from sends one sample of a series on behalf of a sender.
func (g *gate) from(address string, header http.Header, job string) {
	g.t.Helper()
	body := packV1(g.t, &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels:  []prompb.Label{{Name: "__name__", Value: "up"}, {Name: "job", Value: job}},
		Samples: []prompb.Sample{{Value: 1, Timestamp: startMs}},
	}}})
	r := httptest.NewRequest(http.MethodPost, "/api/v1/write", bytes.NewReader(body))
	r.RemoteAddr = address
	r.Header = header.Clone()
	w := httptest.NewRecorder()
	g.handler.ServeHTTP(w, r)
	require.Equal(g.t, http.StatusNoContent, w.Code, w.Body.String())
}

func upOf(job string) []remotewrite.Label {
	return []remotewrite.Label{{Name: []byte("__name__"), Value: []byte("up")}, {Name: []byte("job"), Value: []byte(job)}}
}

// last is who sent the series last, and when.
func (g *gate) last(job string) (receiver.Sender, time.Time, bool) {
	tick, n, ok := g.router.Seen(upOf(job))
	if !ok {
		return receiver.Sender{}, time.Time{}, false
	}
	return g.senders.Last(n, time.Unix(int64(tick), 0))
}

// at moves the clocks of the senders and of the series on.
func (g *gate) at(now time.Time) {
	g.clock.Store(now.UnixMilli())
	g.table.Tick(uint32(now.Unix()))
}

func TestSenders_WhoSentASeriesLast(t *testing.T) {
	g := newGate(t)
	g.at(start)
	_, _, ok := g.last("a")
	require.False(t, ok, "nobody has sent it")

	prometheus := http.Header{"User-Agent": {"Prometheus/3.1.0"}, "X-Forwarded-For": {"10.9.0.3"}}
	g.from("10.1.0.7:40111", prometheus, "a")
	g.from("[::1]:40112", http.Header{"User-Agent": {strings.Repeat("x", 1000)}}, "b")
	who, when, ok := g.last("a")
	require.True(t, ok)
	require.Equal(t, receiver.Sender{Address: "10.1.0.7", Forwarded: "10.9.0.3", UserAgent: "Prometheus/3.1.0", Protocol: "rw1"}, who)
	require.Equal(t, start, when)
	who, _, ok = g.last("b")
	require.True(t, ok)
	require.Equal(t, receiver.Sender{Address: "::1", UserAgent: strings.Repeat("x", 128), Protocol: "rw1"}, who)

	// Another one sends it later, from any port.
	g.at(start.Add(time.Minute))
	g.from("10.1.0.8:40111", prometheus, "a")
	g.from("10.1.0.8:40113", prometheus, "b")
	who, when, _ = g.last("a")
	require.Equal(t, "10.1.0.8", who.Address)
	require.Equal(t, start.Add(time.Minute), when)
	other, _, _ := g.last("b")
	require.Equal(t, who, other)

	require.Equal(t, g.senders.Own(), g.senders.Own())
	own, _, ok := g.senders.Last(g.senders.Own(), start)
	require.True(t, ok)
	require.Equal(t, receiver.Sender{Protocol: receiver.OwnProtocol}, own)

	// What is read again, by nobody, changes neither who it was nor when.
	g.at(start.Add(time.Hour))
	rd := g.table.Reader(0)
	m := remotewrite.CanonicalKey(upOf("a"), g.router.Seed())
	_, found := rd.Find(m)
	rd.Close()
	require.True(t, found)
	again, when, ok := g.last("a")
	require.True(t, ok)
	require.Equal(t, who, again)
	require.Equal(t, start.Add(time.Minute), when)
}

// Where there are more senders than numbers, no series is said to be of a sender who
// only has the number of the one that sent it.
func TestSenders_MoreThanNumbers(t *testing.T) {
	g := newGate(t)
	none := http.Header{}
	g.at(start)
	g.from("10.0.0.1:1", none, "first")
	g.at(start.Add(time.Minute))
	for n := range int(series.MaxSender) - 1 {
		g.from(fmt.Sprintf("10.1.%d.%d:1", n/256, n%256), none, "many")
	}
	who, _, ok := g.last("first")
	require.True(t, ok)
	require.Equal(t, "10.0.0.1", who.Address)

	g.at(start.Add(2 * time.Minute))
	g.from("10.2.0.1:1", none, "newest")
	who, _, ok = g.last("newest")
	require.True(t, ok)
	require.Equal(t, "10.2.0.1", who.Address)
	_, _, ok = g.last("first")
	require.False(t, ok, "its number is another's now")
	who, _, ok = g.last("many")
	require.True(t, ok)
	require.Equal(t, "10.1.15.253", who.Address)

	g.from("10.0.0.1:1", none, "first")
	who, _, ok = g.last("first")
	require.True(t, ok)
	require.Equal(t, "10.0.0.1", who.Address)
}
