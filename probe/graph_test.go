package probe_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-metrics/sluice/probe"
)

func TestWalk(t *testing.T) {
	for name, test := range map[string]struct {
		edges []probe.Blocked
		want  probe.Graph
	}{
		"nobody waits":   {nil, probe.Graph{}},
		"one waits":      {[]probe.Blocked{{2, []uint64{1}}}, probe.Graph{Depth: 1, Roots: 1, Waiting: 1}},
		"chain of three": {[]probe.Blocked{{3, []uint64{2}}, {2, []uint64{1}}}, probe.Graph{Depth: 2, Roots: 1, Waiting: 2}},
		"two chains": {
			[]probe.Blocked{{3, []uint64{2}}, {2, []uint64{1}}, {12, []uint64{11}}},
			probe.Graph{Depth: 2, Roots: 2, Waiting: 3},
		},
		"two blockers, the nearer counts": {
			[]probe.Blocked{{3, []uint64{1, 2}}, {2, []uint64{1}}},
			probe.Graph{Depth: 1, Roots: 1, Waiting: 2},
		},
		"circle": {[]probe.Blocked{{1, []uint64{2}}, {2, []uint64{1}}}, probe.Graph{Waiting: 2, Circular: 2}},
		"waits for a circle": {
			[]probe.Blocked{{1, []uint64{2}}, {2, []uint64{1}}, {3, []uint64{2}}, {5, []uint64{4}}},
			probe.Graph{Depth: 1, Roots: 1, Waiting: 4, Circular: 3},
		},
		"waits for itself":      {[]probe.Blocked{{1, []uint64{1}}}, probe.Graph{Waiting: 1, Circular: 1}},
		"blocked twice by one":  {[]probe.Blocked{{2, []uint64{1, 1}}}, probe.Graph{Depth: 1, Roots: 1, Waiting: 1}},
		"said not for whom":     {[]probe.Blocked{{2, nil}}, probe.Graph{Depth: 1, Waiting: 1}},
		"behind one unasked":    {[]probe.Blocked{{3, []uint64{2}}, {2, nil}}, probe.Graph{Depth: 2, Waiting: 2}},
		"prepared transactions": {[]probe.Blocked{{2, []uint64{0}}}, probe.Graph{Depth: 1, Roots: 1, Waiting: 1}},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, probe.Walk(test.edges)) })
	}
}

// queue is n sessions in a queue for one row: each waits for all before it.
func queue(n uint64) (edges []probe.Blocked) {
	for i := uint64(1); i <= n; i++ {
		b := probe.Blocked{Session: i}
		for blocker := range i {
			b.Blockers = append(b.Blockers, blocker)
		}
		edges = append(edges, b)
	}
	return edges
}

func TestWalk_LongQueueIsQuick(t *testing.T) {
	edges := queue(1000) // half a million edges
	start := time.Now()
	require.Equal(t, probe.Graph{Depth: 1, Roots: 1, Waiting: 1000}, probe.Walk(edges))
	require.Less(t, time.Since(start), 2*time.Second)
}

// The walk is compared with the plain definition: shortest ways by repeated relaxation.
func TestWalk_EqualsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var edges []probe.Blocked
		for session := range uint64(rapid.IntRange(0, 8).Draw(t, "waiting")) {
			edges = append(edges, probe.Blocked{
				Session:  session,
				Blockers: rapid.SliceOfN(rapid.Uint64Range(0, 10), 1, 4).Draw(t, "blockers"),
			})
		}
		require.Equal(t, define(edges), probe.Walk(edges))
	})
}

func define(edges []probe.Blocked) (g probe.Graph) {
	g.Waiting = len(edges)
	const far = 1 << 20
	distance := map[uint64]int{}
	for _, e := range edges {
		for _, b := range e.Blockers {
			distance[b] = 0
		}
	}
	g.Roots = len(distance)
	for _, e := range edges {
		if _, blocks := distance[e.Session]; blocks {
			g.Roots--
		}
		distance[e.Session] = far
	}
	for range edges {
		for _, e := range edges {
			for _, b := range e.Blockers {
				distance[e.Session] = min(distance[e.Session], distance[b]+1)
			}
		}
	}
	for _, d := range distance {
		if d >= far {
			g.Circular++
		} else {
			g.Depth = max(g.Depth, d)
		}
	}
	return g
}

func BenchmarkWalk(b *testing.B) {
	edges := queue(100)
	b.ReportAllocs()
	for b.Loop() {
		probe.Walk(edges)
	}
}
