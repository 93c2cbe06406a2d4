package dashboards

// The kinds of panels. All of them are in Grafana 9.5.
type panelKind string

const (
	stat          panelKind = "stat"
	timeSeries    panelKind = "timeseries"
	table         panelKind = "table"
	stateTimeline panelKind = "state-timeline"
)

// unit is one of Grafana's ids of units.
type unit string

const (
	none        unit = "none"
	short       unit = "short" // with K, M, …
	seconds     unit = "s"
	sizeBytes   unit = "bytes" // with Ki, Mi, …
	bytesPerSec unit = "Bps"
	share       unit = "percentunit" // 0 to 1
	perSecond   unit = "cps"
	requests    unit = "reqps"
)

// color means one thing on all dashboards; noColor leaves the choice to Grafana, for lines
// that differ in their names alone.
type color string

const (
	noColor   color = ""
	delivered color = "green"
	waiting   color = "blue" // in the journal, and what comes in
	withheld  color = "yellow"
	lost      color = "red"
	attention color = "orange" // beyond the threshold of a warning
	neutral   color = "text"
)

// dashboard is one file.
type dashboard struct {
	name        string // of the file and in the uid
	title       string
	description string
	variables   []variable
	annotations []annotation
	rows        []row
	// scope lists the labels by which the series of a metric are selected with the
	// variable of the same name, beside job and instance.
	scope func(metric string) []string
}

// row is a headline and the panels below it. The first row of a dashboard may have no
// title.
type row struct {
	title     string
	collapsed bool
	repeat    string // a variable: the row is there for each of its values
	panels    []panel
}

// panel is one picture.
type panel struct {
	kind  panelKind
	title string
	// What it shows, how it looks when all is well, and what to do when it does not.
	// Together they are its description.
	shows, good, act string

	width, height int
	unit          unit
	queries       []query
	limits        []string // alerts whose thresholds are drawn
	floorless     bool     // may be negative
	top           float64  // highest value of the axis; 0: as needed
	stacked       bool
	names         bool // a stat that shows names in place of values
	nothing       string
	// states are the texts and colours of values.
	states []state
	repeat string // a variable: the panel is there for each of its values
	// scoped lists further variables that select, see dashboard.scope.
	scoped []string
	// columns of a table: the labels and queries that are shown, in this order.
	columns []column
	link    *link // where a click on a value leads
}

// query is one expression of PromQL, written as if there were one gateway. Legends name
// labels in double braces.
type query struct {
	expr   string
	legend string
	color  color
	// right puts it on a second axis with a unit of its own.
	right  bool
	unit   unit
	top    float64
	dashed bool
	now    bool // the present alone counts, and which series it is
}

type state struct {
	value string
	text  string
	color color
}

// column of a table. Exactly one of label and query is set; query counts from 0.
type column struct {
	label  string
	query  int
	title  string
	unit   unit
	color  color
	limits []string
	states []state
}

// link leads to another dashboard, with the reader's variables.
type link struct {
	title     string
	dashboard string
	variable  string // set to the value of the label of the same name
}

// variable is a choice of the reader.
type variable struct {
	name, label, expr string // label_values(expr, name)
	single            bool
}

// annotation marks times on all panels.
type annotation struct {
	name, expr, title, text string
	color                   color
	// isTime: the value is the time in milliseconds to mark; else the mark is there
	// while the value is not 0.
	isTime bool
	hidden bool
}
