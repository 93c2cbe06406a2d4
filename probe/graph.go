package probe

// Graph is what the edges of who waits for whom come to.
type Graph struct {
	// Depth is the number of steps from a root blocker to the session that is farthest
	// from one, each session by its shortest way: a queue of a hundred for one row is
	// wide, not deep. 0: nobody waits, or all wait in circles.
	Depth int
	// Roots is how many sessions block others and wait for nobody.
	Roots int
	// Waiting is how many sessions wait.
	Waiting int
	// Circular is how many sessions wait for none but each other: a deadlock that its
	// server has not broken yet.
	Circular int
}

// Walk walks the graph from its roots outwards: each edge once, whatever their number. A
// session that waits without saying for whom is at one step from a root that is not seen.
func Walk(edges []Blocked) Graph {
	w := walk{depth: map[uint64]int{}, behind: make(map[uint64][]uint64, len(edges))}
	waiting := make(map[uint64]bool, len(edges))
	for _, e := range edges {
		waiting[e.Session] = true
		if len(e.Blockers) == 0 {
			w.reach(e.Session, 1)
		}
	}
	g := Graph{Waiting: len(waiting)}
	for _, e := range edges {
		for _, blocker := range e.Blockers {
			if !waiting[blocker] && w.reach(blocker, 0) {
				g.Roots++
			}
			w.behind[blocker] = append(w.behind[blocker], e.Session)
		}
	}
	g.Depth = w.run()
	g.Circular = g.Waiting - (len(w.depth) - g.Roots)
	return g
}

// walk is breadth first, with the nearest sessions in front.
type walk struct {
	depth       map[uint64]int
	behind      map[uint64][]uint64 // blocker to those that it blocks
	roots, next []uint64            // at depth 0; at depth 1
}

// reach notes a session to begin with, and reports whether it is new.
func (w *walk) reach(session uint64, depth int) bool {
	if _, seen := w.depth[session]; seen {
		return false
	}
	w.depth[session] = depth
	if depth == 0 {
		w.roots = append(w.roots, session)
	} else {
		w.next = append(w.next, session)
	}
	return true
}

// run walks on from what was reached and returns the greatest depth.
func (w *walk) run() int {
	deepest := 0
	layer, next := w.roots, w.next
	for depth := 1; len(layer) > 0 || len(next) > 0; depth++ {
		for _, from := range layer {
			for _, session := range w.behind[from] {
				if _, seen := w.depth[session]; !seen {
					w.depth[session] = depth
					next = append(next, session)
				}
			}
		}
		if len(next) > 0 {
			deepest = depth
		}
		layer, next = next, nil
	}
	return deepest
}
