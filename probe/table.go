package probe

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// WriteTable writes what is known of clusters for people: a line for each target, and
// below it what there is to say of its locks, transactions, slots, groups and members.
// What is not known is a dash.
func WriteTable(w io.Writer, list []*Snapshot) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CLUSTER\tTARGET\tENGINE\tROLE\tLAG\tWEIGHT\tCIRCUIT\tWAITING\tBLOCKED BY\tNOTE")
	for _, s := range list {
		for i := range s.Targets {
			v := &s.Targets[i]
			cells := []string{s.Cluster, v.Target, string(v.Engine), v.roleText(), v.lagText(), "", "", "", v.blockerText()}
			if v.Replica {
				cells[5], cells[6] = strconv.Itoa(v.Weight), string(v.Circuit)
			}
			if l := v.locks(); l != nil {
				cells[7] = strconv.FormatUint(l.waiting(), 10)
			}
			for _, c := range cells {
				fmt.Fprintf(t, "%s\t", cmp.Or(c, "-"))
			}
			fmt.Fprintln(t, v.note())
		}
	}
	details := false
	for _, s := range list {
		for i := range s.Targets {
			for _, d := range s.Targets[i].details() {
				if !details {
					details = true
					fmt.Fprintln(t, "\nCLUSTER\tTARGET\tWHAT\tSTATE")
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", s.Cluster, s.Targets[i].Target, d.what, d.state)
			}
		}
	}
	return t.Flush()
}

// locks are those of the last probe; nil where they are not known.
func (v *TargetView) locks() *Locks {
	if v.Reading == nil {
		return nil
	}
	return v.Reading.Locks
}

// waiting is how many wait for locks.
func (l *Locks) waiting() (n uint64) {
	for _, w := range l.Waiting {
		n += w.Sessions
	}
	return n
}

// roots are the sessions that block others and wait for nobody, in their order.
func (l *Locks) roots() []uint64 {
	waits := map[uint64]bool{}
	for _, b := range l.Blocked {
		waits[b.Session] = true
	}
	found := map[uint64]bool{}
	for _, b := range l.Blocked {
		for _, by := range b.Blockers {
			found[by] = found[by] || !waits[by]
		}
	}
	maps.DeleteFunc(found, func(_ uint64, root bool) bool { return !root })
	return slices.Sorted(maps.Keys(found))
}

func (v *TargetView) roleText() string {
	if v.Reading == nil || v.Reading.Member == nil {
		return string(v.Role)
	}
	switch m := v.Reading.Member; {
	case m.IsLeader:
		return "leader"
	case m.HasLeader:
		return "follower"
	}
	return "no leader"
}

func (v *TargetView) lagText() string {
	if entries, known := v.MemberLag.Get(); known {
		return strconv.FormatUint(entries, 10) + " entries"
	}
	switch {
	case len(v.Groups) > 0:
		return strconv.FormatUint(v.records(), 10) + " records"
	case !v.Replica:
		return ""
	case !v.Lag.Known():
		return "unknown: " + string(v.Lag.Unknown)
	}
	return bound(v.Lag.LowerBound) + ageText(v.Lag.Age)
}

// records is how many records all consumer groups have not committed.
func (v *TargetView) records() (n uint64) {
	for _, g := range v.Groups {
		n += g.Records
	}
	return n
}

func ageText(d time.Duration) string { return d.Round(10 * time.Millisecond).String() }

// blockerText names those at whom the waiting ends.
func (v *TargetView) blockerText() string {
	l := v.locks()
	if l == nil || len(l.Blocked) == 0 {
		return ""
	}
	var parts []string
	if roots := l.roots(); len(roots) > 0 {
		const shown = 3
		text := "session " + numbers(roots[:min(shown, len(roots))])
		if more := len(roots) - shown; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		parts = append(parts, fmt.Sprintf("%s (%d deep)", text, v.Graph.Depth))
	}
	if v.Graph.Circular > 0 {
		parts = append(parts, fmt.Sprintf("a circle of %d", v.Graph.Circular))
	}
	return cmp.Or(strings.Join(parts, ", "), "not told")
}

func numbers(list []uint64) string {
	texts := make([]string, len(list))
	for i, n := range list {
		texts[i] = strconv.FormatUint(n, 10)
	}
	return strings.Join(texts, ", ")
}

// grants are the files that show which rights a probe needs.
var grants = map[Engine]string{
	EnginePostgres: "docs/probe/postgres-grants.sql",
	EngineMariaDB:  "docs/probe/mariadb-grants.sql",
	EngineMySQL:    "docs/probe/mysql-grants.sql",
	EngineRedis:    "docs/probe/redis-acl.txt",
	EngineEtcd:     "docs/probe/etcd-roles.txt",
	EngineKafka:    "docs/probe/kafka-acls.txt",
}

// Lacks are the kinds of information that the account may not read, in their order.
func (v *TargetView) Lacks() []string {
	list := []string{}
	if v.Reading != nil {
		for kind, may := range v.Reading.Privileged {
			if !may {
				list = append(list, kind)
			}
		}
	}
	slices.Sort(list)
	return list
}

// LacksText says what the account may not read, and where the statements are that grant
// it; empty where it may read everything.
func (v *TargetView) LacksText() string {
	list := v.Lacks()
	if len(list) == 0 {
		return ""
	}
	return fmt.Sprintf("lacks rights for %s: see %s", strings.Join(list, ", "), grants[v.Engine])
}

func (v *TargetView) note() string { return cmp.Or(v.Error, v.LacksText()) }
