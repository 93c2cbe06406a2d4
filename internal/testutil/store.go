package testutil

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
)

// Appendable opens transactions of a Prometheus storage.
type Appendable interface {
	AppenderV2(ctx context.Context) storage.AppenderV2
}

// StoreLoad appends opts.Rounds rounds to a Prometheus storage, one transaction each,
// with the pause between them. It returns a load that takes all of it for
// acknowledged. URL, Protocol and senders are not used.
func StoreLoad(t testing.TB, db Appendable, pause time.Duration, opts LoadOptions) *Load {
	t.Helper()
	opts = opts.withDefaults()
	l := &Load{
		opts:    opts,
		gen:     newGenerator(opts),
		acked:   make([]int, opts.Series),
		tried:   make([]int, opts.Series),
		refused: map[refusal]bool{},
		answers: map[int]int{},
	}
	for round := range opts.Rounds {
		app := db.AppenderV2(context.Background())
		for i := range l.gen.series {
			l.append(t, app, i, round)
		}
		require.NoError(t, app.Commit())
		time.Sleep(pause) // the caller wants the rounds apart
	}
	return l
}

func (l *Load) append(t testing.TB, app storage.AppenderV2, i, round int) {
	t.Helper()
	s := &l.gen.series[i]
	at := l.gen.time(s, round)
	h, fh := l.gen.histogram(s, round)
	v := 0.0
	if h == nil && fh == nil {
		v = l.gen.float(s, round)
	}
	var o storage.AppendV2Options
	if ls, value, ok := l.gen.exemplar(s, round); ok {
		o.Exemplars = []exemplar.Exemplar{{Labels: ls, Value: value, Ts: at, HasTs: true}}
	}
	if l.gen.content.Metadata {
		o.MetricFamilyName = s.labels.Get("__name__")
		o.Metadata = metadata.Metadata{Type: s.metricType(), Help: s.help()}
	}
	_, err := app.Append(0, s.labels, l.gen.startTime(s, round), at, v, h, fh, o)
	require.NoError(t, err)
	l.acked[i], l.tried[i] = round+1, round+1
	l.points += len(l.gen.points(s, round))
}
