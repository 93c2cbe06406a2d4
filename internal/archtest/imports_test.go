package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

const module = "github.com/sluice-metrics/sluice"

// rule says what packages may import of this module. Both are patterns of path.Match,
// several in one string.
type rule struct{ packages, may string }

// vocabulary is what every stage may speak. It knows no stage.
const vocabulary = " internal/series internal/remotewrite internal/bytesize internal/fielderror "

// rules go from the top down. The first that matches a package holds for it. Some are for
// packages that are planned, see docs/design.md.
var rules = []rule{
	{"cmd/*", "internal/gateway internal/demo config internal/nearest internal/fidelity internal/incident internal/lockbench probe sampler sampler/ledger alerts dashboards docs"},
	// The gateway puts everything together, but the kinds of backends: config opens
	// them, the gateway knows them by their interfaces.
	{"internal/gateway", vocabulary + "config exporter ha journal journal/* journal/*/vfs lock probe receiver receiver/* router sampler sampler/* web internal/ownmetrics internal/thinning"},
	// A gateway, and another one as a backend that can be slowed down.
	{"internal/demo", "config internal/gateway internal/ownmetrics"},
	// config composes the Config types of the packages and lists the kinds.
	{"config", vocabulary + "exporter exporter/* ha journal/* lock lock/* probe probe/* receiver router sampler internal/strictyaml"},
	{"config/gendocs", "config internal/strictyaml internal/bytesize"},

	// The stages: none knows config, another stage, or a kind of backend.
	{"receiver router sampler ha", vocabulary},
	{"receiver/*", vocabulary + "receiver"},
	{"sampler/control", "internal/fielderror"},
	{"sampler/ledger", "internal/series journal journal/disk/vfs"},
	// Between a lane, the journal and the sampler, none of which knows the others.
	{"internal/thinning", vocabulary + "exporter journal sampler sampler/*"},
	{"exporter", vocabulary + "journal"},
	{"exporter/exportertest", vocabulary + "exporter journal internal/testutil"},
	{"exporter/*", vocabulary + "exporter"},
	{"journal", "internal/series"},
	{"journal/*", vocabulary + "journal journal/*/vfs"},
	{"probe lock", "internal/bytesize internal/fielderror"},
	{"probe/probetest", "probe internal/testutil"},
	{"probe/*", "probe probe/internal/* internal/bytesize internal/etcddial internal/fielderror internal/pgerror internal/redisclient"},
	{"probe/internal/*", "probe probe/internal/* internal/fielderror"},
	// Another way with the same client.
	{"lock/etcdcas", "lock lock/etcd internal/fielderror"},
	{"lock/redlock", "lock lock/redis internal/fielderror"},
	{"lock/*", "lock internal/bytesize internal/etcddial internal/fielderror internal/pgerror internal/redisclient"},
	{"web", "internal/series"},

	// What stages are made of.
	{"internal/remotewrite", "internal/series"},
	{"internal/strictyaml", "internal/bytesize internal/fielderror internal/nearest"},
	{"internal/series internal/bytesize internal/fielderror internal/nearest internal/ownmetrics internal/etcddial internal/pgerror internal/redisclient journal/*/vfs", ""},

	// The comparison of full with thinned data, apart from the pipeline.
	{"internal/fidelity", vocabulary + "sampler internal/capture internal/plot"},
	{"internal/capture", vocabulary},
	{"internal/plot", ""},
	{"dashboards/* alerts/*", "dashboards alerts"},
	{"internal/lockbench", "lock lock/* internal/fielderror internal/plot internal/strictyaml"},
	{"internal/incident", vocabulary + "internal/strictyaml internal/capture internal/fidelity internal/plot sampler sampler/control"},

	// What holds or serves tests alone.
	{"internal/testutil internal/archtest e2e deploy docs dashboards alerts", ""},
}

// exceptions are imports against the rules, each with its reason. One that is not used
// any more has to go.
var exceptions = map[string]string{
	"receiver router": "a decoding keeps a router.Resolution, which is data, so that resolving a request allocates nothing; what decides is behind an interface",
}

// core is what must do without the libraries of backends, also through others: a build
// without a kind of backend is to be without its library. The sampler is not in it: what
// it reads out of rules and dashboards is PromQL.
const core = "receiver router exporter journal journal/* internal/series internal/remotewrite web"

// libraries are of backends. A path stands for all below it: also of promql, whose parser
// brings storage with it. Selectors are parsed by config; a stage gets matchers.
var libraries = []string{
	"github.com/prometheus/prometheus/tsdb", "github.com/prometheus/prometheus/promql", "github.com/prometheus/prometheus/storage",
	"github.com/prometheus/prometheus/scrape", "github.com/prometheus/prometheus/rules", "github.com/prometheus/prometheus/web",
	"github.com/prometheus/prometheus/discovery", "golang.org/x/oauth2",
	"github.com/aws", "github.com/Azure", "cloud.google.com",
	"github.com/twmb/franz-go", "github.com/redis/go-redis", "github.com/jackc/pgx", "github.com/go-sql-driver/mysql", "go.etcd.io",
}

// forTests are packages that tests are written with.
const forTests = "internal/testutil */*test"

// ofTests is what only tests, and these packages, may import.
var ofTests = []string{
	module + "/internal/testutil", module + "/exporter/exportertest",
	"github.com/stretchr/testify", "go.uber.org/goleak", "pgregory.net/rapid", "github.com/google/go-cmp", "github.com/rogpeppe/go-internal", "testing",
}

// listed is what go list says of a package of this module.
type listed struct {
	ImportPath string
	Imports    []string // not those of its tests
	Deps       []string
}

// name is the path inside of the module.
func (p *listed) name() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

func list(t *testing.T) []listed {
	t.Helper()
	root, err := testutil.Root()
	require.NoError(t, err)
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	require.NoError(t, err)
	var all []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		all = append(all, p)
	}
	require.Greater(t, len(all), 15)
	return all
}

// matches reports whether one of the patterns matches the name.
func matches(patterns, name string) bool {
	return slices.ContainsFunc(strings.Fields(patterns), func(p string) bool {
		ok, err := path.Match(p, name)
		return ok && err == nil
	})
}

func below(imported string, paths []string) bool {
	return slices.ContainsFunc(paths, func(p string) bool {
		return imported == p || strings.HasPrefix(imported, p+"/")
	})
}

func TestImportsPointDown(t *testing.T) {
	used := map[string]bool{}
	for _, p := range list(t) {
		i := slices.IndexFunc(rules, func(r rule) bool { return matches(r.packages, p.name()) })
		require.GreaterOrEqual(t, i, 0, "package %s has no rule: give it one in this file", p.name())
		for _, imported := range p.Imports {
			own, found := strings.CutPrefix(imported, module+"/")
			if !found || matches(rules[i].may, own) {
				continue
			}
			edge := p.name() + " " + own
			require.Contains(t, exceptions, edge, "%s must not import %s: where two have to talk, the caller declares a small interface and internal/gateway passes the value in", p.name(), own)
			used[edge] = true
		}
	}
	for edge := range exceptions {
		require.True(t, used[edge], "the exception %q is not needed any more: take it out", edge)
	}
}

func TestCoreNeedsNoLibraryOfABackend(t *testing.T) {
	checked := 0
	for _, p := range list(t) {
		if !matches(core, p.name()) {
			continue
		}
		checked++
		for _, d := range p.Deps {
			require.False(t, below(d, libraries), "%s needs %s, if only through others", p.name(), d)
		}
	}
	require.GreaterOrEqual(t, checked, 8)
}

func TestOnlyConfigOpensKinds(t *testing.T) {
	for _, p := range list(t) {
		for _, imported := range p.Imports {
			if own := strings.TrimPrefix(imported, module+"/"); matches("exporter/*", own) && !matches(forTests, own) {
				require.Equal(t, "config", p.name(), "imports %s: kinds of backends are listed in config/kinds.go alone", imported)
			}
		}
	}
}

func TestProgramHasNoTestCode(t *testing.T) {
	for _, p := range list(t) {
		if matches(forTests, p.name()) {
			continue
		}
		for _, imported := range p.Imports {
			require.False(t, below(imported, ofTests), "%s imports %s outside of its tests", p.name(), imported)
		}
	}
}
