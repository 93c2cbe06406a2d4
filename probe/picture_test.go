package probe

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// scene is a picture with targets that a test speaks for, and a clock that it sets.
type scene struct {
	t       *testing.T
	p       *picture
	now     time.Time
	index   map[string]int
	started time.Time
}

type named struct {
	Prober
	name   string
	engine Engine
}

func (n named) Target() string { return n.name }
func (n named) Engine() Engine { return n.engine }

func newScene(t *testing.T, engine Engine, names ...string) *scene {
	t.Helper()
	o := Options{Name: "orders", Interval: time.Second, MaxLag: 10 * time.Second}
	s := &scene{t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), index: map[string]int{}}
	for i, n := range names {
		o.Probers = append(o.Probers, named{name: n, engine: engine})
		s.index[n] = i
	}
	s.started = s.now
	s.p = newPicture(o, s.now)
	return s
}

func (s *scene) pass(d time.Duration) { s.now = s.now.Add(d) }

func (s *scene) say(name string, r Reading) {
	s.p.observe(s.index[name], outcome{reading: r, start: s.now, end: s.now})
}

func (s *scene) fail(name string) {
	s.p.observe(s.index[name], outcome{err: errors.New("no answer"), start: s.now, end: s.now})
}

func (s *scene) view(name string) TargetView {
	snapshot := s.p.snapshot(s.now)
	v := snapshot.target(name)
	require.NotNil(s.t, v)
	return *v
}

// aPrimary and aReplica are readings of a history.
func aPrimary(history string, generation, head uint64, rows ...ReplicaRow) Reading {
	return Reading{
		Role: RolePrimary, Generation: generation, Unit: UnitBytes, Replicas: rows,
		Streams: []Stream{{History: history, Head: Some(head)}},
	}
}

func aReplica(history string, applied uint64, knownAs ...string) Reading {
	return Reading{
		Role: RoleReplica, Unit: UnitBytes, KnownAs: knownAs,
		Streams: []Stream{{History: history, Applied: Some(applied), Received: Some(applied)}},
	}
}

func aRow(address string, applied uint64, knownAs ...string) ReplicaRow {
	return ReplicaRow{KnownAs: knownAs, Address: address, Streams: []Stream{{Applied: Some(applied)}}}
}

func TestPicture_Starting(t *testing.T) {
	s := newScene(t, EnginePostgres, "p:1", "r:1")
	require.Equal(t, ReasonStarting, s.view("r:1").Lag.Unknown)
	s.say("r:1", aReplica("a", 10))
	require.Equal(t, ReasonStarting, s.view("r:1").Lag.Unknown)
	require.Zero(t, s.view("r:1").Weight)
	s.say("p:1", aPrimary("a", 1, 10))
	v := s.view("r:1")
	require.Equal(t, Lag{Unit: UnitBytes, Source: SourceReplica, ReceiveDistance: Some(uint64(0))}, v.Lag)
	require.Equal(t, 100, v.Weight, "the first weight is taken as it is")
	require.Equal(t, "p:1", s.p.snapshot(s.now).Primary)
	require.False(t, s.view("p:1").Replica)
}

func TestPicture_NoPrimaryEver(t *testing.T) {
	s := newScene(t, EnginePostgres, "p:1", "r:1")
	for range 5 {
		s.fail("p:1")
		s.say("r:1", aReplica("a", 10))
		s.pass(time.Second)
	}
	require.Equal(t, ReasonPrimaryUnknown, s.view("r:1").Lag.Unknown)
	require.Equal(t, 0, s.p.snapshot(s.now).Primaries)
}

func TestPicture_SilentPrimary(t *testing.T) {
	s := newScene(t, EnginePostgres, "p:1", "r:1")
	s.say("p:1", aPrimary("a", 1, 10))
	s.pass(3 * time.Second)
	s.say("r:1", aReplica("a", 10))
	require.True(t, s.view("r:1").Lag.Known(), "three ticks")
	require.Equal(t, Some(3*time.Second), s.p.snapshot(s.now).HeadAge)
	s.pass(time.Millisecond)
	require.Equal(t, ReasonPrimaryUnknown, s.view("r:1").Lag.Unknown)
	require.Empty(t, s.p.snapshot(s.now).Primary)
	s.say("p:1", aPrimary("a", 1, 20))
	s.say("r:1", aReplica("a", 20))
	require.True(t, s.view("r:1").Lag.Known())
}

// The lag is that of the time at which the position was read: what the primary did after
// that says nothing about it.
func TestPicture_AsOfTheReading(t *testing.T) {
	s := newScene(t, EnginePostgres, "p:1", "r:1")
	s.say("p:1", aPrimary("a", 1, 10))
	s.pass(500 * time.Millisecond)
	s.say("r:1", aReplica("a", 10))
	s.pass(500 * time.Millisecond)
	s.say("p:1", aPrimary("a", 1, 20))
	require.Equal(t, 500*time.Millisecond, s.view("r:1").Lag.Age, "within one tick")
	s.pass(500 * time.Millisecond)
	s.say("r:1", aReplica("a", 20))
	require.Zero(t, s.view("r:1").Lag.Age)
}

// One that is surely behind gets older between two readings.
func TestPicture_OlderUntilItIsReadAgain(t *testing.T) {
	s := newScene(t, EnginePostgres, "p:1", "r:1")
	s.say("p:1", aPrimary("a", 1, 10))
	s.pass(time.Second)
	s.say("p:1", aPrimary("a", 1, 20))
	s.pass(time.Second)
	s.say("r:1", aReplica("a", 10))
	require.Equal(t, 2*time.Second, s.view("r:1").Lag.Age)
	s.pass(900 * time.Millisecond)
	require.Equal(t, 2900*time.Millisecond, s.view("r:1").Lag.Age)
}

func TestPicture_ReadingExpires(t *testing.T) {
	s := newScene(t, EnginePostgres, "p:1", "r:1")
	s.say("p:1", aPrimary("a", 1, 10))
	s.say("r:1", aReplica("a", 10))
	for range 6 {
		s.pass(time.Second)
		s.say("p:1", aPrimary("a", 1, 10))
	}
	v := s.view("r:1")
	require.False(t, v.Success)
	require.Equal(t, "no probe has ended since "+s.started.UTC().Format(time.TimeOnly+" UTC"), v.Error)
	require.Nil(t, v.Reading)
	require.Equal(t, ReasonUnreachable, v.Lag.Unknown)
	require.Equal(t, RoleNone, v.Role)
}

func TestPicture_RowOfThePrimary(t *testing.T) {
	for name, test := range map[string]struct {
		rows  []ReplicaRow
		found bool
	}{
		"by address":                     {[]ReplicaRow{aRow("r:1", 10), aRow("q:1", 5)}, true},
		"by slot":                        {[]ReplicaRow{aRow("x", 10, "slot s"), aRow("x", 5, "slot t")}, true},
		"by name":                        {[]ReplicaRow{aRow("x", 10, "application a"), aRow("x", 5)}, true},
		"by host":                        {[]ReplicaRow{aRow("r", 10), aRow("x", 5)}, true},
		"two of that host":               {[]ReplicaRow{aRow("r", 10), aRow("r", 5)}, false},
		"two of that name":               {[]ReplicaRow{aRow("x", 10, "application a"), aRow("x", 5, "application a")}, false},
		"gone":                           {nil, false},
		"a name that another target has": {[]ReplicaRow{aRow("x", 10, "application walreceiver")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, EnginePostgres, "p:1", "r:1", "q:1")
			s.say("p:1", aPrimary("a", 1, 10))
			s.say("r:1", aReplica("a", 10, "slot s", "application a", "application walreceiver"))
			s.say("q:1", aReplica("a", 10, "application walreceiver"))
			s.pass(time.Second)
			s.say("p:1", aPrimary("a", 1, 20, test.rows...))
			s.fail("r:1")
			s.pass(2 * time.Second)
			s.say("p:1", aPrimary("a", 1, 20, test.rows...))
			s.fail("r:1")
			v := s.view("r:1")
			if !test.found {
				require.Equal(t, ReasonUnreachable, v.Lag.Unknown)
				return
			}
			require.Equal(t, SourcePrimary, v.Lag.Source)
			require.InDelta(t, 2*time.Second, v.Lag.Age, float64(time.Second))
			require.Equal(t, uint64(10), v.Lag.Distance)
			require.Zero(t, v.Weight)
			require.False(t, v.Success)
		})
	}
}

// While a probe hangs, what the primary says is newer than what the replica said.
func TestPicture_RowWhileAProbeHangs(t *testing.T) {
	s := newScene(t, EnginePostgres, "p:1", "r:1")
	s.say("p:1", aPrimary("a", 1, 10, aRow("r:1", 10)))
	s.say("r:1", aReplica("a", 10))
	s.pass(time.Second)
	s.say("p:1", aPrimary("a", 1, 20, aRow("r:1", 10)))
	require.Equal(t, SourceReplica, s.view("r:1").Lag.Source)
	s.pass(time.Second)
	s.say("p:1", aPrimary("a", 1, 20, aRow("r:1", 10)))
	require.Equal(t, SourcePrimary, s.view("r:1").Lag.Source)
	require.Equal(t, 2*time.Second, s.view("r:1").Lag.Age)
}

func TestPicture_OtherHistory(t *testing.T) {
	s := newScene(t, EnginePostgres, "p:1", "r:1")
	s.say("p:1", aPrimary("a", 1, 10))
	s.say("r:1", aReplica("b", 10))
	require.Equal(t, Lag{Unknown: ReasonOtherHistory}, s.view("r:1").Lag)
	s.say("r:1", aReplica("", 10))
	require.True(t, s.view("r:1").Lag.Known(), "one that does not say")
	s.say("r:1", Reading{Role: RoleReplica, Streams: []Stream{{History: "a"}}})
	require.Equal(t, Lag{Unknown: ReasonNoPosition}, s.view("r:1").Lag)
}

func TestPicture_Failover(t *testing.T) {
	s := newScene(t, EnginePostgres, "a:1", "b:1", "c:1")
	for i := range uint64(5) {
		s.say("a:1", aPrimary("1", 1, 100+i))
		s.say("b:1", aReplica("1", 100+i))
		s.say("c:1", aReplica("1", 100+i))
		s.pass(time.Second)
	}
	s.p.told()
	s.say("b:1", aPrimary("2", 2, 200))
	require.Equal(t, 1, s.p.snapshot(s.now).Primaries, "the old one has not been asked since")
	s.fail("a:1")
	s.say("c:1", aReplica("1", 104))
	require.Equal(t, "b:1", s.p.snapshot(s.now).Primary)
	require.Equal(t, 1, s.p.snapshot(s.now).Primaries)
	require.Equal(t, uint64(1), s.view("b:1").RoleChanges)
	require.Equal(t, ReasonOtherHistory, s.view("c:1").Lag.Unknown)
	require.Len(t, s.p.told(), 2, "one that failed, one that changed its role")

	s.pass(time.Second)
	s.say("b:1", aPrimary("2", 2, 300))
	s.say("c:1", aReplica("2", 150))
	v := s.view("c:1")
	require.True(t, v.Lag.LowerBound)
	require.LessOrEqual(t, v.Lag.Age, time.Second, "no spike: what was before the failover is forgotten")
	s.say("c:1", aReplica("2", 300))
	require.Zero(t, s.view("c:1").Lag.Age)

	// The old one comes back and writes.
	s.pass(time.Second)
	s.say("a:1", aPrimary("1", 1, 900))
	s.say("b:1", aPrimary("2", 2, 300))
	s.say("c:1", aReplica("2", 300))
	snapshot := s.p.snapshot(s.now)
	require.Equal(t, 2, snapshot.Primaries)
	require.Equal(t, "b:1", snapshot.Primary)
	require.Zero(t, s.view("c:1").Lag.Age)
	require.Len(t, s.p.told(), 2, "it answers again; there are two")
	s.say("a:1", aPrimary("1", 1, 901))
	require.Empty(t, s.p.told(), "said once")

	// It is made a replica of the new one.
	s.say("a:1", aReplica("2", 300))
	v = s.view("a:1")
	require.True(t, v.Replica)
	require.Equal(t, uint64(1), v.RoleChanges)
	require.Equal(t, CircuitOpen, v.Circuit, "until one good probe")
	s.pass(time.Second)
	s.say("b:1", aPrimary("2", 2, 300))
	s.say("a:1", aReplica("2", 300))
	require.Equal(t, CircuitClosed, s.view("a:1").Circuit)
	require.Equal(t, 1, s.p.snapshot(s.now).Primaries)
}

// Two primaries without generations, as with Redis: who was promoted last counts; seen for
// the first time, who has followers.
func TestPicture_TwoPrimariesWithoutGeneration(t *testing.T) {
	s := newScene(t, EngineRedis, "a:1", "b:1", "c:1")
	s.say("a:1", aPrimary("x", 0, 10))
	s.say("b:1", aPrimary("y", 0, 10))
	require.Equal(t, "a:1", s.p.snapshot(s.now).Primary)
	s.say("c:1", aReplica("y", 10))
	require.Equal(t, "b:1", s.p.snapshot(s.now).Primary)

	s = newScene(t, EngineRedis, "a:1", "b:1", "c:1")
	s.say("a:1", aPrimary("x", 0, 10))
	s.say("b:1", aReplica("x", 10))
	s.say("c:1", aReplica("x", 10))
	s.pass(time.Second)
	s.say("b:1", aPrimary("y", 0, 10))
	require.Equal(t, "b:1", s.p.snapshot(s.now).Primary)
	require.Equal(t, 1, s.p.snapshot(s.now).Primaries)
	s.pass(time.Second)
	s.say("a:1", aPrimary("x", 0, 20))
	require.Equal(t, 2, s.p.snapshot(s.now).Primaries)
	require.Equal(t, "b:1", s.p.snapshot(s.now).Primary)
}

// Several streams: the worst gives the age, the distances add up, and a stream that the
// replica has nothing of counts from the beginning.
func TestPicture_Streams(t *testing.T) {
	s := newScene(t, EngineMariaDB, "p:1", "r:1")
	say := func(name string, role Role, streams ...Stream) {
		s.say(name, Reading{Role: role, Unit: UnitTransactions, Streams: streams})
	}
	head := func(name string, n uint64) Stream { return Stream{Name: name, Head: Some(n)} }
	applied := func(name string, n uint64) Stream { return Stream{Name: name, Applied: Some(n)} }
	say("p:1", RolePrimary, head("0", 10), head("1", 0))
	s.pass(time.Second)
	say("p:1", RolePrimary, head("0", 20), head("1", 0))
	s.pass(time.Second)
	say("p:1", RolePrimary, head("0", 20), head("1", 5))
	s.pass(4 * time.Second)
	say("p:1", RolePrimary, head("0", 20), head("1", 5))
	say("r:1", RoleReplica, applied("0", 20))
	require.Equal(t, uint64(5), s.view("r:1").Lag.Distance)
	require.Equal(t, 5*time.Second, s.view("r:1").Lag.Age)
	require.False(t, s.view("r:1").Lag.ReceiveDistance.Known)
	say("r:1", RoleReplica, applied("0", 10), applied("1", 5))
	require.Equal(t, 6*time.Second, s.view("r:1").Lag.Age)
	say("r:1", RoleReplica, applied("0", 15), applied("1", 4), applied("7", 99))
	require.Equal(t, uint64(6), s.view("r:1").Lag.Distance)
	require.Equal(t, UnitTransactions, s.view("r:1").Lag.Unit)
}

func TestPicture_Members(t *testing.T) {
	s := newScene(t, EngineEtcd, "a:1", "b:1", "c:1")
	s.say("a:1", Reading{Member: &Member{HasLeader: true, IsLeader: true, Index: 100, Applied: 100}})
	s.say("b:1", Reading{Member: &Member{HasLeader: true, Index: 90, Applied: 80}})
	s.fail("c:1")
	require.Equal(t, Some(uint64(0)), s.view("a:1").MemberLag)
	require.Equal(t, Some(uint64(10)), s.view("b:1").MemberLag)
	require.False(t, s.view("c:1").MemberLag.Known)
	require.False(t, s.view("a:1").Replica)
}

func TestPicture_ConsumerGroups(t *testing.T) {
	s := newScene(t, EngineKafka, "k:1")
	say := func(end uint64, committed Maybe[uint64]) {
		s.say("k:1", Reading{
			Unit: UnitRecords, Streams: []Stream{{Name: PartitionName("orders", 3), Head: Some(end)}},
			ConsumerGroups: []ConsumerGroup{{Group: "g", Members: Some(uint64(1)), Partitions: []ConsumerPartition{
				{Topic: "orders", Partition: 3, Committed: committed},
			}}},
		})
	}
	say(100, Some(uint64(100)))
	require.Equal(t, []GroupLag{{Group: "g", Topic: "orders", Partition: 3}}, s.view("k:1").Groups)
	s.pass(time.Second)
	say(150, Some(uint64(100)))
	s.pass(4 * time.Second)
	say(150, Some(uint64(100)))
	require.Equal(t, []GroupLag{{Group: "g", Topic: "orders", Partition: 3, Records: 50, Age: 5 * time.Second}}, s.view("k:1").Groups)
	say(150, Some(uint64(160)))
	require.Zero(t, s.view("k:1").Groups[0].Records, "commits are read before ends, but a clock is not")
	say(150, Maybe[uint64]{})
	require.Empty(t, s.view("k:1").Groups)
}

func TestWorstLag(t *testing.T) {
	s := newScene(t, EnginePostgres, "p:1", "r:1", "d:1", "gone:1")
	tick := func() (time.Duration, bool) {
		s.say("p:1", aPrimary("a", 1, 100))
		s.say("r:1", aReplica("a", 100))
		delayed := aReplica("a", 50)
		delayed.ApplyDelay = Some(time.Hour)
		s.say("d:1", delayed)
		s.fail("gone:1")
		s.pass(time.Second)
		return s.p.snapshot(s.now).worstLag()
	}
	s.say("p:1", aPrimary("a", 1, 40))
	_, known := s.p.snapshot(s.now).worstLag()
	require.False(t, known)
	for range 600 {
		_, known := tick()
		require.False(t, known, "the one that is away may be far behind, however long it is away")
	}
	s.say("gone:1", aReplica("a", 100))
	lag, known := s.p.snapshot(s.now).worstLag()
	require.True(t, known)
	require.Zero(t, lag, "a delay on purpose does not steer")
	s.say("r:1", aReplica("a", 99))
	s.say("p:1", aPrimary("a", 1, 100))
	s.pass(5 * time.Second)
	s.say("p:1", aPrimary("a", 1, 100))
	s.say("r:1", aReplica("a", 99))
	s.say("d:1", aReplica("a", 100))
	s.say("gone:1", aReplica("a", 100))
	lag, known = s.p.snapshot(s.now).worstLag()
	require.True(t, known)
	require.Greater(t, lag, 5*time.Second)
}

// A replica that was far behind when the gateway began: nothing is known but that it lacks
// something. Nobody reads from it, and nothing is raised because of it.
func TestPicture_LowerBound(t *testing.T) {
	s := newScene(t, EnginePostgres, "p:1", "r:1")
	tick := func() TargetView {
		s.say("p:1", aPrimary("a", 1, 100))
		s.say("r:1", aReplica("a", 50))
		s.pass(time.Second)
		return s.view("r:1")
	}
	for range 10 {
		v := tick()
		require.True(t, v.Lag.LowerBound)
		require.Zero(t, v.Weight)
		require.Equal(t, CircuitClosed, v.Circuit)
		require.Equal(t, "lower_bound", v.whyNot(Criteria{}))
		_, known := s.p.snapshot(s.now).worstLag()
		require.False(t, known)
	}
	tick()
	tick()
	require.Equal(t, CircuitOpen, tick().Circuit, "it is more than max_lag, whatever it is")
	for range 60 {
		tick()
	}
	lag, known := s.p.snapshot(s.now).worstLag()
	require.True(t, known)
	require.Greater(t, lag, time.Minute)
}

// A target that never answered says why, whether or not the head is known: "starting" would
// hide it.
func TestPicture_NeverAnswered(t *testing.T) {
	s := newScene(t, EnginePostgres, "p:1", "r:1", "d:1")
	require.Equal(t, ReasonStarting, s.view("r:1").Lag.Unknown)
	s.fail("r:1")
	s.p.observe(2, outcome{err: fmt.Errorf("log in: %w", ErrDenied), start: s.now, end: s.now})
	require.Equal(t, ReasonUnreachable, s.view("r:1").Lag.Unknown)
	require.Equal(t, ReasonDenied, s.view("d:1").Lag.Unknown)
	require.Equal(t, ReasonStarting, s.view("p:1").Lag.Unknown)
	s.pass(10 * time.Second)
	require.Equal(t, ReasonDenied, s.view("d:1").Lag.Unknown)
	s.say("p:1", aPrimary("a", 1, 100))
	require.Equal(t, ReasonDenied, s.view("d:1").Lag.Unknown)
	require.Equal(t, ReasonUnreachable, s.view("r:1").Lag.Unknown)
}
