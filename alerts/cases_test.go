package alerts

import "time"

// example is the data by which one alert fires, and data that just do not make it fire.
// In series and labels $ stands for those that scraping adds.
type example struct {
	alert    string // without prefix
	variant  string // tells several of one alert apart
	severity string
	labels   string        // of the alert beside alertname and severity
	value    string        // as the annotations show it
	data     string        // lines of series and values, one value each 30 seconds
	at       time.Duration // the first evaluation at which it fires
	quiet    map[string]string
	// beside is the severity of an alert of the same name, labels and value that fires all
	// the while.
	beside string
	// almost is data by which only the one beside fires.
	almost map[string]almost
}

// almost is data just under what an alert needs, and the value that the alert of the other
// severity shows.
type almost struct{ value, data string }

const (
	scraped = `job="sluice",instance="a:9201"`
	main    = `$,backend="main"`
)

var gatewayExamples = []example{
	{
		alert: "Down", severity: "critical", labels: `$`, at: 2 * time.Minute,
		data: `up{$} 0x20`,
		quiet: map[string]string{
			"it is up":         `up{$} 1x20`,
			"it is of another": `up{job="node",instance="a:9100"} 0x20`,
		},
	},
	{
		alert: "Absent", severity: "critical", labels: `job="sluice"`, at: 5 * time.Minute,
		data:  `up{job="node",instance="a:9100"} 1x20`,
		quiet: map[string]string{"it is down": `up{$} 0x20`},
	},
	{
		alert: "Restarting", severity: "warning", labels: `$`, value: "3", at: 150 * time.Second,
		data:  `process_start_time_seconds{$} 100 200 300 400x20`,
		quiet: map[string]string{"two restarts": `process_start_time_seconds{$} 100 100 300 400x20`},
	},
	{
		alert: "ConfigReloadFailed", severity: "warning", labels: `$`, at: 5 * time.Minute,
		data:  `sluice_config_last_reload_successful{$} 0x20`,
		quiet: map[string]string{"mended in time": `sluice_config_last_reload_successful{$} 0x8 1x20`},
	},
	{
		alert: "Refusing", severity: "critical", labels: `$`, value: "6%", at: 330 * time.Second,
		data: `sluice_receiver_requests_total{$,code="503",protocol="rw2"} 0+4x40
			sluice_receiver_requests_total{$,code="429",protocol="rw1"} 0+2x40
			sluice_receiver_requests_total{$,code="204",protocol="rw1"} 0+94x40`,
		quiet: map[string]string{
			"4.9 %": `sluice_receiver_requests_total{$,code="503",protocol="rw2"} 0+49x40
				sluice_receiver_requests_total{$,code="204",protocol="rw2"} 0+951x40`,
			"mistakes of senders": `sluice_receiver_requests_total{$,code="400",protocol="rw1"} 0+50x40
				sluice_receiver_requests_total{$,code="204",protocol="rw1"} 0+50x40`,
			"no requests": `sluice_receiver_requests_total{$,code="503",protocol="rw2"} 7x40`,
		},
	},
	{
		alert: "InvalidSamples", severity: "warning", labels: `$,reason="too_far_in_future"`, value: "20", at: 930 * time.Second,
		data:  `sluice_receiver_refused_samples_total{$,reason="too_far_in_future"} 0+1x60`,
		quiet: map[string]string{"no more of them": `sluice_receiver_refused_samples_total{$,reason="too_far_in_future"} 0 5x60`},
	},
	{
		alert: "MemoryNearLimit", severity: "warning", labels: `$`, value: "91%", at: 15 * time.Minute,
		data: `process_resident_memory_bytes{$} 910x40
			go_gc_gomemlimit_bytes{$} 1000x40`,
		quiet: map[string]string{
			"90 %": `process_resident_memory_bytes{$} 900x40
				go_gc_gomemlimit_bytes{$} 1000x40`,
			"no limit": `process_resident_memory_bytes{$} 9.2e18x40
				go_gc_gomemlimit_bytes{$} 9.223372036854776e18x40`,
		},
	},
	{
		alert: "FilesNearLimit", severity: "warning", labels: `$`, value: "81%", at: 10 * time.Minute,
		data: `process_open_fds{$} 81x40
			process_max_fds{$} 100x40`,
		quiet: map[string]string{"80 %": `process_open_fds{$} 80x40
			process_max_fds{$} 100x40`},
	},
	{
		alert: "CertificateExpires", severity: "warning", labels: main + `,certificate="client"`, value: "13d 22h 59m 30s", at: time.Hour + 30*time.Second,
		data:  `sluice_backend_certificate_expiry_timestamp_seconds{` + main + `,certificate="client"} 1209600x130`,
		quiet: map[string]string{"two weeks": `sluice_backend_certificate_expiry_timestamp_seconds{` + main + `,certificate="client"} 1213230x130`},
	},
	{
		alert: "CertificateExpires", variant: "of the gateway", severity: "warning", labels: `$,certificate="server"`, value: "13d 22h 59m 30s", at: time.Hour + 30*time.Second,
		data:  `sluice_server_certificate_expiry_timestamp_seconds{$} 1209600x130`,
		quiet: map[string]string{"two weeks": `sluice_server_certificate_expiry_timestamp_seconds{$} 1213230x130`},
	},
	{
		alert: "ClockSkew", severity: "warning", labels: main, value: "6s", at: 15 * time.Minute,
		data:  `sluice_backend_clock_skew_seconds{` + main + `} -6x40`,
		quiet: map[string]string{"five seconds": `sluice_backend_clock_skew_seconds{` + main + `} 5x40`},
	},
}

var backendExamples = []example{
	{
		alert: "DataDropped", severity: "critical", labels: main, value: "500", at: 12 * time.Minute,
		data: `sluice_routed_total{` + main + `,kind="samples"} 0+100x40
			sluice_given_up_total{` + main + `,kind="samples",reason="max_backlog"} _x22 500x20`,
		quiet: map[string]string{
			"long ago": `sluice_routed_total{` + main + `,kind="samples"} 0+100x40
				sluice_given_up_total{` + main + `,kind="samples",reason="max_backlog"} 500x40`,
			"exemplars": `sluice_routed_total{` + main + `,kind="samples"} 0+100x40
				sluice_given_up_total{` + main + `,kind="exemplars",reason="max_backlog"} _x22 500x20`,
			"for what they are": `sluice_routed_total{` + main + `,kind="samples"} 0+100x40
				sluice_rejected_total{` + main + `,kind="samples",reason="out_of_order"} _x22 500x20`,
		},
	},
	{
		alert: "DataDropped", variant: "not readable", severity: "critical", labels: main, value: "2.5k", at: 12 * time.Minute,
		data: `sluice_routed_total{` + main + `,kind="samples"} 0+100x40
			sluice_given_up_total{` + main + `,kind="histograms",reason="journal_full"} 100x22 600x20
			sluice_rejected_total{` + main + `,kind="samples",reason="unreadable"} _x22 2000x20`,
		quiet: map[string]string{"nothing new": `sluice_routed_total{` + main + `,kind="samples"} 0+100x40
			sluice_rejected_total{` + main + `,kind="samples",reason="unreadable"} 2000x40`},
	},
	{
		alert: "BackendRejects", severity: "warning", labels: main, value: "3", at: 16 * time.Minute,
		data: `sluice_routed_total{` + main + `,kind="samples"} 0+100x40
			sluice_rejected_total{` + main + `,kind="samples",reason="out_of_order"} _x22 3x20`,
		quiet: map[string]string{"long ago": `sluice_routed_total{` + main + `,kind="samples"} 0+100x40
			sluice_rejected_total{` + main + `,kind="samples",reason="out_of_order"} 3x40`},
	},
	{
		alert: "ConservationBroken", severity: "critical", labels: main + `,kind="samples"`, value: "7", at: 5 * time.Minute,
		data:  `sluice_conservation_error_samples{` + main + `,kind="samples"} -7x40`,
		quiet: map[string]string{"balanced now and then": `sluice_conservation_error_samples{` + main + `,kind="samples"} 7 -7x4 0 7x4 0 7x8`},
	},
	{
		alert: "BackendDown", severity: "critical", labels: main, at: 2 * time.Minute,
		data: `sluice_lane_state{` + main + `,state="ok"} 0x20
			sluice_lane_state{` + main + `,state="throttled"} 0x20
			sluice_lane_state{` + main + `,state="failing"} 1x20`,
		quiet: map[string]string{
			"throttled": `sluice_lane_state{` + main + `,state="ok"} 0x20
				sluice_lane_state{` + main + `,state="throttled"} 1x20`,
			"well for a moment": `sluice_lane_state{` + main + `,state="ok"} 1 0x20
				sluice_lane_state{` + main + `,state="throttled"} 0x20`,
		},
	},
	{
		alert: "BackendFailing", severity: "warning", labels: main, value: "11%", at: 630 * time.Second,
		data: `sluice_lane_attempts_total{` + main + `,outcome="ok"} 0+89x40
			sluice_lane_attempts_total{` + main + `,outcome="retry"} 0+11x40`,
		quiet: map[string]string{
			"9.9 %": `sluice_lane_attempts_total{` + main + `,outcome="ok"} 0+901x40
				sluice_lane_attempts_total{` + main + `,outcome="retry"} 0+99x40`,
			"not so fast": `sluice_lane_attempts_total{` + main + `,outcome="ok"} 0+89x40
				sluice_lane_attempts_total{` + main + `,outcome="throttled"} 0+11x40`,
			"no attempts": `sluice_lane_attempts_total{` + main + `,outcome="retry"} 9x40`,
		},
	},
	{
		alert: "BackendBehind", severity: "warning", labels: main, value: "1m 1s", at: 10 * time.Minute,
		data:  `sluice_in_journal_age_seconds{` + main + `} 61x40`,
		quiet: map[string]string{"a minute": `sluice_in_journal_age_seconds{` + main + `} 60x40`},
	},
	{
		alert: "LaneSaturated", severity: "warning", labels: main, value: "100%", at: 15 * time.Minute,
		data: `sluice_lane_parcels_in_flight{` + main + `} 16x40
			sluice_lane_shards_limit{` + main + `} 16x40`,
		quiet: map[string]string{"15 of 16": `sluice_lane_parcels_in_flight{` + main + `} 15x40
			sluice_lane_shards_limit{` + main + `} 16x40`},
	},
	{
		alert: "QueueFullIn12h", severity: "warning", labels: `$,limit="journal"`, value: "7h 49m 30s", at: 1830 * time.Second,
		data: `sluice_journal_disk_bytes{$} 70000+30x80
			sluice_journal_disk_limit_bytes{$} 100000x80`,
		quiet: map[string]string{
			"in a little more": `sluice_journal_disk_bytes{$} 54900+30x80
				sluice_journal_disk_limit_bytes{$} 100000x80`,
			"a tenth is used": `sluice_journal_disk_bytes{$} 8100+30x63
				sluice_journal_disk_limit_bytes{$} 100000x80`,
			"shrinking": `sluice_journal_disk_bytes{$} 90000-30x80
				sluice_journal_disk_limit_bytes{$} 100000x80`,
		},
	},
	{
		alert: "QueueFullIn4h", severity: "critical", labels: main + `,limit="max_backlog bytes"`, value: "2h 31m 10s", at: 930 * time.Second,
		data: `sluice_in_journal_bytes{` + main + `} 90000+30x60
			sluice_in_journal_limit_bytes{` + main + `} 100000x60`,
		quiet: map[string]string{
			"in a little more": `sluice_in_journal_bytes{` + main + `} 84600+30x60
				sluice_in_journal_limit_bytes{` + main + `} 100000x60`,
			"no bound": `sluice_in_journal_bytes{` + main + `} 90000+30x60
				sluice_in_journal_limit_bytes{` + main + `} 0x60`,
		},
	},
	{
		alert: "QueueFullIn4h", variant: "by age", severity: "critical", labels: main + `,limit="max_backlog age"`, value: "2h 31m 10s", at: 930 * time.Second,
		data: `sluice_in_journal_age_seconds{` + main + `} 2000+30x60
			sluice_in_journal_limit_seconds{` + main + `} 12000x60`,
		quiet: map[string]string{"in a little more": `sluice_in_journal_age_seconds{` + main + `} 2000+30x60
			sluice_in_journal_limit_seconds{` + main + `} 17500x60`},
	},
	{
		alert: "QueueFullIn4h", variant: "full", severity: "critical", labels: `$,limit="journal"`, value: "0s", at: 15 * time.Minute,
		data: `sluice_journal_disk_bytes{$} 98000x60
			sluice_journal_disk_limit_bytes{$} 100000x60`,
		quiet: map[string]string{"and no more": `sluice_journal_disk_bytes{$} 97000x60
			sluice_journal_disk_limit_bytes{$} 100000x60`},
	},
	{
		alert: "DiskErrors", severity: "critical", labels: `$,operation="journal write"`, value: "1", at: 2 * time.Minute,
		data: `sluice_journal_write_errors_total{$,reason="write"} 0 0 1x20
			sluice_journal_write_errors_total{$,reason="full"} 0x20`,
		quiet: map[string]string{
			"full":     `sluice_journal_write_errors_total{$,reason="full"} 0+10x20`,
			"long ago": `sluice_journal_write_errors_total{$,reason="write"} 1x20`,
		},
	},
	{
		alert: "DiskErrors", variant: "of a ledger", severity: "critical", labels: main + `,operation="ledger write"`, value: "1", at: 2 * time.Minute,
		data:  `remote_write_ledger_write_errors_total{` + main + `} 0 0 1x20`,
		quiet: map[string]string{"long ago": `remote_write_ledger_write_errors_total{` + main + `} 1x20`},
	},
	{
		alert: "DiskErrors", variant: "of an embedded store", severity: "critical", labels: main + `,operation="store write"`, value: "1", at: 2 * time.Minute,
		data:  `sluice_tsdb_commit_failures_total{` + main + `} 0 0 1x20`,
		quiet: map[string]string{"long ago": `sluice_tsdb_commit_failures_total{` + main + `} 1x20`},
	},
	{
		alert: "DiskErrors", variant: "damaged journal", severity: "critical", labels: `$,operation="journal read"`, value: "1", at: 2 * time.Minute,
		data:  `sluice_journal_damaged_records_total{$} 0 0 1x20`,
		quiet: map[string]string{"long ago": `sluice_journal_damaged_records_total{$} 1x20`},
	},
}

var samplingExamples = []example{
	{
		alert: "SamplingActive", severity: "info", labels: main, value: "90%", at: 2 * time.Minute,
		data: `remote_write_sampling_kept_ratio{` + main + `} 0.9x80
			remote_write_sampling_mode{` + main + `,mode="active"} 1x80`,
		quiet: map[string]string{
			"everything": `remote_write_sampling_kept_ratio{` + main + `} 1x80
				remote_write_sampling_mode{` + main + `,mode="active"} 1x80`,
			"shadow": `remote_write_sampling_kept_ratio{` + main + `} 0.9x80
				remote_write_sampling_mode{` + main + `,mode="active"} 0x80`,
		},
	},
	{
		alert: "SamplingActive", variant: "for long", severity: "warning", labels: main, value: "49%", at: 30 * time.Minute, beside: "info",
		data: `remote_write_sampling_kept_ratio{` + main + `} 0.49x80
			remote_write_sampling_mode{` + main + `,mode="active"} 1x80`,
		almost: map[string]almost{
			"half": {"50%", `remote_write_sampling_kept_ratio{` + main + `} 0.5x80
				remote_write_sampling_mode{` + main + `,mode="active"} 1x80`},
			"29 minutes": {"90%", `remote_write_sampling_kept_ratio{` + main + `} 0.49x58 0.9x20
				remote_write_sampling_mode{` + main + `,mode="active"} 1x80`},
		},
	},
	{
		alert: "DebtNotShrinking", severity: "warning", labels: main, value: "1k", at: 1830 * time.Second,
		data: `remote_write_debt_samples{` + main + `} 1000x80
			remote_write_sampling_kept_ratio{` + main + `} 1x80`,
		quiet: map[string]string{
			"shrinking": `remote_write_debt_samples{` + main + `} 1000-1x80
				remote_write_sampling_kept_ratio{` + main + `} 1x80`,
			"still growing": `remote_write_debt_samples{` + main + `} 1000+10x80
				remote_write_sampling_kept_ratio{` + main + `} 0.5x80`,
			"paid": `remote_write_debt_samples{` + main + `} 0x80
				remote_write_sampling_kept_ratio{` + main + `} 1x80`,
		},
	},
	{
		alert: "SamplingFails", severity: "warning", labels: main, value: "1", at: 2 * time.Minute,
		data:  `remote_write_sampling_failures_total{` + main + `} 0 0 1x20`,
		quiet: map[string]string{"long ago": `remote_write_sampling_failures_total{` + main + `} 1x20`},
	},
}
