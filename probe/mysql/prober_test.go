package mysql_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/internal/fielderror"
	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/probe/mysql"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A server of the wrong kind is named by what it does not know.
func TestMariaDBIsNoMySQL(t *testing.T) {
	t.Parallel()
	server := testutil.StartMariaDB(t, testutil.MariaDBOptions{})
	server.Exec(t, "CREATE USER probe@'%' IDENTIFIED BY 'right'")
	for user, want := range map[string]string{
		"probe:right": "is it a MySQL",
		"probe:hush":  "see password_file and docs/probe/mysql-grants.sql",
	} {
		p, err := mysql.New(mysql.Target{DSN: mysql.DSN("mysql://" + user + "@" + server.Addr)})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		_, err = p.Probe(ctx)
		cancel()
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hush")
		require.NoError(t, p.Close())
	}
}

func TestConfig(t *testing.T) {
	c := mysql.Config{Targets: []mysql.Target{
		{DSN: "mysql://probe@db1"}, {DSN: "mysql://probe@db2:3307", PasswordFile: "secret"}, {DSN: "mariadb://probe@db3"},
	}}
	c.SetDirectory("/etc/sluice")
	require.Equal(t, "/etc/sluice/secret", c.Targets[1].PasswordFile)
	errs := fielderror.List(c.Validate())
	require.Len(t, errs, 1)
	require.Equal(t, "targets[2].dsn", errs[0].Path)

	c.Targets = c.Targets[:2]
	require.NoError(t, c.Validate())
	probers, err := c.Probers()
	require.NoError(t, err)
	require.Equal(t, "db1:3306", probers[0].Target())
	require.Equal(t, "db2:3307", probers[1].Target())
	for _, p := range probers {
		require.NoError(t, p.Close())
	}
}
