package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-metrics/sluice/probe"
)

// pendingLooked is how many pending entries are looked at, the oldest first, for the one
// that has been with its consumer for longest.
const pendingLooked = 100

// earliestID is the year 2000: entries whose id is an earlier time were not given it by
// the server's clock, and have no age.
const earliestID = 946684800000

// found is a stream with what the first round trip said of it.
type found struct {
	key    string
	info   *redis.XInfoStreamCmd
	groups *redis.XInfoGroupsCmd
}

// askStreams adds what is asked of the streams to the pipe.
func askStreams(ctx context.Context, pipe redis.Pipeliner, streams []Stream) []found {
	list := make([]found, len(streams))
	for i, s := range streams {
		list[i] = found{s.Key, pipe.XInfoStream(ctx, s.Key), pipe.XInfoGroups(ctx, s.Key)}
	}
	return list
}

// asked is a group with what the second round trip says of it.
type asked struct {
	stream  string
	length  uint64
	group   redis.XInfoGroup
	next    *redis.XMessageSliceCmd // the first entry that the group has not been given
	pending *redis.XPendingExtCmd
}

// readGroups asks for what only can be asked when the groups are known. A stream that does
// not exist has no groups, nor has a key that holds something else. It reports whether the account may ask.
func (p *Prober) readGroups(ctx context.Context, streams []found) (list []probe.StreamGroup, allowed bool, err error) {
	pipe := p.client.Pipeline()
	clock := pipe.Time(ctx)
	var groups []asked
	for i, s := range streams {
		info, infoErr := s.info.Result()
		all, groupsErr := s.groups.Result()
		switch err := errors.Join(infoErr, groupsErr); {
		case redis.IsPermissionError(err):
			return nil, false, nil
		case redis.HasErrorPrefix(err, "no such key"), redis.HasErrorPrefix(err, "WRONGTYPE"):
			continue
		case err != nil:
			return nil, false, fmt.Errorf("read the stream %q: %w", s.key, err)
		}
		for _, g := range all {
			if only := p.streams[i].Groups; len(only) > 0 && !slices.Contains(only, g.Name) {
				continue
			}
			groups = append(groups, asked{
				stream: s.key, length: uint64(info.Length), group: g,
				next: pipe.XRangeN(ctx, s.key, "("+g.LastDeliveredID, "+", 1),
				pending: pipe.XPendingExt(ctx, &redis.XPendingExtArgs{
					Stream: s.key, Group: g.Name, Start: "-", End: "+", Count: pendingLooked,
				}),
			})
		}
	}
	if len(groups) == 0 {
		return nil, true, nil
	}
	if err := connected(pipe.Exec(ctx)); err != nil {
		return nil, false, fmt.Errorf("connect: %w", err)
	}
	for i := range groups {
		g := &groups[i]
		switch err := errors.Join(clock.Err(), g.next.Err(), g.pending.Err()); {
		case redis.HasErrorPrefix(g.pending.Err(), "NOGROUP"): // destroyed in the meantime
		case redis.IsPermissionError(err):
			return nil, false, nil
		case err != nil:
			return nil, false, fmt.Errorf("read the group %q of the stream %q: %w", g.group.Name, g.stream, err)
		default:
			list = append(list, g.reading(clock.Val()))
		}
	}
	return list, true, nil
}

// reading is how far the group is behind at the server's time.
func (a *asked) reading(now time.Time) probe.StreamGroup {
	g := probe.StreamGroup{Stream: a.stream, Group: a.group.Name, Pending: probe.Some(uint64(a.group.Pending))}
	next := a.next.Val()
	switch {
	case len(next) == 0:
		g.Entries, g.Lag = probe.Some(uint64(0)), probe.Some(time.Duration(0))
	default:
		g.Lag = age(next[0].ID, now)
		if a.group.Lag >= 0 {
			// The server counts entries that were trimmed away as if they were there.
			g.Entries = probe.Some(min(uint64(a.group.Lag), a.length))
		}
	}
	g.OldestPending = probe.Some(time.Duration(0))
	for _, e := range a.pending.Val() {
		g.OldestPending.Value = max(g.OldestPending.Value, e.Idle)
	}
	return g
}

// age is how long ago the entry was added, unless its id is not a time.
func age(id string, now time.Time) probe.Maybe[time.Duration] {
	text, _, _ := strings.Cut(id, "-")
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms < earliestID {
		return probe.Maybe[time.Duration]{}
	}
	return probe.Some(max(0, now.Sub(time.UnixMilli(ms))))
}
