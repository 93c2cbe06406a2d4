package testutil

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRedisPair(t *testing.T) {
	t.Parallel()
	primary := StartRedis(t, RedisOptions{})
	replica := StartRedis(t, RedisOptions{ReplicaOf: primary.Addr})
	replica.AwaitLink(t)
	primary.Do(t, "SET", "k", "v")
	require.EqualValues(t, 1, primary.Do(t, "WAIT", 1, 5000))
	require.Equal(t, "v", replica.Do(t, "GET", "k"))

	replica.Pause(t)
	primary.Do(t, "SET", "k", "w")
	require.EqualValues(t, 0, primary.Do(t, "WAIT", 1, 100), "a frozen replica does not acknowledge")
	replica.Resume(t)
	require.EqualValues(t, 1, primary.Do(t, "WAIT", 1, 5000))

	primary.Restart(t)
	require.EqualValues(t, 0, primary.Do(t, "DBSIZE"))
}

func TestEtcdSurvivesItsLeader(t *testing.T) {
	t.Parallel()
	cluster := StartEtcd(t, EtcdOptions{Members: 3})
	leader := cluster.Leader(t)
	require.Len(t, cluster.Followers(t), 2)
	leader.Kill()
	next := cluster.Leader(t)
	require.NotEqual(t, leader, next)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := cluster.Client().Put(ctx, "k", "v")
	require.NoError(t, err)
	leader.Restart(t)
	require.Eventually(t, func() bool {
		status, err := cluster.status(leader)
		return err == nil && status.Leader != 0
	}, 20*time.Second, 50*time.Millisecond)
	next.Pause(t)
	require.NotEqual(t, next, cluster.Leader(t))
	next.Resume(t)
}

func TestMariaDBPair(t *testing.T) {
	t.Parallel()
	primary := StartMariaDB(t, MariaDBOptions{ServerID: 1})
	replica := StartMariaDB(t, MariaDBOptions{ServerID: 2})
	replica.Follow(t, primary.Addr)
	primary.Exec(t, "CREATE TABLE app.t (id INT PRIMARY KEY)", "INSERT INTO app.t VALUES (7)")
	require.Eventually(t, func() bool {
		var id int
		return replica.DB().QueryRowContext(context.Background(), "SELECT id FROM app.t").Scan(&id) == nil && id == 7
	}, 20*time.Second, 20*time.Millisecond)
	replica.Restart(t)
}
