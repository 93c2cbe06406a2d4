package sampler

import (
	"slices"
	"strings"

	"github.com/zeebo/xxh3"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
)

// Kind is how a series behaves. A wrong guess costs accuracy, nothing else.
type Kind uint8

// Kinds.
const (
	KindGauge     Kind = iota
	KindCounter        // rises, but for resets
	KindHistogram      // a bucket, the sum or the count of a classic histogram
	KindNative         // native histograms
	KindQuantile       // of a summary
	KindState          // every change of it is an event

	kinds
)

// Integral reports whether values of the kind add up over time.
func (k Kind) Integral() bool {
	return k == KindCounter || k == KindHistogram || k == KindNative
}

func (k Kind) String() string {
	if k >= kinds {
		return "unknown"
	}
	return [kinds]string{"gauge", "counter", "histogram", "native", "quantile", "state"}[k]
}

// Info is what the Sampler has to know of a series.
type Info struct {
	Key    uint64 // hash of all labels; only method random needs it
	Target uint64 // hash of what is scraped at once with it
	Family uint64 // hash of the metric family's name
	Kind   Kind
	Class  uint8 // index in Config.Classes, or ClassProtected
	// Need is the shortest range over which the rules that the class is taken from read
	// the series. Key frames come often enough to answer it.
	Need Need
}

// ClassProtected is the class of series that are never thinned.
const ClassProtected = 255

const protectedName = "protected"

// DescriberOptions are what a Describer is made of.
type DescriberOptions struct {
	// Config is a valid configuration.
	Config Config
	// Metrics are names of metrics that belong to a class besides what its match
	// selects, by the name of the class: what LoadRules and the like found.
	Metrics map[string]Metrics
}

// Describer reads off labels what a series is. It is safe for concurrent use.
type Describer struct {
	targetLabels []string // sorted
	protect      []ProtectSelector
	classes      []describedClass
}

type describedClass struct {
	name    string
	all     bool
	match   []Selector
	metrics Metrics
}

// NewDescriber returns a Describer.
func NewDescriber(o DescriberOptions) *Describer {
	d := &Describer{targetLabels: slices.Sorted(slices.Values(o.Config.TargetLabels)), protect: o.Config.Protect}
	for i := range o.Config.Classes {
		c := &o.Config.Classes[i]
		d.classes = append(d.classes, describedClass{name: c.Name, all: c.takesAll(), match: c.Match, metrics: o.Metrics[c.Name]})
	}
	return d
}

// senderLabels are the external labels by which Prometheus servers are told apart. All
// rules of a server are one target: what they evaluate to has no common instance.
var senderLabels = []string{"__replica__", "cluster", "prometheus", "prometheus_replica", "replica"}

// Describe says what the series is. The labels are sorted by name, without empty values;
// typ is the type of its family as far as it is known. Nothing is kept of the labels.
func (d *Describer) Describe(list []remotewrite.Label, typ remotewrite.MetricType) Info {
	get := func(name string) string {
		for i := range list {
			if string(list[i].Name) == name {
				return string(list[i].Value)
			}
		}
		return ""
	}
	name := get("__name__")
	class, _ := d.class(name, get)
	var need Need
	if class != ClassProtected {
		read, _ := d.classes[class].metrics.find(name)
		need = needOf(read.within)
	}
	return Info{
		Key:    hashLabels(list),
		Target: d.target(name, list),
		Family: xxh3.HashString(family(name)),
		Kind:   kindOf(name, typ, get),
		Class:  class,
		Need:   need,
	}
}

// Explain says which class the series with the labels is in, and why.
func (d *Describer) Explain(list []remotewrite.Label) (class, why string) {
	get := func(name string) string {
		for i := range list {
			if string(list[i].Name) == name {
				return string(list[i].Value)
			}
		}
		return ""
	}
	i, why := d.class(get("__name__"), get)
	if i == ClassProtected {
		return protectedName, why
	}
	return d.classes[i].name, why
}

// class is the first that takes the series.
func (d *Describer) class(name string, get func(string) string) (class uint8, why string) {
	for _, s := range d.protect {
		if s.matches(get) {
			return ClassProtected, "protect: " + s.text
		}
	}
	for i := range d.classes {
		c := &d.classes[i]
		for _, s := range c.match {
			if s.matches(get) {
				return uint8(i), "match: " + s.text
			}
		}
		if source, ok := c.metrics.find(name); ok {
			return uint8(i), source.source
		}
		if c.all {
			return uint8(i), "everything else"
		}
	}
	return uint8(len(d.classes) - 1), "everything else"
}

// target is the hash of what is scraped together.
func (d *Describer) target(name string, list []remotewrite.Label) uint64 {
	stream, names := "scrape", d.targetLabels
	if strings.Contains(name, ":") || name == "ALERTS" || name == "ALERTS_FOR_STATE" {
		stream, names = "rule", senderLabels
	}
	b := append(make([]byte, 0, 128), stream...)
	for i := range list {
		if slices.Contains(names, string(list[i].Name)) {
			b = appendLabel(b, list[i])
		}
	}
	return xxh3.Hash(b)
}

func hashLabels(list []remotewrite.Label) uint64 {
	b := make([]byte, 0, 256)
	for i := range list {
		b = appendLabel(b, list[i])
	}
	return xxh3.Hash(b)
}

// appendLabel writes a label so that no two lists of labels are written alike.
func appendLabel(b []byte, l remotewrite.Label) []byte {
	b = append(b, 0xff) // is in no UTF-8 text
	b = append(b, l.Name...)
	b = append(b, 0xff)
	return append(b, l.Value...)
}

// family is the name under which a histogram's parts, or a summary's, belong together.
func family(name string) string {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, ok := strings.CutSuffix(name, suffix); ok && base != "" {
			return base
		}
	}
	return name
}

func kindOf(name string, typ remotewrite.MetricType, get func(string) string) Kind {
	part := family(name) != name
	bucket := strings.HasSuffix(name, "_bucket")
	switch typ {
	case remotewrite.MetricCounter:
		return KindCounter
	case remotewrite.MetricHistogram:
		if part {
			return KindHistogram
		}
		return KindNative
	case remotewrite.MetricSummary:
		if part {
			return KindCounter
		}
		return KindQuantile
	case remotewrite.MetricInfo, remotewrite.MetricStateset:
		return KindState
	case remotewrite.MetricGauge, remotewrite.MetricGaugeHistogram:
		return gaugeKind(name)
	}
	switch {
	case bucket && get("le") != "":
		return KindHistogram
	case part && !bucket, strings.HasSuffix(name, "_total"):
		return KindCounter
	case get("quantile") != "":
		return KindQuantile
	}
	return gaugeKind(name)
}

// gaugeKind tells gauges whose every change matters by their name.
func gaugeKind(name string) Kind {
	switch {
	case name == "up", strings.HasPrefix(name, "ALERTS"), strings.HasSuffix(name, "_up"), strings.HasSuffix(name, "_info"):
		return KindState
	}
	return KindGauge
}
