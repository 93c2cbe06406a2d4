package web

import "slices"

// Wait is one session of a database that waits, and those that it waits for; without any
// where that is not known.
type Wait struct {
	Session  uint64
	Blockers []uint64
}

// Forest is who blocks whom.
type Forest struct {
	// Roots block others and wait for nobody.
	Roots []Blocker `json:"roots,omitempty"`
	// Circle are sessions that wait for none but each other, and those behind them.
	Circle []uint64 `json:"circle,omitempty"`
	// Left is how many sessions are not among the above: there are too many, or it is not
	// known whom they wait for.
	Left int `json:"left_out,omitempty"`
}

// Blocker is a session with those that wait for it.
type Blocker struct {
	Session uint64    `json:"session"`
	Blocks  []Blocker `json:"blocks,omitempty"`
}

// Bounds of a Forest: a page is for people.
const (
	maxForest = 40
	maxDepth  = 8
)

// forest makes trees of the edges. A session that waits for several stands under the first
// that is reached.
func forest(waits []Wait) Forest {
	waiting := make(map[uint64]bool, len(waits))
	behind := map[uint64][]uint64{}
	for _, w := range waits {
		waiting[w.Session] = true
	}
	var roots []uint64
	for _, w := range waits {
		for _, b := range w.Blockers {
			if !waiting[b] && !slices.Contains(roots, b) && len(roots) < maxForest {
				roots = append(roots, b)
			}
			behind[b] = append(behind[b], w.Session)
		}
	}
	g := grower{behind: behind, seen: map[uint64]bool{}}
	var f Forest
	for _, r := range roots {
		if g.room() {
			f.Roots = append(f.Roots, g.grow(r, 0))
		}
	}
	reached := g.reach(roots)
	for _, w := range waits {
		switch {
		case g.seen[w.Session]:
		case !reached[w.Session] && len(w.Blockers) > 0 && len(f.Circle) < maxForest:
			f.Circle = append(f.Circle, w.Session)
			g.seen[w.Session] = true
		default:
			f.Left++
		}
	}
	return f
}

// grower grows the trees of a forest.
type grower struct {
	behind map[uint64][]uint64
	seen   map[uint64]bool
}

func (g *grower) room() bool { return len(g.seen) < maxForest }

func (g *grower) grow(session uint64, depth int) Blocker {
	g.seen[session] = true
	b := Blocker{Session: session}
	if depth == maxDepth {
		return b
	}
	for _, next := range g.behind[session] {
		if !g.seen[next] && g.room() {
			b.Blocks = append(b.Blocks, g.grow(next, depth+1))
		}
	}
	return b
}

// reach returns all sessions that wait for the roots, directly or not.
func (g *grower) reach(roots []uint64) map[uint64]bool {
	reached := map[uint64]bool{}
	for todo := slices.Clone(roots); len(todo) > 0; {
		last := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, next := range g.behind[last] {
			if !reached[next] {
				reached[next] = true
				todo = append(todo, next)
			}
		}
	}
	return reached
}
