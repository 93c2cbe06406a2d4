package probe

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
)

// ReplicasPath is where ReplicasHandler is to be served.
const ReplicasPath = "/api/v1/replicas"

// answer is the body of a good answer.
type answer struct {
	Cluster string `json:"cluster"`
	// Primary is the target whose writes count; empty: not known.
	Primary  string          `json:"primary"`
	Replicas []choiceAnswer  `json:"replicas"`
	Left     []leftOutAnswer `json:"left_out"`
}

type choiceAnswer struct {
	Target  string  `json:"target"`
	Weight  int     `json:"weight"`
	Lag     float64 `json:"lag_seconds"`
	Primary bool    `json:"primary"`
}

// leftOutAnswer says why reads are not to go to a target.
type leftOutAnswer struct {
	Target string `json:"target"`
	// Why is a reason of an unknown lag, circuit_open, circuit_half_open, lower_bound,
	// max_lag, min_position, or weight_0: it comes back slowly.
	Why string `json:"why"`
}

var errNoCluster = errors.New("no such cluster")

// ReplicasHandler answers GET with the servers that reads may go to, as JSON. Parameters:
// cluster (may be left out if there is one only), max_lag (a duration), min_position (see
// ParsePosition). The function returns the clusters that there are at the moment.
func ReplicasHandler(clusters func() []*Cluster) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			refuse(w, http.StatusMethodNotAllowed, errors.New("ask with GET"))
			return
		}
		q := r.URL.Query()
		c, err := find(clusters(), q.Get("cluster"))
		if err != nil {
			refuse(w, http.StatusNotFound, err)
			return
		}
		criteria, err := parseCriteria(q)
		if err != nil {
			refuse(w, http.StatusBadRequest, err)
			return
		}
		s := c.Snapshot()
		if !s.Leading {
			w.WriteHeader(http.StatusServiceUnavailable)
			_ = json.NewEncoder(w).Encode(elsewhereOf(s))
			return
		}
		_ = json.NewEncoder(w).Encode(answerOf(s, criteria))
	})
}

// elsewhere is the answer of a gateway that does not probe the cluster.
type elsewhere struct {
	Error string `json:"error"`
	// Leader is the gateway to ask; absent: not known.
	Leader string `json:"leader,omitempty"`
	// UnknownSince: from then on nobody has said who probes the cluster; absent: another
	// gateway does.
	UnknownSince *time.Time `json:"unknown_since,omitempty"`
}

func elsewhereOf(s *Snapshot) elsewhere {
	l := s.Leadership
	switch {
	case !l.Known():
		why := l.Why
		if why == "" {
			why = "it has not answered yet"
		}
		return elsewhere{
			Error:        fmt.Sprintf("it is not known which gateway probes the cluster %q, or whether one does: the store of leases does not say since %s: %s", s.Cluster, l.UnknownSince.UTC().Format(time.RFC3339), why),
			UnknownSince: &l.UnknownSince,
		}
	case l.By != "":
		return elsewhere{Error: fmt.Sprintf("another gateway, %s, probes the cluster %q: ask that one", l.By, s.Cluster), Leader: l.By}
	}
	return elsewhere{Error: fmt.Sprintf("another gateway probes the cluster %q: ask that one", s.Cluster)}
}

func refuse(w http.ResponseWriter, status int, err error) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
}

func find(clusters []*Cluster, name string) (*Cluster, error) {
	if name == "" && len(clusters) == 1 {
		return clusters[0], nil
	}
	var names []string
	for _, c := range clusters {
		if c.Name() == name {
			return c, nil
		}
		names = append(names, c.Name())
	}
	return nil, fmt.Errorf("%w as %q; there are: %s", errNoCluster, name, strings.Join(names, ", "))
}

func parseCriteria(q url.Values) (c Criteria, err error) {
	if text := q.Get("max_lag"); text != "" {
		d, err := model.ParseDuration(text)
		if err != nil || d == 0 {
			return c, fmt.Errorf("max_lag: %q is not a duration such as 5s", text)
		}
		c.MaxLag = time.Duration(d)
	}
	if text := q.Get("min_position"); text != "" {
		if c.MinPosition, err = ParsePosition(text); err != nil {
			return c, fmt.Errorf("min_position: %w", err)
		}
	}
	return c, nil
}

func answerOf(s *Snapshot, c Criteria) answer {
	a := answer{Cluster: s.Cluster, Primary: s.Primary, Replicas: []choiceAnswer{}, Left: []leftOutAnswer{}}
	for _, choice := range s.Replicas(c) {
		a.Replicas = append(a.Replicas, choiceAnswer{choice.Target, choice.Weight, choice.Lag.Seconds(), choice.Primary})
	}
	for i := range s.Targets {
		v := &s.Targets[i]
		if !slices.ContainsFunc(a.Replicas, func(c choiceAnswer) bool { return c.Target == v.Target }) && v.Replica {
			a.Left = append(a.Left, leftOutAnswer{v.Target, v.whyNot(c)})
		}
	}
	return a
}

// whyNot says in one word or two why a replica is left out.
func (v *TargetView) whyNot(c Criteria) string {
	switch {
	case !v.Lag.Known():
		return string(v.Lag.Unknown)
	case !v.Success:
		return string(ReasonUnreachable)
	case v.Circuit != CircuitClosed:
		return "circuit_" + string(v.Circuit)
	case v.Lag.LowerBound:
		return "lower_bound"
	case c.MaxLag > 0 && v.Lag.Age > c.MaxLag:
		return "max_lag"
	case v.Weight == 0:
		return "weight_0"
	}
	return "min_position"
}
