package thinning_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/thinning"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

// watchedJournal counts the readers that are closed while nobody can be told to Forget.
type watchedJournal struct {
	thinning.Journal
	locked func() bool
	safely atomic.Int64
}

type watchedReader struct {
	journal.Reader
	j *watchedJournal
}

func (j *watchedJournal) OpenReader(backend string, from journal.Position) (journal.Reader, error) {
	r, err := j.Journal.OpenReader(backend, from)
	return watchedReader{r, j}, err
}

func (r watchedReader) Close() error {
	if r.j.locked() {
		r.j.safely.Add(1)
	}
	return r.Reader.Close()
}

// While a session is built the feed keeps its series from being forgotten, and then it is
// found by Forget: there is no moment between the two, in which an id could be given to another
// series that the session takes for the old one.
func TestNoSessionMissesWhatIsForgotten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		watched := &watchedJournal{}
		var s *station
		s = newStation(t, vfs.NewMem(), stationOptions{window: time.Hour, journal: func(j thinning.Journal) thinning.Journal {
			watched.Journal = j
			watched.locked = func() bool { return s.thinner.Locked() }
			return watched
		}})
		defer func() { s.stop() }()
		l := newLoad(1, false)
		l.feed(s, 2*time.Minute)
		s.sink.set(4, false)
		s.awaitThinned(l, 0.6)
		require.EqualValues(t, 1, watched.safely.Load(), "a session that was built beside the lane")
		s.kill()
		l.feed(s, time.Minute)
		require.Equal(t, 1, strings.Count(s.log.String(), "Sampling goes on where it was"))
		require.EqualValues(t, 2, watched.safely.Load(), "one that is gone on with")
	})
}
