package remotewrite

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
)

// labelsOf is the labels of name, value, name, value.
func labelsOf(pairs ...string) []Label {
	ls := []Label{}
	for ; len(pairs) > 1; pairs = pairs[2:] {
		ls = append(ls, Label{[]byte(pairs[0]), []byte(pairs[1])})
	}
	return ls
}

func TestCanonicalLabels(t *testing.T) {
	for _, c := range []struct {
		name    string
		in      []Label
		want    []Label
		changed bool
		reason  Reason
	}{
		{"canonical", labelsOf("__name__", "up", "a", "1", "b", "2"), labelsOf("__name__", "up", "a", "1", "b", "2"), false, ""},
		{"name alone", labelsOf("__name__", "up"), labelsOf("__name__", "up"), false, ""},
		{"M7 unsorted", labelsOf("b", "2", "__name__", "up", "a", "1"), labelsOf("__name__", "up", "a", "1", "b", "2"), true, ""},
		{"M7 upper case before underscore", labelsOf("__name__", "up", "Z", "1"), labelsOf("Z", "1", "__name__", "up"), true, ""},
		{"M8 empty value", labelsOf("__name__", "up", "a", "", "b", "2"), labelsOf("__name__", "up", "b", "2"), true, ""},
		{"M8 empty value out of order", labelsOf("z", "", "__name__", "up"), labelsOf("__name__", "up"), true, ""},
		{"M8 empty duplicate is absent", labelsOf("__name__", "up", "a", "", "a", "1"), labelsOf("__name__", "up", "a", "1"), true, ""},
		{"M8 empty name", labelsOf("", "1", "__name__", "up"), nil, false, ReasonEmptyLabelName},
		{"M8 empty name and value", labelsOf("", "", "__name__", "up"), nil, true, ReasonEmptyLabelName},
		{"M4 no name", labelsOf("a", "1"), nil, false, ReasonMissingName},
		{"M4 empty metric name", labelsOf("__name__", "", "a", "1"), nil, true, ReasonMissingName},
		{"M4 no labels", labelsOf(), nil, false, ReasonMissingName},
		{"M6 duplicate", labelsOf("__name__", "up", "a", "1", "a", "2"), nil, false, ReasonDuplicateLabel},
		{"M6 duplicate apart", labelsOf("a", "1", "__name__", "up", "a", "1"), nil, true, ReasonDuplicateLabel},
		{"M5 UTF-8 names", labelsOf("__name__", "größe", "ключ", "x"), labelsOf("__name__", "größe", "ключ", "x"), false, ""},
		{"M5 broken metric name", labelsOf("__name__", "\xff"), nil, false, ReasonInvalidUTF8},
		{"M5 broken label name", labelsOf("__name__", "up", "\xc3", "x"), nil, false, ReasonInvalidUTF8},
		{"M5 broken value", labelsOf("__name__", "up", "a", "\xed\xa0\x80"), nil, false, ReasonInvalidUTF8},
		{"M9 reserved names pass", labelsOf("__name__", "up", "__type__", "gauge"), labelsOf("__name__", "up", "__type__", "gauge"), false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, changed, reason := CanonicalLabels(c.in)
			require.Equal(t, c.reason, reason)
			require.Equal(t, c.changed, changed)
			if c.want != nil {
				require.Equal(t, c.want, got)
			}
		})
	}
}

// TestCanonicalLabelsAgreeWithPrometheus compares the verdict on random labels with
// that of Prometheus' receiver, after empty values are gone.
func TestCanonicalLabelsAgreeWithPrometheus(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 7))
	words := []string{"__name__", "__name__", "a", "b", "job", "", "\xff", "ж", strings.Repeat("x", 300), "a:b", "0"}
	verdicts := map[Reason]int{}
	for range 8000 {
		var in []Label
		b := labels.NewScratchBuilder(0)
		for range rng.IntN(6) {
			name, val := words[rng.IntN(len(words))], words[rng.IntN(len(words))]
			if len(in) == 0 && rng.IntN(4) > 0 {
				name = "__name__"
			}
			in = append(in, Label{[]byte(name), []byte(val)})
			if val != "" || name == "" {
				b.Add(name, val)
			}
		}
		b.Sort()
		want := b.Labels()
		got, _, reason := CanonicalLabels(in)
		verdicts[reason]++
		_, duplicate := want.HasDuplicateLabelNames()
		valid := want.Has(model.MetricNameLabel) && want.IsValid(model.UTF8Validation) && !duplicate
		require.Equal(t, valid, reason == "", "%v: %s", want, reason)
		if !valid {
			continue
		}
		i := 0
		want.Range(func(l labels.Label) {
			require.Equal(t, []string{l.Name, l.Value}, []string{string(got[i].Name), string(got[i].Value)})
			i++
		})
		require.Len(t, got, i)
		legacy := model.LegacyValidation.IsValidMetricName(want.Get(model.MetricNameLabel))
		want.Range(func(l labels.Label) { legacy = legacy && model.LegacyValidation.IsValidLabelName(l.Name) })
		require.Equal(t, legacy, LegacyNames(got), "%v", want)
	}
	for _, r := range []Reason{"", ReasonMissingName, ReasonEmptyLabelName, ReasonDuplicateLabel, ReasonInvalidUTF8} {
		require.Greater(t, verdicts[r], 80, r)
	}
}

func TestLegacyNames(t *testing.T) {
	for _, c := range []struct {
		ls   []Label
		want bool
	}{
		{labelsOf("__name__", "node:cpu_total"), true},
		{labelsOf("__name__", "up", "A9_z", "größe"), true},
		{labelsOf("__name__", "9up"), false},
		{labelsOf("__name__", "größe"), false},
		{labelsOf("__name__", "up", "a:b", "1"), false},
		{labelsOf("__name__", "up", "a.b", "1"), false},
		{labelsOf("__name__", "up", "@", "1"), false},
		{labelsOf("__name__", "up", "[", "1"), false},
		{labelsOf("__name__", "up", "", "1"), false},
	} {
		require.Equal(t, c.want, LegacyNames(c.ls), "%s", c.ls)
	}
}

// TestCanonicalKeyIsTheV1Key holds for the spelling of the generated encoders, with
// labels of all lengths around the borders of varints.
func TestCanonicalKeyIsTheV1Key(t *testing.T) {
	for _, n := range []int{0, 1, 2, 119, 120, 121, 122, 123, 124, 125, 126, 127, 128, 200, 16_370, 16_380, 16_384, 100_000} {
		ts := prompb.TimeSeries{Labels: []prompb.Label{
			{Name: "__name__", Value: "up"}, {Name: strings.Repeat("n", n), Value: strings.Repeat("v", n)}, {Name: "z", Value: "1"},
		}}
		m := indexed(t, series.V1, mustMarshal(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{ts}}))
		ls, err := m.AppendLabels(nil, 0)
		require.NoError(t, err)
		require.Equal(t, m.Series[0].Key, CanonicalKey(ls, 7), "%d", n)
		require.NotEqual(t, m.Series[0].Key, CanonicalKey(ls, 8))
		require.Zero(t, m.Series[0].Flags)
	}
}

// TestBrokenLabelCostsOnlyItsSeries: the inside of V1 labels is read with the labels.
func TestBrokenLabelCostsOnlyItsSeries(t *testing.T) {
	sample := field(2, sampleV(1, 2))
	for _, broken := range [][]byte{
		{0x0a, 9}, {0x0a, 1, 'x', 0x12, 9}, varintField(1, 1), varintField(2, 1), {0x80}, {0x0a, 1, 'x', 0x12, 1, 'y', 0x0b},
	} {
		data := join(field(1, labelV1("__name__", "good"), sample), field(1, labelV1("__name__", "bad"), field(1, broken), sample))
		var m Message
		require.NoError(t, m.Index(series.V1, data, 1))
		_, err := m.AppendLabels(nil, 0)
		require.NoError(t, err)
		_, err = m.AppendLabels(nil, 1)
		require.ErrorIs(t, err, ErrMalformed)
		require.ErrorContains(t, err, "broken Label at byte")
	}
}

func TestOddLabels(t *testing.T) {
	for _, c := range []struct {
		name  string
		label []byte
		want  Label
	}{
		{"value first", join(field(2, []byte("v")), field(1, []byte("n"))), Label{[]byte("n"), []byte("v")}},
		{"last wins", join(field(1, []byte("x")), field(1, []byte("n")), field(2, []byte("y")), field(2, []byte("v"))), Label{[]byte("n"), []byte("v")}},
		{"unknown field", join(field(1, []byte("n")), varintField(7, 1), field(2, []byte("v"))), Label{[]byte("n"), []byte("v")}},
		{"no value", field(1, []byte("n")), Label{Name: []byte("n")}},
		{"nothing", nil, Label{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := indexed(t, series.V1, field(1, field(1, c.label)))
			ls, err := m.AppendLabels(nil, 0)
			require.NoError(t, err)
			require.Equal(t, []Label{c.want}, ls)
		})
	}
}

func TestTooManyLabels(t *testing.T) {
	req := payloadV2(1, false)
	var ls []prompb.Label
	for range MaxLabels {
		ls = append(ls, prompb.Label{Name: "a"})
	}
	refs := make([]uint32, 2*MaxLabels)
	for extra, want := range []error{nil, ErrMalformed} {
		ls, refs := append(ls, make([]prompb.Label, extra)...), append(refs, make([]uint32, 2*extra)...)
		req.Timeseries[0].LabelsRefs = refs
		for v, data := range map[series.Version][]byte{
			series.V1: mustMarshal(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Labels: ls}}}),
			series.V2: mustMarshal(req),
		} {
			var m Message
			require.NoError(t, m.Index(v, data, 1))
			got, err := m.AppendLabels(labelsOf("x", "y"), 0)
			require.ErrorIs(t, err, want)
			require.LessOrEqual(t, len(got), MaxLabels+1)
		}
	}
}
