package web

import (
	"strings"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
)

// Status is the gateway at one instant, as the gateway itself knows it. Totals count from
// its start or, for backends, from their beginning. A Site owns what it is given.
type Status struct {
	At      time.Time `json:"at"`
	Started time.Time `json:"started"`
	Version string    `json:"version"`
	// NotReady is why the gateway is not ready; empty when it is.
	NotReady string `json:"not_ready,omitempty"`
	Config   Config `json:"config"`
	Received Intake `json:"received"`
	Journal  Disk   `json:"journal"`
	// Series is the number of series in the series table.
	Series   uint64    `json:"series"`
	Lanes    []Lane    `json:"backends"`
	Clusters []Cluster `json:"clusters"`
	Leases   []Lease   `json:"leases"`
}

// Config says how the last reload of the configuration went.
type Config struct {
	Loaded time.Time `json:"loaded"`
	// Refused: the last reload was, and the configuration of before is in force.
	Refused bool `json:"refused"`
}

// Intake is what came in.
type Intake struct {
	// Samples counts samples and histograms that were made durable.
	Samples   uint64     `json:"samples"`
	Protocols []Protocol `json:"protocols"`
	// Refused counts samples that were invalid, and Failed requests that were not
	// answered with success.
	Refused uint64 `json:"refused_samples"`
	Failed  uint64 `json:"failed_requests"`
	// PerSecond is set by the Site.
	PerSecond        float64 `json:"samples_per_second"`
	RefusedPerSecond float64 `json:"refused_samples_per_second"`
	FailedPerSecond  float64 `json:"failed_requests_per_second"`
}

// Protocol is what came in over one protocol.
type Protocol struct {
	Name     string `json:"protocol"`
	Requests uint64 `json:"requests"`
	Bytes    uint64 `json:"bytes"`
	// RequestsPerSecond and BytesPerSecond are set by the Site.
	RequestsPerSecond float64 `json:"requests_per_second"`
	BytesPerSecond    float64 `json:"bytes_per_second"`
}

// Disk is the room that the journal takes.
type Disk struct {
	Bytes int64 `json:"bytes"`
	Limit int64 `json:"limit_bytes"`
	// Retained is the part that is kept only to give back what was withheld.
	Retained int64 `json:"retained_bytes"`
	// Errors counts requests that could not be kept.
	Errors uint64 `json:"write_errors"`
	// FullInSeconds is set by the Site; nil while the journal does not grow.
	FullInSeconds *float64 `json:"full_in_seconds,omitempty"`
}

// Lane is the way to one backend.
type Lane struct {
	Name string `json:"backend"`
	Kind string `json:"kind"`
	// State is ok, failing, throttled or denied; Since, set by the Site, is when it was
	// first seen in it.
	State string    `json:"state"`
	Since time.Time `json:"since"`
	// Takes are the selectors of the series that the backend gets; none is all series.
	Takes []string `json:"match,omitempty"`
	// Queries says that the backend answers PromQL.
	Queries bool `json:"answers_queries"`

	Routed    series.Counts `json:"routed"`
	Delivered series.Counts `json:"delivered"`
	Withheld  series.Counts `json:"withheld"`
	Restored  series.Counts `json:"given_back"`
	InJournal series.Counts `json:"in_journal"`
	// Rejected and GivenUp count samples and histograms.
	Rejected uint64 `json:"rejected"`
	GivenUp  uint64 `json:"given_up"`
	Batches  int64  `json:"batches"`
	// LagSeconds is for how long the oldest batch waits; 0 when none does.
	LagSeconds float64 `json:"lag_seconds"`

	// Sampling is nil where nothing is ever withheld.
	Sampling *Sampling `json:"sampling,omitempty"`

	// What follows is set by the Site.
	PerSecond LaneRates `json:"per_second"`
	LastError *Event    `json:"last_error,omitempty"`
}

// LaneRates are samples and histograms a second over the last ten seconds.
type LaneRates struct {
	Routed    float64 `json:"routed"`
	Delivered float64 `json:"delivered"`
	Withheld  float64 `json:"withheld"`
	Restored  float64 `json:"given_back"`
	// Lost are those rejected and given up.
	Lost float64 `json:"lost"`
}

// Sampling is what is withheld from a backend, and why.
type Sampling struct {
	// Shadow: nothing is withheld, it is only said what would be.
	Shadow bool `json:"shadow"`
	// Rate is the share of the samples that the controller asks for, Kept the share that
	// is sent.
	Rate       float64 `json:"rate"`
	Kept       float64 `json:"kept"`
	FloorBound bool    `json:"floor_bound"`
	// InFlightLimit is how many samples may be in flight; 0 is no bound of the controller.
	InFlightLimit uint64 `json:"in_flight_limit_samples"`
	// Since is when the withholding began; nil while everything is sent.
	Since *time.Time `json:"since,omitempty"`
	// Cause is the signal that decides and Why what the controller made of it last.
	Cause string `json:"cause,omitempty"`
	Why   string `json:"why,omitempty"`
	Debt  Debt   `json:"debt"`
	// GivingBack: what was withheld is being sent.
	GivingBack bool    `json:"giving_back"`
	Classes    []Class `json:"classes"`
}

// Debt is what was withheld and is to be given back.
type Debt struct {
	Samples uint64     `json:"samples"`
	Oldest  *time.Time `json:"oldest,omitempty"`
	// ETASeconds is how long giving it back takes; nil where that is not known.
	ETASeconds *float64 `json:"eta_seconds,omitempty"`
}

// Class is what became of the samples of one class that went through the sampler.
type Class struct {
	Name     string `json:"class"`
	Kept     uint64 `json:"kept"`
	Withheld uint64 `json:"withheld"`
	// Share is what was kept over the last ten seconds, 0 to 1; 1 when nothing came.
	// It is set by the Site.
	Share float64 `json:"share"`
}

// Cluster is one cluster of databases.
type Cluster struct {
	Name string `json:"cluster"`
	Kind string `json:"kind"`
	// Leading: this gateway probes it. If not, nothing more is known, and another gateway
	// does, Leader if its name is known, unless UnknownSince is set.
	Leading bool   `json:"leading"`
	Leader  string `json:"leader,omitempty"`
	// UnknownSince is from when on the lease store has not said who probes the cluster, and
	// Why its error; empty where it has not been asked yet. Nil while it is known.
	UnknownSince *time.Time `json:"leader_unknown_since,omitempty"`
	Why          string     `json:"leader_unknown,omitempty"`

	// Primaries is how many say that they are primary; nil while nothing is known.
	Primaries *int   `json:"primaries"`
	Primary   string `json:"primary"`
	// MaxLagSeconds is the lag from which on a replica is not read from.
	MaxLagSeconds float64  `json:"max_lag_seconds"`
	Targets       []Target `json:"targets"`
}

// Target is one server of a cluster.
type Target struct {
	Name string `json:"target"`
	Role string `json:"role"`
	Up   bool   `json:"up"`
	// Error is why it is not up, and Note what it does not tell, and why.
	Error string `json:"error,omitempty"`
	Note  string `json:"note,omitempty"`
	// Replica: LagSeconds, or why it is not known, is of use. AtLeast: it is that or more.
	Replica    bool     `json:"replica"`
	LagSeconds *float64 `json:"lag_seconds,omitempty"`
	AtLeast    bool     `json:"at_least,omitempty"`
	Unknown    string   `json:"lag_unknown,omitempty"`
	// Circuit and Weight say whether, and how much, to read from it; nil for no replica.
	Circuit string `json:"circuit,omitempty"`
	Weight  *int   `json:"weight"`
	// Waits are the edges of who waits for whom, and Waiting how many sessions wait, also
	// those that are not among the edges.
	// Nil: that is not known.
	Waits   []Wait `json:"-"`
	Waiting *int   `json:"waiting"`
	// LongestWaitSeconds is how long the first of them waits; nil when nobody does, or it
	// is not known.
	LongestWaitSeconds *float64 `json:"longest_wait_seconds"`
	// Blocking is set by the Site.
	Blocking Forest `json:"blocking"`
}

// Lease is one job that only one of several gateways does.
type Lease struct {
	Name string `json:"lease"`
	Kind string `json:"kind"`
	// Holder is who was last seen to hold it; empty when nobody was.
	Holder string `json:"holder"`
	// Here: this gateway holds it, for RemainingSeconds unless it is renewed.
	Here             bool    `json:"here"`
	Token            uint64  `json:"token"`
	RemainingSeconds float64 `json:"remaining_seconds"`
}

// Explanation says what becomes of one series.
type Explanation struct {
	// Series is the series in its canonical spelling.
	Series string  `json:"series"`
	Routes []Route `json:"backends"`
	// LastSent is nil where nobody sent it since the start, or not for so long that the
	// gateway does not know it any more.
	LastSent *LastSent `json:"last_sent,omitempty"`
}

// LastSent is who sent a series last, as far as senders tell.
type LastSent struct {
	At        time.Time `json:"at"`                      // true to ten seconds
	Address   string    `json:"address"`                 // empty: this gateway itself
	Forwarded string    `json:"forwarded_for,omitempty"` // what a proxy says of who is behind it
	UserAgent string    `json:"user_agent,omitempty"`
	Protocol  string    `json:"protocol"` // rw1, rw2, otlp or own
}

// By is who it was, in one line.
func (l *LastSent) By() string {
	if l.Address == "" {
		return "this gateway itself"
	}
	var b strings.Builder
	b.WriteString(l.Address)
	if l.Forwarded != "" {
		b.WriteString(" for " + l.Forwarded)
	}
	b.WriteString(" (")
	if l.UserAgent != "" {
		b.WriteString(l.UserAgent + ", ")
	}
	b.WriteString(l.Protocol + ")")
	return b.String()
}

// Route is what becomes of a series at one backend.
type Route struct {
	Backend string `json:"backend"`
	// Takes: the backend gets the series, by Selector; empty: it takes all series.
	Takes    bool   `json:"takes"`
	Selector string `json:"selector"`
	// Sampling: something may be withheld of it. Class is its class then, and Rule why
	// it is in it.
	Sampling bool   `json:"sampling"`
	Class    string `json:"class,omitempty"`
	Rule     string `json:"rule,omitempty"`
	// Protected: the class is one of which nothing is ever withheld.
	Protected bool `json:"protected,omitempty"`

	// What follows is set by the Site. Rate is the share of the samples of its class that
	// is sent now, 0 to 1, and Why what decides it.
	Rate float64 `json:"rate"`
	Why  string  `json:"why,omitempty"`
}
