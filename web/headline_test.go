package web

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// shown is the page of a gateway with these clusters and nothing else.
func shown(t *testing.T, clusters ...Cluster) (text string, trouble bool, page string) {
	t.Helper()
	w := newWorld(t, "")
	w.change(func(st *Status) { *st = Status{At: noon, Clusters: clusters} })
	w.site.SetRoutes(http.NewServeMux())
	text, trouble = headline(&Picture{Status: w.status()})
	return text, trouble, do(w.site, http.MethodGet, "/").Body.String()
}

// Who probes a cluster is told as it is: that another gateway does is said only where the
// lease store says so.
func TestWhoProbes(t *testing.T) {
	since := noon.Add(-time.Minute)
	const well = "Ready. Every backend takes what it is sent; nothing is withheld."
	tests := map[string]struct {
		cluster  Cluster
		headline string
		section  string
	}{
		"this one": {Cluster{Name: "a", Leading: true}, well, "Blocked</thead>"},
		"another":  {Cluster{Name: "a"}, well, `<p class="none">Another gateway probes it.</p>`},
		"a named other": {
			Cluster{Name: "a", Leader: "10.0.0.2:9201"}, well, `<p class="none">Another gateway, 10.0.0.2:9201, probes it.</p>`,
		},
		"not asked yet": {Cluster{Name: "a", UnknownSince: &since}, well, `<p class="none">It is not known yet who probes it.</p>`},
		"nobody": {
			Cluster{Name: "a", UnknownSince: &since, Why: "connection refused"},
			"Ready, but nobody is known to probe a: the lease store has not said who does since 11:59:00.",
			`<p class="lost">Nobody is known to probe it: the lease store has not said who does since 11:59:00: connection refused</p>`,
		},
		"this one without a lease": {
			Cluster{Name: "a", Leading: true, UnknownSince: &since, Why: "connection refused"},
			well,
			`<p class="lost">Probed without a lease: the lease store has not granted one since 11:59:00: connection refused</p>`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			text, trouble, page := shown(t, test.cluster)
			require.Equal(t, test.headline, text)
			require.Equal(t, test.headline != well, trouble)
			require.Contains(t, page, test.section)
		})
	}
	early := since.Add(-time.Minute)
	text, _, _ := shown(t, Cluster{Name: "a", UnknownSince: &since, Why: "x"}, Cluster{Name: "b", UnknownSince: &early, Why: "y"})
	require.Equal(t, "Ready, but nobody is known to probe a and b: the lease store has not said who does since 11:58:00.", text)
}

// A database that is down is named once, with its clusters and the reason that it gave.
func TestHeadlineNamesDatabasesOnce(t *testing.T) {
	down := func(name, why string) Target { return Target{Name: name, Error: why} }
	text, trouble, _ := shown(t,
		Cluster{Name: "orders", Leading: true, Targets: []Target{down("db1:5432", `password authentication failed for user "probe".`)}},
		Cluster{Name: "bills", Leading: true, Targets: []Target{down("db1:5432", `password authentication failed for user "probe".`), {Name: "db2:5432", Up: true}}},
	)
	require.True(t, trouble)
	require.Equal(t, `Ready, but database db1:5432 of orders and bills is down: password authentication failed for user "probe".`, text)

	text, _, _ = shown(t, Cluster{Name: "orders", Leading: true, Targets: []Target{down("db1:5432", "Redis at db1:5432: connection refused")}})
	require.Equal(t, "Ready, but a database of orders is down: Redis at db1:5432: connection refused.", text)

	long := strings.Repeat("é", 300)
	text, _, _ = shown(t, Cluster{Name: "c", Leading: true, Targets: []Target{down("a", long), down("b", ""), down("c", "x"), down("d", "x"), down("e", "x")}})
	require.Equal(t, "Ready, but database a of c is down: "+strings.Repeat("é", maxReason-1)+"…; database b of c is down; database c of c is down: x; 2 more databases are down.", text)
}

// Unknown is a dash on the page and null for programs; only what is known to be none is 0.
func TestUnknownIsNotZero(t *testing.T) {
	cluster := Cluster{Name: "a", Leading: true, Targets: []Target{
		{Name: "blind", Up: true, Note: "lacks rights for locks: see docs/probe/postgres-grants.sql"},
		{Name: "free", Up: true, Waiting: new(0)},
		{Name: "down", Error: "refused"},
	}}
	_, _, page := shown(t, cluster)
	for name, blocked := range map[string]string{"blind": "–", "free": "0", "down": "–"} {
		_, row, found := strings.Cut(page, `<tr><th scope="row">`+name+"<")
		require.True(t, found, name)
		row, _, _ = strings.Cut(row, "<tr>")
		require.Equal(t, blocked, strings.TrimSpace(strings.TrimSuffix(row[strings.LastIndex(row, `<td class="n">`)+len(`<td class="n">`):], "</tbody>")), name)
	}
	require.Contains(t, page, `<td colspan="5" class="note">lacks rights for locks: see docs/probe/postgres-grants.sql`)

	w := newWorld(t, "")
	w.change(func(st *Status) { *st = Status{At: noon, Clusters: []Cluster{cluster}} })
	w.site.SetRoutes(http.NewServeMux())
	api := do(w.site, http.MethodGet, "/api/v1/status").Body.String()
	require.Equal(t, 2, strings.Count(api, `"waiting": null`))
	require.Equal(t, 1, strings.Count(api, `"waiting": 0`))
	require.Equal(t, 3, strings.Count(api, `"longest_wait_seconds": null`))
}
