package gateway

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// lineLog keeps lines of a log.
type lineLog struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

func (l *lineLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.Write(p)
}

func (l *lineLog) has(parts ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.lines.String()) {
		all := true
		for _, p := range parts {
			all = all && strings.Contains(line, p)
		}
		if all {
			return true
		}
	}
	return false
}

// The log of a start says what is there and, as soon as it is known, how backends are
// spoken to. A tap sees what they get.
func TestStartSaysHowThingsStand(t *testing.T) {
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Content-Type"), "v2") {
			w.WriteHeader(http.StatusUnsupportedMediaType)
		}
	}))
	defer sink.Close()
	log := &lineLog{}
	address, stop := startGateway(t, "backends:\n- name: main\n  remote_write: {url: "+sink.URL+"}\n- {name: own, tsdb: {}}\n", slog.New(slog.NewTextHandler(log, nil)))
	ended := false
	defer func() {
		if !ended {
			stop()
		}
	}()
	within := func(parts ...string) {
		t.Helper()
		require.Eventually(t, func() bool { return log.has(parts...) }, 10*time.Second, 5*time.Millisecond, parts)
	}
	within("Data directory", "size=", "undelivered_samples=0")
	require.False(t, log.has("takes what it is sent"), "nothing was sent")

	resp, err := http.Get(strings.TrimSuffix(address, "write") + "tap?backend=main&limit=2")
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	res, err := http.Post(address, "application/x-protobuf", bytes.NewReader(requestOf(t, 5)))
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusNoContent, res.StatusCode)
	within("The backend takes what it is sent", "backend=main", "protocol=rw1")
	within("The backend takes what it is sent", "backend=own", "protocol=tsdb")
	require.Len(t, tapped(t, resp.Body), 2)

	// One who looks when the gateway stops does not hold it up.
	resp, err = http.Get(strings.TrimSuffix(address, "write") + "tap?backend=own")
	require.NoError(t, err)
	defer resp.Body.Close()
	stop()
	ended = true
	require.Empty(t, tapped(t, resp.Body))
}
