package web

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// crowd is a gateway with four backends, nine databases and nine leases, all of which have
// something to say.
func crowd(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, "")
	w.change(func(st *Status) {
		for i := range 2 {
			l := st.Lanes[i]
			l.Name = fmt.Sprintf("%s-%d", l.Name, i+2)
			st.Lanes = append(st.Lanes, l)
		}
		for i := range 2 {
			c := st.Clusters[0]
			c.Name = fmt.Sprintf("cluster-%d", i+2)
			c.Targets = append([]Target{}, c.Targets...)
			for k := range c.Targets {
				c.Targets[k].Name = fmt.Sprintf("cluster-%d-%s", i+2, c.Targets[k].Name)
			}
			st.Clusters = append(st.Clusters, c)
		}
		for i := range 8 {
			l := st.Leases[0]
			l.Name = fmt.Sprintf("probe/a-cluster-with-a-long-name-%d", i)
			st.Leases = append(st.Leases, l)
		}
	})
	w.hour()
	w.change(func(st *Status) { st.Lanes[0].State = "throttled" })
	return w
}

// However much there is, the page is as high as a small screen and as wide as a phone.
func TestBrowser_Crowd(t *testing.T) {
	base := show(t, crowd(t))
	b := startBrowser(t)
	b.do(t, chromedp.Navigate(base+"/?series=up%7Bjob%3D%22node%22%7D"))
	b.await(t, "#link", "live")
	require.Equal(t, 4.0, b.number(t, `document.querySelectorAll(".backends > li").length`))
	require.Equal(t, 9.0, b.number(t, `document.querySelectorAll("#databases tbody th").length`))
	require.Equal(t, 9.0, b.number(t, `document.querySelectorAll("#leases tbody th").length`))
	require.LessOrEqual(t, b.number(t, `document.documentElement.scrollHeight`), 800.0)
	require.LessOrEqual(t, b.number(t, `document.documentElement.scrollWidth`), 1280.0)
	for _, part := range []string{".backends", "#databases", "#leases", "#happened", "#answer"} {
		require.Greater(t, b.number(t, fmt.Sprintf(`document.querySelector(%q).clientHeight`, part)), 45.0, part)
	}
	requireReachable(t, b)
	b.size(t, 390, 844)
	require.LessOrEqual(t, b.number(t, `document.documentElement.scrollWidth`), 390.0)
	requireReachable(t, b)
	b.requireClean(t, base)
}

// requireReachable requires that whatever scrolls can be focused and has a role and a
// name, and that no two landmarks have the same name.
func requireReachable(t *testing.T, b *browser) {
	t.Helper()
	require.Empty(t, get(t, b, chromedp.Evaluate[[]string](`[...document.querySelectorAll("body *")].filter((e) => {
		const s = getComputedStyle(e);
		const scrolls = /auto|scroll/.test(s.overflowX) && e.scrollWidth > e.clientWidth || /auto|scroll/.test(s.overflowY) && e.scrollHeight > e.clientHeight;
		const named = e.hasAttribute("aria-label") || e.hasAttribute("aria-labelledby");
		return scrolls && !(e.tabIndex === 0 && named && (e.hasAttribute("role") || /UL|SECTION/.test(e.tagName)));
	}).map((e) => e.tagName + "." + e.className + "#" + e.id)`)), "it scrolls, and the keyboard or a screen reader cannot get there")
	names := get(t, b, chromedp.Evaluate[[]string](`[...document.querySelectorAll("section, nav, [role=region]")].map((e) =>
		e.getAttribute("aria-label") || document.getElementById(e.getAttribute("aria-labelledby")).textContent)`))
	require.Greater(t, len(names), 5)
	seen := map[string]bool{}
	for _, n := range names {
		require.False(t, seen[n], "two landmarks are called %q", n)
		seen[n] = true
	}
}

// What is cut is unfolded by the keyboard, and stays so while the page goes on.
func TestBrowser_Keyboard(t *testing.T) {
	w := newWorld(t, " of"+strings.Repeat(" the", 40)+" north")
	w.pass(historyEvery, 120, 0.25)
	w.change(func(st *Status) {
		st.Lanes[0].Sampling.Why += " and this goes on for so long that it is cut: the queue, the latency and the errors of the backend all say the same, and have done so since the backend was moved to another rack"
	})
	base := show(t, w)
	b := startBrowser(t)
	b.do(t, chromedp.Navigate(base+"/"))
	b.await(t, "#link", "live")
	for _, class := range []string{"why", "error"} {
		summary := fmt.Sprintf(`document.querySelector("dd.%s summary")`, class)
		require.True(t, b.holds(t, summary+".scrollHeight > "+summary+".clientHeight"), "%s is not cut", class)
		for range 40 {
			b.do(t, chromedp.KeyEvent(kb.Tab))
			if b.holds(t, "document.activeElement === "+summary) {
				break
			}
		}
		require.True(t, b.holds(t, "document.activeElement === "+summary), "the keyboard does not get to %s", class)
		b.do(t, chromedp.KeyEvent(kb.Enter))
		require.False(t, b.holds(t, summary+".scrollHeight > "+summary+".clientHeight"), "%s is still cut", class)
	}
	w.pass(historyEvery, 120, 0.25)
	w.change(func(st *Status) { st.Lanes[0].State = "failing" })
	b.await(t, "#headline", "north is failing since")
	require.True(t, b.holds(t, `document.querySelector("dd.why details").open && document.activeElement === document.querySelector("dd.error summary")`))
	b.requireClean(t, base)
}
