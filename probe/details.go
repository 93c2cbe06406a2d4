package probe

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// detail is a line below the table of WriteTable.
type detail struct{ what, state string }

// maxDetails bounds the lines of one kind for one target: a terminal is for people.
const maxDetails = 20

// details are the lines of a target.
func (v *TargetView) details() []detail {
	if v.Reading == nil {
		return nil
	}
	var all []detail
	add := func(what string, states ...string) {
		for i, s := range states {
			if i == maxDetails {
				s = fmt.Sprintf("and %d more", len(states)-i)
			}
			all = append(all, detail{what, s})
			if i == maxDetails {
				return
			}
		}
	}
	if l := v.Reading.Locks; l != nil {
		add("waits", l.waitTexts()...)
		add("blocked", l.blockedTexts()...)
		add("deadlocks", totalsText(l.Deadlocks)...)
	}
	if t := v.Reading.Transactions; t != nil {
		add("transactions", t.texts()...)
		add("sessions", t.sessionTexts()...)
	}
	for _, s := range v.Reading.Slots {
		add("slot", s.text())
	}
	for _, g := range v.Reading.StreamGroups {
		add("stream group", g.text())
	}
	add("consumer group", v.consumerTexts()...)
	if m := v.Reading.Member; m != nil {
		add("member", fmt.Sprintf("term %d, index %d, applied %d", m.Term, m.Index, m.Applied))
	}
	return all
}

func (l *Locks) waitTexts() (list []string) {
	for _, w := range l.Waiting {
		text := fmt.Sprintf("%d for %s", w.Sessions, strings.TrimSpace(w.Type+" "+w.Mode))
		if w.Database != "" {
			text += " in " + w.Database
		}
		if oldest, known := w.Oldest.Get(); known {
			text += ", the first since " + ageText(oldest)
		}
		list = append(list, text)
	}
	if n, _ := l.MetadataWaiting.Get(); n > 0 {
		list = append(list, fmt.Sprintf("%d for metadata locks", n))
	}
	return list
}

func (l *Locks) blockedTexts() (list []string) {
	for _, b := range l.Blocked {
		by := "not told by whom"
		if len(b.Blockers) > 0 {
			by = "by " + numbers(b.Blockers)
		}
		list = append(list, fmt.Sprintf("session %d %s", b.Session, by))
	}
	return list
}

// totalsText is one line; none where nothing is counted.
func totalsText(list []DatabaseTotal) []string {
	if len(list) == 0 {
		return nil
	}
	var some []string
	for _, d := range list {
		switch {
		case d.Database == "":
			some = append(some, fmt.Sprint(d.Value))
		case d.Value > 0:
			some = append(some, fmt.Sprintf("%s %d", d.Database, d.Value))
		}
	}
	if len(some) == 0 {
		some = []string{"0"}
	}
	return []string{strings.Join(some, ", ")}
}

func (t *Transactions) texts() []string {
	var parts []string
	for _, state := range slices.Sorted(maps.Keys(t.Oldest)) {
		if age := t.Oldest[state]; age > 0 {
			parts = append(parts, fmt.Sprintf("oldest %s %s", state, ageText(age)))
		}
	}
	for _, total := range []struct {
		name string
		list []DatabaseTotal
	}{{"committed", t.Committed}, {"rolled back", t.RolledBack}} {
		if total.list != nil {
			parts = append(parts, fmt.Sprintf("%s %d", total.name, sum(total.list)))
		}
	}
	if len(parts) == 0 {
		return nil
	}
	return []string{strings.Join(parts, ", ")}
}

func sum(list []DatabaseTotal) (n uint64) {
	for _, d := range list {
		n += d.Value
	}
	return n
}

func (t *Transactions) sessionTexts() []string {
	var parts []string
	for _, state := range slices.Sorted(maps.Keys(t.Sessions)) {
		parts = append(parts, fmt.Sprintf("%s %d", state, t.Sessions[state]))
	}
	if limit, known := t.SessionsLimit.Get(); known {
		parts = append(parts, fmt.Sprintf("limit %d", limit))
	}
	if len(parts) == 0 {
		return nil
	}
	return []string{strings.Join(parts, ", ")}
}

func (s Slot) text() string {
	state := "inactive"
	switch {
	case s.Lost:
		state = "lost: its replica has to be made anew"
	case s.Active:
		state = "active"
	}
	text := s.Name + ": " + state
	if n, known := s.Retained.Get(); known {
		text += fmt.Sprintf(", keeps %d bytes of log", n)
	}
	return text
}

func (g StreamGroup) text() string {
	return fmt.Sprintf("%s of %s: %s behind%s, %s pending%s", g.Group, g.Stream,
		countText(g.Entries), sinceText(g.Lag), countText(g.Pending), sinceText(g.OldestPending))
}

func countText(n Maybe[uint64]) string {
	if !n.Known {
		return "unknown"
	}
	return fmt.Sprint(n.Value)
}

func sinceText(d Maybe[time.Duration]) string {
	if d.Value == 0 {
		return ""
	}
	return " for " + ageText(d.Value)
}

// consumerTexts are a line for each topic of each group.
func (v *TargetView) consumerTexts() []string {
	var list []string
	for _, g := range v.Reading.ConsumerGroups {
		members := "members " + countText(g.Members)
		topics := v.topics(g.Group)
		if len(topics) == 0 {
			list = append(list, fmt.Sprintf("%s: %s", g.Group, members))
		}
		for _, t := range topics {
			text := fmt.Sprintf("%s of %s: %d records behind", g.Group, t.Topic, t.Records)
			if t.Age > 0 {
				text += " for " + bound(t.LowerBound) + ageText(t.Age)
			}
			list = append(list, text+", "+members)
		}
	}
	return list
}

// bound is what stands before an age of which only a lower bound is known.
func bound(lower bool) string {
	if lower {
		return "at least "
	}
	return ""
}

// topics is how far a group is behind in each topic: the records of all partitions, the
// age of the oldest.
func (v *TargetView) topics(group string) (list []GroupLag) {
	for _, p := range v.Groups {
		if p.Group != group {
			continue
		}
		i := slices.IndexFunc(list, func(t GroupLag) bool { return t.Topic == p.Topic })
		if i < 0 {
			list = append(list, GroupLag{Group: group, Topic: p.Topic})
			i = len(list) - 1
		}
		list[i].Records += p.Records
		if p.Age > list[i].Age {
			list[i].Age, list[i].LowerBound = p.Age, p.LowerBound
		}
	}
	return list
}
