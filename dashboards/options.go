package dashboards

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Options fit the dashboards to a site. Start from DefaultOptions.
type Options struct {
	// Prefix begins the titles and, in small letters, the uids of the dashboards. It is
	// that of the names of the alerts too, by which panels and annotations find them.
	Prefix string
	// Job is a regular expression that the label job of gateways matches; empty: of
	// whatever exports sluice_build_info.
	Job string
	// Labels are fixed labels of the gateways' series, such as cluster="eu", that each
	// query selects by. Where gateways export a label of the same name, it is taken to be
	// called exported_cluster in what was scraped, unless Rename says otherwise.
	Labels map[string]string
	// Rename gives labels that the gateways export other names, where scraping has changed
	// them: {"cluster": "exported_cluster"}.
	Rename map[string]string
	// Thresholds are the values from which on alerts fire, by the name of the alert without
	// the Prefix. Panels show them; of alerts that no panel shows they are of no effect.
	Thresholds map[string]float64
	// Source is the URL of the repository's files, for links to documents. It ends with a
	// slash.
	Source string
}

// severity of an alert, as panels show it.
type severity int

const (
	warning severity = iota
	critical
)

// limit is the threshold of an alert. Panels show the value in the unit of the panel.
type limit struct {
	alert    string
	severity severity
	value    float64
}

// limits are those that panels show, with the standard values of the alerts.
func limits() []limit {
	return []limit{
		{"BackendBehind", warning, 60},
		{"CertificateExpires", warning, 14 * 24 * 3600},
		{"ClockSkew", warning, 5},
		{"ConnectionQueueSlow", warning, 2},
		{"DataDropped", critical, 1},
		{"FilesNearLimit", warning, 0.8},
		{"LaneSaturated", warning, 0.95},
		{"LockLost", warning, 1},
		{"LocksBlocked", warning, 30},
		{"MemoryNearLimit", warning, 0.9},
		{"PoolNearlyFull", warning, 0.95},
		{"QueueFullIn12h", warning, 12 * 3600},
		{"QueueFullIn4h", critical, 4 * 3600},
		{"ReplicaLagHigh", warning, 3},
		{"Restarting", warning, 3},
		{"SamplingActive", warning, 0.5},
		{"TransactionNestingDeep", warning, 5},
		{"TransactionRollbacksHigh", warning, 0.15},
		{"TransactionSlow", warning, 3},
		{"TwoLeaders", critical, 2},
	}
}

// DefaultOptions are those of the committed files.
func DefaultOptions() Options {
	o := Options{Prefix: "Sluice", Source: "https://github.com/sluice-metrics/sluice/blob/main/", Thresholds: map[string]float64{}}
	for _, l := range limits() {
		o.Thresholds[l.alert] = l.value
	}
	return o
}

var (
	prefixes   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]{0,31}$`)
	labelNames = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
)

// Validate reports every bad value, joined into one error.
func (o *Options) Validate() error {
	var errs []error
	if !prefixes.MatchString(o.Prefix) {
		errs = append(errs, fmt.Errorf("prefix %q: a letter, then up to 31 letters and digits: it begins the names of alerts", o.Prefix))
	}
	if _, err := regexp.Compile(o.Job); err != nil {
		errs = append(errs, fmt.Errorf("job %q is no regular expression: %w", o.Job, err))
	}
	for _, name := range slices.Sorted(maps.Keys(o.Labels)) {
		if !labelNames.MatchString(name) {
			errs = append(errs, fmt.Errorf("label %q is no name of a label", name))
		}
	}
	for _, from := range slices.Sorted(maps.Keys(o.Rename)) {
		if to := o.Rename[from]; !labelNames.MatchString(from) || !labelNames.MatchString(to) {
			errs = append(errs, fmt.Errorf("rename %q to %q: both have to be names of labels", from, to))
		}
	}
	return errors.Join(errs...)
}

// uid is that of the dashboard with the name.
func (o *Options) uid(name string) string { return strings.ToLower(o.Prefix) + "-" + name }

// tag is what the dashboards find each other by.
func (o *Options) tag() string { return strings.ToLower(o.Prefix) }

// exported are labels of the gateways' own that fixed labels may have the names of.
var exported = []string{"backend", "kind", "cluster", "target", "engine", "role", "lock", "replica", "reason", "state", "mode", "version"}

// Renamed adds to rename what Prometheus does by itself when it scrapes a target that has a
// label which the gateways export too: theirs is called exported_cluster then. labels are
// those of the targets.
func Renamed(labels, rename map[string]string) map[string]string {
	all := maps.Clone(rename)
	if all == nil {
		all = map[string]string{}
	}
	for name := range labels {
		if _, told := all[name]; !told && slices.Contains(exported, name) {
			all[name] = "exported_" + name
		}
	}
	return all
}

// label is the site's name of a label that the gateways export.
func (o *Options) label(name string) string {
	if to, ok := o.Rename[name]; ok {
		return to
	}
	return name
}

// threshold of the alert, with the standard value where none is set.
func (o *Options) threshold(alert string) limit {
	list := limits()
	i := slices.IndexFunc(list, func(l limit) bool { return l.alert == alert })
	if i < 0 {
		panic(fmt.Sprintf("BUG: no limit is known for the alert %q", alert))
	}
	l := list[i]
	if v, ok := o.Thresholds[alert]; ok {
		l.value = v
	}
	return l
}
