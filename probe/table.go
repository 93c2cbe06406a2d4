package probe

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"
)

// WriteTable writes what is known of clusters as a table for people.
func WriteTable(w io.Writer, list []*Snapshot) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CLUSTER\tTARGET\tENGINE\tROLE\tLAG\tWEIGHT\tCIRCUIT\tWAITING\tBLOCKED BY\tNOTE")
	for _, s := range list {
		for i := range s.Targets {
			v := &s.Targets[i]
			waiting, depth := "", ""
			if v.Reading != nil && v.Reading.Locks != nil {
				waiting = strconv.Itoa(int(v.waiting()))
				if v.Graph.Depth > 0 {
					depth = fmt.Sprintf("%d deep", v.Graph.Depth)
				}
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", s.Cluster, v.Target, v.Engine, cmp.Or(string(v.Role), "-"),
				v.lagText(), v.Weight, cmp.Or(string(v.Circuit), "-"), cmp.Or(waiting, "-"), cmp.Or(depth, "-"), v.Error)
		}
	}
	return t.Flush()
}

// waiting is how many wait for locks.
func (v *TargetView) waiting() (n uint64) {
	for _, w := range v.Reading.Locks.Waiting {
		n += w.Sessions
	}
	return n
}

func (v *TargetView) lagText() string {
	switch {
	case !v.Replica:
		return "-"
	case !v.Lag.Known():
		return "unknown: " + string(v.Lag.Unknown)
	case v.Lag.LowerBound:
		return "at least " + v.Lag.Age.Round(10*time.Millisecond).String()
	}
	return v.Lag.Age.Round(10 * time.Millisecond).String()
}

// row is a target in the JSON for programs. What is not known is null.
type row struct {
	Cluster     string   `json:"cluster"`
	Target      string   `json:"target"`
	Engine      Engine   `json:"engine"`
	Role        Role     `json:"role"`
	Head        bool     `json:"head"`
	LagSeconds  *float64 `json:"lag_seconds"`
	LowerBound  bool     `json:"lag_is_lower_bound,omitempty"`
	LagUnknown  Reason   `json:"lag_unknown,omitempty"`
	Weight      int      `json:"weight"`
	Circuit     string   `json:"circuit,omitempty"`
	Waiting     *uint64  `json:"sessions_waiting"`
	Depth       int      `json:"blocking_depth"`
	Roots       int      `json:"root_blockers"`
	Error       string   `json:"error,omitempty"`
	TookSeconds float64  `json:"took_seconds"`
}

// WriteJSON writes what is known of clusters for programs, a list of targets.
func WriteJSON(w io.Writer, list []*Snapshot) error {
	rows := []row{}
	for _, s := range list {
		for i := range s.Targets {
			v := &s.Targets[i]
			r := row{
				Cluster: s.Cluster, Target: v.Target, Engine: v.Engine, Role: v.Role, Head: v.Head, Weight: v.Weight,
				Circuit: string(v.Circuit), Depth: v.Graph.Depth, Roots: v.Graph.Roots, Error: v.Error, TookSeconds: v.Took.Seconds(),
			}
			if v.Replica {
				r.LagUnknown, r.LowerBound = v.Lag.Unknown, v.Lag.LowerBound
				if v.Lag.Known() {
					lag := v.Lag.Age.Seconds()
					r.LagSeconds = &lag
				}
			}
			if v.Reading != nil && v.Reading.Locks != nil {
				n := v.waiting()
				r.Waiting = &n
			}
			rows = append(rows, r)
		}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(rows)
}
