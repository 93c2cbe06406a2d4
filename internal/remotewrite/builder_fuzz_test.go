package remotewrite

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
)

// FuzzBuilder drives whatever the walk accepts through every kind of Builder: nothing
// may panic, nothing may be lost uncounted, and what comes out must be accepted by the
// walk and hold what the Builder says.
func FuzzBuilder(f *testing.F) {
	all := []genSeries{{
		labels: label(nameLabel, "a.b", "le", "x"), samples: payloadV2(1, true).Timeseries[0].Samples, exemplars: exemplar(1),
	}}
	h := all[0]
	h.samples, h.ints, h.times, h.starts = nil, append(h.ints, nhcb(1, 2)), []int64{5}, []int64{3}
	e := all[0]
	e.samples = nil
	all = append(all, h, e)
	f.Add(encodeV1(all), encodeV2(all), false)
	f.Add(mustMarshal(payloadV1(3)), mustMarshal(payloadV2(3, true)), true)
	f.Add([]byte{}, rc3Request(7), true)
	f.Fuzz(func(t *testing.T, v1, v2 []byte, v2First bool) {
		var messages []*Message
		for v, data := range map[series.Version][]byte{series.V1: v1, series.V2: v2} {
			m := new(Message)
			if m.Scan(v, data) == nil {
				messages = append(messages, m)
			}
		}
		if len(messages) == 2 && (messages[0].Version == series.V2) != v2First {
			messages[0], messages[1] = messages[1], messages[0]
		}
		for _, o := range []BuilderOptions{
			{Version: series.V1},
			{Version: series.V1, Escaping: EscapeDots, NHCBOnV1: NHCBDrop},
			{Version: series.V2},
			{Version: series.V2, Escaping: EscapeValues, Metadata: familySource()},
		} {
			b := NewBuilder(o)
			var want series.Counts
			for _, m := range messages {
				for i := range m.Series {
					one := b.Add(m, i)
					want.Add(one.Written)
					one.Written.Add(one.Dropped)
					require.Equal(t, m.Series[i].Counts(), one.Written)
				}
			}
			out := b.AppendTo(nil)
			for _, l := range b.Late() {
				want.Sub(l.Dropped)
			}
			require.Equal(t, want, b.Counts())
			var got Message
			require.NoError(t, got.Scan(o.Version, out))
			require.Len(t, got.Series, b.Len())
			require.Equal(t, want.Exemplars, got.Counts.Exemplars)
			if o.Version == series.V2 {
				require.Equal(t, want, got.Counts)
				for i := range got.Series {
					require.Empty(t, got.Series[i].Invalid())
					require.False(t, got.Series[i].NeedsRewrite())
				}
			}
		}
	})
}
