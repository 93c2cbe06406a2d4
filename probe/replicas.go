package probe

import (
	"cmp"
	"slices"
	"time"
)

// primaryCap bounds the weight of the primary when it stands in for its replicas, so that
// reads do not take from it what writes need.
const primaryCap = 50

// Criteria are what a read demands of a replica, beside a closed circuit.
type Criteria struct {
	// MaxLag is the most lag that the read takes; 0: what the cluster's max_lag allows.
	MaxLag time.Duration
	// MinPosition is the least position by stream, from ParsePosition: a replica that has
	// applied it shows the reader its own write. Nil: any.
	MinPosition map[string]uint64
}

// Choice is one server to read from.
type Choice struct {
	Target string
	// Weight is the share of reads, of 100 for a replica that is idle and has everything.
	Weight int
	Lag    time.Duration
	// Primary: no replica meets the criteria; the primary stands in, with a cap on its
	// weight.
	Primary bool
}

// Replicas lists the servers that a read may go to, the freshest first; the primary alone
// if no replica meets the criteria; nothing if there is no primary either.
func (s *Snapshot) Replicas(c Criteria) []Choice {
	var list []Choice
	for i := range s.Targets {
		if v := &s.Targets[i]; v.meets(c) {
			list = append(list, Choice{Target: v.Target, Weight: v.Weight, Lag: v.Lag.Age})
		}
	}
	slices.SortStableFunc(list, func(a, b Choice) int {
		return cmp.Or(cmp.Compare(a.Lag, b.Lag), cmp.Compare(b.Weight, a.Weight))
	})
	if len(list) > 0 || s.Primary == "" {
		return list
	}
	for i := range s.Targets {
		if v := &s.Targets[i]; v.Target == s.Primary && v.Success && v.Role == RolePrimary {
			weight := min(primaryCap, ReadWeight(0, connections(v.Reading)))
			return []Choice{{Target: v.Target, Weight: weight, Primary: true}}
		}
	}
	return nil
}

// meets reports whether a read may go to the target, as a replica.
func (v *TargetView) meets(c Criteria) bool {
	if !v.Replica || v.Weight == 0 || v.Lag.LowerBound || (c.MaxLag > 0 && v.Lag.Age > c.MaxLag) {
		return false
	}
	for name, position := range c.MinPosition {
		if !slices.ContainsFunc(v.Reading.Streams, func(s Stream) bool {
			return s.Name == name && s.Applied.Known && s.Applied.Value >= position
		}) {
			return false
		}
	}
	return true
}

// connections is how many client sessions a server has, 0 if that is not known.
func connections(r *Reading) (n uint64) {
	if r != nil && r.Transactions != nil {
		for _, sessions := range r.Transactions.Sessions {
			n = add(n, sessions)
		}
	}
	return n
}
