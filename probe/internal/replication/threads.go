// Package replication turns what SHOW REPLICA STATUS and its older forms say about the
// threads of a replica into the words of package probe, for MariaDB and MySQL.
package replication

import (
	"time"

	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/internal/mysqlsession"
)

// Threads puts what the threads do into the reading. There is a row for each source that
// the server replicates from; the worst counts.
func Threads(r *probe.Reading, rows []mysqlsession.Row) {
	for i, row := range rows {
		link := either(row, "replica_io_running", "slave_io_running")
		applier := either(row, "replica_sql_running", "slave_sql_running")
		applierError := row.Uint("last_sql_errno")
		var paused probe.Maybe[bool]
		if applier.Known && applierError.Known {
			// A thread that an error stopped was not paused by anybody.
			paused = probe.Some(!applier.Value && applierError.Value == 0)
		}
		delay := row.Duration("sql_delay", time.Second)
		if i == 0 {
			r.LinkUp, r.ApplierRunning, r.ApplyPaused, r.ApplyDelay = link, applier, paused, delay
			r.Errors = map[string]uint64{}
		}
		r.LinkUp.Value = r.LinkUp.Value && link.Value
		r.ApplierRunning.Value = r.ApplierRunning.Value && applier.Value
		r.ApplyPaused.Value = r.ApplyPaused.Value || paused.Value
		r.ApplyDelay.Value = max(r.ApplyDelay.Value, delay.Value)
		noteError(r.Errors, "io", row.Uint("last_io_errno"))
		noteError(r.Errors, "sql", applierError)
	}
}

// either is the cell under the name that this version of the server uses.
func either(row mysqlsession.Row, name, old string) probe.Maybe[bool] {
	if yes := row.Yes(name); yes.Known {
		return yes
	}
	return row.Yes(old)
}

// noteError keeps the code of the first source that has one.
func noteError(codes map[string]uint64, thread string, code probe.Maybe[uint64]) {
	if code.Known && codes[thread] == 0 {
		codes[thread] = code.Value
	}
}
