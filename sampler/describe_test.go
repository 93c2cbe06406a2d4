package sampler

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
)

// labelsOf makes labels of a name and of name=value pairs.
func labelsOf(name string, pairs ...string) []remotewrite.Label {
	list := []remotewrite.Label{{Name: []byte("__name__"), Value: []byte(name)}}
	for _, pair := range pairs {
		n, v, _ := strings.Cut(pair, "=")
		list = append(list, remotewrite.Label{Name: []byte(n), Value: []byte(v)})
	}
	slices.SortFunc(list, func(a, b remotewrite.Label) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return list
}

func TestKinds(t *testing.T) {
	const none = remotewrite.MetricUnspecified
	d := NewDescriber(DescriberOptions{Config: DefaultConfig()})
	for _, c := range []struct {
		labels []remotewrite.Label
		typ    remotewrite.MetricType
		want   Kind
	}{
		{labelsOf("http_requests_total"), none, KindCounter},
		{labelsOf("rpc_seconds_bucket", "le=0.5"), none, KindHistogram},
		{labelsOf("fire_bucket"), none, KindGauge},
		{labelsOf("rpc_seconds_sum"), none, KindCounter},
		{labelsOf("rpc_seconds_count"), none, KindCounter},
		{labelsOf("rpc_seconds", "quantile=0.9"), none, KindQuantile},
		{labelsOf("up"), none, KindState},
		{labelsOf("redis_up"), remotewrite.MetricGauge, KindState},
		{labelsOf("ALERTS"), none, KindState},
		{labelsOf("build_info"), none, KindState},
		{labelsOf("queue_depth"), none, KindGauge},
		{labelsOf("warm_up"), remotewrite.MetricCounter, KindCounter},
		{labelsOf("odd_name"), remotewrite.MetricCounter, KindCounter},
		{labelsOf("size_total"), remotewrite.MetricGauge, KindGauge},
		{labelsOf("rpc_seconds_sum"), remotewrite.MetricHistogram, KindHistogram},
		{labelsOf("rpc_seconds"), remotewrite.MetricHistogram, KindNative},
		{labelsOf("rpc_seconds_count"), remotewrite.MetricSummary, KindCounter},
		{labelsOf("rpc_seconds", "quantile=0.9"), remotewrite.MetricSummary, KindQuantile},
		{labelsOf("feature"), remotewrite.MetricStateset, KindState},
		{labelsOf("sizes_bucket", "le=1"), remotewrite.MetricGaugeHistogram, KindGauge},
	} {
		got := d.Describe(c.labels, c.typ).Kind
		require.Equal(t, c.want, got, "%s as %s is %s", c.labels[0].Value, c.typ, got)
	}
}

func TestTargetsAndFamilies(t *testing.T) {
	d := NewDescriber(DescriberOptions{Config: DefaultConfig()})
	describe := func(name string, pairs ...string) Info {
		return d.Describe(labelsOf(name, pairs...), remotewrite.MetricUnspecified)
	}
	bucket := describe("rpc_bucket", "instance=a", "job=x", "le=1")
	count := describe("rpc_count", "instance=a", "job=x")
	require.Equal(t, bucket.Target, count.Target)
	require.Equal(t, bucket.Family, count.Family)
	require.NotEqual(t, bucket.Key, count.Key)
	require.NotEqual(t, count.Target, describe("rpc_count", "instance=b", "job=x").Target)
	require.NotEqual(t, count.Target, describe("rpc_count", "instance=x", "job=a").Target)
	require.NotEqual(t, count.Family, describe("rpc_total").Family)

	rule := describe("job:rpc:rate1m", "instance=a", "job=x")
	require.NotEqual(t, count.Target, rule.Target)
	require.Equal(t, rule.Target, describe("ALERTS", "alertname=Down", "instance=b").Target)
	require.NotEqual(t, rule.Target, describe("ALERTS", "prometheus=second").Target)

	require.NotEqual(t, describe("m", "a=bc").Key, describe("m", "ab=c").Key)
	// All gateways hash alike; a change here makes them disagree while they are updated.
	require.Equal(t, Info{Key: 0xb0550cec7a976fb5, Target: 0xc482422d7e0f8c29, Family: 0x155d81a9d4963b8e, Kind: KindHistogram, Class: 2}, bucket)
}

func TestClasses(t *testing.T) {
	c := DefaultConfig()
	c.Protect = []ProtectSelector{{mustSelect(`{job="billing"}`)[0]}}
	var metrics Metrics
	require.NoError(t, metrics.AddQuery(`rate(rpc_bucket[5m])`, "alert Slow"))
	d := NewDescriber(DescriberOptions{Config: c, Metrics: map[string]Metrics{ClassCritical: metrics}})
	for _, c := range []struct {
		labels     []remotewrite.Label
		class, why string
		index      uint8
	}{
		{labelsOf("up"), ClassCritical, `match: {__name__=~"up|ALERTS.*"}`, 0},
		{labelsOf("rpc_bucket", "le=1"), ClassCritical, "alert Slow", 0},
		{labelsOf("rpc_count"), ClassCritical, "alert Slow", 0},
		{labelsOf("go_goroutines"), ClassLow, `match: {__name__=~"go_.*|promhttp_.*|scrape_.*|net_conntrack_.*"}`, 1},
		{labelsOf("requests_total"), ClassNormal, "everything else", 2},
		{labelsOf("up", "job=billing"), protectedName, `protect: {job="billing"}`, ClassProtected},
	} {
		class, why := d.Explain(c.labels)
		require.Equal(t, c.class, class)
		require.Equal(t, c.why, why)
		require.Equal(t, c.index, d.Describe(c.labels, 0).Class)
	}
}
