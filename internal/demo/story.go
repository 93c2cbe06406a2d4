package demo

import (
	"context"
	"fmt"
	"time"
)

// introduce says what there is to look at.
func (d *demo) introduce(base, slowURL string) {
	kept := d.dir
	if d.o.StoragePath == "" {
		kept += ", removed at the end"
	}
	fmt.Fprintf(d.o.Out, `Sluice with all it needs in one process. Open

  %[1]s/     the status page: rate, lag, debt and backfill of each backend

A fleet of %[2]d instances is scraped every %[3]s. %[4]q is a store in the gateway and answers PromQL at
%[1]s, for Grafana too; %[5]q is a store behind remote write, at %[6]s, and slow at times.
Data: %[7]s. End with Ctrl-C.

`, base, instances(), scrapeInterval, fastBackend, slowBackend, slowURL, kept)
}

// follow leads the slow backend through its loop, and says so.
func (d *demo) follow(ctx context.Context) {
	select {
	case <-d.throttle.first:
		fmt.Fprintf(d.o.Out, "%s  The first samples are delivered, %s after the start.\n", d.clock(0), d.o.Now().Sub(d.began).Round(10*time.Millisecond))
	case <-ctx.Done():
		return
	}
	s := d.o.Schedule
	fmt.Fprintf(d.o.Out, "%s  Everything is delivered to both. At %s %q slows down.\n", d.clock(0), d.clock(s.Well), slowBackend)
	for rest(ctx, s.Well) {
		d.throttle.set(s.Capacity)
		fmt.Fprintf(d.o.Out, "%s  %q takes %d samples a second now, less than comes in: its lag rises, then its rate falls, and what is withheld becomes its debt. %q goes on unharmed. At %s it recovers.\n",
			d.clock(0), slowBackend, s.Capacity, fastBackend, d.clock(s.Slow))
		if !rest(ctx, s.Slow) {
			return
		}
		d.throttle.set(0)
		fmt.Fprintf(d.o.Out, "%s  %q is quick again: its lag goes, its rate rises, and when all is well the backfill gives back what was withheld: the debt falls to 0. At %s the loop begins anew.\n",
			d.clock(0), slowBackend, d.clock(s.Recovered))
		if !rest(ctx, s.Recovered) {
			return
		}
		fmt.Fprintf(d.o.Out, "%s  Once more. At %s %q slows down.\n", d.clock(0), d.clock(s.Well), slowBackend)
	}
}

// clock is the time of day in a while.
func (d *demo) clock(in time.Duration) string { return d.o.Now().Add(in).Format(time.TimeOnly) }

// rest waits; false when ctx ended.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
