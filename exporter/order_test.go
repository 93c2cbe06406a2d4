package exporter_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/exporter/exportertest"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

// weather is a script of random latencies and failures.
type weather struct {
	mu   sync.Mutex
	rng  *rand.Rand
	rate int // of failures, in percent
	bad  func(string) bool
}

func (w *weather) draw(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.IntN(n)
}

func (w *weather) play(ctx context.Context, a *exportertest.Attempt) (exporter.Receipt, error) {
	select {
	case <-time.After(time.Duration(w.draw(200)) * time.Millisecond):
	case <-ctx.Done():
		return exporter.Receipt{}, &exporter.Error{Class: exporter.Retry, Unknown: true, Err: context.Cause(ctx)}
	}
	if w.draw(100) >= w.rate {
		if w.bad != nil {
			return exportertest.Strict(w.bad, false)(ctx, a)
		}
		return accept(ctx, a)
	}
	switch w.draw(7) {
	case 0:
		return exporter.Receipt{}, &exporter.Error{Class: exporter.Retry, Status: 500, Unknown: true}
	case 1:
		a.Write() // the answer got lost
		return exporter.Receipt{}, &exporter.Error{Class: exporter.Retry, Unknown: true, Err: errors.New("timeout")}
	case 2:
		return exporter.Receipt{}, &exporter.Error{Class: exporter.Throttled, Status: 429, After: time.Duration(w.draw(3)) * time.Second}
	case 3:
		return exporter.Receipt{}, &exporter.Error{Class: exporter.Renegotiate, Status: 415}
	case 4:
		return exporter.Receipt{}, &exporter.Error{Class: exporter.Denied, Status: 401}
	case 5:
		if a.Counts.Samples < 60 {
			break
		}
		return exporter.Receipt{}, &exporter.Error{Class: exporter.Rejected, Status: 413, TooLarge: true}
	}
	return exporter.Receipt{}, errors.New("an error that is not classified")
}

// plan is one run of the property.
type plan struct {
	seed                     uint64
	least, most, send        int
	names, perRequest, steps int
	rate                     int
	selective, v2            bool
}

func draw(rt *rapid.T) plan {
	return plan{
		seed:       rapid.Uint64().Draw(rt, "seed"),
		least:      rapid.IntRange(1, 8).Draw(rt, "min_shards"),
		most:       rapid.IntRange(8, 64).Draw(rt, "max_shards"),
		send:       rapid.SampledFrom([]int{1, 20, 100, 10000}).Draw(rt, "max_samples_per_send"),
		names:      rapid.IntRange(1, 6).Draw(rt, "names"),
		perRequest: rapid.IntRange(1, 15).Draw(rt, "per_request"),
		steps:      rapid.IntRange(10, 60).Draw(rt, "steps"),
		rate:       rapid.SampledFrom([]int{0, 10, 40}).Draw(rt, "failures"),
		selective:  rapid.Bool().Draw(rt, "selective"),
		v2:         rapid.Bool().Draw(rt, "v2"),
	}
}

// fill appends what the plan says and returns how many samples of each series there are.
func (p *plan) fill(t testing.TB, s *station, rng *rand.Rand, from, steps int) map[string]int {
	count := map[string]int{}
	for at := from; at < from+steps; at++ {
		name := fmt.Sprintf("m%d", rng.IntN(p.names))
		list := round(name, p.perRequest, int64(at+1)*10)
		rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		list = list[:1+rng.IntN(len(list))]
		if rng.IntN(4) == 0 { // several samples in one message
			list[0].Samples = append(list[0].Samples, exportertest.Sample{Time: int64(at+1)*10 + 5, Value: 1})
		}
		v := series.V1
		if p.v2 && rng.IntN(2) == 0 {
			v = series.V2
		}
		require.NoError(t, s.append(v, list...))
		for _, x := range list {
			count[x.Labels.String()] += len(x.Samples)
		}
		if rng.IntN(3) == 0 {
			time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
		}
	}
	return count
}

// S4, invariant 2: whatever the number of shards and whatever happens to the requests, the
// samples of a series arrive in order, none is lost, and the books are right.
func TestS4_OrderOfEachSeries(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := draw(rt)
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(p.seed, 1))
			s := open(t, vfs.NewMem(), nil, "a", `b {__name__="m1"}`)
			defer s.close()
			w := &weather{rng: rand.New(rand.NewPCG(p.seed, 2)), rate: p.rate}
			name := "a"
			if p.selective {
				name = "b"
			}
			r := s.lane(name, exportertest.NewBackend(w.play), both(shards(p.least, p.most), small(p.send), quick))
			want := p.fill(t, s, rng, 0, p.steps)
			b := r.rest(t, time.Hour)
			for x, n := range want {
				if p.selective && !isM1(x) {
					n = 0
				}
				require.Len(t, r.backend.Stored(x), n, "%+v: series %s", p, x)
			}
			require.Empty(t, b.Totals.GivenUp)
			require.Empty(t, b.Totals.Rejected)
			if p.rate == 0 {
				require.Zero(t, b.Totals.Redelivered)
			}
		})
	})
}

func isM1(name string) bool { return len(name) > 10 && name[:15] == `{__name__="m1",` }

func quick(o *exporter.Options) {
	o.Config.MaxBackoff = model.Duration(time.Second)
}
