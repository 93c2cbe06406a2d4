package dashboards

func gatewayVariables() []variable {
	return []variable{
		{name: "job", label: "Job", expr: `sluice_build_info`, single: true},
		{name: "instance", label: "Gateway", expr: `sluice_build_info`},
	}
}

var backendVariable = variable{name: "backend", label: "Backend", expr: `sluice_in_journal_bytes`}

func unscoped(string) []string { return nil }

// commonAnnotations are on every dashboard. prefix is that of the alerts' names.
func commonAnnotations(prefix string) []annotation {
	return []annotation{
		{name: "Starts", color: neutral, isTime: true, title: "Start", text: "{{instance}} started", expr: `1000 * process_start_time_seconds`},
		{name: "Reloads", color: waiting, isTime: true, title: "Configuration", text: "{{instance}} loaded its configuration", expr: `1000 * sluice_config_last_reload_success_timestamp_seconds`},
		{
			name: "Versions", color: neutral, title: "Version {{version}}", text: "{{instance}} runs another version",
			expr: `max by (instance, version) (sluice_build_info) unless on (instance, version) max by (instance, version) (sluice_build_info offset 5m) and on (instance) max by (instance) (sluice_build_info offset 5m)`,
		},
		{name: "Sampling", color: withheld, title: "Sampling", text: "{{backend}} is sent less than everything", expr: `min by (backend) (remote_write_sampling_rate) < bool 1`},
		{name: "Alerts", color: lost, title: "{{alertname}}", text: "{{severity}} {{instance}} {{backend}} {{cluster}}", expr: `ALERTS{alertname=~"` + prefix + `.+", alertstate="firing"}`},
	}
}

func overview(o *Options) dashboard {
	return dashboard{
		name: "overview", title: "overview", scope: unscoped,
		description: "Is it all right, and is anything lost? The first screen answers; the rows below say where to look.",
		variables:   append(gatewayVariables(), backendVariable),
		annotations: commonAnnotations(o.Prefix),
		rows: []row{
			{panels: append(append(overviewFlows(), overviewState()...), overviewPictures()...)},
			{title: "Backends", panels: []panel{backendsTable()}},
			{title: "Senders", collapsed: true, panels: senders()},
			{title: "Alerts", collapsed: true, panels: []panel{firingAlerts(o.Prefix)}},
		},
	}
}

const (
	receivedRate  = `sum(max by (instance) (sum by (instance, backend) (rate(sluice_routed_total{kind!="exemplars"}[$__rate_interval]))))`
	deliveredRate = `sum(rate(sluice_delivered_total{kind!="exemplars"}[$__rate_interval]))`
	withheldRate  = `sum(rate(remote_write_samples_shed_total[$__rate_interval]))`
)

func overviewFlows() []panel {
	return []panel{
		{
			kind: stat, title: "Received", width: 4, height: 4, unit: perSecond,
			shows:   "Samples a second that are taken in, as the backend that takes most of them counts them.",
			good:    "what your senders produce, without steps that nobody planned.",
			act:     "0 or far less than usual: look at the row Senders, whether they are refused or have stopped sending.",
			queries: []query{{expr: receivedRate, legend: "samples", color: waiting}},
		},
		{
			kind: stat, title: "Delivered", width: 4, height: 4, unit: perSecond,
			shows:   "Samples a second that backends have acknowledged, all backends together.",
			good:    "what is received, times the number of backends that take everything.",
			act:     "Less: look at the table of backends for the one that lags, and at its state.",
			queries: []query{{expr: deliveredRate, legend: "samples", color: delivered}},
		},
		{
			kind: stat, title: "Withheld", width: 4, height: 4, unit: perSecond,
			shows:   "Samples a second that sampling keeps from backends that lag. They are a loan: the ledger knows each of them.",
			good:    "0. More for a while is what sampling is for.",
			act:     "For longer: a backend cannot take the load. Its row on the dashboard of backends says which signal is the cause.",
			queries: []query{{expr: orZero(withheldRate), legend: "samples", color: withheld}},
		},
		{
			kind: stat, title: "Refused", width: 4, height: 4, unit: perSecond,
			shows: "What senders are answered with an error: samples that are invalid, and requests that could not be taken.",
			good:  "0.",
			act:   "Samples: the reasons in the row Senders name what is wrong with them. Requests: 503 means that the journal is full or its disk fails, and senders keep the data and try again.",
			queries: []query{
				{expr: `sum(rate(sluice_receiver_refused_samples_total[$__rate_interval]))`, legend: "samples", color: lost},
				{expr: orZero(`sum(rate(sluice_receiver_requests_total{code=~"[45].."}[$__rate_interval]))`), legend: "requests", color: attention},
			},
		},
		{
			kind: stat, title: "Lost", width: 4, height: 4, unit: short, limits: []string{"DataDropped"},
			shows: "Samples that were taken in and will never reach a backend, in the time shown (and before, where the store has nothing older): rejected by the backend, given up at a bound, or left behind by a backend that was removed.",
			good:  "0.",
			act:   "The dashboard of backends names the reasons. What was rejected is in the dead-letter file.",
			queries: []query{{
				expr:   orZero(grown(`sluice_rejected_total{kind!="exemplars"}`, "")) + ` + ` + orZero(grown(`sluice_given_up_total{kind!="exemplars"}`, "")) + ` + sum(increase(sluice_orphaned_samples_total[$__range]))`,
				legend: "samples",
			}},
		},
		{
			kind: stat, title: "Lag of the worst backend", width: 4, height: 4, unit: seconds, limits: []string{"BackendBehind"},
			shows:   "How long the oldest sample has waited that a backend has not taken, of the backend that is farthest behind.",
			good:    "a second or two.",
			act:     "Growing: that backend fails or is too slow. Go to the dashboard of backends.",
			queries: []query{{expr: `topk(1, max by (backend) (sluice_in_journal_age_seconds))`, legend: "{{backend}}", now: true}},
		},
	}
}

func overviewState() []panel {
	return []panel{
		{
			kind: stat, title: "Debt to replay", width: 4, height: 4, unit: short,
			shows:   "Samples that were withheld and are still to be given back, of all backends.",
			good:    "0, or falling once nothing lags.",
			act:     "Not falling: the backend is busy with new data, or takes nothing out of order. See the row of the backend.",
			queries: []query{{expr: orZero(`sum(remote_write_debt_samples)`), legend: "samples", color: withheld}},
		},
		{
			kind: stat, title: "Lowest share sent", width: 4, height: 4, unit: share, top: 1, limits: []string{"SamplingActive"},
			shows:   "The share of samples that the backend gets which gets the least.",
			good:    "100 %: everybody is sent everything.",
			act:     "Less: a backend lags. It gets everything again by itself when it recovers, and then what was withheld.",
			queries: []query{{expr: `min(remote_write_sampling_kept_ratio) or 1 + 0 * sum(sluice_build_info)`, legend: "share"}},
		},
		{
			kind: stat, title: "Disk left", width: 4, height: 4, unit: seconds, limits: []string{"QueueFullIn4h", "QueueFullIn12h"},
			shows:   "How long until the journal has used its share of the disk, if it goes on growing as in the last quarter of an hour; 30 days stands for longer and for not growing.",
			good:    "30 days.",
			act:     "Hours: a backend is down or too slow and the journal keeps its data. Bring it back, give the journal more disk (journal.max_disk), or bound the backlog of that backend.",
			queries: []query{{expr: `min(clamp_max((sluice_journal_disk_limit_bytes - sluice_journal_disk_bytes) / clamp_min(deriv(sluice_journal_disk_bytes[15m]), 1), 2592000))`, legend: "left"}},
		},
		{
			kind: stat, title: "Restarts", width: 4, height: 4, unit: none, limits: []string{"Restarting"},
			shows:   "How often gateways started in the time shown.",
			good:    "0, or as often as somebody upgraded.",
			act:     "More: look at the log of the last start and at memory on the dashboard of internals.",
			queries: []query{{expr: `sum(changes(process_start_time_seconds[$__range]))`, legend: "restarts"}},
		},
		{
			kind: stat, title: "Gateways", width: 4, height: 4, unit: none,
			shows: "How many of the picked gateways answer, and how many there are.",
			good:  "both are the same.",
			act:   "Fewer: one is down, or cannot be scraped. Senders keep their data for some time, so start it again first and look for the cause afterwards.",
			queries: []query{
				{expr: `sum(up and on (job, instance) last_over_time(sluice_build_info[1h]))`, legend: "up", color: delivered},
				{expr: `count(count by (job, instance) (last_over_time(sluice_build_info[1h])))`, legend: "known", color: neutral},
			},
		},
		{
			kind: stat, title: "Version", width: 4, height: 4, unit: none, names: true,
			shows:   "Which versions run.",
			good:    "one version, but during an upgrade.",
			act:     "Several for long: an upgrade was not finished.",
			queries: []query{{expr: `count by (version) (sluice_build_info)`, legend: "{{version}}", color: neutral}},
		},
	}
}

func overviewPictures() []panel {
	return []panel{
		{
			kind: timeSeries, title: "Where samples go", width: 8, height: 6, unit: perSecond,
			shows: "Samples a second: received, delivered to all backends together, withheld by sampling, and lost.",
			good:  "delivered follows received; the red line stays at 0.",
			act:   "Delivered falls while received does not: the rest waits in the journal or is withheld. The pictures beside and below name the backend.",
			queries: []query{
				{expr: receivedRate, legend: "received", color: waiting},
				{expr: deliveredRate, legend: "delivered", color: delivered},
				{expr: orZero(withheldRate), legend: "withheld", color: withheld},
				{expr: orZero(`sum(rate(sluice_rejected_total{kind!="exemplars"}[$__rate_interval]))`) + ` + ` + orZero(`sum(rate(sluice_given_up_total{kind!="exemplars"}[$__rate_interval]))`), legend: "lost", color: lost},
			},
		},
		{
			kind: timeSeries, title: "Lag by backend", width: 8, height: 6, unit: seconds, limits: []string{"BackendBehind"},
			shows:   "How long the oldest sample has waited that each backend has not taken.",
			good:    "flat and low; the line is where the alert begins.",
			act:     "One line climbs a second per second: that backend takes nothing. One climbs slower: it takes too little.",
			queries: []query{{expr: `max by (backend) (sluice_in_journal_age_seconds)`, legend: "{{backend}}"}},
		},
		{
			kind: timeSeries, title: "Conservation", width: 8, height: 6, unit: short, floorless: true,
			shows: "Routed less delivered, withheld, rejected, given up and in the journal, for samples and histograms of each backend: what nobody can account for.",
			good:  "0, or up to a request while data flows.",
			act:   "A line that stays away from 0 is a mistake in Sluice: keep the log and the data directory, and report it.",
			queries: []query{{
				expr: `sum by (backend) (sluice_routed_total{kind!="exemplars"}) - sum by (backend) (sluice_delivered_total{kind!="exemplars"}) - sum by (backend) (sluice_withheld{kind!="exemplars"}) - ` +
					orZeroByBackend(`sum by (backend) (sluice_rejected_total{kind!="exemplars"})`) + ` - ` +
					orZeroByBackend(`sum by (backend) (sluice_given_up_total{kind!="exemplars"})`) + ` - sum by (backend) (sluice_in_journal{kind!="exemplars"})`,
				legend: "{{backend}}",
			}},
		},
		func() panel {
			p := lagAgainstRate()
			p.title, p.repeat, p.width, p.height = "Lag against sampling rate: $backend", "backend", columns, 6
			return p
		}(),
	}
}

// lagAgainstRate is the product in a picture.
func lagAgainstRate() panel {
	return panel{
		kind: timeSeries, title: "Lag against sampling rate", unit: seconds,
		shows: "How old the newest sample is that the backend has acknowledged (left axis) and which share of the samples it is sent (right axis): the share asked for, and, dashed, the share kept.",
		good:  "lag near 0 at a rate of 100 %. In trouble the rate falls as lag climbs, lag stops climbing, and both return.",
		act:   "Lag climbs at the lowest rate: the backend is down or far too small. The rate is low without lag: look at the signals of the backend, another one than lag holds it.",
		queries: []query{
			{expr: `max by (backend) (remote_write_destination_lag_seconds)`, legend: "lag", color: waiting},
			{expr: `min by (backend) (remote_write_sampling_rate) or 1 + 0 * sum by (backend) (sluice_in_journal_bytes)`, legend: "sampling rate", color: withheld, right: true, unit: share, top: 1},
			{expr: `min by (backend) (remote_write_sampling_kept_ratio) or 1 + 0 * sum by (backend) (sluice_in_journal_bytes)`, legend: "kept", color: withheld, right: true, unit: share, top: 1, dashed: true},
		},
	}
}

// laneStates are the values that codes gives to sluice_lane_state.
var laneStates = []state{{"1", "ok", delivered}, {"2", "throttled", withheld}, {"3", "failing", attention}, {"4", "denied", lost}}

func laneState() string {
	return codes("sluice_lane_state", "state", "backend", "ok", "throttled", "failing", "denied")
}

func backendsTable() panel {
	return panel{
		kind: table, title: "Backends", width: columns, height: 7, unit: short, scoped: []string{"backend"},
		shows: "Every backend: its state, the age of the newest sample that it has, what waits for it and for how long, what it is sent, what is owed to it and what was lost in the time shown.",
		good:  "state ok, ages of a few seconds, rate 100 %, nothing owed, nothing lost.",
		act:   "Click on the name of the one that is not: its row shows signals, errors and protocol.",
		queries: []query{
			{expr: laneState()},
			{expr: `max by (backend) (remote_write_destination_lag_seconds)`},
			{expr: `max by (backend) (sluice_in_journal_age_seconds)`},
			{expr: `sum by (backend) (sluice_in_journal_bytes)`},
			{expr: `min by (backend) (remote_write_sampling_rate) or 1 + 0 * sum by (backend) (sluice_in_journal_bytes)`},
			{expr: orZeroByBackend(`sum by (backend) (remote_write_debt_samples)`)},
			{expr: orZeroByBackend(grown(`sluice_rejected_total{kind!="exemplars"}`, "backend")) + ` + ` + orZeroByBackend(grown(`sluice_given_up_total{kind!="exemplars"}`, "backend"))},
		},
		link: &link{title: "Show ${__value.text}", dashboard: "backends", variable: "backend"},
		columns: []column{
			{label: "backend", title: "Backend"},
			{query: 0, title: "State", states: laneStates},
			{query: 1, title: "Newest delivered", unit: seconds},
			{query: 2, title: "Oldest waiting", unit: seconds, limits: []string{"BackendBehind"}},
			{query: 3, title: "Waiting", unit: sizeBytes, color: waiting},
			{query: 4, title: "Sampling rate", unit: share},
			{query: 5, title: "Owed", unit: short, color: withheld},
			{query: 6, title: "Lost", unit: short, color: lost},
		},
	}
}

func senders() []panel {
	return []panel{
		{
			kind: timeSeries, title: "Requests by answer", width: 8, height: 7, unit: requests,
			shows:   "Write requests of senders a second, by protocol and status of the answer.",
			good:    "2xx only.",
			act:     "4xx: the sender sends what is invalid, see the reasons. 429 and 503: Sluice cannot take more now; senders try again.",
			queries: []query{{expr: `sum by (protocol, code) (rate(sluice_receiver_requests_total[$__rate_interval]))`, legend: "{{protocol}} {{code}}"}},
		},
		{
			kind: timeSeries, title: "Refused samples by reason", width: 8, height: 7, unit: perSecond,
			shows:   "Samples a second that were refused as invalid, by reason. They never were in the journal.",
			good:    "nothing.",
			act:     "docs/metrics.md explains the reasons; the log names an example of each.",
			nothing: "nothing was refused",
			queries: []query{{expr: `topk(10, sum by (reason) (rate(sluice_receiver_refused_samples_total[$__rate_interval])))`, legend: "{{reason}}"}},
		},
		{
			kind: timeSeries, title: "Time to answer", width: 8, height: 7, unit: seconds,
			shows: "How long senders wait for the answer, the append to the journal included: half of the requests at most the lower line, 99 of 100 at most the upper one.",
			good:  "milliseconds; with durability fsync what the disk needs for a sync.",
			act:   "High: look at the journal on the dashboard of internals, whether the disk is slow.",
			queries: []query{
				{expr: quantile("0.5", "sluice_receiver_request_duration_seconds"), legend: "half"},
				{expr: quantile("0.99", "sluice_receiver_request_duration_seconds"), legend: "99 of 100"},
			},
		},
		{
			kind: timeSeries, title: "Bytes received", width: 8, height: 7, unit: bytesPerSec,
			shows:   "Bytes of request bodies a second, as they come over the wire, by protocol.",
			good:    "steady.",
			act:     "A step without one in samples: senders changed protocol or compression, or labels grew.",
			queries: []query{{expr: `sum by (protocol) (rate(sluice_receiver_bytes_total[$__rate_interval]))`, legend: "{{protocol}}"}},
		},
		{
			kind: timeSeries, title: "Known series", width: 8, height: 7, unit: short,
			shows: "Series in the table of known series, and how many were new in a second (right axis).",
			good:  "flat, with few new ones.",
			act:   "Climbing without end: a label takes ever new values. Look at what was deployed when it began.",
			queries: []query{
				{expr: `sum(sluice_series)`, legend: "known", color: waiting},
				{expr: `sum(rate(sluice_series_created_total[$__rate_interval]))`, legend: "new", color: attention, right: true, unit: perSecond},
			},
		},
		{
			kind: timeSeries, title: "Requests under way", width: 8, height: 7, unit: none,
			shows:   "Requests that are being decoded or appended at this moment.",
			good:    "few, far below the limit of the receiver.",
			act:     "Many for long: the disk or the processor is too slow for the load.",
			queries: []query{{expr: `sum by (instance) (sluice_receiver_requests_in_flight)`, legend: "{{instance}}"}},
		},
	}
}

func firingAlerts(prefix string) panel {
	return panel{
		kind: table, title: "Firing alerts", width: columns, height: 7, unit: none, nothing: "no alert fires",
		shows:   "Alerts of Sluice that fire now, where this data source evaluates the rules.",
		good:    "none.",
		act:     "The runbook has a section for each of them.",
		queries: []query{{expr: `max by (alertname, severity, instance, backend, cluster) (ALERTS{alertname=~"` + prefix + `.+", alertstate="firing"})`}},
		columns: []column{
			{label: "alertname", title: "Alert"},
			{label: "severity", title: "Severity"},
			{label: "instance", title: "Gateway"},
			{label: "backend", title: "Backend"},
			{label: "cluster", title: "Cluster"},
		},
	}
}
