package alerts

import "time"

const (
	replica = `$,cluster="orders",target="db2",engine="postgres"`
	orders  = `$,application="orders"`
)

var databaseExamples = []example{
	{
		alert: "ReplicaLagHigh", severity: "warning", labels: replica, value: "4s", at: 6 * time.Minute,
		data: `replica_lag_seconds{` + replica + `} 4x20
			replica_apply_delay_configured_seconds{` + replica + `} 0x20`,
		quiet: map[string]string{
			"three seconds": `replica_lag_seconds{` + replica + `} 3x20`,
			"on purpose": `replica_lag_seconds{` + replica + `} 3600x20
				replica_apply_delay_configured_seconds{` + replica + `} 3600x20`,
		},
	},
	{
		alert: "ReplicaLagHigh", variant: "of somebody else", severity: "warning", labels: `job="shop",cluster="",target="",replica="r1"`, value: "1m 0s", at: 6 * time.Minute,
		data:  `replica_lag_seconds{job="shop",replica="r1"} 60x20`,
		quiet: map[string]string{"once": `replica_lag_seconds{job="shop",replica="r1"} 60 0x20`},
	},
	{
		alert: "LocksBlocked", severity: "warning", labels: replica, value: "31s", at: time.Minute,
		data:  `db_lock_wait_oldest_seconds{` + replica + `} 31x20`,
		quiet: map[string]string{"half a minute": `db_lock_wait_oldest_seconds{` + replica + `} 30x20`},
	},
	{
		alert: "ProbeFailing", severity: "warning", labels: replica, at: 2 * time.Minute,
		data:  `db_probe_success{` + replica + `} 0x20`,
		quiet: map[string]string{"now and then": `db_probe_success{` + replica + `} 1 0x20`},
	},
	{
		alert: "TwoPrimaries", severity: "critical", labels: `$,cluster="orders"`, value: "2", at: time.Minute,
		data:  `replica_cluster_primaries{$,cluster="orders"} 2x20`,
		quiet: map[string]string{"in a failover": `replica_cluster_primaries{$,cluster="orders"} 2 2 1x20`},
	},
}

var leaseExamples = []example{
	{
		alert: "LockLost", severity: "warning", labels: `$,kind="etcd",lock="probe/orders"`, value: "1", at: 2 * time.Minute,
		data: `dlock_lost_total{$,kind="etcd",lock="probe/orders",reason="expired"} 0 0 1x20
			dlock_lost_total{$,kind="etcd",lock="probe/orders",reason="gone"} 0x20`,
		quiet: map[string]string{"long ago": `dlock_lost_total{$,kind="etcd",lock="probe/orders",reason="expired"} 1x20`},
	},
	{
		alert: "TwoLeaders", severity: "critical", labels: `job="sluice",kind="etcd",lock="probe/orders"`, value: "2", at: 2 * time.Minute,
		data: `dlock_held{job="sluice",instance="a:9201",kind="etcd",lock="probe/orders"} 1x20
			dlock_held{job="sluice",instance="b:9201",kind="etcd",lock="probe/orders"} 1x20`,
		quiet: map[string]string{
			"one of two": `dlock_held{job="sluice",instance="a:9201",kind="etcd",lock="probe/orders"} 1x20
				dlock_held{job="sluice",instance="b:9201",kind="etcd",lock="probe/orders"} 0x20`,
			"each has its own": `dlock_held{job="sluice",instance="a:9201",kind="local",lock="probe/orders"} 1x20
				dlock_held{job="sluice",instance="b:9201",kind="local",lock="probe/orders"} 1x20`,
		},
	},
	{
		alert: "LeaseStoreDown", severity: "warning", labels: `$,kind="postgres"`, at: time.Minute,
		data: `dlock_backend_up{$,kind="postgres",lock="probe/orders"} 0x20
			dlock_backend_up{$,kind="postgres",lock="probe/shop"} 0x20`,
		quiet: map[string]string{
			"it answers": `dlock_backend_up{$,kind="postgres",lock="probe/orders"} 1x20
				dlock_backend_up{$,kind="postgres",lock="probe/shop"} 1x20`,
			"one missed answer": `dlock_backend_up{$,kind="postgres",lock="probe/orders"} 1 0 0 1x20`,
		},
	},
	{
		alert: "LeaseStoreDown", variant: "about one lock", severity: "warning", labels: `$,kind="redis"`, at: time.Minute,
		data: `dlock_backend_up{$,kind="redis",lock="probe/orders"} 0x20
			dlock_backend_up{$,kind="redis",lock="probe/shop"} 1x20`,
	},
}

var transactionExamples = []example{
	{
		alert: "TransactionSlow", severity: "warning", labels: orders, value: "3.75s", at: 330 * time.Second,
		data: `transaction_duration_seconds_bucket{` + orders + `,status="committed",le="2.5"} 0+90x40
			transaction_duration_seconds_bucket{` + orders + `,status="committed",le="5"} 0+100x40
			transaction_duration_seconds_bucket{` + orders + `,status="committed",le="+Inf"} 0+100x40`,
		quiet: map[string]string{
			"2.9 s": `transaction_duration_seconds_bucket{` + orders + `,status="committed",le="2.5"} 0+94x40
				transaction_duration_seconds_bucket{` + orders + `,status="committed",le="5"} 0+100x40
				transaction_duration_seconds_bucket{` + orders + `,status="committed",le="+Inf"} 0+100x40`,
			"none": `transaction_duration_seconds_bucket{` + orders + `,status="committed",le="2.5"} 0x40
				transaction_duration_seconds_bucket{` + orders + `,status="committed",le="5"} 9x40
				transaction_duration_seconds_bucket{` + orders + `,status="committed",le="+Inf"} 9x40`,
		},
	},
	{
		alert: "TransactionRollbacksHigh", severity: "warning", labels: orders, value: "16%", at: 330 * time.Second,
		data: `transaction_rollback_total{` + orders + `} 0+16x40
			transaction_total{` + orders + `} 0+100x40`,
		quiet: map[string]string{
			"14.9 %": `transaction_rollback_total{` + orders + `} 0+149x40
				transaction_total{` + orders + `} 0+1000x40`,
			"none": `transaction_rollback_total{` + orders + `} 9x40
				transaction_total{` + orders + `} 9x40`,
		},
	},
	{
		alert: "TransactionNestingDeep", severity: "warning", labels: orders, value: "6", at: 6 * time.Minute,
		data: `transaction_nesting_depth{` + orders + `} 6x20`,
		quiet: map[string]string{
			"five": `transaction_nesting_depth{` + orders + `} 5x20`,
			"once": `transaction_nesting_depth{` + orders + `} 6 1x20`,
		},
	},
	{
		alert: "PoolNearlyFull", severity: "warning", labels: `$,pool="orders"`, value: "96%", at: 6 * time.Minute,
		data: `hikaricp_connections_active{$,pool="orders"} 96x20
			hikaricp_connections_max{$,pool="orders"} 100x20`,
		quiet: map[string]string{"95 %": `hikaricp_connections_active{$,pool="orders"} 95x20
			hikaricp_connections_max{$,pool="orders"} 100x20`},
	},
	{
		alert: "ConnectionQueueSlow", severity: "warning", labels: `$,pool="orders",quantile="0.99"`, value: "2.5s", at: 6 * time.Minute,
		data: `db_conn_queue_time_seconds{$,pool="orders",quantile="0.99"} 2.5x20`,
		quiet: map[string]string{
			"two seconds":       `db_conn_queue_time_seconds{$,pool="orders",quantile="0.99"} 2x20`,
			"one in ten though": `db_conn_queue_time_seconds{$,pool="orders",quantile="0.9"} 2.5x20`,
		},
	},
	{
		alert: "StatementTimeouts", severity: "warning", labels: `$,reason="connection"`, value: "5.789", at: 24*time.Hour + 630*time.Second,
		data: `jdbc_statement_timeout_total{$,reason="connection"} 0+1x2880 2886+6x60`,
		quiet: map[string]string{
			"five times": `jdbc_statement_timeout_total{$,reason="connection"} 0+1x2880 2885+5x60`,
			"of others":  `jdbc_statement_timeout_total{$,reason="deadline"} 0+1x2880 2886+6x60`,
		},
	},
}
