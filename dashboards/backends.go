package dashboards

func backends(o *Options) dashboard {
	return dashboard{
		name: "backends", title: "backends", scope: unscoped,
		description: "One row for each backend: lag against sampling rate, what waits and for how long, what is owed and given back, protocol, errors, dead letters.",
		variables:   append(gatewayVariables(), backendVariable),
		annotations: commonAnnotations(o.Prefix),
		rows: []row{
			{panels: []panel{backendsTable()}},
			{title: "$backend", repeat: "backend", panels: oneBackend()},
			{title: "Troubleshooting: $backend", repeat: "backend", collapsed: true, panels: troubleshooting()},
		},
	}
}

func oneBackend() []panel {
	picture := lagAgainstRate()
	picture.width, picture.height = 12, 8
	return []panel{
		picture,
		{
			kind: timeSeries, title: "Queue age and length", width: 6, height: 8, unit: seconds, limits: []string{"BackendBehind"},
			shows: "How long the oldest request has waited for the backend (left axis), and how many requests wait (right axis).",
			good:  "a second or less, few requests.",
			act:   "Growing: the backend takes less than comes in. Up to its max_backlog nothing is lost; the journal has it.",
			queries: []query{
				{expr: `max by (backend) (sluice_in_journal_age_seconds)`, legend: "oldest", color: waiting},
				{expr: `sum by (backend) (remote_write_queue_length)`, legend: "requests", color: neutral, right: true, unit: short},
			},
		},
		{
			kind: timeSeries, title: "Samples", width: 6, height: 8, unit: perSecond,
			shows: "Samples a second that are routed to the backend, delivered, withheld, and lost.",
			good:  "delivered lies on routed; the others are 0.",
			act:   "Delivered below routed: the difference waits or is withheld. Red: see Lost by reason.",
			queries: []query{
				{expr: `sum by (backend) (rate(sluice_routed_total{kind!="exemplars"}[$__rate_interval]))`, legend: "routed", color: waiting},
				{expr: `sum by (backend) (rate(sluice_delivered_total{kind!="exemplars"}[$__rate_interval]))`, legend: "delivered", color: delivered},
				{expr: orZeroByBackend(`sum by (backend) (rate(remote_write_samples_shed_total[$__rate_interval]))`), legend: "withheld", color: withheld},
				{expr: orZeroByBackend(`sum by (backend) (rate(sluice_rejected_total{kind!="exemplars"}[$__rate_interval]))`) + ` + ` + orZeroByBackend(`sum by (backend) (rate(sluice_given_up_total{kind!="exemplars"}[$__rate_interval]))`), legend: "lost", color: lost},
			},
		},
		{
			kind: timeSeries, title: "Signals", width: 8, height: 7, unit: share,
			shows:   "What the controller steers by: each signal as a share of its threshold. From 100 % on the backend counts as lagging.",
			good:    "all below 100 %.",
			act:     "The highest is the cause of sampling: queue length and age, write latency, errors, throttling, replica lag, or this gateway's memory.",
			nothing: "the backend has no adaptive sampling",
			queries: []query{{expr: `max by (signal) (remote_write_backpressure_signal_ratio)`, legend: "{{signal}}"}},
		},
		{
			kind: timeSeries, title: "Debt and when it is paid", width: 8, height: 7, unit: short,
			shows:   "Samples that are owed to the backend (left axis), how old the oldest is, and how long giving back takes (right axis).",
			good:    "0, or falling after an incident; the time falls with it.",
			act:     "Not falling without lag: the backend declares no out_of_order_time_window, or refuses what is old.",
			nothing: "the backend has no adaptive sampling",
			queries: []query{
				{expr: `sum by (backend) (remote_write_debt_samples)`, legend: "owed", color: withheld},
				{expr: `max by (backend) (remote_write_debt_age_seconds)`, legend: "age", color: neutral, right: true, unit: seconds},
				{expr: `max by (backend) (remote_write_debt_eta_seconds)`, legend: "paid in", color: delivered, right: true, unit: seconds, dashed: true},
			},
		},
		{
			kind: timeSeries, title: "Withheld and given back", width: 8, height: 7, unit: perSecond,
			shows:   "Samples a second that are withheld, that are sent soon after because a later one made them matter, and that are given back from the ledger.",
			good:    "nothing; after an incident green only.",
			act:     "Yellow for long: the backend is too small for the load. Green that stops early: see the debt.",
			nothing: "the backend has no adaptive sampling",
			queries: []query{
				{expr: `sum by (backend) (rate(remote_write_samples_shed_total[$__rate_interval]))`, legend: "withheld", color: withheld},
				{expr: `sum by (backend) (rate(remote_write_samples_replayed_total[$__rate_interval]))`, legend: "sent soon after", color: waiting},
				{expr: `sum by (backend) (rate(remote_write_backfill_samples_total[$__rate_interval]))`, legend: "given back", color: delivered},
			},
		},
		{
			kind: stateTimeline, title: "State", width: 8, height: 4, unit: none, states: laneStates,
			shows:   "How the backend answers: ok; throttled, it asked for less; failing, attempts are repeated; denied, it takes nothing from us.",
			good:    "ok.",
			act:     "Denied: credentials or a permission, nothing is sent until it is mended. Failing: Attempts by outcome and the log say why. Throttled: it has a limit that is too low for you.",
			queries: []query{{expr: laneState(), legend: "{{backend}}"}},
		},
		{
			kind: stat, title: "Protocol", width: 8, height: 4, unit: none, names: true, nothing: "embedded store",
			shows:   "The version of remote write that the backend is spoken to in.",
			good:    "2.0 where the backend can: start timestamps and types of metrics get through.",
			act:     "1.0 with a backend that should take 2.0: the panel of fallbacks below says what it answered.",
			queries: []query{{expr: `max by (backend, protocol) (sluice_backend_protocol_info) == 1`, legend: "{{protocol}}", color: neutral}},
		},
		{
			kind: stat, title: "Lost by reason", width: 8, height: 4, unit: short, nothing: "nothing was lost",
			shows: "Samples that this backend did not get and will not get, by reason, in the time shown.",
			good:  "nothing.",
			act:   "Rejected ones are in the dead-letter file with the backend's words. max_backlog and journal_full: the backend was away for longer than its bound.",
			queries: []query{
				{expr: grown(`sluice_rejected_total{kind!="exemplars"}`, "reason") + ` > 0`, legend: "{{reason}}", color: lost},
				{expr: grown(`sluice_given_up_total{kind!="exemplars"}`, "reason") + ` > 0`, legend: "{{reason}}", color: lost},
			},
		},
		{
			kind: timeSeries, title: "Attempts by outcome", width: 8, height: 7, unit: requests,
			shows:   "Attempts a second to send: ok, retry, throttled, rejected, denied, renegotiate.",
			good:    "ok.",
			act:     "Retry: timeouts, 5xx or no connection. Rejected: the backend refuses content, which is then looked for and put aside.",
			queries: []query{{expr: `sum by (outcome) (rate(sluice_lane_attempts_total[$__rate_interval]))`, legend: "{{outcome}}"}},
		},
		{
			kind: timeSeries, title: "Time of a write", width: 8, height: 7, unit: seconds,
			shows: "How long the backend takes for a request (remote write) or a parcel (embedded store): half of them at most the lower line, 99 of 100 at most the upper one.",
			good:  "well below write_latency_ms of the sampling's thresholds.",
			act:   "Climbing: the backend is busy. Look at its own dashboards.",
			queries: []query{
				{expr: quantile("0.5", "sluice_backend_request_duration_seconds", "backend") + ` or ` + quantile("0.5", "sluice_tsdb_send_duration_seconds", "backend"), legend: "half", color: waiting},
				{expr: quantile("0.99", "sluice_backend_request_duration_seconds", "backend") + ` or ` + quantile("0.99", "sluice_tsdb_send_duration_seconds", "backend"), legend: "99 of 100", color: attention},
			},
		},
		{
			kind: timeSeries, title: "Answers of the backend", width: 8, height: 7, unit: requests, nothing: "embedded store",
			shows:   "Remote-write requests a second by the status of the answer; none where there was no answer.",
			good:    "2xx only.",
			act:     "4xx: content or credentials. 429: its limit. 5xx and none: it is down, overloaded, or something between drops connections.",
			queries: []query{{expr: `sum by (code) (rate(sluice_backend_requests_total[$__rate_interval]))`, legend: "{{code}}"}},
		},
	}
}

func troubleshooting() []panel {
	return []panel{
		{
			kind: timeSeries, title: "Clock difference", width: 8, height: 7, unit: seconds, floorless: true, limits: []string{"ClockSkew"}, nothing: "embedded store, or it tells no time",
			shows:   "How far the backend's clock is from the gateway's, by the time in its answers.",
			good:    "below a second.",
			act:     "More: lag and ages are wrong by as much, and a backend may refuse samples as too old or from the future. Mend the time synchronisation of whichever is wrong.",
			queries: []query{{expr: `max by (backend) (sluice_backend_clock_skew_seconds)`, legend: "difference"}},
		},
		{
			kind: timeSeries, title: "Certificate of the backend", width: 8, height: 7, unit: seconds, limits: []string{"CertificateExpires"}, nothing: "no TLS",
			shows:   "How long the certificates of the connection to the backend are still valid.",
			good:    "more than two weeks.",
			act:     "Less: renew it in time; afterwards every request fails.",
			queries: []query{{expr: `min by (certificate) (sluice_backend_certificate_expiry_timestamp_seconds) - time()`, legend: "{{certificate}}"}},
		},
		{
			kind: timeSeries, title: "Backlog and its bounds", width: 8, height: 7, unit: sizeBytes,
			shows: "Bytes of the journal that wait for the backend, the bound of them, and the bound of their age (right axis); a bound of 0 is none.",
			good:  "far below the bounds.",
			act:   "At a bound the oldest is given up. Mend the backend, or raise max_backlog.",
			queries: []query{
				{expr: `sum by (backend) (sluice_in_journal_bytes)`, legend: "waiting", color: waiting},
				{expr: `max by (backend) (sluice_in_journal_limit_bytes)`, legend: "bound", color: neutral, dashed: true},
				{expr: `max by (backend) (sluice_in_journal_limit_seconds)`, legend: "bound of age", color: neutral, right: true, unit: seconds, dashed: true},
			},
		},
		{
			kind: timeSeries, title: "Withheld by class and reason", width: 8, height: 7, unit: perSecond, nothing: "nothing was withheld",
			shows:   "Which samples are withheld: the classes of the configuration, and why: no frame, unchanged, whole family, late.",
			good:    "classes of low weight first; reason family only under the heaviest pressure.",
			act:     "A class that matters is thinned much: give it more weight or protect it.",
			queries: []query{{expr: `topk(10, sum by (class, reason) (rate(remote_write_samples_shed_total[$__rate_interval])))`, legend: "{{class}} {{reason}}"}},
		},
		{
			kind: timeSeries, title: "Seconds of lag by cause", width: 8, height: 7, unit: share, nothing: "the backend has no adaptive sampling",
			shows:   "The share of the time in which the backend lagged, by the signal that said so most.",
			good:    "0.",
			act:     "The cause tells where to look; one that is always there may have a threshold that is too low.",
			queries: []query{{expr: `sum by (cause) (rate(remote_write_backpressure_events_total[$__rate_interval]))`, legend: "{{cause}}"}},
		},
		{
			kind: timeSeries, title: "Pressure", width: 8, height: 7, unit: none, nothing: "the backend has no adaptive sampling",
			shows:   "How far up the ladder of what gives the sampling is: 0 nothing, 1 all frames but key frames, above that whole families, up to 5.",
			good:    "0; up to 1 in an incident.",
			act:     "Above 1 whole families are left out: the backend is far too small, or almost down.",
			queries: []query{{expr: `max by (backend) (remote_write_sampling_pressure)`, legend: "pressure", color: withheld}},
		},
		{
			kind: timeSeries, title: "Bound of samples in flight", width: 8, height: 7, unit: short, nothing: "the backend has no adaptive sampling",
			shows:   "Samples that may be under way to the backend at a time while it lags, so that what waits does so here and not there; 0 is no bound but that of the parcels.",
			good:    "0; in an incident a level that follows what the backend takes.",
			act:     "Near 0 for long: the backend answers slowly even what little it gets; look at the time of a write.",
			queries: []query{{expr: `max by (backend) (remote_write_in_flight_limit_samples)`, legend: "bound", color: waiting}},
		},
		{
			kind: timeSeries, title: "Parcels in flight", width: 8, height: 7, unit: none,
			shows: "Parcels that are being sent, how many may be at a time as things are, and at most.",
			good:  "in flight below the bound.",
			act:   "At the bound all the time while lag grows: the backend's latency limits; raise max_shards if it can take more.",
			queries: []query{
				{expr: `sum by (backend) (sluice_lane_parcels_in_flight)`, legend: "in flight", color: waiting},
				{expr: `sum by (backend) (sluice_lane_shards)`, legend: "at present", color: neutral, dashed: true},
				{expr: `sum by (backend) (sluice_lane_shards_limit)`, legend: "at most", color: attention, dashed: true},
			},
		},
		{
			kind: timeSeries, title: "Refused content", width: 8, height: 7, unit: perSecond, nothing: "nothing was refused",
			shows: "Parcels a second that were divided to find what the backend refuses, and series that were put into the dead-letter file.",
			good:  "nothing.",
			act:   "Read the dead-letter file: it has the series, the samples and the answer.",
			queries: []query{
				{expr: `sum by (backend) (rate(sluice_lane_divisions_total[$__rate_interval]))`, legend: "divisions", color: attention},
				{expr: `sum by (outcome) (rate(sluice_dead_letters_total[$__rate_interval]))`, legend: "dead letters, {{outcome}}", color: lost},
			},
		},
		{
			kind: timeSeries, title: "Sent more than once", width: 8, height: 7, unit: perSecond,
			shows:   "Delivered samples a second that may have reached the backend before, after a restart or an attempt of unknown outcome.",
			good:    "0, but shortly after a restart or a broken connection.",
			act:     "Always: something between cuts connections after the backend has taken the data.",
			queries: []query{{expr: `sum by (kind) (rate(sluice_redelivered_total[$__rate_interval]))`, legend: "{{kind}}"}},
		},
		{
			kind: timeSeries, title: "Said and not written", width: 8, height: 7, unit: perSecond, nothing: "embedded store",
			shows: "What the backend accepted and yet does not say it wrote, by the headers of remote write 2.0, and turns back to 1.0 by reason.",
			good:  "0.",
			act:   "The backend drops content silently, or a proxy between strips headers. Set the protocol to rw1 if it does not speak 2.0.",
			queries: []query{
				{expr: `sum by (kind) (rate(sluice_backend_unconfirmed_total[$__rate_interval]))`, legend: "unconfirmed {{kind}}", color: lost},
				{expr: `sum by (reason) (rate(sluice_backend_protocol_fallbacks_total[$__rate_interval]))`, legend: "fallback, {{reason}}", color: attention},
			},
		},
		{
			kind: timeSeries, title: "Bytes sent", width: 8, height: 7, unit: bytesPerSec, nothing: "embedded store",
			shows:   "Bytes of compressed bodies a second, retries included.",
			good:    "like the bytes received.",
			act:     "Far more: retries, or bodies that are encoded anew; see the form of parts.",
			queries: []query{{expr: `sum by (backend) (rate(sluice_backend_sent_bytes_total[$__rate_interval]))`, legend: "bytes", color: delivered}},
		},
		{
			kind: timeSeries, title: "Parts by form", width: 8, height: 7, unit: requests, nothing: "embedded store",
			shows:   "Batches a second that were forwarded as they were received, and that were encoded anew.",
			good:    "mostly forwarded, where the backend takes everything in the protocol of the senders.",
			act:     "Encoded anew costs processor time: different protocols, selectors, or sampling at work.",
			queries: []query{{expr: `sum by (form) (rate(sluice_backend_parts_total[$__rate_interval]))`, legend: "{{form}}"}},
		},
		{
			kind: timeSeries, title: "Ledger", width: 8, height: 7, unit: sizeBytes, nothing: "the backend has no adaptive sampling",
			shows: "Bytes of the ledger on the disk, and stretches that are not closed (right axis).",
			good:  "a few kilobytes, 0 stretches.",
			act:   "Many stretches: sampling goes on and off; the thresholds are close to what is normal.",
			queries: []query{
				{expr: `sum by (backend) (remote_write_ledger_bytes)`, legend: "bytes", color: waiting},
				{expr: `sum by (backend) (remote_write_ledger_entries)`, legend: "stretches", color: withheld, right: true, unit: short},
			},
		},
		{
			kind: timeSeries, title: "Failures to write things down", width: 8, height: 7, unit: perSecond,
			shows: "Records of the ledger and changes of the sampling that could not be made, and commits of the cursor that failed.",
			good:  "0.",
			act:   "The disk is full or broken; the log names the file.",
			queries: []query{
				{expr: orZeroByBackend(`sum by (backend) (rate(remote_write_ledger_write_errors_total[$__rate_interval]))`), legend: "ledger", color: lost},
				{expr: orZeroByBackend(`sum by (backend) (rate(remote_write_sampling_failures_total[$__rate_interval]))`), legend: "sampling", color: attention},
				{expr: orZeroByBackend(`sum by (backend) (rate(sluice_lane_commits_total{outcome="failed"}[$__rate_interval]))`), legend: "commits", color: neutral},
			},
		},
		{
			kind: timeSeries, title: "Embedded store", width: 8, height: 7, unit: perSecond, nothing: "not an embedded store",
			shows: "Groups of samples a second that were written to the store's log, that could not be, and queries by status.",
			good:  "no failures, queries with 200.",
			act:   "Failures: the disk of the store. Queries with 422 and 503: they take too much or too long.",
			queries: []query{
				{expr: `sum by (backend) (rate(sluice_tsdb_commits_total[$__rate_interval]))`, legend: "commits", color: delivered},
				{expr: `sum by (backend) (rate(sluice_tsdb_commit_failures_total[$__rate_interval]))`, legend: "failures", color: lost},
				{expr: `sum by (code) (rate(sluice_tsdb_query_requests_total[$__rate_interval]))`, legend: "queries, {{code}}", color: waiting},
			},
		},
	}
}
