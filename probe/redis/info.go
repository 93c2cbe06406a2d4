package redis

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/sluice-metrics/sluice/probe"
)

// info holds the fields of an answer to INFO by name.
type info map[string]string

func parseInfo(text string) info {
	fields := info{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	return fields
}

// number is the field as a number; unknown if it is missing or none.
func (f info) number(name string) probe.Maybe[uint64] {
	n, err := strconv.ParseUint(f[name], 10, 64)
	if err != nil {
		return probe.Maybe[uint64]{}
	}
	return probe.Some(n)
}

// replication puts what INFO replication says into the reading.
func (f info) replication(r *probe.Reading) error {
	r.Unit = probe.UnitBytes
	stream := probe.Stream{History: f["master_replid"]}
	switch f["role"] {
	case "master":
		r.Role = probe.RolePrimary
		stream.Head = f.number("master_repl_offset")
		r.Replicas = f.replicas()
	case "slave":
		r.Role = probe.RoleReplica
		r.LinkUp = probe.Some(f["master_link_status"] == "up")
		// Until it has a first copy, and while it replaces all that it has by a new one,
		// a server says 1 or what was true for the old data.
		if f["master_sync_in_progress"] != "1" {
			stream.Applied = beyondFirst(f.number("slave_repl_offset"))
			stream.Received = beyondFirst(f.number("slave_read_repl_offset"))
		}
	default:
		return fmt.Errorf("the server says that its role is %q; only primaries and replicas can be probed", f["role"])
	}
	r.Streams = []probe.Stream{stream}
	return nil
}

func beyondFirst(offset probe.Maybe[uint64]) probe.Maybe[uint64] {
	if offset.Value <= 1 {
		return probe.Maybe[uint64]{}
	}
	return offset
}

// replicas are the lines slave0, slave1, … of a primary. One that is being given its
// first copy has no position yet.
func (f info) replicas() []probe.ReplicaRow {
	var rows []probe.ReplicaRow
	for i := 0; ; i++ {
		line, ok := f["slave"+strconv.Itoa(i)]
		if !ok {
			return rows
		}
		row := info{}
		for part := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(part, "=")
			row[name] = value
		}
		if row["state"] != "online" {
			continue
		}
		offset := beyondFirst(row.number("offset"))
		rows = append(rows, probe.ReplicaRow{
			Address: net.JoinHostPort(row["ip"], row["port"]),
			State:   row["state"],
			Streams: []probe.Stream{{Applied: offset, Received: offset}},
		})
	}
}

// sessions puts what INFO clients says into the reading. Redis does not say what its
// clients do.
func (f info) sessions(r *probe.Reading) {
	clients, known := f.number("connected_clients").Get()
	if !known {
		return
	}
	r.Transactions = &probe.Transactions{
		// The probe is one of them.
		Sessions:      map[string]uint64{probe.StateOther: max(clients, 1) - 1},
		SessionsLimit: f.number("maxclients"),
	}
}
