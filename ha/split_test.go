package ha

import (
	"fmt"
	"math"
	"testing"

	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// row is a series of a test, with labels as name, value, …
type row struct {
	labels  []string
	samples []int64 // times, which are the values too
	hists   []int64
}

func requestV1(t testing.TB, rows ...row) []byte {
	t.Helper()
	r := prompb.WriteRequest{Metadata: []prompb.MetricMetadata{{MetricFamilyName: "up", Help: "help"}}}
	for _, x := range rows {
		var ts prompb.TimeSeries
		for i := 0; i < len(x.labels); i += 2 {
			ts.Labels = append(ts.Labels, prompb.Label{Name: x.labels[i], Value: x.labels[i+1]})
		}
		for _, at := range x.samples {
			ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: at, Value: float64(at)})
		}
		for _, at := range x.hists {
			ts.Histograms = append(ts.Histograms, prompb.Histogram{Timestamp: at, Count: &prompb.Histogram_CountInt{CountInt: 1}, ZeroCount: &prompb.Histogram_ZeroCountInt{ZeroCountInt: 1}, Sum: float64(at)})
		}
		r.Timeseries = append(r.Timeseries, ts)
	}
	b, err := r.Marshal()
	require.NoError(t, err)
	return b
}

func requestV2(t testing.TB, rows ...row) []byte {
	t.Helper()
	table := writev2.NewSymbolTable()
	var r writev2.Request
	for _, x := range rows {
		var ts writev2.TimeSeries
		for _, s := range x.labels {
			ts.LabelsRefs = append(ts.LabelsRefs, table.Symbolize(s))
		}
		for _, at := range x.samples {
			ts.Samples = append(ts.Samples, writev2.Sample{Timestamp: at, Value: float64(at)})
		}
		for _, at := range x.hists {
			ts.Histograms = append(ts.Histograms, writev2.Histogram{Timestamp: at, Count: &writev2.Histogram_CountInt{CountInt: 1}, ZeroCount: &writev2.Histogram_ZeroCountInt{ZeroCountInt: 1}, Sum: float64(at)})
		}
		r.Timeseries = append(r.Timeseries, ts)
	}
	r.Symbols = table.Symbols()
	b, err := r.Marshal()
	require.NoError(t, err)
	return b
}

// rowsOf reads a request back.
func rowsOf(t testing.TB, v series.Version, plain []byte) []row {
	t.Helper()
	var m remotewrite.Message
	require.NoError(t, m.Scan(v, plain))
	var rows []row
	for i := range m.Series {
		require.Empty(t, m.Series[i].Invalid())
		ls, err := m.AppendLabels(nil, i)
		require.NoError(t, err)
		var x row
		for _, l := range ls {
			x.labels = append(x.labels, string(l.Name), string(l.Value))
		}
		for _, s := range m.AppendSamples(nil, i) {
			x.samples = append(x.samples, s.Time)
			require.Equal(t, float64(s.Time), s.Value)
		}
		for _, h := range m.AppendHistograms(nil, i) {
			x.hists = append(x.hists, h.Time)
		}
		rows = append(rows, x)
	}
	return rows
}

func splitOf(t testing.TB, v series.Version, plain []byte) *split {
	t.Helper()
	var m remotewrite.Message
	require.NoError(t, m.Scan(v, plain))
	sp := &split{cluster: []byte("cluster"), replica: []byte("__replica__"), horizon: 1000}
	sp.read(&m)
	return sp
}

func TestSplit_LooksAtEverySeries(t *testing.T) {
	long := fmt.Sprintf("%0300d", 1)
	rows := []row{
		{labels: []string{"__name__", "up", "__replica__", "a", "cluster", "x"}, samples: []int64{1, 2}},
		{labels: []string{"__name__", "plain"}, samples: []int64{3}},
		{labels: []string{"__name__", "up", "__replica__", "b", "cluster", "x", "job", "j"}, samples: []int64{4}},
		{labels: []string{"__name__", "only_replica", "__replica__", "a"}, samples: []int64{5}},
		{labels: []string{"__name__", "only_cluster", "cluster", "x"}, samples: []int64{6}},
		{labels: []string{"__name__", "text", "note", "__replica__"}, samples: []int64{7}},
		{labels: []string{"__replica__", "a", "__name__", "unsorted", "cluster", "x"}, samples: []int64{8}},
		{labels: []string{"__name__", "empty", "__replica__", "", "cluster", "x"}, samples: []int64{9}},
		{labels: []string{"__name__", "hist", "__replica__", "a", "cluster", "y", "long", long}, hists: []int64{2000}},
	}
	request := map[series.Version]func(testing.TB, ...row) []byte{series.V1: requestV1, series.V2: requestV2}
	for v, make := range request {
		t.Run(v.String(), func(t *testing.T) {
			sp := splitOf(t, v, make(t, rows...))
			require.Equal(t, []int{1, 0, 2, 0, 0, 0, 1, 0, 3}, sp.of)
			require.Equal(t, []member{{"x", "a"}, {"x", "b"}, {"y", "a"}}, []member{sp.parts[0].member, sp.parts[1].member, sp.parts[2].member})
			require.Equal(t, series.Counts{Samples: 3}, sp.parts[0].counts)
			require.Equal(t, series.Counts{Histograms: 1}, sp.parts[2].counts)
			require.Equal(t, []int64{1, 8, 8}, []int64{sp.parts[0].minTime, sp.parts[0].maxTime, sp.parts[0].mark})
			require.Equal(t, int64(math.MinInt64), sp.parts[2].mark, "too far ahead of the clock")

			stripped := rows
			for i, labels := range map[int][]string{
				0: {"__name__", "up", "cluster", "x"}, 2: {"__name__", "up", "cluster", "x", "job", "j"},
				6: {"__name__", "unsorted", "cluster", "x"}, 8: {"__name__", "hist", "cluster", "y", "long", long},
			} {
				stripped = append([]row(nil), stripped...)
				stripped[i].labels = labels
			}
			all := sp.appendRequest([]byte{}, true, func(int) bool { return true })
			require.Equal(t, stripped, rowsOf(t, v, all))
			accepted := sp.appendRequest(nil, true, func(of int) bool { return of == 0 || of == 3 })
			require.Equal(t, []row{stripped[1], stripped[3], stripped[4], stripped[5], stripped[7], stripped[8]}, rowsOf(t, v, accepted))
			held := sp.appendRequest(nil, v == series.V2, func(of int) bool { return of == 1 })
			require.Equal(t, []row{stripped[0], stripped[6]}, rowsOf(t, v, held))
		})
	}
}

func TestSplit_KeepsMetadata(t *testing.T) {
	sp := splitOf(t, series.V1, requestV1(t, row{labels: []string{"__name__", "up", "__replica__", "a", "cluster", "x"}, samples: []int64{1}}))
	var m remotewrite.Message
	require.NoError(t, m.Scan(series.V1, sp.appendRequest(nil, true, func(int) bool { return false })))
	require.Empty(t, m.Series)
	md := m.AppendMetadata(nil)
	require.Len(t, md, 1)
	require.Equal(t, "up", string(md[0].Family))
}

// The labels of a series may stand anywhere in its message.
func TestSplit_ScatteredLabels(t *testing.T) {
	field := func(number byte, content ...byte) []byte {
		return append([]byte{number<<3 | 2, byte(len(content))}, content...)
	}
	text := func(number byte, s string) []byte { return field(number, []byte(s)...) }
	pair := func(name, value string) []byte {
		return field(1, append(text(1, name), text(2, value)...)...)
	}
	sample := field(2, 0x10, 5) // time 5, value 0
	var content []byte
	for _, part := range [][]byte{pair("__name__", "up"), sample, pair("__replica__", "a"), pair("cluster", "x")} {
		content = append(content, part...)
	}
	sp := splitOf(t, series.V1, field(1, content...))
	require.Equal(t, []int{1}, sp.of)
	got := sp.appendRequest(nil, true, func(int) bool { return true })
	var m remotewrite.Message
	require.NoError(t, m.Scan(series.V1, got))
	ls, err := m.AppendLabels(nil, 0)
	require.NoError(t, err)
	require.Len(t, ls, 2)
	require.Equal(t, uint32(1), m.Series[0].Samples)

	var v2 []byte
	for _, s := range []string{"", "__name__", "up", "__replica__", "a", "cluster", "x"} {
		v2 = append(v2, text(4, s)...)
	}
	content = append(field(1, 1, 2), sample...)
	content = append(content, field(1, 3, 4)...)
	content = append(content, 1<<3, 5, 1<<3, 6) // not packed
	v2 = append(v2, field(5, content...)...)
	sp = splitOf(t, series.V2, v2)
	require.Equal(t, []int{1}, sp.of)
	require.NoError(t, m.Scan(series.V2, sp.appendRequest(nil, true, func(int) bool { return true })))
	ls, err = m.AppendLabels(nil, 0)
	require.NoError(t, err)
	require.Len(t, ls, 2)
	require.Equal(t, "cluster", string(ls[1].Name))
	require.Equal(t, uint32(1), m.Series[0].Samples)
}

func TestLater_LeavesOutWhatIsNotNewer(t *testing.T) {
	rows := []row{
		{labels: []string{"__name__", "a"}, samples: []int64{1, 2, 3}},
		{labels: []string{"__name__", "b"}, samples: []int64{1, 2}},
		{labels: []string{"__name__", "c"}, samples: []int64{3, 4}},
		{labels: []string{"__name__", "d"}, hists: []int64{2, 3}},
		{labels: []string{"__name__", "e"}, samples: []int64{1}},
	}
	after := func(i int) int64 {
		if i == 4 {
			return noTime
		}
		return 2
	}
	for v, make := range map[series.Version]func(testing.TB, ...row) []byte{series.V1: requestV1, series.V2: requestV2} {
		t.Run(v.String(), func(t *testing.T) {
			var m remotewrite.Message
			require.NoError(t, m.Scan(v, make(t, rows...)))
			got, dropped := later(nil, &m, after)
			require.Equal(t, series.Counts{Samples: 4, Histograms: 1}, dropped)
			require.Equal(t, []row{
				{labels: rows[0].labels, samples: []int64{3}},
				rows[2],
				{labels: rows[3].labels, hists: []int64{3}},
				rows[4],
			}, rowsOf(t, v, got))

			require.NoError(t, m.Scan(v, make(t, rows...)))
			got, dropped = later(nil, &m, func(int) int64 { return 0 })
			require.Zero(t, dropped)
			require.Empty(t, got, "as it was")
		})
	}
}

// FuzzSplit holds what goes on to what came in: no series is lost or made up, and none of
// a cluster keeps its replica label.
func FuzzSplit(f *testing.F) {
	f.Add(requestV1(f, row{labels: []string{"__name__", "up", "__replica__", "a", "cluster", "x"}, samples: []int64{1}}), false)
	f.Add(requestV2(f, row{labels: []string{"__name__", "up", "__replica__", "a", "cluster", "x"}, samples: []int64{1}}), true)
	f.Fuzz(func(t *testing.T, plain []byte, second bool) {
		v := series.V1
		if second {
			v = series.V2
		}
		var m, again remotewrite.Message
		if m.Scan(v, plain) != nil {
			return
		}
		sp := &split{cluster: []byte("cluster"), replica: []byte("__replica__"), horizon: 1000}
		sp.read(&m)
		all := sp.appendRequest(nil, true, func(int) bool { return true })
		require.NoError(t, again.Scan(v, all))
		require.Len(t, again.Series, len(m.Series))
		require.Equal(t, m.Counts, again.Counts)
		require.Equal(t, []int64{m.MinTime, m.MaxTime}, []int64{again.MinTime, again.MaxTime})
		for i := range m.Series {
			before, err := m.AppendLabels(nil, i)
			after, err2 := again.AppendLabels(nil, i)
			if err != nil {
				continue
			}
			require.NoError(t, err2)
			want := before[:0:0]
			for _, l := range before {
				if sp.of[i] == 0 || string(l.Name) != "__replica__" {
					want = append(want, l)
				}
			}
			require.Equal(t, want, after[:len(after):len(after)])
		}
	})
}
