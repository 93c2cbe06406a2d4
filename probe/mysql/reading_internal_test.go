package mysql

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/internal/mysqlsession"
)

type row = mysqlsession.Row

func read(t *testing.T, a *answers) probe.Reading {
	t.Helper()
	r, err := reading(a)
	require.NoError(t, err)
	return r
}

func TestPrimary(t *testing.T) {
	r := read(t, &answers{
		server: row{
			"executed": "aaaa:1-100,\nbbbb:1-7", "server_uuid": "aaaa", "read_only": "0", "max_connections": "151",
		},
		replication: true, replicas: []row{}, locks: true,
	})
	require.Equal(t, probe.RolePrimary, r.Role)
	require.Equal(t, []probe.Stream{
		{Name: "aaaa", History: "aaaa", Head: probe.Some(uint64(100))},
		{Name: "bbbb", History: "aaaa", Head: probe.Some(uint64(7))},
	}, r.Streams)
	require.Equal(t, map[string]bool{"replication": true, "locks": true, "transactions": true}, r.Privileged)
	require.Equal(t, probe.Some(uint64(151)), r.Transactions.SessionsLimit)
	require.False(t, r.LinkUp.Known)
}

func TestReplica(t *testing.T) {
	r := read(t, &answers{
		server: row{"executed": "aaaa:1-90,cccc:1-2", "server_uuid": "cccc", "read_only": "1"},
		replicas: []row{{
			"replica_io_running": "Yes", "replica_sql_running": "No", "last_io_errno": "0", "last_sql_errno": "1062",
			"retrieved_gtid_set": "aaaa:80-95",
		}},
		replication: true,
	})
	require.Equal(t, probe.RoleReplica, r.Role)
	require.Equal(t, []probe.Stream{
		{Name: "aaaa", Applied: probe.Some(uint64(90)), Received: probe.Some(uint64(95))},
		{Name: "cccc", Applied: probe.Some(uint64(2)), Received: probe.Some(uint64(2))},
	}, r.Streams)
	require.Equal(t, uint64(1062), r.Errors["sql"])
	require.Nil(t, r.Locks, "the account may not read them")
	require.False(t, r.Privileged["locks"])
}

// A read-only server that replicates from nobody is a replica that is cut off.
func TestReadOnlyServer(t *testing.T) {
	r := read(t, &answers{server: row{"executed": "aaaa:1-90", "read_only": "1"}, replication: true})
	require.Equal(t, probe.RoleReplica, r.Role)
	require.Equal(t, probe.Some(uint64(90)), r.Streams[0].Applied)
	require.False(t, r.Streams[0].Received.Known)
}

func TestWithoutGTIDs(t *testing.T) {
	r := read(t, &answers{server: row{"executed": "", "read_only": "0"}, replication: true})
	require.Empty(t, r.Streams, "there is no position")
	_, err := reading(&answers{server: row{"executed": "not a set"}})
	require.ErrorContains(t, err, "no set of global transaction ids")
}
