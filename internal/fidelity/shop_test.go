package fidelity_test

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/capture"
)

// shop makes up what the Prometheus of a web shop sends: the metrics that the queries in
// testdata read, with days' troubles in minutes. The same shop sends the same always.
type shop struct {
	seed      uint64
	length    time.Duration
	intervals []time.Duration // of the shop's instances, one after the other
	node      time.Duration   // scrape interval of everything else
	jitter    time.Duration   // of the scrapes' times, either way
	lost      float64         // share of the scrapes that fail without a trace
	pods      int             // that live at once
	podLife   time.Duration   // on average
	perSend   int             // samples in a request
	reversed  bool            // the requests of a round come last first
	traffic   float64         // requests per second and instance
	burst     bool            // payments are counted a batch at a time
	late      time.Duration   // when half of the instances first appear
	busy      float64         // share of the CPUs in use while they are busiest
}

// instance is one scrape target of a shop.
type instance struct {
	*shop
	rng      *rand.Rand
	job      string
	name     string
	every    time.Duration
	begins   time.Duration
	ends     time.Duration
	down     [][2]time.Duration // without a scrape; what is counted begins anew after it
	offset   time.Duration
	restarts int
	counts   map[string]float64
	sizes    *histogram.Histogram
	last     time.Duration
	lines    []line
	sent     map[string]labels.Labels
}

// line is one sample of a scrape.
type line struct {
	text string // of the labels, as found in a metrics page
	ls   labels.Labels
	v    float64
	h    *histogram.Histogram
}

// arrival is a sample on its way into a request.
type arrival struct {
	at time.Duration
	line
}

// record makes the capture.
func (s *shop) record(t testing.TB) *bytes.Reader {
	t.Helper()
	rng := rand.New(rand.NewPCG(s.seed, 11))
	var all []arrival
	for _, in := range s.instances(rng) {
		for at := in.begins + in.offset; at < in.ends; at += in.every {
			moment := at
			if s.jitter > 0 {
				moment += time.Duration(rng.Int64N(int64(s.jitter)))
			}
			if rng.Float64() >= s.lost {
				in.scrape(moment.Truncate(time.Millisecond))
				for _, l := range in.lines {
					all = append(all, arrival{moment.Truncate(time.Millisecond), l})
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b arrival) int { return cmp.Compare(a.at, b.at) })
	return s.requests(t, all)
}

// requests packs what arrived, a second at a time.
func (s *shop) requests(t testing.TB, all []arrival) *bytes.Reader {
	t.Helper()
	var file []byte
	for len(all) > 0 {
		second := all[0].at.Truncate(time.Second)
		n := 0
		for n < len(all) && all[n].at.Truncate(time.Second) == second {
			n++
		}
		round := slices.Collect(slices.Chunk(all[:n], s.perSend))
		all = all[n:]
		if s.reversed {
			slices.Reverse(round)
		}
		for i, part := range round {
			var w prompb.WriteRequest
			for _, a := range part {
				ts := prompb.TimeSeries{Labels: prompb.FromLabels(a.ls, nil)}
				ms := begin + a.at.Milliseconds()
				if a.h != nil {
					ts.Histograms = []prompb.Histogram{prompb.FromIntHistogram(ms, a.h)}
				} else {
					ts.Samples = []prompb.Sample{{Value: a.v, Timestamp: ms}}
				}
				w.Timeseries = append(w.Timeseries, ts)
			}
			raw, err := w.Marshal()
			require.NoError(t, err)
			file = capture.AppendRecord(file, begin+second.Milliseconds()+1000+int64(i), s2.EncodeSnappy(nil, raw))
		}
	}
	return bytes.NewReader(file)
}

func (s *shop) instances(rng *rand.Rand) []*instance {
	var all []*instance
	add := func(job, name string, every time.Duration) *instance {
		in := &instance{
			shop: s, rng: rand.New(rand.NewPCG(s.seed, uint64(len(all)+100))), job: job, name: name, every: every, ends: s.length,
			offset: time.Duration(rng.Int64N(int64(every))), counts: map[string]float64{}, sent: map[string]labels.Labels{},
			sizes: &histogram.Histogram{Schema: 1, ZeroThreshold: 1e-128, PositiveSpans: []histogram.Span{{Offset: 8, Length: 12}}, PositiveBuckets: make([]int64, 12)},
		}
		in.last = -every
		all = append(all, in)
		return in
	}
	minute := func(from, to int) time.Duration { return time.Duration(60*from+rng.IntN(60*(to-from))) * time.Second }
	for i, every := range s.intervals {
		in := add([]string{"shop", "shop-fast", "shop-slow"}[i%3], fmt.Sprintf("10.0.0.%d:8080", i), every)
		if i%2 == 1 {
			in.begins = s.late
		}
		from := minute(11, 24)
		in.down = append(in.down, [2]time.Duration{from, from + time.Duration(15+rng.IntN(100))*time.Second})
		if i%3 == 0 { // a restart between two scrapes
			from = minute(24, 28)
			in.down = append(in.down, [2]time.Duration{from, from})
		}
	}
	add("node", "10.0.1.1:9100", s.node)
	add("node", "10.0.1.2:9100", s.node)
	add("redis", "10.0.1.3:9121", s.node)
	add("prometheus", "localhost:9090", s.node)
	add("rules", "", s.node)
	for born := time.Duration(0); s.pods > 0 && born < s.length; born += s.podLife / time.Duration(s.pods) {
		in := add("pod", fmt.Sprintf("pod-%x", rng.Uint32()), s.node)
		in.begins = born
		in.ends = min(s.length, born+time.Duration(float64(s.podLife)*rng.ExpFloat64()))
	}
	return all
}

// scrape makes the lines of a scrape: of what is there, and markers for what is not any
// more.
func (in *instance) scrape(at time.Duration) {
	in.lines = in.lines[:0]
	step := min(at-in.last, 2*in.every).Seconds()
	down := false
	for _, d := range in.down {
		down = down || at >= d[0] && at < d[1]
		if in.last < d[1] && at >= d[1] {
			in.counts = map[string]float64{}
			in.sizes.Count, in.sizes.Sum = 0, 0
			clear(in.sizes.PositiveBuckets)
			in.restarts++
		}
	}
	in.last = at
	now := map[string]labels.Labels{}
	if !down && at+in.every <= in.ends || in.ends == in.length {
		if !down {
			in.page(at, step)
		}
	}
	if in.job != "rules" {
		up := 1.0
		if down {
			up = 0
		}
		in.put("up", up)
		in.put("scrape_duration_seconds", 0.01*(1+in.rng.Float64()))
		in.put("scrape_samples_scraped", float64(len(in.lines)))
	}
	for i, l := range in.lines {
		now[l.text] = in.labels(l.text)
		in.lines[i].ls = now[l.text]
	}
	var gone []string
	for text := range in.sent {
		if _, ok := now[text]; !ok {
			gone = append(gone, text)
		}
	}
	slices.Sort(gone)
	for _, text := range gone {
		l := line{text: text, ls: in.sent[text], v: stale}
		if text == "http_response_size_bytes" {
			l.h, l.v = &histogram.Histogram{Sum: stale}, 0
		}
		in.lines = append(in.lines, l)
	}
	in.sent = now
}

func (in *instance) labels(text string) labels.Labels {
	if ls, ok := in.sent[text]; ok {
		return ls
	}
	b := labels.NewBuilder(labels.EmptyLabels())
	name, rest, _ := bytes.Cut([]byte(text), []byte("{"))
	b.Set(model.MetricNameLabel, string(name))
	for pair := range bytes.SplitSeq(bytes.TrimSuffix(rest, []byte("}")), []byte(",")) {
		if k, v, ok := bytes.Cut(pair, []byte("=")); ok {
			b.Set(string(k), string(v))
		}
	}
	if in.job != "rules" {
		b.Set("job", in.job)
		b.Set("instance", in.name)
	}
	return b.Labels()
}

func (in *instance) put(text string, v float64) { in.lines = append(in.lines, line{text: text, v: v}) }

// count adds to a counter.
func (in *instance) count(text string, by float64) {
	in.counts[text] += by
	in.put(text, in.counts[text])
}

// some is a whole number around mean, as of independent events.
func (in *instance) some(mean float64) float64 {
	if mean > 30 {
		return math.Max(0, math.Round(mean+math.Sqrt(mean)*in.rng.NormFloat64()))
	}
	n, p := 0.0, in.rng.Float64()
	for limit := math.Exp(-mean); p > limit; n++ {
		p *= in.rng.Float64()
	}
	return n
}

// wave swings around 1 by the share, differently for each name and instance.
func (in *instance) wave(at, period time.Duration, share float64) float64 {
	phase := float64(len(in.name)) + float64(in.name[len(in.name)-1])
	return 1 + share*math.Sin(phase+2*math.Pi*at.Seconds()/period.Seconds())
}

// during reports whether the time is in a stretch of an hour's plan.
func during(at time.Duration, from, to int) bool {
	s := int(at.Seconds())
	return s >= from && s < to
}

func (in *instance) page(at time.Duration, step float64) {
	switch in.job {
	case "rules":
		for _, job := range []string{"shop", "shop-fast", "shop-slow"} {
			in.put("job:http_requests:rate1m{job="+job+"}", 30*(1.5+math.Sin(at.Seconds()/200))+in.rng.Float64())
			in.put("job:latency:p99_1m{job="+job+"}", 0.1*(1.5+math.Sin(at.Seconds()/300)))
		}
		if during(at, 900, 1000) {
			in.put("ALERTS{alertname=Busy,alertstate=firing}", 1)
		}
		return
	case "node":
		in.nodePage(at, step)
	case "redis":
		up := 1.0
		if during(at, 1000, 1090) {
			up = 0
		}
		in.put("redis_up", up)
		if up == 1 {
			in.count("redis_commands_processed_total", in.some(200*step*in.wave(at, 9*time.Minute, 0.5)))
			in.put("redis_memory_used_bytes", math.Round(1e8*in.wave(at, 20*time.Minute, 0.2)))
			in.others("redis", 80, 130, at, step)
		}
	case "prometheus":
		in.histogram("prometheus_http_request_duration_seconds", "{handler=/api/v1/query}", in.some(2*step), 0.02)
		in.histogram("prometheus_http_request_duration_seconds", "{handler=/metrics}", in.some(0.3*step), 0.005)
		in.others("prometheus", 170, 80, at, step)
	case "pod":
		in.put("run_progress_ratio", min(1, (at-in.begins).Seconds()/max(1, (in.ends-in.begins).Seconds())))
		in.count("container_work_total", in.some(3*step))
	default:
		in.shopPage(at, step)
	}
	in.count("process_cpu_seconds_total", 0.01*math.Round(step*(10+20*in.rng.Float64())))
	in.put("process_resident_memory_bytes", 4096*math.Round(2e4*in.wave(at, 15*time.Minute, 0.3)))
	in.put("process_start_time_seconds", float64(begin/1000)+in.begins.Seconds()+300*float64(in.restarts))
	in.put("go_goroutines", 20+in.some(10))
	if in.job != "pod" {
		in.others("go", 8, 30, at, step)
	}
	in.put("go_info{version=go1.26}", 1)
}

// others makes what every exporter has besides: most of it rests most of the time.
func (in *instance) others(prefix string, counters, gauges int, at time.Duration, step float64) {
	for i := range counters {
		busy := math.Pow(float64(i%23)/23, 4) // events per second
		in.count(prefix+"_other"+strconv.Itoa(i)+"_total", in.some(busy*step))
	}
	for i := range gauges {
		v := float64(i)
		switch i % 7 {
		case 0:
			v = 1e5 * in.wave(at, time.Duration(3+i%11)*time.Minute, 0.3)
		case 1:
			v = math.Round(20 * in.wave(at, time.Duration(3+i%11)*time.Minute, 0.3))
		}
		in.put(prefix+"_other"+strconv.Itoa(i), v)
	}
}

func (in *instance) nodePage(at time.Duration, step float64) {
	busy := 0.3 * in.wave(at, 11*time.Minute, 0.5)
	if during(at, 1100, 1400) {
		busy = max(in.busy, 0.7)
	}
	for cpu := range 4 {
		at := "{cpu=" + strconv.Itoa(cpu) + ",mode="
		in.count("node_cpu_seconds_total"+at+"idle}", 0.01*math.Round(100*step*(1-busy)*(0.95+0.05*in.rng.Float64())))
		in.count("node_cpu_seconds_total"+at+"user}", 0.01*math.Round(70*step*busy))
		in.count("node_cpu_seconds_total"+at+"system}", 0.01*math.Round(30*step*busy))
		in.count("node_cpu_seconds_total"+at+"irq}", 0)
	}
	in.put("node_memory_MemTotal_bytes", 16e9)
	in.put("node_memory_MemAvailable_bytes", 4096*math.Round(2e6*in.wave(at, 17*time.Minute, 0.3)+1000*in.rng.Float64()))
	in.put("node_load1", 0.01*math.Round(100*(4*busy+0.3*in.rng.Float64())))
	for _, disk := range []string{"sda", "sdb"} {
		in.count("node_disk_written_bytes_total{device="+disk+"}", 4096*in.some(50*step))
	}
	in.others("node", 120, 260, at, step)
	in.put("coolant_temperature_celsius", 0.1*math.Round(450*in.wave(at, 13*time.Minute, 0.2)))
	free := 1e12 - at.Seconds()*1e8
	if during(at, 1200, 1600) {
		free -= (at.Seconds() - 1200) * 1e9
	}
	in.put("volume_free_bytes", free)
}

func (in *instance) shopPage(at time.Duration, step float64) {
	rate := in.traffic * in.wave(at, 10*time.Minute, 0.3)
	if during(at, 700, 760) || during(at, 1300, 1350) {
		rate *= 4
	}
	if during(at, 1500, 1620) {
		rate *= 0.1
	}
	failing, slow := 0.004, 0.05
	if during(at, 800, 950) {
		failing = 0.1
	}
	if during(at, 1000, 1240) {
		slow = 0.9
	}
	for i, handler := range []string{"/", "/cart", "/item", "/pay"} {
		share := []float64{0.4, 0.1, 0.3, 0.2}[i]
		n := in.some(rate * share * step)
		if in.burst && handler == "/pay" {
			in.counts["waiting"] += n
			n = 0
			if in.rng.IntN(6) == 0 {
				n, in.counts["waiting"] = in.counts["waiting"], 0
			}
		}
		bad := min(n, in.some(n*failing))
		in.count("http_requests_total{code=200,handler="+handler+",method=GET}", n-bad)
		in.count("http_requests_total{code=500,handler="+handler+",method=GET}", bad)
		in.count("http_requests_total{code=404,handler="+handler+",method=GET}", in.some(n*0.01))
		in.histogram("http_request_duration_seconds", "{handler="+handler+"}", n, slow*(0.5+float64(i)/4))
	}
	for range int(in.some(rate * step)) {
		size := min(11, int(in.rng.ExpFloat64()*3))
		for i := size; i < min(12, size+2); i++ { // deltas of the buckets
			in.sizes.PositiveBuckets[i] += int64(1 - 2*(i-size))
		}
		in.sizes.Count++
		in.sizes.Sum += 1000
	}
	in.lines = append(in.lines, line{text: "http_response_size_bytes", h: in.sizes.Copy()})
	for _, q := range []string{"0.5", "0.9", "0.99"} {
		in.put("rpc_duration_seconds{quantile="+q+"}", slow*(0.9+0.2*in.rng.Float64()))
	}
	calls := in.some(5 * step)
	in.count("rpc_duration_seconds_count", calls)
	in.count("rpc_duration_seconds_sum", calls*slow)
	for i, queue := range []string{"img", "mail"} {
		depth := 10*in.wave(at, 4*time.Minute, 0.8) + 3*in.rng.Float64()
		if i == 0 && during(at, 1150, 1290) {
			depth += 90
		}
		in.put("queue_depth{queue="+queue+"}", math.Round(depth))
	}
	in.put("in_flight_requests", in.some(rate/10))
	in.put("shop_build_info{version=1.2}", 1)
	in.put("config_version", 1+math.Floor(at.Seconds()/250))
	in.put("batch_last_success_timestamp_seconds", float64(begin/1000)+120*math.Floor(at.Seconds()/120))
	failures := 0.003
	if during(at, 1350, 1450) {
		failures = 0.3
	}
	for _, reason := range []string{"declined", "timeout"} {
		in.count("payment_failures_total{reason="+reason+"}", in.some(failures*step))
	}
}

var bounds = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, math.Inf(1)}

// histogram counts n observations around mean in a classic histogram.
func (in *instance) histogram(name, ls string, n, mean float64) {
	within := make([]float64, len(bounds))
	sum := 0.0
	for range int(n) {
		v := mean * in.rng.ExpFloat64()
		sum += v
		for i, le := range bounds {
			if v <= le {
				within[i]++
			}
		}
	}
	for i, le := range bounds {
		text := "+Inf"
		if !math.IsInf(le, 1) {
			text = strconv.FormatFloat(le, 'g', -1, 64)
		}
		in.count(name+"_bucket"+ls[:len(ls)-1]+",le="+text+"}", within[i])
	}
	in.count(name+"_sum"+ls, sum)
	in.count(name+"_count"+ls, n)
}
