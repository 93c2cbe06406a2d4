package plot_test

import (
	"html/template"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/plot"
)

func TestDraw(t *testing.T) {
	d := plot.Chart{
		Title: "rate", X: []float64{0, 10, 20, 30, 40}, XUnit: "s",
		Lines: []plot.Line{{Name: "asked", Y: []float64{0, 50, math.NaN(), 100, 90}}, {Name: "flat", Y: make([]float64, 5)}},
	}.Draw()
	require.Equal(t, []string{"62,190 223,101", "545,12 706,29.8"}, d.Lines[0].Points, "broken where there is no value")
	require.Len(t, d.Lines[1].Points, 1)
	require.NotEqual(t, d.Lines[0].Class, d.Lines[1].Class)
	require.Equal(t, "100", d.Ticks[4].Text)
	require.Equal(t, "40s", d.Ticks[9].Text)
}

func TestDrawWithoutValues(t *testing.T) {
	for _, c := range []plot.Chart{
		{},
		{X: []float64{1}, Lines: []plot.Line{{Y: []float64{2}}}},
		{X: []float64{1, 2}, Lines: []plot.Line{{Y: []float64{math.NaN(), math.Inf(1)}}}},
	} {
		for _, tick := range c.Draw().Ticks {
			require.False(t, math.IsNaN(tick.X1+tick.Y1+tick.X2+tick.Y2))
		}
	}
}

func TestTemplates(t *testing.T) {
	page, err := plot.AddTo(template.New("page"))
	require.NoError(t, err)
	var out strings.Builder
	c := plot.Chart{Title: "<rate>", X: []float64{0, 1}, Lines: []plot.Line{{Name: "a & b", Y: []float64{1, 2}}}}
	require.NoError(t, page.ExecuteTemplate(&out, "plot", c.Draw()))
	require.Contains(t, out.String(), "&lt;rate&gt;")
	require.Contains(t, out.String(), "a &amp; b")
	require.Contains(t, out.String(), "<polyline")
}
