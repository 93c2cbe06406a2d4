package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"path/filepath"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/thinning"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/router"
	"github.com/sluice-metrics/sluice/sampler"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// ledgerDir is where the ledgers are kept.
func ledgerDir(storage string) string { return filepath.ToSlash(filepath.Join(storage, "ledger")) }

// owed is from where on the journal is needed to give back what the ledgers owe.
func owed(storage string) (map[string]journal.Position, error) {
	dir := ledgerDir(storage)
	names, err := ledger.Backends(vfs.OS{}, dir)
	if err != nil {
		return nil, err
	}
	needed := map[string]journal.Position{}
	for _, name := range names {
		v, err := ledger.Read(vfs.OS{}, dir, name)
		if err != nil {
			return nil, err
		}
		if from, ok := v.Needed(); ok {
			needed[thinning.Owner(name)] = from
		}
	}
	return needed, nil
}

// resolve reads what the sampling of a backend depends on; nil where nothing is ever
// withheld from it. Rules that cannot be read are told and left out.
func (g *Gateway) resolve(c *config.Config, b *config.Backend) (*sampler.Resolved, error) {
	s := c.Sampling(b)
	if s == nil {
		return nil, nil
	}
	r, err := sampler.Resolve(*s)
	if r == nil {
		return nil, err
	}
	if err != nil {
		g.o.Logger.Warn("Not all rules and dashboards that adaptive_sampling names can be used; what they read has no class of its own", "backend", b.Name, "err", err)
	}
	return r, nil
}

// sampling makes the Thinner of a line that has a cursor, and goes on with what the one
// before knew; nil where it does not sample.
func (g *Gateway) sampling(l *line, cursor journal.Cursor, before thinning.Steering) (*thinning.Thinner, error) {
	if l.resolved == nil {
		return nil, nil // see endSampling
	}
	window := l.config.OutOfOrderWindow()
	if err := g.openLedger(l, cursor, l.resolved.Config.Backfill && window > 0); err != nil {
		return nil, err
	}
	st := cursor.Committed()
	t, err := thinning.New(thinning.Options{
		Backend:    l.config.Name,
		Config:     l.resolved.Config,
		Describer:  l.resolved.Describer,
		Digest:     l.resolved.Decisions + " " + l.config.Digest(),
		Text:       l.resolved.Text,
		Ledger:     l.ledger,
		Journal:    g.journal,
		Picker:     func() thinning.Picker { return router.NewPicker(g.router, l.config.Name, nil) },
		Window:     window,
		Restored:   st.Restore.Position,
		Earlier:    g.earlier(l),
		Steering:   before,
		Memory:     memory(),
		ReplicaLag: g.steeredBy(l.config),
		Shelf:      g.shelf,
		Metrics:    g.thinners,
		Logger:     l.logger,
		Now:        g.o.Now,
	})
	if err != nil {
		return nil, fmt.Errorf("backend %s: adaptive_sampling: %w", l.config.Name, err)
	}
	g.remember(l, t.Decisions())
	return t, nil
}

// decided is what samples of a backend were decided by, with its selectors of then.
type decided struct {
	selectors string // their digest
	thinning.Decisions
}

// mostDecided is how many are remembered of a backend.
const mostDecided = 8

// remember keeps what is decided by, so that after a reload it is still known what was
// withheld before.
func (g *Gateway) remember(l *line, d thinning.Decisions) {
	name := l.config.Name
	list := slices.DeleteFunc(g.decided[name], func(o decided) bool { return o.Digest == d.Digest })
	list = append(list, decided{l.config.Digest(), d})
	g.decided[name] = list[max(0, len(list)-mostDecided):]
}

// earlier is what was decided by before in this process, with the same selectors.
func (g *Gateway) earlier(l *line) (list []thinning.Decisions) {
	for _, d := range g.decided[l.config.Name] {
		if d.selectors == l.config.Digest() {
			list = append(list, d.Decisions)
		}
	}
	return list
}

// steering is what the thinner in force knows that a line is to replace.
func (g *Gateway) steering(l *line) (s thinning.Steering) {
	for _, old := range *g.lines.Load() {
		if old.config.Name != l.config.Name {
			continue
		}
		if c := old.connected.Load(); c != nil && c.thinner != nil {
			return c.thinner.Steering()
		}
	}
	return s
}

// openLedger opens the ledger of a line and tells it where the cursor is.
func (g *Gateway) openLedger(l *line, cursor journal.Cursor, backfill bool) (err error) {
	if l.ledger == nil {
		if l.ledger, err = ledger.Open(ledger.Options{
			Dir:      ledgerDir(g.o.StoragePath),
			Backend:  l.config.Name,
			FS:       vfs.OS{},
			Sync:     g.o.Config.Journal.Durability == disk.DurabilityFsync,
			Backfill: backfill,
			Logger:   l.logger,
			Now:      g.o.Now,
			Metrics:  g.ledgers,
		}); err != nil {
			return err
		}
	}
	st := cursor.Committed()
	_, err = l.ledger.Resume(ledger.Resumption{
		Mark:     ledger.Mark{Position: st.Position, Restore: st.Restore.Position},
		Withheld: &st.Totals.Withheld,
	})
	return err
}

// endSampling closes what the sampling of a backend left open that is not sampled any
// more: from the cursor on everything is sent. What it owes stays in the ledger, and is
// given back if it is sampled again while the journal still has it. It is called before the
// lane runs, when nothing else can keep it from that.
func (g *Gateway) endSampling(l *line) error {
	if l.resolved != nil {
		return nil
	}
	cursor := l.connected.Load().cursor
	g.journal.Retain(thinning.Owner(l.config.Name), journal.Position{})
	v, err := ledger.Read(vfs.OS{}, ledgerDir(g.o.StoragePath), l.config.Name)
	if err != nil || len(v.Entries) == 0 {
		return err
	}
	if n := v.Debt.Counts; !n.Zero() {
		l.logger.Warn("Samples that were withheld from this backend are not given back, since adaptive_sampling is off", "samples", n.Samples, "histograms", n.Histograms)
	}
	if err := g.openLedger(l, cursor, false); err != nil {
		return err
	}
	for _, e := range l.ledger.Timeline(cursor.Committed().Position) {
		if e.To == (journal.Position{}) {
			return l.ledger.End(cursor.Committed().Position)
		}
	}
	return nil
}

// steeredBy measures the database that stands behind a backend; nil where none is named.
func (g *Gateway) steeredBy(b *config.Backend) func() (seconds float64, known bool) {
	if b.LagFrom == nil {
		return nil
	}
	name := b.LagFrom.Cluster
	return func() (float64, bool) { return g.replicaLag(name) }
}

// memory measures the process against the limit that the runtime was given; nil where it
// has none.
func memory() func() (share float64, known bool) {
	limit := debug.SetMemoryLimit(-1)
	if limit == math.MaxInt64 {
		return nil
	}
	return func() (float64, bool) {
		samples := []runtimemetrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
		runtimemetrics.Read(samples)
		return float64(samples[0].Value.Uint64()-samples[1].Value.Uint64()) / float64(limit), true
	}
}

// run runs the lane of a connection with what goes beside it.
func (c *connection) run(ctx context.Context) error {
	beside, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	if c.thinner != nil {
		wg.Go(func() { c.thinner.Run(beside, c.lane) })
	} else {
		wg.Go(func() { c.before.EndTold(beside, c.lane, time.Now) })
	}
	err := c.lane.Run(ctx)
	stop()
	wg.Wait()
	return err
}

// sampling is the exporter's view of the thinner.
func (c *connection) sampling() exporter.Sampling {
	if c.thinner == nil {
		return nil
	}
	return c.thinner
}

// lag answers GET /api/v1/lag: how each backend stands.
func (g *Gateway) lag(w http.ResponseWriter, r *http.Request) {
	type backend struct {
		Name     string         `json:"backend"`
		State    string         `json:"state"`
		Batches  int64          `json:"batches"`
		Samples  uint64         `json:"samples"`
		Bytes    int64          `json:"bytes"`
		Age      float64        `json:"age_seconds"`
		Sampling *thinning.View `json:"sampling"`
	}
	list := []backend{}
	only := r.FormValue("backend")
	for _, l := range *g.lines.Load() {
		if only != "" && only != l.config.Name {
			continue
		}
		lane := l.lane()
		b := lane.Balance()
		out := backend{Name: l.config.Name, State: lane.State(), Batches: b.Batches, Samples: b.InJournal.Samples + b.InJournal.Histograms, Bytes: b.Bytes}
		if !b.Oldest.IsZero() {
			out.Age = max(0, g.o.Now().Sub(b.Oldest).Seconds())
		}
		if t := l.connected.Load().thinner; t != nil {
			v := t.View()
			out.Sampling = &v
		}
		list = append(list, out)
	}
	if only != "" && len(list) == 0 {
		http.Error(w, fmt.Sprintf("no backend is named %q", only), http.StatusNotFound)
		return
	}
	writeJSON(w, map[string]any{"backends": list})
}

// missing answers GET /api/v1/ledger: what was withheld. With from or to it is what is
// missing of samples between these times.
func (g *Gateway) missing(w http.ResponseWriter, r *http.Request) {
	from, err := timeOf(r.FormValue("from"), time.Time{})
	if err != nil {
		http.Error(w, "from: "+err.Error(), http.StatusBadRequest)
		return
	}
	to, err := timeOf(r.FormValue("to"), g.o.Now())
	if err != nil {
		http.Error(w, "to: "+err.Error(), http.StatusBadRequest)
		return
	}
	ranged := r.FormValue("from") != "" || r.FormValue("to") != ""
	only := r.FormValue("backend")
	list := []any{}
	for _, l := range *g.lines.Load() {
		t := l.connected.Load().thinner
		if only != "" && only != l.config.Name {
			continue
		}
		switch {
		case t == nil && ranged:
			a, err := g.account(l, from, to)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			list = append(list, a)
		case t == nil:
			v, err := ledger.Read(vfs.OS{}, ledgerDir(g.o.StoragePath), l.config.Name)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			list = append(list, v)
		case ranged:
			m := t.Ledger().Missing(from, to)
			if m == nil {
				m = []ledger.Missing{}
			}
			list = append(list, map[string]any{"backend": l.config.Name, "sampling": true, "missing": m, "debt": t.View().Debt})
		default:
			list = append(list, t.Ledger().View())
		}
	}
	if only != "" && len(list) == 0 {
		http.Error(w, fmt.Sprintf("no backend is named %q", only), http.StatusNotFound)
		return
	}
	writeJSON(w, map[string]any{"backends": list})
}

// timeOf reads a time as the Prometheus API has them: RFC 3339 or Unix seconds.
func timeOf(text string, absent time.Time) (time.Time, error) {
	if text == "" {
		return absent, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	s, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(s) || math.Abs(s) > 1e11 {
		return time.Time{}, fmt.Errorf("%q is neither a time such as 2026-11-22T10:00:00Z nor Unix seconds", text)
	}
	return time.UnixMilli(int64(s * 1000)), nil
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // the client went away
}

// withheldHeader tells senders, with each answer, what is withheld at present:
// "main;kept=0.2503", several with commas between. Absent where everything is sent.
const withheldHeader = "X-Sluice-Withheld"

// telling is a handler of senders with that header in its answers.
func (g *Gateway) telling(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.tellWithheld(w.Header())
		h.ServeHTTP(w, r)
	})
}

func (g *Gateway) tellWithheld(h http.Header) {
	var list []string
	for _, l := range *g.lines.Load() {
		c := l.connected.Load()
		if c == nil || c.thinner == nil {
			continue
		}
		if kept := c.thinner.Kept(); kept < 1 {
			list = append(list, l.config.Name+";kept="+strconv.FormatFloat(kept, 'f', 4, 64))
		}
	}
	if len(list) > 0 {
		h.Set(withheldHeader, strings.Join(list, ", "))
	}
}
