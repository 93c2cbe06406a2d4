package dashboards

// columns is the width of Grafana's grid.
const columns = 24

// place is where a panel is, in units of the grid.
type place struct {
	H int `json:"h"`
	W int `json:"w"`
	X int `json:"x"`
	Y int `json:"y"`
}

// flow places panels from left to right and top to bottom.
type flow struct{ x, y, height int }

// next is the place of a panel of this size. A panel that does not fit begins a new line
// below the highest of the present one.
func (f *flow) next(w, h int) place {
	if f.x+w > columns {
		f.end()
	}
	p := place{H: h, W: w, X: f.x, Y: f.y}
	f.x += w
	f.height = max(f.height, h)
	return p
}

// end ends the line.
func (f *flow) end() {
	f.x, f.y, f.height = 0, f.y+f.height, 0
}
