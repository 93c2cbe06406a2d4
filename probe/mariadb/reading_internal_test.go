package mariadb

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/internal/mysqlsession"
)

type row = mysqlsession.Row

func TestParseGTIDs(t *testing.T) {
	for text, want := range map[string]gtids{
		"":                     {},
		"0-1-100":              {"0": 100},
		"0-1-100,7-3-12":       {"0": 100, "7": 12},
		"0-1-5, 0-2-9,\n0-1-7": {"0": 9},
	} {
		got, err := parseGTIDs(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"0-1", "0", "0-1-x", "0-1--1"} {
		_, err := parseGTIDs(text)
		require.ErrorContains(t, err, "no list of global transaction ids", text)
	}
}

func read(t *testing.T, may privileges, a *answers) probe.Reading {
	t.Helper()
	p := &Prober{may: may}
	r, err := p.reading(a)
	require.NoError(t, err)
	return r
}

// Each domain is a stream of its own.
func TestDomains(t *testing.T) {
	all := privileges{replication: true}
	r := read(t, all, &answers{server: row{"binlog_position": "1-1-50,0-1-9", "server_id": "1", "read_only": "0"}, replicas: []row{}})
	require.Equal(t, []probe.Stream{
		{Name: "0", History: "1", Head: probe.Some(uint64(9))},
		{Name: "1", History: "1", Head: probe.Some(uint64(50))},
	}, r.Streams)

	// Two sources, one domain from each.
	r = read(t, all, &answers{
		server:   row{"replica_position": "0-1-8,1-1-50", "current_position": "0-9-99", "read_only": "0"},
		replicas: []row{{"gtid_io_pos": "0-1-9"}, {"gtid_io_pos": "1-1-40"}},
	})
	require.Equal(t, probe.RoleReplica, r.Role, "it replicates, whether it is read-only or not")
	require.Equal(t, []probe.Stream{
		{Name: "0", Applied: probe.Some(uint64(8)), Received: probe.Some(uint64(9))},
		{Name: "1", Applied: probe.Some(uint64(50)), Received: probe.Some(uint64(50))},
	}, r.Streams)
}

func TestRoleWithoutReplication(t *testing.T) {
	server := row{"binlog_position": "0-1-9", "replica_position": "0-1-4", "current_position": "0-1-9", "server_id": "1", "read_only": "1"}
	r := read(t, privileges{replication: true}, &answers{server: server, replicas: []row{}})
	require.Equal(t, probe.RoleReplica, r.Role, "nobody may write to it")
	require.Equal(t, probe.Some(uint64(9)), r.Streams[0].Applied, "it made these changes before")

	r = read(t, privileges{}, &answers{server: server})
	require.Equal(t, probe.RoleReplica, r.Role)
	require.Equal(t, probe.Some(uint64(4)), r.Streams[0].Applied, "whether it follows somebody may not be seen")

	server["read_only"] = "0"
	require.Equal(t, probe.RolePrimary, read(t, privileges{}, &answers{server: server}).Role)
}

// Without a binary log there is no position.
func TestWithoutBinaryLog(t *testing.T) {
	r := read(t, privileges{replication: true}, &answers{server: row{"binlog_position": "", "read_only": "0"}, replicas: []row{}})
	require.Equal(t, probe.RolePrimary, r.Role)
	require.Empty(t, r.Streams)
}
