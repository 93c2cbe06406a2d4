package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// Options are what a Store gets besides its configuration.
type Options struct {
	// Pool is the value of the label pool: the name of the lease in the configuration.
	Pool string
	// Registerer takes the metrics of transactions and of the pool. Stores on one
	// Registerer need different names of their pools. Nil, in tests, publishes none.
	Registerer prometheus.Registerer
	// HikariCP adds the names that dashboards of Java applications know:
	// hikaricp_connections_* and jdbc_statement_timeout_total.
	HikariCP bool
}

// The values of the label status.
const (
	committed  = "committed"
	rolledBack = "rolled_back"
)

// The values of the label reason of jdbc_statement_timeout_total.
const (
	timeoutClient = "deadline"   // no answer within the limit of the call
	timeoutServer = "cancelled"  // the database cancelled the statement
	timeoutDial   = "connection" // there was no connection in time to send it on
)

var durations = []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// metrics are of the transactions and the pool of one Store.
type metrics struct {
	pool     string
	hikari   bool
	stat     func() *pgxpool.Stat
	duration *prometheus.HistogramVec
	total    prometheus.Counter
	rollback prometheus.Counter
	queue    *prometheus.SummaryVec
	timeouts *prometheus.CounterVec
	open     atomic.Int64 // transactions under way
	pending  atomic.Int64 // waiting for a connection
	register prometheus.Registerer
}

// newMetrics makes the metrics of a Store. All Stores share the families of transactions;
// those of the pool are collected per Store.
func newMetrics(o Options, stat func() *pgxpool.Stat) (*metrics, error) {
	m := &metrics{pool: o.Pool, hikari: o.HikariCP, stat: stat, register: o.Registerer}
	var errs []error
	m.duration = shared(o.Registerer, &errs, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "transaction_duration_seconds",
		Help: "Duration of the gateway's own database transactions, by how they ended: committed, or rolled_back (refused by the database, or without an answer).", Buckets: durations,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
	}, []string{"application", "status"}))
	total := shared(o.Registerer, &errs, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "transaction_total",
		Help: "The gateway's own database transactions. 0: it has made none.",
	}, []string{"application"}))
	rollback := shared(o.Registerer, &errs, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "transaction_rollback_total",
		Help: "The gateway's own database transactions that were refused or got no answer. 0 is normal.",
	}, []string{"application"}))
	queue := shared(o.Registerer, &errs, prometheus.NewSummaryVec(prometheus.SummaryOpts{
		Name:       "db_conn_queue_time_seconds",
		Help:       "Time that the gateway's own database calls waited for a connection of the pool, a new connection included. 0: one was free; absent: no call was made yet.",
		Objectives: map[float64]float64{0.5: 0.05, 0.9: 0.01, 0.99: 0.001},
	}, []string{"pool"}))
	m.timeouts = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "jdbc_statement_timeout_total",
		Help: "Statements of the gateway's own pools that were cut off, by reason: deadline (no answer within the limit of the call), cancelled (by the database), connection (none was there in time to send it on). 0 is normal.",
	}, []string{"reason"})
	if o.HikariCP {
		m.timeouts = shared(o.Registerer, &errs, m.timeouts)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("registering the metrics of the PostgreSQL lease: %w", err)
	}
	for _, status := range []string{committed, rolledBack} {
		m.duration.WithLabelValues(application, status)
	}
	for _, reason := range []string{timeoutClient, timeoutServer, timeoutDial} {
		m.timeouts.WithLabelValues(reason)
	}
	m.total, m.rollback = total.WithLabelValues(application), rollback.WithLabelValues(application)
	m.queue = queue // its quantiles begin with the first call: before, there is nothing to say
	if o.Registerer != nil {
		if err := o.Registerer.Register(m); err != nil {
			return nil, fmt.Errorf("registering the metrics of the pool %q: %w", o.Pool, err)
		}
	}
	return m, nil
}

// shared registers c, or returns the collector of the same family that is there.
func shared[C prometheus.Collector](reg prometheus.Registerer, errs *[]error, c C) C {
	if reg == nil {
		return c
	}
	err := reg.Register(c)
	var there prometheus.AlreadyRegisteredError
	if errors.As(err, &there) {
		if existing, ok := there.ExistingCollector.(C); ok {
			return existing
		}
	}
	*errs = append(*errs, err)
	return c
}

// close takes the pool's metrics away.
func (m *metrics) close() {
	if m.register != nil {
		m.register.Unregister(m)
	}
}

// transaction notes one that starts; the function that it returns notes its end.
func (m *metrics) transaction() func(error) {
	m.open.Add(1)
	start := time.Now()
	return func(err error) {
		m.open.Add(-1)
		m.total.Inc()
		status := committed
		if err != nil {
			status = rolledBack
			m.rollback.Inc()
			m.cutOff(err)
		}
		m.duration.WithLabelValues(application, status).Observe(time.Since(start).Seconds())
	}
}

// queryCanceled is the SQLSTATE of a statement that the database cancelled.
const queryCanceled = "57014"

func (m *metrics) cutOff(err error) {
	var refused *pgconn.PgError
	switch {
	case errors.As(err, &refused) && refused.Code == queryCanceled:
		m.timeouts.WithLabelValues(timeoutServer).Inc()
	case errors.Is(err, context.DeadlineExceeded) || pgconn.Timeout(err):
		m.timeouts.WithLabelValues(timeoutClient).Inc()
	}
}

// waits notes a call that waits for a connection; the function that it returns notes the
// end of the wait.
func (m *metrics) waits() func(error) {
	m.pending.Add(1)
	start := time.Now()
	return func(err error) {
		m.pending.Add(-1)
		m.queue.WithLabelValues(m.pool).Observe(time.Since(start).Seconds())
		if errors.Is(err, context.DeadlineExceeded) || err != nil && pgconn.Timeout(err) {
			m.timeouts.WithLabelValues(timeoutDial).Inc()
		}
	}
}

var (
	nestingDesc = []string{"transaction_nesting_depth", "Depth of the gateway's own transactions that are open at this moment: 1 while one is, as they have no savepoints, 0 while none is."}
	poolDesc    = []string{"db_pool_connections", "Connections of the gateway's own pool, by state: active (in use), idle, connecting."}
	poolMaxDesc = []string{"db_pool_max_connections", "Bound of the connections of the gateway's own pool. It is never 0."}
	hikariDescs = [][]string{
		{"hikaricp_connections_active", "Connections of the gateway's own pool that are in use; 0 while none is."},
		{"hikaricp_connections_idle", "Connections of the gateway's own pool that wait for use; 0 while none does."},
		{"hikaricp_connections_pending", "Calls that wait for a connection of the gateway's own pool; 0 is normal."},
		{"hikaricp_connections_max", "Bound of the connections of the gateway's own pool. It is never 0."},
	}
)

// gauges calls f with the gauges of the pool.
func (m *metrics) gauges(s *pgxpool.Stat, f func(nameHelp []string, value float64, labels prometheus.Labels)) {
	active, idle, connecting, limit := float64(s.AcquiredConns()), float64(s.IdleConns()), float64(s.ConstructingConns()), float64(s.MaxConns())
	f(nestingDesc, float64(min(1, m.open.Load())), prometheus.Labels{"application": application, "pool": m.pool})
	for state, value := range map[string]float64{"active": active, "idle": idle, "connecting": connecting} {
		f(poolDesc, value, prometheus.Labels{"pool": m.pool, "state": state})
	}
	pool := prometheus.Labels{"pool": m.pool}
	f(poolMaxDesc, limit, pool)
	if m.hikari {
		for i, value := range []float64{active, idle, float64(m.pending.Load()), limit} {
			f(hikariDescs[i], value, pool)
		}
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	m.gauges(m.stat(), func(nameHelp []string, _ float64, labels prometheus.Labels) {
		ch <- prometheus.NewDesc(nameHelp[0], nameHelp[1], nil, labels)
	})
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	m.gauges(m.stat(), func(nameHelp []string, value float64, labels prometheus.Labels) {
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(nameHelp[0], nameHelp[1], nil, labels), prometheus.GaugeValue, value)
	})
}
