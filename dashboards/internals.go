package dashboards

func internals(o *Options) dashboard {
	return dashboard{
		name: "internals", title: "internals", scope: unscoped,
		description: "What the program needs: memory, processor, disk; the journal, the lanes, the embedded stores.",
		variables:   append(gatewayVariables(), backendVariable),
		annotations: commonAnnotations(o.Prefix),
		rows: []row{
			{panels: resourceFirst()},
			{title: "Journal", panels: journalPanels()},
			{title: "Memory and garbage collection", collapsed: true, panels: memoryPanels()},
			{title: "Lanes", collapsed: true, panels: lanePanels()},
			{title: "Series", collapsed: true, panels: seriesPanels()},
			{title: "Embedded stores", collapsed: true, panels: storePanels()},
		},
	}
}

const memoryUse = `max by (instance) (process_resident_memory_bytes / (go_gc_gomemlimit_bytes < 9e18))`

func resourceFirst() []panel {
	return []panel{
		{
			kind: timeSeries, title: "Memory", width: 6, height: 7, unit: sizeBytes,
			shows: "Resident memory of each gateway, and the limit that the Go runtime keeps to, where there is one (dashed).",
			good:  "flat, below the limit.",
			act:   "Climbing with the number of series: raise the limit or bound series.max. Climbing without: take a heap profile and report it.",
			queries: []query{
				{expr: `max by (instance) (process_resident_memory_bytes)`, legend: "{{instance}}"},
				{expr: `max by (instance) (go_gc_gomemlimit_bytes < 9e18)`, legend: "limit, {{instance}}", color: neutral, dashed: true},
			},
		},
		{
			kind: timeSeries, title: "Processor", width: 6, height: 7, unit: none,
			shows:   "Processors that each gateway keeps busy.",
			good:    "in proportion to the samples received.",
			act:     "More without more samples: bodies are encoded anew, or series are new all the time; see the rows of lanes and series.",
			queries: []query{{expr: `sum by (instance) (rate(process_cpu_seconds_total[$__rate_interval]))`, legend: "{{instance}}"}},
		},
		{
			kind: timeSeries, title: "Open files", width: 6, height: 7, unit: share, top: 1, limits: []string{"FilesNearLimit"},
			shows:   "The share of the file descriptors that the process may open.",
			good:    "low.",
			act:     "Near the line: raise the limit of the service (LimitNOFILE).",
			queries: []query{{expr: `max by (instance) (process_open_fds / process_max_fds)`, legend: "{{instance}}"}},
		},
		{
			kind: timeSeries, title: "Goroutines", width: 6, height: 7, unit: none,
			shows:   "Goroutines of each gateway.",
			good:    "flat, some tens and one or two for each request under way.",
			act:     "Climbing without end: a leak; take a goroutine profile and report it.",
			queries: []query{{expr: `max by (instance) (go_goroutines)`, legend: "{{instance}}"}},
		},
	}
}

func journalPanels() []panel {
	return []panel{
		{
			kind: timeSeries, title: "Disk of the journal", width: 8, height: 7, unit: sizeBytes,
			shows: "Bytes of all segment files, those of them that are kept only to give back what was withheld, and the bound (dashed).",
			good:  "far below the bound.",
			act:   "Growing: a backend is behind. At the bound senders are answered 503, or the oldest is given up, as configured.",
			queries: []query{
				{expr: `sum by (instance) (sluice_journal_disk_bytes)`, legend: "used, {{instance}}", color: waiting},
				{expr: `sum by (instance) (sluice_journal_retained_bytes)`, legend: "to give back, {{instance}}", color: withheld},
				{expr: `sum by (instance) (sluice_journal_disk_limit_bytes)`, legend: "bound, {{instance}}", color: neutral, dashed: true},
			},
		},
		{
			kind: timeSeries, title: "Time of an append", width: 8, height: 7, unit: seconds,
			shows: "How long an append takes, waiting for its group included: half at most the lower line, 99 of 100 the upper one.",
			good:  "below a millisecond; with durability fsync that of a sync.",
			act:   "High: the disk is slow or shared; see the syncs.",
			queries: []query{
				{expr: quantile("0.5", "sluice_journal_append_duration_seconds"), legend: "half", color: waiting},
				{expr: quantile("0.99", "sluice_journal_append_duration_seconds"), legend: "99 of 100", color: attention},
			},
		},
		{
			kind: timeSeries, title: "Time of a sync", width: 8, height: 7, unit: seconds, nothing: "no sync in this time",
			shows:   "99 of 100 syncs of segment files take at most so long.",
			good:    "milliseconds.",
			act:     "Hundreds of them: use another disk or durability write.",
			queries: []query{{expr: quantile("0.99", "sluice_journal_fsync_duration_seconds", "instance"), legend: "{{instance}}"}},
		},
		{
			kind: timeSeries, title: "Written", width: 8, height: 7, unit: bytesPerSec,
			shows: "Bytes of records a second, and requests (right axis).",
			good:  "like the bytes received.",
			act:   "Far more: requests are re-spliced; see the reasons of refused samples.",
			queries: []query{
				{expr: `sum(rate(sluice_journal_appended_bytes_total[$__rate_interval]))`, legend: "bytes", color: waiting},
				{expr: `sum(rate(sluice_journal_appended_records_total[$__rate_interval]))`, legend: "requests", color: neutral, right: true, unit: requests},
			},
		},
		{
			kind: timeSeries, title: "Write errors", width: 8, height: 7, unit: perSecond,
			shows:   "Failures to keep a request, by reason. full: the bound of the disk was reached.",
			good:    "0.",
			act:     "create, write, sync: the disk fails or is full. Senders are answered 503 and try again.",
			queries: []query{{expr: `sum by (reason) (rate(sluice_journal_write_errors_total[$__rate_interval]))`, legend: "{{reason}}"}},
		},
		{
			kind: timeSeries, title: "Damage", width: 8, height: 7, unit: short,
			shows: "Bytes that could not be read and were stepped over, and bytes that were cut at a start behind the last whole record, in the time shown and before.",
			good:  "0; a few bytes were cut after a crash.",
			act:   "Damaged bytes: the disk or somebody else changed files. The log names segment and place.",
			queries: []query{
				{expr: `sum by (instance) (sluice_journal_damaged_bytes_total)`, legend: "damaged, {{instance}}", color: lost},
				{expr: `sum by (instance) (sluice_journal_torn_bytes_cut_total)`, legend: "cut, {{instance}}", color: attention},
			},
		},
		{
			kind: timeSeries, title: "Segments", width: 8, height: 7, unit: none,
			shows: "Segment files, and how many were removed a second because nobody needs them (right axis).",
			good:  "few, removed as fast as they are made.",
			act:   "None is removed: see which backend has the oldest waiting data.",
			queries: []query{
				{expr: `sum by (instance) (sluice_journal_segments)`, legend: "{{instance}}", color: waiting},
				{expr: `sum by (instance) (rate(sluice_journal_truncated_segments_total[$__rate_interval]))`, legend: "removed, {{instance}}", color: delivered, right: true, unit: perSecond},
			},
		},
		{
			kind: stat, title: "Durability", width: 8, height: 7, unit: none, names: true,
			shows:   "What an append waits for before the sender is answered.",
			good:    "what you chose: write survives a crash of the program, fsync also one of the machine.",
			act:     "journal.durability in the configuration.",
			queries: []query{{expr: `max by (mode) (sluice_journal_durability_info)`, legend: "{{mode}}", color: neutral}},
		},
		{
			kind: timeSeries, title: "Certificate of the gateway", width: 8, height: 7, unit: seconds, limits: []string{"CertificateExpires"}, nothing: "no TLS",
			shows:   "How long the certificate that senders see is still valid.",
			good:    "more than two weeks.",
			act:     "Less: renew the file; it is read again for each connection.",
			queries: []query{{expr: `min by (instance) (sluice_server_certificate_expiry_timestamp_seconds) - time()`, legend: "{{instance}}"}},
		},
		{
			kind: stat, title: "Configuration", width: 8, height: 7, unit: seconds, states: []state{},
			shows: "How long ago the configuration in force was loaded, and gateways whose last reload was refused.",
			good:  "0 refused.",
			act:   "Refused: the old configuration is still in force. sluice check tells all that is wrong with the file.",
			queries: []query{
				{expr: `time() - min(sluice_config_last_reload_success_timestamp_seconds)`, legend: "loaded ago", color: neutral},
				{expr: `count(sluice_config_last_reload_successful == 0) or 0 * sum(sluice_build_info)`, legend: "refused", color: lost, unit: none},
			},
		},
	}
}

func memoryPanels() []panel {
	return []panel{
		{
			kind: timeSeries, title: "Share of the memory limit", width: 8, height: 7, unit: share, limits: []string{"MemoryNearLimit"}, nothing: "no memory limit is set",
			shows:   "Memory in use as a share of the limit that the Go runtime keeps to. Sampling treats it as a signal of lag.",
			good:    "below the line.",
			act:     "Near it: garbage collection takes the processor. Give it more memory or fewer series.",
			queries: []query{{expr: memoryUse, legend: "{{instance}}"}},
		},
		{
			kind: timeSeries, title: "Heap", width: 8, height: 7, unit: sizeBytes,
			shows: "Objects on the heap, and the size at which the next collection begins (dashed).",
			good:  "a saw tooth below the dashed line.",
			act:   "The floor of the saw tooth climbs: something is kept.",
			queries: []query{
				{expr: `max by (instance) (go_memstats_heap_alloc_bytes)`, legend: "{{instance}}", color: waiting},
				{expr: `max by (instance) (go_memstats_next_gc_bytes)`, legend: "next collection, {{instance}}", color: neutral, dashed: true},
			},
		},
		{
			kind: timeSeries, title: "Garbage collection", width: 8, height: 7, unit: seconds,
			shows: "The longest pause of a collection, and collections a second (right axis).",
			good:  "below a millisecond; about one in seconds.",
			act:   "Many a second: memory is near its limit.",
			queries: []query{
				{expr: `max by (instance) (go_gc_duration_seconds{quantile=~"1|1.0"})`, legend: "longest pause, {{instance}}", color: attention},
				{expr: `sum by (instance) (rate(go_gc_duration_seconds_count[$__rate_interval]))`, legend: "collections, {{instance}}", color: neutral, right: true, unit: perSecond},
			},
		},
		{
			kind: timeSeries, title: "Allocations", width: 8, height: 7, unit: bytesPerSec,
			shows:   "Bytes that are allocated a second.",
			good:    "in proportion to new series, not to samples: known series allocate nothing.",
			act:     "A step: a release that allocates on the hot path, or new series all the time.",
			queries: []query{{expr: `sum by (instance) (rate(go_memstats_alloc_bytes_total[$__rate_interval]))`, legend: "{{instance}}"}},
		},
		{
			kind: timeSeries, title: "Tail in memory", width: 8, height: 7, unit: sizeBytes,
			shows:   "Memory of the newest requests that is kept for backends that keep up.",
			good:    "flat.",
			act:     "0 with traffic: all backends are behind and read from the disk.",
			queries: []query{{expr: `sum by (instance) (sluice_journal_tail_bytes)`, legend: "{{instance}}"}},
		},
	}
}

func lanePanels() []panel {
	byBackend := []string{"backend"}
	return []panel{
		{
			kind: timeSeries, title: "How busy lanes are", width: 8, height: 7, unit: share, scoped: byBackend, limits: []string{"LaneSaturated"},
			shows:   "Parcels in flight as a share of those that may be at most.",
			good:    "below the line.",
			act:     "At 100 % all the time: the lane cannot send faster. Where the backend would take more at a time, raise max_shards.",
			queries: []query{{expr: `max by (backend) (sluice_lane_parcels_in_flight / sluice_lane_shards_limit)`, legend: "{{backend}}"}},
		},
		{
			kind: timeSeries, title: "Parcels in flight", width: 8, height: 7, unit: none, scoped: byBackend,
			shows:   "Parcels that each lane is sending, repeating or dividing.",
			good:    "few.",
			act:     "At its bound: see the backend's row.",
			queries: []query{{expr: `sum by (backend) (sluice_lane_parcels_in_flight)`, legend: "{{backend}}"}},
		},
		{
			kind: timeSeries, title: "Shards", width: 8, height: 7, unit: none, scoped: byBackend,
			shows:   "Parcels that may be in flight at a time, as things are.",
			good:    "between min_shards and max_shards, moving.",
			act:     "Always at max_shards: the backend could do with more parallelism, or is slow.",
			queries: []query{{expr: `max by (backend) (sluice_lane_shards)`, legend: "{{backend}}"}},
		},
		{
			kind: timeSeries, title: "Commits", width: 8, height: 7, unit: perSecond, scoped: byBackend,
			shows:   "Commits of cursors a second, by outcome.",
			good:    "ok.",
			act:     "failed: the disk. After a restart more is sent twice.",
			queries: []query{{expr: `sum by (backend, outcome) (rate(sluice_lane_commits_total[$__rate_interval]))`, legend: "{{backend}} {{outcome}}"}},
		},
		{
			kind: timeSeries, title: "Series that samplers know", width: 8, height: 7, unit: short, scoped: byBackend, nothing: "no backend has adaptive sampling",
			shows:   "Series whose state the sampler of each backend keeps; 0 while everything is sent.",
			good:    "0.",
			act:     "The state costs memory while sampling is active; it goes when it ends.",
			queries: []query{{expr: `sum by (backend) (remote_write_sampler_series)`, legend: "{{backend}}"}},
		},
		{
			kind: timeSeries, title: "Own check of the books", width: 8, height: 7, unit: short, scoped: byBackend, floorless: true,
			shows:   "What each lane itself finds missing in its books, by kind.",
			good:    "0, or up to a batch while data flows.",
			act:     "As the panel Conservation of the overview says.",
			queries: []query{{expr: `sum by (backend, kind) (sluice_conservation_error_samples)`, legend: "{{backend}} {{kind}}"}},
		},
		{
			kind: timeSeries, title: "Requests to backends under way", width: 8, height: 7, unit: none, scoped: byBackend, nothing: "embedded stores alone",
			shows:   "Remote-write requests that wait for a backend's answer.",
			good:    "few.",
			act:     "Many: the backend is slow.",
			queries: []query{{expr: `sum by (backend) (sluice_backend_requests_in_flight)`, legend: "{{backend}}"}},
		},
	}
}

func seriesPanels() []panel {
	return []panel{
		{
			kind: timeSeries, title: "New and forgotten series", width: 8, height: 7, unit: perSecond,
			shows: "Series a second that were seen for the first time, that were forgotten, and look-ups that found no room.",
			good:  "few new ones; no overflow.",
			act:   "Overflow: raise series.max; such series are delivered, but cost more.",
			queries: []query{
				{expr: `sum by (instance) (rate(sluice_series_created_total[$__rate_interval]))`, legend: "new, {{instance}}", color: waiting},
				{expr: `sum by (instance) (rate(sluice_series_evicted_total[$__rate_interval]))`, legend: "forgotten, {{instance}}", color: neutral},
				{expr: `sum by (instance) (rate(sluice_series_overflowed_total[$__rate_interval]))`, legend: "overflow, {{instance}}", color: lost},
			},
		},
		{
			kind: timeSeries, title: "Known series by gateway", width: 8, height: 7, unit: short,
			shows:   "Series in the table of each gateway.",
			good:    "flat, below series.max.",
			act:     "Climbing: see Known series on the overview.",
			queries: []query{{expr: `max by (instance) (sluice_series)`, legend: "{{instance}}"}},
		},
		{
			kind: timeSeries, title: "Known metric families", width: 8, height: 7, unit: short,
			shows:   "Metric families whose type and help are known.",
			good:    "flat.",
			act:     "Growing without end: names of metrics are made of data.",
			queries: []query{{expr: `max by (instance) (sluice_metadata_families)`, legend: "{{instance}}"}},
		},
		{
			kind: timeSeries, title: "Starts left out", width: 8, height: 7, unit: perSecond,
			shows:   "Start timestamps a second that a backend could not be given: its protocol is 1.0, or the store does not keep them.",
			good:    "0 where you need them.",
			act:     "Speak 2.0 to the backend, or set start_timestamps.",
			nothing: "nothing was left out",
			queries: []query{
				{expr: `sum by (backend) (rate(sluice_backend_starts_dropped_total[$__rate_interval]))`, legend: "{{backend}}"},
				{expr: `sum by (backend) (rate(sluice_tsdb_start_timestamps_dropped_total[$__rate_interval]))`, legend: "{{backend}}"},
			},
		},
	}
}

func storePanels() []panel {
	byBackend := []string{"backend"}
	const without = "no embedded store"
	return []panel{
		{
			kind: timeSeries, title: "Series in the head", width: 8, height: 7, unit: short, scoped: byBackend, nothing: without,
			shows:   "Series in memory of each embedded store.",
			good:    "flat.",
			act:     "They cost memory until the next block is cut.",
			queries: []query{{expr: `max by (backend) (prometheus_tsdb_head_series)`, legend: "{{backend}}"}},
		},
		{
			kind: timeSeries, title: "Bytes of blocks", width: 8, height: 7, unit: sizeBytes, scoped: byBackend, nothing: without,
			shows:   "Bytes of the blocks of each embedded store, without its log.",
			good:    "flat once the retention is reached.",
			act:     "Too much: bound it with retention or retention_size.",
			queries: []query{{expr: `max by (backend) (prometheus_tsdb_storage_blocks_bytes)`, legend: "{{backend}}"}},
		},
		{
			kind: timeSeries, title: "Compactions that failed", width: 8, height: 7, unit: perSecond, scoped: byBackend, nothing: without,
			shows: "Compactions a second that failed, and truncations of the store's log that did.",
			good:  "0.",
			act:   "The store's disk is full or broken.",
			queries: []query{
				{expr: `sum by (backend) (rate(prometheus_tsdb_compactions_failed_total[$__rate_interval]))`, legend: "compactions, {{backend}}", color: lost},
				{expr: `sum by (backend) (rate(prometheus_tsdb_wal_truncations_failed_total[$__rate_interval]))`, legend: "truncations, {{backend}}", color: attention},
			},
		},
		{
			kind: timeSeries, title: "Queries under way", width: 8, height: 7, unit: none, scoped: byBackend, nothing: without,
			shows: "Queries that each embedded store is answering, and how many may run at a time (dashed).",
			good:  "below the bound.",
			act:   "At the bound: queries wait. Look for a dashboard that asks for too much.",
			queries: []query{
				{expr: `max by (backend) (prometheus_engine_queries)`, legend: "{{backend}}", color: waiting},
				{expr: `max by (backend) (prometheus_engine_queries_concurrent_max)`, legend: "bound, {{backend}}", color: neutral, dashed: true},
			},
		},
		{
			kind: timeSeries, title: "Look-ups of series", width: 8, height: 7, unit: perSecond, scoped: byBackend, nothing: without,
			shows:   "Series a second whose place in the store had to be looked up by their labels.",
			good:    "few.",
			act:     "Many: new series all the time, or series.max is too small.",
			queries: []query{{expr: `sum by (backend) (rate(sluice_tsdb_series_lookups_total[$__rate_interval]))`, legend: "{{backend}}"}},
		},
	}
}
