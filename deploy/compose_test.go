package deploy

import (
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	promconfig "github.com/prometheus/prometheus/config"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/exporter/remotewrite"
)

// composeFile is all that is used in docker-compose.yml.
type composeFile struct {
	Name     string                    `yaml:"name"`
	Services map[string]composeService `yaml:"services"`
	Volumes  map[string]any            `yaml:"volumes"`
}

type composeService struct {
	Image   string   `yaml:"image"`
	Build   string   `yaml:"build"`
	Command []string `yaml:"command"`
	Volumes []string `yaml:"volumes"`
	Ports   []string `yaml:"ports"`
	Expose  []string `yaml:"expose"` // to the other services alone
	Grace   string   `yaml:"stop_grace_period"`

	User        string            `yaml:"user"`
	Restart     string            `yaml:"restart"`
	Entrypoint  []string          `yaml:"entrypoint"`
	Environment map[string]string `yaml:"environment"`
	Health      *healthcheck      `yaml:"healthcheck"`

	DependsOn map[string]struct {
		Condition string `yaml:"condition"`
	} `yaml:"depends_on"`
}

type healthcheck struct {
	Test     []string `yaml:"test"`
	Interval string   `yaml:"interval"`
	Timeout  string   `yaml:"timeout"`
	Start    string   `yaml:"start_period"`
}

const root = ".."

func loadCompose(t *testing.T) composeFile {
	t.Helper()
	var c composeFile
	require.NoError(t, yaml.Load([]byte(read(t, "docker-compose.yml")), &c, yaml.WithKnownFields()), "a key that nobody checks")
	require.NotEmpty(t, c.Services)
	return c
}

func decode(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, yaml.Load(text, into), path)
}

// fixedTag matches an image whose tag names one version.
var fixedTag = regexp.MustCompile(`^[a-z0-9./-]+:v?\d+\.\d+\.\d+[a-z0-9.-]*$`)

// fixedPostgres is fixedTag for PostgreSQL, whose versions are two numbers, with the
// system that its data depends on.
var fixedPostgres = regexp.MustCompile(`^postgres:\d+\.\d+-[a-z]+$`)

func TestImagesAreFixed(t *testing.T) {
	for name, s := range loadCompose(t).Services {
		if s.Build != "" {
			require.FileExists(t, filepath.Join(root, s.Build, "Dockerfile"), name)
			require.NotContains(t, s.Image, "latest", name)
			continue
		}
		tag := fixedTag
		if strings.HasPrefix(s.Image, "postgres:") {
			tag = fixedPostgres
		}
		require.Regexp(t, tag, s.Image, name)
	}
	from := regexp.MustCompile(`(?m)^FROM (\S+)`).FindAllStringSubmatch(read(t, "Dockerfile"), -1)
	require.NotEmpty(t, from)
	for _, m := range from {
		if m[1] != "scratch" {
			require.Regexp(t, fixedTag, m[1])
		}
	}
}

func TestMountsExist(t *testing.T) {
	c := loadCompose(t)
	named := map[string]bool{}
	for name, s := range c.Services {
		for _, v := range s.Volumes {
			source, target, found := strings.Cut(v, ":")
			require.True(t, found, "%s: %s", name, v)
			if !strings.HasPrefix(source, ".") {
				require.Contains(t, c.Volumes, source, name)
				named[source] = true
				continue
			}
			_, err := os.Stat(filepath.Join(root, source))
			require.NoError(t, err, name)
			require.True(t, strings.HasSuffix(target, ":ro"), "%s: %s is not mounted read-only", name, v)
		}
	}
	require.Len(t, named, len(c.Volumes), "a declared volume is not used")
}

// TestConfigFlagsNameMountedFiles looks for the file of every --config.file among the
// mounts of its service.
func TestConfigFlagsNameMountedFiles(t *testing.T) {
	checked := 0
	for name, s := range loadCompose(t).Services {
		for _, arg := range s.Command {
			file, found := strings.CutPrefix(arg, "--config.file=")
			if !found {
				continue
			}
			checked++
			require.True(t, slices.ContainsFunc(s.Volumes, func(v string) bool {
				return strings.HasSuffix(v, ":"+file+":ro")
			}), "%s: %s is not mounted", name, file)
		}
	}
	require.Equal(t, 3, checked)
}

func TestPortsAreOnTheLoopback(t *testing.T) {
	for name, s := range loadCompose(t).Services {
		require.NotEmpty(t, slices.Concat(s.Ports, s.Expose), name)
		for _, p := range s.Ports {
			require.True(t, strings.HasPrefix(p, "127.0.0.1:"), "%s publishes %s to everybody, without a password", name, p)
		}
	}
}

func TestSluiceConfiguration(t *testing.T) {
	services := loadCompose(t).Services
	c, err := config.Load("compose/sluice.yaml")
	require.NoError(t, err)
	kinds := map[string]int{}
	for i := range c.Backends {
		b := &c.Backends[i]
		kinds[b.Kind()]++
		if rw, ok := b.KindConfig().(*remotewrite.Config); ok {
			requireService(t, services, rw.URL.String())
		}
	}
	require.Equal(t, map[string]int{"remote_write": 2, "tsdb": 1}, kinds)

	require.NotNil(t, c.AdaptiveSampling)
	for i := range c.Backends {
		require.Positive(t, c.Backends[i].OutOfOrderWindow(), "%s: nothing can be given back", c.Backends[i].Name)
	}
	requireServices(t, services, read(t, "deploy/compose/sluice.yaml"))

	grace, err := time.ParseDuration(services["sluice"].Grace)
	require.NoError(t, err)
	require.Greater(t, grace, time.Duration(c.ShutdownTimeout)+stopMargin, "a stop would be cut short")
}

func TestPrometheusConfigurations(t *testing.T) {
	services := loadCompose(t).Services
	sender, err := promconfig.LoadFile("compose/prometheus.yaml", false, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Len(t, sender.RemoteWriteConfigs, 1)
	requireService(t, services, sender.RemoteWriteConfigs[0].URL.String())
	require.Equal(t, "sluice", sender.RemoteWriteConfigs[0].URL.Hostname())

	var plain struct {
		Jobs []struct {
			Static []struct {
				Targets []string `yaml:"targets"`
			} `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	decode(t, "compose/prometheus.yaml", &plain)
	require.Len(t, plain.Jobs, len(sender.ScrapeConfigs))
	for _, j := range plain.Jobs {
		for _, target := range j.Static[0].Targets {
			if !strings.HasPrefix(target, "127.0.0.1:") {
				requireService(t, services, "http://"+target)
			}
		}
	}

	receiver, err := promconfig.LoadFile("compose/prometheus-backend.yaml", false, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Empty(t, receiver.RemoteWriteConfigs)
	require.Contains(t, services["prometheus-backend"].Command, "--web.enable-remote-write-receiver")
}

func TestGrafanaDataSources(t *testing.T) {
	services := loadCompose(t).Services
	var f struct {
		Version int `yaml:"apiVersion"`
		Sources []struct {
			Name    string `yaml:"name"`
			UID     string `yaml:"uid"`
			Type    string `yaml:"type"`
			URL     string `yaml:"url"`
			Default bool   `yaml:"isDefault"`
		} `yaml:"datasources"`
	}
	decode(t, "compose/grafana-datasources.yaml", &f)
	require.Equal(t, 1, f.Version)
	uids, defaults := map[string]bool{}, 0
	for _, s := range f.Sources {
		require.Equal(t, "prometheus", s.Type, s.Name)
		requireService(t, services, s.URL)
		require.False(t, uids[s.UID], "%s: the uid %q is used twice", s.Name, s.UID)
		uids[s.UID] = true
		if s.Default {
			defaults++
		}
	}
	require.Len(t, uids, 3)
	require.Equal(t, 1, defaults)
}

// requireService requires that the URL's host is a service and its port one that the
// service publishes.
func requireService(t *testing.T, services map[string]composeService, address string) {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	s, ok := services[u.Hostname()]
	require.True(t, ok, "%s: no service of this name", address)
	require.True(t, slices.Contains(s.Expose, u.Port()) || slices.ContainsFunc(s.Ports, func(p string) bool { return strings.HasSuffix(p, ":"+u.Port()) }), "%s: not a port of %v", address, s.Ports)
}

// requireServices requires the same of the databases in Sluice's configuration.
func requireServices(t *testing.T, services map[string]composeService, text string) {
	t.Helper()
	type targets struct {
		Targets []struct {
			DSN string `yaml:"dsn"`
		} `yaml:"targets"`
	}
	var f struct {
		Clusters []map[string]yaml.Node `yaml:"clusters"`
		Lease    struct {
			Etcd struct {
				Endpoints []string `yaml:"endpoints"`
			} `yaml:"etcd"`
		} `yaml:"lease"`
	}
	require.NoError(t, yaml.Load([]byte(text), &f))
	kinds := map[string]int{}
	for _, cluster := range f.Clusters {
		for key, node := range cluster {
			if key == "name" {
				continue
			}
			var list targets
			require.NoError(t, node.Decode(&list), key)
			require.NotEmpty(t, list.Targets, key)
			for _, target := range list.Targets {
				requireService(t, services, target.DSN)
				kinds[key]++
			}
		}
	}
	require.Equal(t, map[string]int{"postgres": 2, "redis": 1, "etcd": 1}, kinds)
	require.NotEmpty(t, f.Lease.Etcd.Endpoints)
	for _, e := range f.Lease.Etcd.Endpoints {
		requireService(t, services, "http://"+e)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	require.NoError(t, err)
	return string(text)
}
