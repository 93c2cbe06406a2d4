package sampler

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/sluice-metrics/sluice/internal/fielderror"
)

// Config is the section adaptive_sampling.
type Config struct {
	// Whether less is sent to a backend that lags.
	Enabled bool `yaml:"enabled"`
	// Share of the samples that is sent while nothing lags.
	BaseRate float64 `yaml:"base_rate"`
	// Smallest share that is asked for, however much a backend lags.
	MinRate float64 `yaml:"min_rate"`
	// From which values on a signal counts as lag.
	Thresholds Thresholds `yaml:"backpressure_thresholds"`
	// Which samples the share consists of. frames: whole scrapes and what changed;
	// aligned: whole scrapes only, without state; random: each sample by a hash, to
	// compare with.
	Method Method `yaml:"method"`
	// What happens when key frames alone are more than the share. hold: they are sent all
	// the same and the journal takes the rest; shed: whole metric families are left out,
	// lowest class first.
	Floor Floor `yaml:"floor"`
	// active, or shadow: only report what would be withheld.
	Mode Mode `yaml:"mode"`
	// PromQL series selectors. What any of them selects is never thinned.
	Protect []ProtectSelector `yaml:"protect,omitempty"`
	// Outage after which the newest samples go first. Needs backfill: true, which sends
	// what they overtook, and with it a backend that takes samples out of order.
	FreshFirstAfter model.Duration `yaml:"fresh_first_after"`
	// Whether withheld samples are sent later, when the backend has recovered.
	Backfill bool `yaml:"backfill"`
	// How long the backend has to be without lag and to be sent everything before the
	// sampling ends, and before what was withheld is sent later. Series that were withheld
	// are sent once more meanwhile.
	BackfillAfter model.Duration `yaml:"backfill_after"`
	// Largest share of the measured write rate that the backfill takes.
	BackfillShare float64 `yaml:"backfill_share"`
	// exact: send just what was withheld; floor: send all but the key frames, which a
	// backend has to recognise as repeated.
	BackfillMethod BackfillMethod `yaml:"backfill_method"`
	// series: a series always comes to the same gateway; none: it does not, and the
	// sampler keeps no state of it.
	Affinity Affinity `yaml:"affinity"`
	// Labels whose values name a scrape target.
	TargetLabels []string `yaml:"target_labels"`
	// Smallest distance of key frames, at which every series is sent.
	KeyFrameMin model.Duration `yaml:"key_frame_min"`
	// How far queries look back for a sample: the lookback of the query engine.
	Lookback model.Duration `yaml:"lookback"`
	// Classes of series, first match wins. The names critical, normal and low have to be
	// there; one without match, from_rules and from_dashboards takes everything else. By default
	// critical has what alert rules in rules/*.yml read, with up and ALERTS (30s, weight 8,
	// keep_change 0.1), low what programs tell of their own runtime and scrapes (4m, weight
	// 0.25), and normal the rest (2m).
	Classes []Class `yaml:"classes"`
}

// Thresholds are the values from which on a signal counts as lag.
type Thresholds struct {
	// Batches that wait for the backend.
	QueueLength int `yaml:"queue_length"`
	// Milliseconds that a write to the backend takes.
	WriteLatencyMS int `yaml:"write_latency_ms"`
	// Seconds for which the oldest batch waits for the backend.
	QueueAgeSeconds float64 `yaml:"queue_age_seconds"`
	// Share of the requests that fail, or that the backend answers with 429.
	ErrorShare float64 `yaml:"error_share"`
	// Seconds by which the replicas of the backend's database lag; see lag_from. 0 is off.
	ReplicaLagSeconds float64 `yaml:"replica_lag_seconds"`
	// Share of the gateway's memory limit that is in use. 0 is off.
	MemoryRatio float64 `yaml:"memory_ratio"`
	// What holds while a signal is not known. hold: the rate does not rise; lower: it
	// counts as one at its threshold.
	OnUnknown OnUnknown `yaml:"on_unknown"`
}

// OnUnknown says what an unknown signal does.
type OnUnknown string

// What an unknown signal does.
const (
	OnUnknownHold  OnUnknown = "hold"
	OnUnknownLower OnUnknown = "lower"
)

// DefaultThresholds are the values that hold for keys that a file does not have.
func DefaultThresholds() Thresholds {
	return Thresholds{
		QueueLength: 5000, WriteLatencyMS: 200, QueueAgeSeconds: 10, ErrorShare: 0.1, MemoryRatio: 0.85,
		OnUnknown: OnUnknownHold,
	}
}

// Class is a group of series that is thinned alike. Classes named critical and low have
// their place in the order in which things are given up; all others count as normal.
type Class struct {
	// Name of the class in metrics.
	Name string `yaml:"name"`
	// Longest time for which a live series of the class goes without a sample. Must
	// leave a minute to the lookback.
	MaxGap model.Duration `yaml:"max_gap"`
	// How many times as many frames the class has as one of weight 1.
	Weight float64 `yaml:"weight"`
	// Relative change at which a gauge is sent at once; 0 for never.
	KeepChange float64 `yaml:"keep_change"`
	// PromQL series selectors. The class takes what any of them selects.
	Match []Selector `yaml:"match,omitempty"`
	// Take the metrics that alert rules read, themselves or through recording rules.
	FromRules *FromRules `yaml:"from_rules,omitempty"`
	// Take the metrics that Grafana dashboards read, themselves or through recording rules
	// in files that some class names in from_rules: globs of their JSON files.
	FromDashboards []string `yaml:"from_dashboards,omitempty"`
}

// FromRules names Prometheus rule files.
type FromRules struct {
	// Globs of the files, of alert rules and of the recording rules that these read.
	Files []string `yaml:"files"`
	// Take only alerts with this value of the label severity, their own or that of their
	// group; several with commas between. Absent: all alerts.
	Severity Severities `yaml:"severity,omitempty"`
}

// Severities are values of the label severity; none stands for all.
type Severities []string

// UnmarshalText takes values with commas between.
func (s *Severities) UnmarshalText(text []byte) error {
	var list Severities
	for v := range strings.SplitSeq(string(text), ",") {
		v = strings.TrimSpace(v)
		if v == "" {
			return errors.New("a severity is empty; leave the key out to take all alerts")
		}
		list = append(list, v)
	}
	*s = list
	return nil
}

// MarshalText writes the values with commas between.
func (s Severities) MarshalText() ([]byte, error) { return []byte(strings.Join(s, ", ")), nil }

// Expected says what the key takes.
func (Severities) Expected() string { return "a severity such as page, or several with commas between" }

// Method is how the share is picked.
type Method string

// Methods.
const (
	MethodFrames  Method = "frames"
	MethodAligned Method = "aligned"
	MethodRandom  Method = "random"
)

// Floor is what happens when key frames alone are more than the share.
type Floor string

// Floors.
const (
	FloorHold Floor = "hold"
	FloorShed Floor = "shed"
)

// Mode says whether anything is withheld.
type Mode string

// Modes.
const (
	ModeActive Mode = "active"
	ModeShadow Mode = "shadow"
)

// BackfillMethod is how it is found what to send later.
type BackfillMethod string

// Methods of the backfill.
const (
	BackfillExact BackfillMethod = "exact"
	BackfillFloor BackfillMethod = "floor"
)

// Affinity says whether a series always comes to the same gateway.
type Affinity string

// Affinities.
const (
	AffinitySeries Affinity = "series"
	AffinityNone   Affinity = "none"
)

// Names of the classes that have to be there.
const (
	ClassCritical = "critical"
	ClassNormal   = "normal"
	ClassLow      = "low"
)

const (
	maxClasses = 16 // metrics have a label of it
	// lookbackMargin is what a gap leaves of the lookback: a scrape interval, and that
	// a sample may come late.
	lookbackMargin = time.Minute
)

// SetDefaults makes c the DefaultConfig.
func (c *Config) SetDefaults() { *c = DefaultConfig() }

// SetDefaults makes c a class of weight 1 with the gap of normal series.
func (c *Class) SetDefaults() { *c = Class{MaxGap: model.Duration(2 * time.Minute), Weight: 1} }

// DefaultConfig is what a section starts from.
func DefaultConfig() Config {
	return Config{
		Enabled:         true,
		BaseRate:        1,
		MinRate:         0.01,
		Thresholds:      DefaultThresholds(),
		Method:          MethodFrames,
		Floor:           FloorHold,
		Mode:            ModeActive,
		FreshFirstAfter: model.Duration(30 * time.Second),
		BackfillAfter:   model.Duration(time.Minute),
		BackfillShare:   0.2,
		BackfillMethod:  BackfillExact,
		Affinity:        AffinitySeries,
		TargetLabels:    []string{"job", "instance"},
		KeyFrameMin:     model.Duration(30 * time.Second),
		Lookback:        model.Duration(5 * time.Minute),
		Classes: []Class{
			{
				Name: ClassCritical, MaxGap: model.Duration(30 * time.Second), Weight: 8, KeepChange: 0.1,
				Match:     mustSelect(`{__name__=~"up|ALERTS.*"}`),
				FromRules: &FromRules{Files: []string{"rules/*.yml"}},
			},
			{
				Name: ClassLow, MaxGap: model.Duration(4 * time.Minute), Weight: 0.25,
				Match: mustSelect(`{__name__=~"go_.*|promhttp_.*|scrape_.*|net_conntrack_.*"}`),
			},
			{Name: ClassNormal, MaxGap: model.Duration(2 * time.Minute), Weight: 1},
		},
	}
}

func mustSelect(text string) []Selector {
	s, err := ParseSelector(text)
	if err != nil {
		panic("BUG: sampler: a default selector does not parse: " + err.Error())
	}
	return []Selector{s}
}

// Validate reports every value that is out of range.
func (c *Config) Validate() error {
	var errs []error
	check := func(ok bool, path, format string, args ...any) {
		if !ok {
			errs = append(errs, fielderror.Errorf(path, format, args...))
		}
	}
	check(c.BaseRate > 0 && c.BaseRate <= 1, "base_rate", "must be above 0 and at most 1")
	check(c.MinRate > 0 && c.MinRate <= c.BaseRate, "min_rate", "must be above 0 and at most base_rate")
	check(c.Thresholds.QueueLength >= 1, "backpressure_thresholds.queue_length", "must be at least 1")
	check(c.Thresholds.WriteLatencyMS >= 1, "backpressure_thresholds.write_latency_ms", "must be at least 1")
	check(c.Thresholds.QueueAgeSeconds > 0, "backpressure_thresholds.queue_age_seconds", "must be above 0")
	check(c.Thresholds.ErrorShare > 0 && c.Thresholds.ErrorShare <= 1, "backpressure_thresholds.error_share", "must be above 0 and at most 1")
	check(c.Thresholds.ReplicaLagSeconds >= 0, "backpressure_thresholds.replica_lag_seconds", "must be 0 or more")
	check(c.Thresholds.MemoryRatio >= 0 && c.Thresholds.MemoryRatio <= 1, "backpressure_thresholds.memory_ratio", "must be from 0 to 1")
	errs = append(errs,
		oneOf("backpressure_thresholds.on_unknown", c.Thresholds.OnUnknown, OnUnknownHold, OnUnknownLower),
		oneOf("method", c.Method, MethodFrames, MethodAligned, MethodRandom),
		oneOf("floor", c.Floor, FloorHold, FloorShed),
		oneOf("mode", c.Mode, ModeActive, ModeShadow),
		oneOf("backfill_method", c.BackfillMethod, BackfillExact, BackfillFloor),
		oneOf("affinity", c.Affinity, AffinitySeries, AffinityNone))
	check(c.FreshFirstAfter > 0, "fresh_first_after", "must be longer than 0s")
	check(c.BackfillAfter >= model.Duration(time.Second), "backfill_after", "must be at least 1s")
	check(c.BackfillShare > 0 && c.BackfillShare <= 1, "backfill_share", "must be above 0 and at most 1")
	check(len(c.TargetLabels) > 0, "target_labels", "must name at least one label, such as instance")
	for i, name := range c.TargetLabels {
		check(name != "", fmt.Sprintf("target_labels[%d]", i), "is empty")
	}
	check(c.KeyFrameMin >= model.Duration(time.Second), "key_frame_min", "must be at least 1s")
	check(time.Duration(c.Lookback) > lookbackMargin, "lookback", "must be longer than %s", lookbackMargin)
	errs = append(errs, c.validateClasses())
	return errors.Join(errs...)
}

func oneOf[T ~string](path string, v T, allowed ...T) error {
	if slices.Contains(allowed, v) {
		return nil
	}
	texts := make([]string, len(allowed))
	for i, a := range allowed {
		texts[i] = string(a)
	}
	return fielderror.Errorf(path, "must be %s, not %q", strings.Join(texts, " or "), string(v))
}

func (c *Config) validateClasses() error {
	var errs []error
	if len(c.Classes) > maxClasses {
		errs = append(errs, fielderror.Errorf("classes", "are %d; at most %d are possible", len(c.Classes), maxClasses))
	}
	seen := map[string]bool{}
	rest := "" // name of the class that takes everything else
	for i := range c.Classes {
		class := &c.Classes[i]
		path := fmt.Sprintf("classes[%d]", i)
		if seen[class.Name] {
			errs = append(errs, fielderror.Errorf(path+".name", "%q stands twice", class.Name))
		}
		if rest != "" {
			errs = append(errs, fielderror.Errorf(path, "is never reached: class %q above takes everything", rest))
		}
		seen[class.Name] = true
		if class.takesAll() {
			rest = class.Name
		}
		errs = append(errs, fielderror.Within(path, class.validate(c)))
	}
	for _, name := range []string{ClassCritical, ClassNormal, ClassLow} {
		if !seen[name] {
			errs = append(errs, fielderror.Errorf("classes", "%q is missing", name))
		}
	}
	if rest == "" {
		errs = append(errs, fielderror.Errorf("classes", "the last one must be without match, from_rules and from_dashboards, to take everything else"))
	}
	return errors.Join(errs...)
}

func (c *Class) takesAll() bool {
	return len(c.Match) == 0 && c.FromRules == nil && len(c.FromDashboards) == 0
}

func (c *Class) validate(around *Config) error {
	var errs []error
	check := func(ok bool, path, format string, args ...any) {
		if !ok {
			errs = append(errs, fielderror.Errorf(path, format, args...))
		}
	}
	check(c.Name != "", "name", "is empty")
	check(c.MaxGap >= around.KeyFrameMin, "max_gap", "must be at least key_frame_min, %s", around.KeyFrameMin)
	check(time.Duration(c.MaxGap) <= time.Duration(around.Lookback)-lookbackMargin, "max_gap",
		"must be at most %s, which is a minute less than lookback, or series go stale in queries",
		time.Duration(around.Lookback)-lookbackMargin)
	check(c.Weight > 0, "weight", "must be above 0")
	check(c.KeepChange >= 0, "keep_change", "must be 0 or more")
	if c.FromRules != nil {
		check(len(c.FromRules.Files) > 0, "from_rules.files", "must name at least one file, such as rules/*.yml")
	}
	return errors.Join(errs...)
}

// tier is the class's place in the order in which things are given up.
func (c *Class) tier() tier {
	switch c.Name {
	case ClassCritical:
		return tierCritical
	case ClassLow:
		return tierLow
	}
	return tierNormal
}
