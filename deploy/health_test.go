package deploy

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

// Every service says how to find out that it works, and asks itself on a port of its own.
func TestEveryServiceHasAHealthcheck(t *testing.T) {
	for name, s := range loadCompose(t).Services {
		require.NotNil(t, s.Health, name)
		require.Greater(t, len(s.Health.Test), 1, name)
		require.Equal(t, "CMD", s.Health.Test[0], "%s: not every image has a shell", name)
		for _, text := range []string{s.Health.Interval, s.Health.Timeout, s.Health.Start} {
			d, err := time.ParseDuration(text)
			require.NoError(t, err, name)
			require.Positive(t, d, name)
		}
		for _, arg := range s.Health.Test {
			address, found := strings.CutPrefix(arg, "http://127.0.0.1:")
			if !found {
				continue
			}
			port, _, _ := strings.Cut(address, "/")
			require.True(t, slices.ContainsFunc(s.Ports, func(p string) bool { return strings.HasSuffix(p, ":"+port) }), "%s: %s is none of %v", name, port, s.Ports)
		}
	}
}

// Whoever needs another service waits until that one is well, and nobody waits in a circle.
func TestDependenciesAreHealthy(t *testing.T) {
	services := loadCompose(t).Services
	for name, s := range services {
		for other, d := range s.DependsOn {
			require.Contains(t, services, other, name)
			require.Equal(t, "service_healthy", d.Condition, "%s on %s", name, other)
		}
	}
	var wait func(name string, path []string)
	wait = func(name string, path []string) {
		require.NotContains(t, path, name, "they wait for each other")
		for other := range services[name].DependsOn {
			wait(other, append(slices.Clone(path), name))
		}
	}
	for name := range services {
		wait(name, nil)
	}
	needs := func(name string) (list []string) {
		for other := range services[name].DependsOn {
			list = append(list, other)
		}
		slices.Sort(list)
		return list
	}
	require.Equal(t, []string{"etcd", "postgres", "postgres-replica", "prometheus-backend", "redis", "victoriametrics"}, needs("sluice"))
	require.Equal(t, []string{"sluice"}, needs("prometheus"))
	require.Equal(t, []string{"sluice"}, needs("grafana"))
	require.Equal(t, []string{"postgres"}, needs("postgres-replica"))
}

// The check of Sluice's own container is run with the real program.
func TestSluiceHealthcheck(t *testing.T) {
	test := loadCompose(t).Services["sluice"].Health.Test
	require.Equal(t, "/bin/sluice", test[1], "where the Dockerfile puts it")
	s := testutil.NewSluice(t, testutil.SluiceOptions{})
	check := func() error {
		return exec.Command(s.Program(), append(slices.Clone(test[2:]), "--address="+s.URL(""))...).Run()
	}
	require.Error(t, check(), "it does not run yet")
	s.Start(t)
	require.NoError(t, check())
}
