package probe

import (
	"encoding/json"
	"io"
	"time"
)

// row is a target in the JSON for programs. What is not known is null.
type row struct {
	Cluster      string           `json:"cluster"`
	Target       string           `json:"target"`
	Engine       Engine           `json:"engine"`
	Role         Role             `json:"role"`
	Head         bool             `json:"head"`
	LagSeconds   *float64         `json:"lag_seconds"`
	LowerBound   bool             `json:"lag_is_lower_bound,omitempty"`
	LagUnknown   Reason           `json:"lag_unknown,omitempty"`
	Weight       *int             `json:"weight"`
	Circuit      string           `json:"circuit,omitempty"`
	Waiting      *uint64          `json:"sessions_waiting"`
	Depth        *int             `json:"blocking_depth"`
	Roots        *int             `json:"root_blockers"`
	Locks        *locksRow        `json:"locks"`
	Transactions *transactionsRow `json:"transactions"`
	Slots        []slotRow        `json:"slots,omitempty"`
	Streams      []streamRow      `json:"stream_groups,omitempty"`
	Consumers    []consumerRow    `json:"consumer_groups,omitempty"`
	Member       *memberRow       `json:"member,omitempty"`
	// Lacks are the kinds of information that the account may not read; null if the
	// target does not answer.
	Lacks       []string `json:"lacks_rights_for"`
	Error       string   `json:"error,omitempty"`
	TookSeconds *float64 `json:"took_seconds"`
}

type locksRow struct {
	// Roots are the sessions that block others and wait for nobody.
	Roots           []uint64          `json:"root_sessions"`
	Circular        int               `json:"sessions_in_circles"`
	Waiting         []waitingRow      `json:"waiting"`
	Blocked         []blockedRow      `json:"blocked"`
	MetadataWaiting *uint64           `json:"metadata_sessions_waiting"`
	Deadlocks       map[string]uint64 `json:"deadlocks"` // by database
}

type waitingRow struct {
	Database      string   `json:"database"`
	Type          string   `json:"type"`
	Mode          string   `json:"mode"`
	Sessions      uint64   `json:"sessions"`
	OldestSeconds *float64 `json:"oldest_seconds"`
}

type blockedRow struct {
	Session uint64 `json:"session"`
	// By is null where it is not told.
	By []uint64 `json:"blocked_by"`
}

type transactionsRow struct {
	OldestSeconds map[string]float64 `json:"oldest_seconds"` // by state
	Sessions      map[string]uint64  `json:"sessions"`       // by state
	Limit         *uint64            `json:"sessions_limit"`
	Committed     map[string]uint64  `json:"committed"`   // by database
	RolledBack    map[string]uint64  `json:"rolled_back"` // by database
}

type slotRow struct {
	Name     string  `json:"slot"`
	Active   bool    `json:"active"`
	Lost     bool    `json:"lost"`
	Retained *uint64 `json:"retained_bytes"`
}

type streamRow struct {
	Stream               string   `json:"stream"`
	Group                string   `json:"group"`
	Entries              *uint64  `json:"lag_entries"`
	LagSeconds           *float64 `json:"lag_seconds"`
	Pending              *uint64  `json:"pending_entries"`
	OldestPendingSeconds *float64 `json:"oldest_pending_seconds"`
}

type consumerRow struct {
	Group   string         `json:"group"`
	Members *uint64        `json:"members"`
	Lags    []partitionRow `json:"partitions"`
}

type partitionRow struct {
	Topic      string  `json:"topic"`
	Partition  int32   `json:"partition"`
	Records    uint64  `json:"lag_records"`
	LagSeconds float64 `json:"lag_seconds"`
	LowerBound bool    `json:"lag_is_lower_bound,omitempty"`
}

type memberRow struct {
	HasLeader bool    `json:"has_leader"`
	IsLeader  bool    `json:"is_leader"`
	Term      uint64  `json:"term"`
	Index     uint64  `json:"index"`
	Applied   uint64  `json:"applied"`
	Behind    *uint64 `json:"lag_entries"`
}

// WriteJSON writes what is known of clusters for programs, a list of targets.
func WriteJSON(w io.Writer, list []*Snapshot) error {
	rows := []row{}
	for _, s := range list {
		for i := range s.Targets {
			rows = append(rows, rowOf(s.Cluster, &s.Targets[i]))
		}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(rows)
}

func rowOf(cluster string, v *TargetView) row {
	r := row{Cluster: cluster, Target: v.Target, Engine: v.Engine, Role: v.Role, Head: v.Head, Error: v.Error}
	if v.Probed {
		took := v.Took.Seconds()
		r.TookSeconds = &took
	}
	if v.Replica {
		r.Weight, r.Circuit = &v.Weight, string(v.Circuit)
		r.LagUnknown, r.LowerBound = v.Lag.Unknown, v.Lag.Known() && v.Lag.LowerBound
		r.LagSeconds = inSeconds(v.Lag.Seconds())
	}
	if v.Reading == nil {
		return r
	}
	r.Lacks = v.Lacks()
	if l := v.Reading.Locks; l != nil {
		waiting := l.waiting()
		r.Waiting, r.Depth, r.Roots = &waiting, &v.Graph.Depth, &v.Graph.Roots
		r.Locks = l.row(v.Graph.Circular)
	}
	if t := v.Reading.Transactions; t != nil {
		r.Transactions = t.row()
	}
	for _, s := range v.Reading.Slots {
		r.Slots = append(r.Slots, slotRow{s.Name, s.Active, s.Lost, orNull(s.Retained)})
	}
	for _, g := range v.Reading.StreamGroups {
		r.Streams = append(r.Streams, streamRow{g.Stream, g.Group, orNull(g.Entries), inSeconds(g.Lag), orNull(g.Pending), inSeconds(g.OldestPending)})
	}
	for _, g := range v.Reading.ConsumerGroups {
		c := consumerRow{Group: g.Group, Members: orNull(g.Members), Lags: []partitionRow{}}
		for _, p := range v.Groups {
			if p.Group == g.Group {
				c.Lags = append(c.Lags, partitionRow{p.Topic, p.Partition, p.Records, p.Age.Seconds(), p.LowerBound})
			}
		}
		r.Consumers = append(r.Consumers, c)
	}
	if m := v.Reading.Member; m != nil {
		r.Member = &memberRow{m.HasLeader, m.IsLeader, m.Term, m.Index, m.Applied, orNull(v.MemberLag)}
	}
	return r
}

func (l *Locks) row(circular int) *locksRow {
	r := &locksRow{
		Roots: append([]uint64{}, l.roots()...), Circular: circular, Waiting: []waitingRow{}, Blocked: []blockedRow{},
		MetadataWaiting: orNull(l.MetadataWaiting), Deadlocks: byDatabase(l.Deadlocks),
	}
	for _, w := range l.Waiting {
		r.Waiting = append(r.Waiting, waitingRow{w.Database, w.Type, w.Mode, w.Sessions, inSeconds(w.Oldest)})
	}
	for _, b := range l.Blocked {
		r.Blocked = append(r.Blocked, blockedRow{b.Session, b.Blockers})
	}
	return r
}

func (t *Transactions) row() *transactionsRow {
	r := &transactionsRow{
		Sessions: t.Sessions, Limit: orNull(t.SessionsLimit),
		Committed: byDatabase(t.Committed), RolledBack: byDatabase(t.RolledBack),
	}
	if t.Oldest != nil {
		r.OldestSeconds = map[string]float64{}
	}
	for state, age := range t.Oldest {
		r.OldestSeconds[state] = age.Seconds()
	}
	return r
}

// byDatabase is nil where nothing is counted.
func byDatabase(list []DatabaseTotal) map[string]uint64 {
	if list == nil {
		return nil
	}
	m := map[string]uint64{}
	for _, d := range list {
		m[d.Database] = d.Value
	}
	return m
}

func orNull[T any](m Maybe[T]) *T {
	if !m.Known {
		return nil
	}
	return &m.Value
}

func inSeconds(m Maybe[time.Duration]) *float64 {
	if !m.Known {
		return nil
	}
	s := m.Value.Seconds()
	return &s
}
