package incident

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sluice-metrics/sluice/sampler"
	"github.com/sluice-metrics/sluice/sampler/control"
)

// RowLength is how long a row of a report is.
const RowLength = 10 * time.Second

// Report is the outcome of Run.
type Report struct {
	Title string `json:"title,omitempty"`
	// Mode is that of the sampling: active, or shadow, in which nothing is withheld; off
	// where it is not enabled.
	Mode string `json:"mode"`
	// Warnings are about what was not played as the incident file says.
	Warnings []string `json:"warnings,omitempty"`
	// Rows begin with the incident.
	Rows   []Row  `json:"rows"`
	Totals Totals `json:"totals"`
	// Fidelity is nil where nothing was compared.
	Fidelity *Fidelity `json:"fidelity,omitempty"`

	parts struct { // of the row at hand
		read, sent, offered, capacity float64 // sums
		ticks                         int
	}
	row       Row
	direction int
}

// Row is some seconds of the incident.
type Row struct {
	At       float64 `json:"at"`             // seconds since the start of the incident, at the end of the row
	Offered  float64 `json:"offered"`        // samples a second
	Capacity float64 `json:"capacity"`       // samples a second
	Rate     float64 `json:"rate"`           // asked for, at the end
	Kept     float64 `json:"kept"`           // share of the samples that the lane came to
	Queue    int     `json:"queue"`          // batches that wait or are in flight, at the end
	Age      float64 `json:"age"`            // of the oldest of them, seconds; the largest
	Latency  float64 `json:"latency"`        // seconds; the largest
	Withheld float64 `json:"withheld"`       // samples
	Would    float64 `json:"would_withhold"` // samples, in shadow mode
	Passed   int     `json:"passed"`         // samples left for later, so that the newest go first
	Pressure float64 `json:"pressure"`       // the largest
	Cause    string  `json:"cause"`          // the signal with that pressure; empty below 0.5
	Why      string  `json:"why"`            // of the last change of the rate; empty when it did not change
}

// Totals are those of the incident.
type Totals struct {
	Offered        float64 `json:"offered"`         // samples
	Sent           float64 `json:"sent"`            // samples
	Withheld       float64 `json:"withheld"`        // samples, those passed included
	WouldWithhold  float64 `json:"would_withhold"`  // samples that would have been withheld, in shadow mode
	Passed         float64 `json:"passed"`          // samples
	Seconds        float64 `json:"seconds"`         // that were played
	Waiting        float64 `json:"waiting"`         // samples at full resolution at the end
	LaggingSeconds int     `json:"lagging_seconds"` // with a signal above its threshold
	MaxQueueAge    float64 `json:"max_queue_age_seconds"`
	LowestRate     float64 `json:"lowest_rate"`
	FinalRate      float64 `json:"final_rate"`
	Turns          int     `json:"turns"` // changes of direction of the rate
}

// Fidelity is how queries and alerts on what the backend got compare with those on
// everything, from the start of the incident on. Its figures are those of sluice fidelity.
type Fidelity struct {
	Kept           float64 `json:"kept"`
	Bytes          float64 `json:"bytes"`
	P50            float64 `json:"p50"`
	P95            float64 `json:"p95"`
	P99            float64 `json:"p99"`
	Missing        float64 `json:"missing"`
	Extra          float64 `json:"extra"`
	Bad            float64 `json:"bad"`
	AlertAgreement float64 `json:"alert_agreement"`
	PageAgreement  float64 `json:"page_agreement"`
	Missed         int     `json:"missed"`
	False          int     `json:"false"`
	DelayMean      float64 `json:"delay_mean"`
	DelayMax       float64 `json:"delay_max"`
}

func newReport(i *Incident, c sampler.Config) *Report {
	r := &Report{Title: i.Title, Mode: string(c.Mode)}
	if !c.Enabled {
		r.Mode = "off"
	}
	r.Totals.LowestRate = 1
	return r
}

// moment is what there is to report of a tick.
type moment struct {
	Observation
	thresholds Thresholds
	rate       float64 // in force in it
	conditions Conditions
	decision   control.Decision
	would      float64 // samples that would have been withheld
}

// add takes in a tick that ended at a time of the incident.
func (r *Report) add(at time.Duration, o moment) {
	if at <= 0 {
		return
	}
	p := &r.parts
	p.ticks++
	p.read += float64(o.Read - o.Passed)
	p.sent += o.Sent
	p.offered += float64(o.Offered)
	p.capacity += o.conditions.Capacity
	row := &r.row
	row.Rate, row.Queue = o.rate, o.Batches
	row.Age = max(row.Age, o.Age.Seconds())
	row.Latency = max(row.Latency, o.Latency.Seconds())
	row.Withheld += float64(o.Read-o.Passed) - o.Sent
	row.Would += o.would
	row.Passed += o.Passed
	if now := o.Pressure(o.thresholds); now >= row.Pressure {
		row.Pressure = now
		if row.Cause = ""; now >= 0.5 {
			row.Cause = o.cause(o.thresholds)
		}
	}
	if o.decision.Direction != 0 {
		row.Why = o.decision.Why()
	}
	r.total(at, o)
	if at%RowLength == 0 {
		r.endRow(at)
	}
}

func (r *Report) total(at time.Duration, o moment) {
	s := &r.Totals
	s.Seconds = at.Seconds()
	s.Offered += float64(o.Offered)
	s.Sent += o.Sent
	s.Passed += float64(o.Passed)
	s.Withheld += float64(o.Read) - o.Sent
	s.WouldWithhold += o.would
	s.Waiting = float64(o.Backlog)
	s.MaxQueueAge = max(s.MaxQueueAge, o.Age.Seconds())
	s.LowestRate = min(s.LowestRate, o.rate)
	s.FinalRate = o.rate
	if o.Pressure(o.thresholds) >= 1 {
		s.LaggingSeconds++
	}
	if turn := o.decision.Direction; turn != 0 {
		if r.direction != 0 && turn != r.direction {
			s.Turns++
		}
		r.direction = turn
	}
}

func (r *Report) endRow(at time.Duration) {
	p := &r.parts
	r.row.At = at.Seconds()
	r.row.Offered = p.offered / float64(p.ticks)
	r.row.Capacity = p.capacity / float64(p.ticks)
	r.row.Kept = 1
	if p.read > 0 {
		r.row.Kept = p.sent / p.read
	}
	r.Rows = append(r.Rows, r.row)
	r.row, r.parts.ticks = Row{}, 0
	p.read, p.sent, p.offered, p.capacity = 0, 0, 0, 0
}

func (r *Report) finish() {
	if r.parts.ticks > 0 {
		last := 0.0
		if n := len(r.Rows); n > 0 {
			last = r.Rows[n-1].At
		}
		r.endRow(time.Duration(last)*time.Second + time.Duration(r.parts.ticks)*Tick)
	}
}

// cause is the name of the signal with the largest pressure.
func (o Observation) cause(t Thresholds) string {
	var name string
	most := -1.0
	for _, s := range o.Inputs(t).Signals {
		if p := s.Pressure(); p > most {
			name, most = s.Name, p
		}
	}
	return name
}

// Format is a form in which a Report is written.
type Format string

// Formats.
const (
	Table Format = "table" // text in columns
	JSON  Format = "json"  // an object
	HTML  Format = "html"  // a page with plots that needs nothing else
)

// Write writes the report to w.
func (r *Report) Write(w io.Writer, f Format) error {
	var err error
	switch f {
	case Table:
		err = r.writeTable(w)
	case JSON:
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		err = e.Encode(r)
	case HTML:
		err = r.writePage(w)
	default:
		return fmt.Errorf("unknown format %q: it is %s, %s or %s", f, Table, JSON, HTML)
	}
	if err != nil {
		return fmt.Errorf("write the incident as %s: %w", f, err)
	}
	return nil
}

// columns are the heads of cells.
func (r *Report) columns() []string {
	withheld := "withheld"
	if r.shadow() {
		withheld = "would withhold"
	}
	return []string{"at", "offered/s", "capacity/s", "rate", "kept", "queue", "age s", "latency s", withheld, "passed", "pressure", "cause"}
}

func (r *Report) shadow() bool { return r.Mode == string(sampler.ModeShadow) }

func (r Row) cells(shadow bool) []string {
	withheld := r.Withheld
	if shadow {
		withheld = r.Would
	}
	return []string{
		fmt.Sprintf("%.0fs", r.At), fmt.Sprintf("%.0f", r.Offered), fmt.Sprintf("%.0f", r.Capacity),
		fmt.Sprintf("%.3f", r.Rate), fmt.Sprintf("%.3f", r.Kept), fmt.Sprint(r.Queue),
		fmt.Sprintf("%.1f", r.Age), fmt.Sprintf("%.2f", r.Latency),
		fmt.Sprintf("%.0f", math.Max(0, withheld)), fmt.Sprint(r.Passed),
		fmt.Sprintf("%.2f", r.Pressure), r.Cause,
	}
}

func (r *Report) writeTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(r.columns(), "\t"))
	for _, row := range r.Rows {
		fmt.Fprintln(t, strings.Join(row.cells(r.shadow()), "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "\n"+strings.Join(r.sentences(), "\n"))
	return err
}

// sentences are the totals in words, after what is to be known before they are read.
func (r *Report) sentences() []string {
	s := r.Totals
	var lines []string
	for _, w := range r.Warnings {
		lines = append(lines, "Warning: "+w)
	}
	if r.shadow() {
		lines = append(lines, fmt.Sprintf("Shadow mode: nothing is withheld, and the rates are those that would be asked for. Of the samples that the lane came to %.0f (%.1f %% of the offered) would have been withheld.",
			s.WouldWithhold, percentOf(s.WouldWithhold, s.Offered)))
	}
	lines = append(lines,
		fmt.Sprintf("Offered %.0f samples, sent %.0f (%.1f %%), withheld %.0f, of these passed for the newest %.0f; %.0f wait at the end.",
			s.Offered, s.Sent, percentOf(s.Sent, s.Offered), s.Withheld, s.Passed, s.Waiting),
		fmt.Sprintf("Lagging for %d s, oldest in the queue %.1f s, lowest rate %.3f, at the end %.3f, %d changes of direction.",
			s.LaggingSeconds, s.MaxQueueAge, s.LowestRate, s.FinalRate, s.Turns),
	)
	if f := r.Fidelity; f != nil {
		lines = append(lines, fmt.Sprintf("What the backend got: bad %.2f %%, missing %.2f %%, error p95 %.1f %%, alerts agree %.1f %% (missed %d, false %d), pages agree %.1f %%, delay at most %.0f s.",
			100*f.Bad, 100*f.Missing, 100*f.P95, 100*f.AlertAgreement, f.Missed, f.False, 100*f.PageAgreement, f.DelayMax))
	}
	return lines
}

func percentOf(part, all float64) float64 {
	if all == 0 {
		return 0
	}
	return 100 * part / all
}

// Figures are all numbers of the totals and of the fidelity by their names in JSON.
func (r *Report) Figures() (map[string]float64, error) {
	all := map[string]float64{}
	parts := []any{r.Totals}
	if r.Fidelity != nil {
		parts = append(parts, r.Fidelity)
	}
	for _, part := range parts {
		text, err := json.Marshal(part)
		if err == nil {
			err = json.Unmarshal(text, &all)
		}
		if err != nil {
			return nil, fmt.Errorf("read the figures of an incident: %w", err)
		}
	}
	return all, nil
}
