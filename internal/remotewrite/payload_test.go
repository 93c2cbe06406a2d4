package remotewrite

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

const payloadTime = 1_763_800_000_000

// payloadV1 is a request like those of a Prometheus that scrapes containers of a
// Kubernetes cluster: 12 labels and one sample a series, neighbours alike.
func payloadV1(n int) *prompb.WriteRequest {
	rng := rand.New(rand.NewPCG(1, 2))
	hex := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = "0123456789abcdef"[rng.IntN(16)]
		}
		return string(b)
	}
	req := &prompb.WriteRequest{}
	var target []prompb.Label
	for i := range n {
		if i%46 == 0 {
			id, pod := hex(64), fmt.Sprintf("catalog-service-%s-%s", hex(10), hex(5))
			target = []prompb.Label{
				{Name: "cluster", Value: "prod-eu-west-1"},
				{Name: "container", Value: "catalog-service"},
				{Name: "endpoint", Value: "https-metrics"},
				{Name: "id", Value: "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + hex(32) + ".slice/cri-containerd-" + id + ".scope"},
				{Name: "image", Value: "registry.example.com/platform/catalog-service:v1.42.7"},
				{Name: "instance", Value: fmt.Sprintf("10-20-%d-%d.eu-west-1.compute.internal:10250", rng.IntN(250), rng.IntN(250))},
				{Name: "job", Value: "kubelet"},
				{Name: "metrics_path", Value: "/metrics/cadvisor"},
				{Name: "namespace", Value: "catalog"},
				{Name: "node", Value: "ip-10-20-7-" + hex(3) + ".eu-west-1.compute.internal"},
				{Name: "pod", Value: pod},
			}
		}
		ls := append([]prompb.Label{{Name: "__name__", Value: fmt.Sprintf("container_network_transmit_packets_dropped_%02d_total", i%46)}}, target...)
		value := math.Floor(rng.Float64() * 1e8)
		if i%4 == 0 {
			value = 0
		}
		req.Timeseries = append(req.Timeseries, prompb.TimeSeries{
			Labels:  ls,
			Samples: []prompb.Sample{{Value: value, Timestamp: payloadTime + int64(i%7)}},
		})
	}
	return req
}

// payloadV2 is payloadV1 as an RW 2.0 request with metadata, and with start timestamps
// when starts is set.
func payloadV2(n int, starts bool) *writev2.Request {
	table := writev2.NewSymbolTable()
	req := &writev2.Request{}
	for _, ts := range payloadV1(n).Timeseries {
		out := writev2.TimeSeries{Metadata: writev2.Metadata{
			Type:    writev2.Metadata_METRIC_TYPE_COUNTER,
			HelpRef: table.Symbolize("Cumulative count of packets dropped while transmitting."),
		}}
		for _, l := range ts.Labels {
			out.LabelsRefs = append(out.LabelsRefs, table.Symbolize(l.Name), table.Symbolize(l.Value))
		}
		for _, s := range ts.Samples {
			o := writev2.Sample{Value: s.Value, Timestamp: s.Timestamp}
			if starts {
				o.StartTimestamp = payloadTime - 3_600_000
			}
			out.Samples = append(out.Samples, o)
		}
		req.Timeseries = append(req.Timeseries, out)
	}
	req.Symbols = table.Symbols()
	return req
}

type marshaler interface{ Marshal() ([]byte, error) }

// mustMarshal is the message on the wire.
func mustMarshal(m marshaler) []byte {
	b, err := m.Marshal()
	if err != nil {
		panic(err)
	}
	return b
}
