package remotewrite

import (
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-metrics/sluice/internal/series"
)

var genName = rapid.OneOf(
	genText,
	rapid.StringMatching(`[a-zA-Z_][a-zA-Z0-9_]{0,8}`),
	rapid.StringMatching(`[a-zA-Z_:.0-9-]{1,10}`),
	rapid.SampledFrom([]string{nameLabel, "__type__", "__unit__", "_", ":", "9a", "a:b", "a:b.c", "U__a"}),
)

func TestM5_EscapedNamesFitTheCharset(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := genName.Draw(t, "name")
		for _, e := range []Escaping{EscapeUnderscores, EscapeDots, EscapeValues} {
			for _, metric := range []bool{true, false} {
				got := name
				if !e.keepsName([]byte(name), metric) {
					got = e.name(name, metric)
				}
				require.True(t, legacyName([]byte(got), metric), "%s %q became %q", e, name, got)
				if metric {
					require.Equal(t, model.EscapeName(name, e.scheme()), got)
				}
				planes := strings.ContainsFunc(name, func(r rune) bool { return r > 0xfffff }) // the library reads back five digits
				if !metric && e == EscapeValues && got != name && !planes {
					require.Equal(t, name, model.UnescapeName(got, model.ValueEncodingEscaping))
				}
			}
		}
		for _, metric := range []bool{true, false} {
			legacy := legacyName([]byte(name), metric) || !metric && reservedName([]byte(name))
			require.Equal(t, legacy, EscapeRefuse.keepsName([]byte(name), metric))
			require.True(t, EscapeAllow.keepsName([]byte(name), metric))
		}
	})
}

func TestM5_LabelsAreEscapedAndSorted(t *testing.T) {
	ls := label("A.b", "1.5", nameLabel, "metric.name", "a_b", "2", "日", "v.v")
	for _, c := range []struct {
		escaping Escaping
		want     []string
	}{
		{EscapeAllow, []string{"A.b", "1.5", nameLabel, "metric.name", "a_b", "2", "日", "v.v"}},
		{EscapeUnderscores, []string{"A_b", "1.5", "_", "v.v", nameLabel, "metric_name", "a_b", "2"}},
		{EscapeDots, []string{"A_dot_b", "1.5", "__", "v.v", nameLabel, "metric_dot_name", "a__b", "2"}},
		{EscapeValues, []string{"U__A_2e_b", "1.5", "U___65e5_", "v.v", nameLabel, "U__metric_2e_name", "a_b", "2"}},
	} {
		for _, from := range []series.Version{series.V1, series.V2} {
			for _, to := range []series.Version{series.V1, series.V2} {
				all := []genSeries{{labels: ls}, {labels: label(nameLabel, "plain", "job", "x")}}
				for i := range all {
					all[i].samples = append(all[i].samples, payloadV2(1, false).Timeseries[0].Samples...)
				}
				b := NewBuilder(BuilderOptions{Version: to, Escaping: c.escaping})
				for range 2 { // the second time names are remembered
					b.Reset()
					out := written(t, b, from, encode(from, all))
					var got []modelSeries
					if to == series.V1 {
						got, _ = readV1(t, out)
					} else {
						got = readV2(t, out)
					}
					require.Equal(t, spell(c.want), got[0].Labels)
					require.Equal(t, spell([]string{nameLabel, "plain", "job", "x"}), got[1].Labels)
				}
			}
		}
	}
}

func TestM5_RefusedAndColliding(t *testing.T) {
	req := &prompb.WriteRequest{}
	for _, ls := range [][]prompb.Label{
		label(nameLabel, "a", "x.y", "1"),
		label(nameLabel, "a.b"),
		label(nameLabel, "a", "x.y", "1", "x_y", "2"),
		label(nameLabel, "a", "x_y", "a.b"),
		label(nameLabel, "a:b"),
	} {
		req.Timeseries = append(req.Timeseries, prompb.TimeSeries{Labels: ls, Samples: []prompb.Sample{{Value: 1, Timestamp: 1}}})
	}
	for escaping, want := range map[Escaping][]Reason{
		EscapeRefuse:      {ReasonUTF8NameRefused, ReasonUTF8NameRefused, ReasonUTF8NameRefused, "", ""},
		EscapeUnderscores: {"", "", ReasonEscapingCollision, "", ""},
		EscapeDots:        {"", "", "", "", ""},
		EscapeValues:      {"", "", "", "", ""},
	} {
		b := NewBuilder(BuilderOptions{Version: series.V1, Escaping: escaping})
		m := scanned(t, series.V1, req)
		for i, reason := range want {
			o := b.Add(m, i)
			require.Equal(t, reason, o.Reason, "%s %d", escaping, i)
			require.Equal(t, reason != "", o.Dropped.Samples == 1)
			require.Equal(t, reason == "", o.Written.Samples == 1)
		}
	}
}

func TestEscaper_ForgetsWhenFull(t *testing.T) {
	e := escaper{how: EscapeUnderscores}
	for i := range maxEscaped + 10 {
		name := string(rune(0x4e00+i)) + ".x"
		require.Equal(t, "__x", string(e.name([]byte(name), false)))
		require.LessOrEqual(t, len(e.labels), maxEscaped)
	}
}

func TestEscaping_Text(t *testing.T) {
	for e := EscapeAllow; e <= EscapeRefuse; e++ {
		text, err := e.MarshalText()
		require.NoError(t, err)
		var got Escaping
		require.NoError(t, got.UnmarshalText(text))
		require.Equal(t, e, got)
	}
	var e Escaping
	require.ErrorContains(t, e.UnmarshalText([]byte("none")), `"none"`)
	require.Equal(t, "unknown", Escaping(99).String())
	for p := NHCBExpand; p <= NHCBDrop; p++ {
		text, err := p.MarshalText()
		require.NoError(t, err)
		var got NHCBPolicy
		require.NoError(t, got.UnmarshalText(text))
		require.Equal(t, p, got)
	}
	var p NHCBPolicy
	require.ErrorContains(t, p.UnmarshalText([]byte("keep")), `"keep"`)
	require.Equal(t, "unknown", NHCBPolicy(99).String())
}
