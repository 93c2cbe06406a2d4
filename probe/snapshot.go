package probe

import "time"

// Source says where a replica's position came from: the label source.
type Source string

// The sources of positions.
const (
	SourceReplica Source = "replica" // it said so itself
	SourcePrimary Source = "primary" // the server that it replicates from said so
	SourceNone    Source = ""        // nobody did: the lag is unknown
)

// Reason is why a lag is unknown: the label reason.
type Reason string

// The reasons. ReasonNone stands for a lag that is known.
const (
	ReasonNone Reason = ""
	// ReasonStarting: the probes have not seen enough yet.
	ReasonStarting Reason = "starting"
	// ReasonPrimaryUnknown: no primary has said for three ticks where its head is.
	ReasonPrimaryUnknown Reason = "primary_unknown"
	// ReasonUnreachable: the target does not answer, and nobody else knows its position.
	ReasonUnreachable Reason = "unreachable"
	// ReasonDenied: the target answers, and does not let the account in; nobody else knows
	// its position.
	ReasonDenied Reason = "denied"
	// ReasonNoPosition: the target answers, but does not say or may not say its position.
	ReasonNoPosition Reason = "no_position"
	// ReasonOtherHistory: the target follows other changes than the primary makes, as an
	// old primary does, or a replica that has not followed a failover.
	ReasonOtherHistory Reason = "other_history"
)

// Reasons lists the reasons why a lag is unknown.
func Reasons() []Reason {
	return []Reason{ReasonStarting, ReasonPrimaryUnknown, ReasonUnreachable, ReasonDenied, ReasonNoPosition, ReasonOtherHistory}
}

// Lag is how far a replica is behind its primary. Age and Distance mean nothing while
// Unknown is set.
type Lag struct {
	Unknown Reason
	// Age is the age of the oldest change that the replica does not have; 0 if it has
	// all. LowerBound: it is that or more, the change is older than what is remembered.
	Age        time.Duration
	LowerBound bool
	// Distance is how many units (bytes, transactions) are missing.
	Distance uint64
	Unit     Unit
	Source   Source
	// ReceiveDistance is how many units have not been received.
	ReceiveDistance Maybe[uint64]
}

// Known reports whether the lag is known.
func (l Lag) Known() bool { return l.Unknown == ReasonNone }

// Seconds is the Age, if it is known.
func (l Lag) Seconds() Maybe[time.Duration] { return Maybe[time.Duration]{l.Age, l.Known()} }

// Snapshot is what is known of one cluster at one time. Nobody changes it once it is
// made; it may be kept and shared.
type Snapshot struct {
	Cluster string
	// At is when this was known; Since is from when on the gateway has probed.
	At, Since time.Time
	// Leading: this gateway probes the cluster. If not, there are no Targets, and
	// Leadership says who does, or from when on that is not known.
	Leading    bool
	Leadership Leadership
	// Primaries is how many targets say that they are primary; one that was last asked
	// before another was promoted does not count until it says so again.
	Primaries int
	// Primary is the target whose head counts; empty if none does.
	Primary string
	// HeadAge is how long ago that head was read.
	HeadAge Maybe[time.Duration]
	MaxLag  time.Duration
	Targets []TargetView
}

// TargetView is what is known of one target.
type TargetView struct {
	Target string
	Engine Engine
	// Probed: at least one probe has ended. Success: the last one did well, not too long
	// ago; if not, Error says why.
	Probed  bool
	Success bool
	Error   string
	// LastSuccess is when a probe last did well; zero: never.
	LastSuccess time.Time
	// Took is how long the last probe took.
	Took time.Duration
	// Reading is what the last probe found; nil unless Success. Not to be changed.
	Reading *Reading
	// Role is what the target says; RoleNone if it does not answer or has none.
	Role        Role
	RoleChanges uint64
	// Head is set for a primary whose head counts, and not for another one.
	Head bool
	// Replica: the target is in the computation of lag; Lag holds.
	Replica bool
	Lag     Lag
	// Circuit and Weight say whether, and how much, to read from the target.
	Circuit CircuitState
	Opened  uint64
	Weight  int
	// Graph is what the locks' edges come to, if Reading has locks.
	Graph Graph
	// Groups are the consumer groups of Reading with their lag.
	Groups []GroupLag
	// MemberLag is how many entries the member's log is behind the longest of the
	// cluster.
	MemberLag Maybe[uint64]
}

// GroupLag is how far a consumer group is behind the end of one partition.
type GroupLag struct {
	Group, Topic string
	Partition    int32
	Records      uint64
	// Age is the age of the oldest record that is not committed; 0 if all are.
	Age        time.Duration
	LowerBound bool
}

// target returns the view of a target; nil if there is none.
func (s *Snapshot) target(name string) *TargetView {
	for i := range s.Targets {
		if s.Targets[i].Target == name {
			return &s.Targets[i]
		}
	}
	return nil
}
