package probe

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"time"
)

// silentTicks is after how many ticks without a word of the primary its head is unknown.
const silentTicks = 3

// expiry is how old a reading may be; longer where the ticks are long.
const expiry = 5 * time.Second

// picture joins the readings of a cluster's targets. It has no clock, starts nothing, and
// is not safe for concurrent use: Cluster guards it.
type picture struct {
	cluster  string
	interval time.Duration
	maxLag   time.Duration
	started  time.Time
	targets  []*target
	heads    heads
	primary  *target // whose heads they are; stays while it is silent
	several  bool    // there were several primaries when last looked
	changes  []change
}

// target is what a picture remembers of one target.
type target struct {
	name   string
	engine Engine

	last        outcome
	probed      bool
	lastSuccess time.Time
	reading     *Reading  // of the last probe, nil if it failed
	role        Role      // as last said
	primarySeen time.Time // when it was seen to become primary; zero: it was from the start
	roleChanges uint64
	knownAs     []string
	graph       Graph
	ends        heads // of its own streams, for consumer groups
	circuit     Circuit
	ramp        ramp
}

// outcome is how one probe ended.
type outcome struct {
	reading    Reading
	err        error
	start, end time.Time
}

// at is when the target said what it said: somewhere between start and end.
func (o outcome) at() time.Time { return o.start.Add(o.end.Sub(o.start) / 2) }

// change is something that an operator wants to read in the log, once.
type change struct {
	warn   bool
	text   string
	fields []any
}

func newPicture(o Options, started time.Time) *picture {
	p := &picture{cluster: o.Name, interval: o.Interval, maxLag: o.MaxLag, started: started}
	for _, prober := range o.Probers {
		p.targets = append(p.targets, &target{name: prober.Target(), engine: prober.Engine()})
	}
	return p
}

// observe takes in the outcome of a probe of the i-th target.
func (p *picture) observe(i int, o outcome) {
	t := p.targets[i]
	p.noteOutcome(t, o)
	t.last, t.probed = o, true
	if o.err != nil {
		t.reading = nil
		p.update(t, o.end, true)
		return
	}
	p.notePrivileges(t, &o.reading)
	t.reading, t.lastSuccess = &o.reading, o.end
	if len(o.reading.KnownAs) > 0 {
		t.knownAs = o.reading.KnownAs
	}
	t.graph = Graph{}
	if o.reading.Locks != nil {
		t.graph = Walk(o.reading.Locks.Blocked)
	}
	if len(o.reading.ConsumerGroups) > 0 {
		t.ends.observe(&o.reading, o.at())
	}
	changed := p.noteRole(t, o)
	p.update(t, o.end, !changed)
}

// noteRole notes a role that is not the one before, and reports it.
func (p *picture) noteRole(t *target, o outcome) bool {
	before := t.role
	t.role = o.reading.Role
	if before == t.role || before == RoleNone || t.role == RoleNone {
		return false
	}
	t.roleChanges++
	t.circuit.ChangeRole()
	t.primarySeen = time.Time{}
	if t.role == RolePrimary {
		t.primarySeen = o.end
	}
	if t == p.primary {
		p.heads.reset()
	}
	p.tell(false, "role of a database changed", "target", t.name, "from", before, "to", t.role)
	return true
}

// update brings what hangs on the joined picture up to date after news of one target. A
// probe that saw a change of role does not judge the circuit: the next one does.
func (p *picture) update(t *target, now time.Time, judge bool) {
	p.choosePrimary(now)
	if t == p.primary && t.reading != nil {
		p.heads.observe(t.reading, t.last.at())
	}
	if judge && p.replica(t) {
		t.circuit.Observe(p.readable(t, now), p.maxLag)
	}
	for _, r := range p.targets {
		if p.replica(r) {
			p.weigh(r, now)
		}
	}
}

// readable is the lag that a reader of the replica has to take. That of one which does not
// answer is unknown, whatever its primary says of it, and so is one of which only a lower
// bound is known; unless it is too much anyway.
func (p *picture) readable(t *target, now time.Time) Maybe[time.Duration] {
	lag := p.lag(t, now)
	seen := lag.Seconds()
	if (!p.fresh(t, now) || lag.LowerBound) && seen.Value <= p.maxLag {
		seen.Known = false
	}
	return seen
}

// weigh brings the weight of a replica up to date. The rise begins with the first weight
// that is known.
func (p *picture) weigh(t *target, now time.Time) {
	lag, known := p.readable(t, now).Get()
	weight := 0
	if known && t.circuit.State() == CircuitClosed {
		weight = ReadWeight(lag, connections(t.reading))
	}
	if known || !t.ramp.at.IsZero() {
		t.ramp.follow(weight, now)
	}
}

// fresh reports whether the target's last probe did well, not too long ago.
func (p *picture) fresh(t *target, now time.Time) bool {
	return t.reading != nil && now.Sub(t.last.end) <= max(expiry, silentTicks*p.interval)
}

// counts reports whether the target is a primary as far as is known. One that was last
// heard of before another was promoted may have died since: until it says so again it does
// not count, so that a failover is not taken for two primaries.
func (p *picture) counts(t *target, now time.Time) bool {
	if t.role != RolePrimary || !p.fresh(t, now) {
		return false
	}
	return !slices.ContainsFunc(p.targets, func(o *target) bool {
		return o != t && o.role == RolePrimary && p.fresh(o, now) && o.primarySeen.After(t.last.start)
	})
}

// choosePrimary decides whose head counts. A primary that went silent stays until
// another one is there.
func (p *picture) choosePrimary(now time.Time) {
	var best *target
	n := 0
	for _, t := range p.targets {
		if !p.counts(t, now) {
			continue
		}
		n++
		if best == nil || p.outranks(t, best, now) {
			best = t
		}
	}
	if n > 1 && !p.several {
		p.tell(true, "several databases of one cluster say that they are its primary", "primaries", n, "counts", best.name)
	}
	p.several = n > 1
	if best == nil || best == p.primary {
		return
	}
	p.heads.reset()
	p.primary = best
	p.heads.observe(best.reading, best.last.at())
}

// outranks says which of two primaries counts: that of the higher generation; of equal
// ones that which was promoted last; else that which more replicas follow.
func (p *picture) outranks(a, b *target, now time.Time) bool {
	if a.reading.Generation != b.reading.Generation {
		return a.reading.Generation > b.reading.Generation
	}
	if !a.primarySeen.Equal(b.primarySeen) {
		return a.primarySeen.After(b.primarySeen)
	}
	fa, fb := p.followers(a, now), p.followers(b, now)
	if fa == fb {
		return a == p.primary
	}
	return fa > fb
}

// followers counts the replicas whose history is that of the primary.
func (p *picture) followers(primary *target, now time.Time) (n int) {
	for _, t := range p.targets {
		if t.role == RoleReplica && p.fresh(t, now) && slices.ContainsFunc(t.reading.Streams, func(s Stream) bool {
			return slices.ContainsFunc(primary.reading.Streams, func(h Stream) bool {
				return h.Name == s.Name && s.History != "" && h.History == s.History
			})
		}) {
			n++
		}
	}
	return n
}

// replica reports whether the target takes part in the computation of lag: engines with
// roles, and all targets but those that say they are primary.
func (p *picture) replica(t *target) bool {
	switch t.engine {
	case EngineEtcd, EngineKafka:
		return false
	}
	return t.reading == nil || t.role != RolePrimary
}

// lag is how far the target is behind, by its own words or by those of the server that it
// replicates from.
func (p *picture) lag(t *target, now time.Time) Lag {
	if lag, ok := p.headUnknown(now); ok {
		if t.probed && t.lastSuccess.IsZero() {
			return Lag{Unknown: t.away()} // that says more, of one which never answered
		}
		return lag
	}
	streams, at := p.row(t, now)
	// While a probe hangs the last answer is the older the longer it does.
	overdue := streams != nil && now.Sub(t.last.at()) > p.interval+p.interval/8 && at.After(t.last.at())
	if p.fresh(t, now) && !overdue {
		lag := p.behind(t.reading.Streams, t.last.at(), now)
		if lag.Unknown != ReasonNoPosition {
			return sourced(lag, SourceReplica)
		}
	}
	if streams != nil {
		return sourced(p.behind(streams, at, now), SourcePrimary)
	}
	switch {
	case !t.probed:
		return Lag{Unknown: ReasonStarting}
	case p.fresh(t, now):
		return Lag{Unknown: ReasonNoPosition}
	}
	return Lag{Unknown: t.away()}
}

// away is why a target gave no reading.
func (t *target) away() Reason {
	if errors.Is(t.last.err, ErrDenied) {
		return ReasonDenied
	}
	return ReasonUnreachable
}

// behind compares positions, as they were read at a time, with the heads. Within one tick
// the age is that at the reading: head and positions are not read at the same instant, and
// a replica that keeps up must not look as if it fell behind between two readings. One that
// is behind by more gets older until it is read again.
func (p *picture) behind(streams []Stream, at, now time.Time) Lag {
	lag := p.heads.lag(streams, at)
	if lag.Age > p.interval {
		lag.Age += now.Sub(at)
	}
	return lag
}

// sourced gives a lag its source, if it is known.
func sourced(lag Lag, from Source) Lag {
	if !lag.Known() {
		return Lag{Unknown: lag.Unknown}
	}
	lag.Source = from
	return lag
}

// headUnknown says why there is no head to compare with, if there is none.
func (p *picture) headUnknown(now time.Time) (Lag, bool) {
	limit := silentTicks * p.interval
	switch {
	case p.heads.at.IsZero() && now.Sub(p.started) <= limit:
		return Lag{Unknown: ReasonStarting}, true
	case p.heads.at.IsZero() || now.Sub(p.heads.at) > limit:
		return Lag{Unknown: ReasonPrimaryUnknown}, true
	}
	return Lag{}, false
}

// row finds what the server that the target replicates from knows of it: its streams with
// their histories, and when that was said.
func (p *picture) row(t *target, now time.Time) ([]Stream, time.Time) {
	for _, from := range p.targets {
		if from == t || !p.fresh(from, now) {
			continue
		}
		if row := p.rowOf(t, from.reading.Replicas); row != nil {
			return withHistory(row.Streams, from.reading.Streams), from.last.at()
		}
	}
	return nil, time.Time{}
}

// rowOf finds the target among the rows: by its address, by a name that no other row and
// no other target has, or by a host that no other has.
func (p *picture) rowOf(t *target, rows []ReplicaRow) *ReplicaRow {
	if i := slices.IndexFunc(rows, func(r ReplicaRow) bool { return r.Address == t.name }); i >= 0 {
		return &rows[i]
	}
	for _, name := range t.knownAs {
		named := func(r ReplicaRow) bool { return slices.Contains(r.KnownAs, name) }
		shared := func(o *target) bool { return o != t && slices.Contains(o.knownAs, name) }
		if i := only(rows, named); i >= 0 && !slices.ContainsFunc(p.targets, shared) {
			return &rows[i]
		}
	}
	host := hostOf(t.name)
	if slices.ContainsFunc(p.targets, func(o *target) bool { return o != t && hostOf(o.name) == host }) {
		return nil
	}
	if i := only(rows, func(r ReplicaRow) bool { return r.Address == host }); i >= 0 {
		return &rows[i]
	}
	return nil
}

// only is the index of the one row that fits; -1 if none or several do.
func only(rows []ReplicaRow, fits func(ReplicaRow) bool) int {
	found := -1
	for i, r := range rows {
		if fits(r) {
			if found >= 0 {
				return -1
			}
			found = i
		}
	}
	return found
}

func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

// withHistory gives the streams of a row the histories of the server whose row it is.
func withHistory(streams, of []Stream) []Stream {
	out := slices.Clone(streams)
	for i := range out {
		if out[i].History != "" {
			continue
		}
		for _, s := range of {
			if s.Name == out[i].Name {
				out[i].History = s.History
			}
		}
	}
	return out
}

// snapshot is the joined picture.
func (p *picture) snapshot(now time.Time) *Snapshot {
	s := &Snapshot{Cluster: p.cluster, At: now, Since: p.started, Leading: true, MaxLag: p.maxLag}
	if _, unknown := p.headUnknown(now); !unknown {
		s.Primary = p.primary.name
	}
	if !p.heads.at.IsZero() {
		s.HeadAge = Some(max(0, now.Sub(p.heads.at)))
	}
	longest := p.longestLog(now)
	for _, t := range p.targets {
		v := p.view(t, now)
		if p.counts(t, now) {
			s.Primaries++
		}
		if v.Reading != nil && v.Reading.Member != nil {
			v.MemberLag = Some(longest - v.Reading.Member.Index)
		}
		s.Targets = append(s.Targets, v)
	}
	return s
}

func (p *picture) view(t *target, now time.Time) TargetView {
	v := TargetView{
		Target: t.name, Engine: t.engine, Probed: t.probed, LastSuccess: t.lastSuccess,
		Took: t.last.end.Sub(t.last.start), RoleChanges: t.roleChanges,
		Circuit: t.circuit.State(), Opened: t.circuit.Opened(), Replica: p.replica(t),
	}
	switch {
	case p.fresh(t, now):
		v.Success, v.Reading, v.Role, v.Graph = true, t.reading, t.role, t.graph
		v.Head = t == p.primary
		v.Groups = t.groups()
	case t.last.err != nil:
		v.Error = t.last.err.Error()
	case t.probed:
		v.Error = fmt.Sprintf("no probe has ended since %s", t.last.end.UTC().Format(time.TimeOnly+" UTC"))
	}
	if v.Replica {
		v.Lag = p.lag(t, now)
		if v.Success && v.Lag.Known() && v.Circuit == CircuitClosed {
			v.Weight = t.ramp.value()
		}
	}
	return v
}

// longestLog is the highest index among the members that answer.
func (p *picture) longestLog(now time.Time) (longest uint64) {
	for _, t := range p.targets {
		if p.fresh(t, now) && t.reading.Member != nil {
			longest = max(longest, t.reading.Member.Index)
		}
	}
	return longest
}

// groups is how far the consumer groups are behind the ends of their partitions.
func (t *target) groups() (list []GroupLag) {
	for _, g := range t.reading.ConsumerGroups {
		for _, c := range g.Partitions {
			end := t.ends.streams[PartitionName(c.Topic, c.Partition)]
			if end == nil || !c.Committed.Known {
				continue
			}
			if b, ok := end.ring.Behind(c.Committed.Value, t.last.at()); ok {
				list = append(list, GroupLag{g.Group, c.Topic, c.Partition, b.Distance, b.Age, b.LowerBound})
			}
		}
	}
	return list
}

// tell keeps a change for the log.
func (p *picture) tell(warn bool, text string, fields ...any) {
	p.changes = append(p.changes, change{warn, text, append([]any{"cluster", p.cluster}, fields...)})
}

// told returns the changes since the last call.
func (p *picture) told() []change {
	list := p.changes
	p.changes = nil
	return list
}

// noteOutcome tells of a target that stopped or began to answer.
func (p *picture) noteOutcome(t *target, o outcome) {
	failed := t.probed && t.last.err != nil
	switch {
	case o.err != nil && !failed:
		p.tell(true, "probe of a database failed; its lag is unknown unless another server tells it", "target", t.name, "engine", t.engine, "err", o.err)
	case o.err == nil && failed:
		p.tell(false, "probe of a database does well again", "target", t.name, "engine", t.engine)
	}
}

// notePrivileges tells of what an account may not read, when that changes.
func (p *picture) notePrivileges(t *target, r *Reading) {
	var lacks []string
	changed := !t.probed || t.reading == nil
	for kind, ok := range r.Privileged {
		if !ok {
			lacks = append(lacks, kind)
		}
		changed = changed || t.reading.Privileged[kind] != ok
	}
	if changed && len(lacks) > 0 {
		slices.Sort(lacks)
		p.tell(true, "the probe's account lacks privileges; what they show is left out", "target", t.name, "engine", t.engine, "kinds", lacks)
	}
}

// worstLag is the largest lag among the replicas, less what is configured on purpose. A
// lower bound says nothing before it is long.
func (s *Snapshot) worstLag() (worst time.Duration, known bool) {
	for i := range s.Targets {
		v := &s.Targets[i]
		switch {
		case !v.Replica:
		case v.Lag.LowerBound && v.Lag.Age <= boundCounts:
			return 0, false
		case v.Lag.Known():
			age := v.Lag.Age
			if v.Reading != nil && v.Reading.ApplyDelay.Known {
				age = max(0, age-v.Reading.ApplyDelay.Value)
			}
			worst, known = max(worst, age), true
		default:
			return 0, false
		}
	}
	return worst, known
}
