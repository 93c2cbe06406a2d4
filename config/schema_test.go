package config

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"
)

func compiledSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(Schema()))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("schema.json", document))
	s, err := c.Compile("schema.json")
	require.NoError(t, err)
	return s
}

// validate holds a file against the schema as an editor does.
func validate(t *testing.T, s *jsonschema.Schema, text string) error {
	t.Helper()
	var v any
	require.NoError(t, yaml.Unmarshal([]byte(text), &v), text)
	return s.Validate(v)
}

// optional takes the "# " from sections that are comments.
func optional(text string) string {
	section := regexp.MustCompile(`(?m)^# [a-z_]+:\n(?:#  .*\n)+`)
	return section.ReplaceAllStringFunc(text, func(s string) string {
		return regexp.MustCompile(`(?m)^# `).ReplaceAllString(s, "")
	})
}

func TestExampleWithAllSections(t *testing.T) {
	data, err := os.ReadFile("../docs/sluice.example.yaml")
	require.NoError(t, err)
	c := mustParse(t, optional(string(data)))
	require.NotNil(t, c.AdaptiveSampling)
	require.Len(t, c.Clusters, 1)
	require.NotNil(t, c.Lease)
	require.NotNil(t, c.HA)
}

func TestSchemaTakesEveryExample(t *testing.T) {
	s := compiledSchema(t)
	examples := map[string]string{
		"built-in": Default().String(),
		"smallest": smallest,
		"texts that YAML takes for something else": "backends: [{name: 12, remote_write: {url: 'http://h/w', headers: {X-Scope-OrgID: 1}}}]",
		"empty sections": "receiver:\njournal:\nclusters:\nown_metrics: {}\nbackends: [{name: a, tsdb: }]",
		"merged":         "backends:\n  - {name: a, remote_write: &r {url: 'http://h/w', timeout: 1m30s, max_bytes_per_send: 64KB}}\n  - {name: b, remote_write: {<<: *r, protocol: rw1}}",
		"every kind": `
lease: {redlock: {addresses: [a:1, b:1, c:1]}}
clusters:
  - {name: a, kafka: {targets: [{dsn: 'kafka://h'}], sasl_mechanism: plain}}
  - {name: b, mysql: {targets: [{dsn: 'mysql://h', tls_config: {min_version: TLS13}}]}}
adaptive_sampling: {classes: [{name: critical, from_rules: {files: ['x.yml'], severity: 'page,ticket'}}, {name: normal}, {name: low}]}
backends: [{name: a, tsdb: {}}]`,
	}
	root := ".."
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root {
			return fs.SkipDir
		}
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".yaml") || strings.Contains(path, "testdata") {
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil && regexp.MustCompile(`(?m)^backends:`).Match(data) {
			examples[path] = string(data)
			examples[path+", all of it"] = optional(string(data))
		}
		return err
	}))
	require.Contains(t, examples, "../docs/sluice.example.yaml, all of it")
	require.Greater(t, len(examples), 8)
	for name, text := range examples {
		t.Run(name, func(t *testing.T) { require.NoError(t, validate(t, s, text)) })
	}
}

func TestSchemaRefusesWhatAStartRefuses(t *testing.T) {
	s := compiledSchema(t)
	for name, text := range map[string]string{
		"typo at the top":      "backend: [{name: a, tsdb: {}}]",
		"typo in a backend":    "backends: [{nam: a, tsdb: {}}]",
		"typo in a kind":       "backends: [{name: a, remote_write: {urll: 'http://h/w'}}]",
		"no destination":       "backends: [{name: a}]",
		"two destinations":     "backends: [{name: a, tsdb: {}, remote_write: {url: 'http://h/w'}}]",
		"no backend":           "journal: {}",
		"empty list":           "backends: []",
		"no address":           "backends: [{name: a, remote_write: {}}]",
		"unknown word":         "backends: [{name: a, remote_write: {url: 'http://h/w', protocol: rw3}}]",
		"duration of no unit":  "shutdown_timeout: 30\nbackends: [{name: a, tsdb: {}}]",
		"not a duration":       "shutdown_timeout: soon\nbackends: [{name: a, tsdb: {}}]",
		"not a size":           "journal: {max_disk: 10 gigs}\nbackends: [{name: a, tsdb: {}}]",
		"not a number":         "series: {max: many}\nbackends: [{name: a, tsdb: {}}]",
		"list for one":         "backends: {name: a, tsdb: {}}",
		"nothing where needed": "lease:\nbackends: [{name: a, tsdb: {}}]",
		"list for a text":      "adaptive_sampling: {classes: [{name: critical, from_rules: {files: [x], severity: [a]}}, {name: normal}, {name: low}]}\nbackends: [{name: a, tsdb: {}}]",
		"secrets of a manager": "backends: [{name: a, remote_write: {url: 'http://h/w', basic_auth: {username: a, password_ref: b}}}]",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("f.yaml", []byte(text))
			require.Error(t, err)
			require.Error(t, validate(t, s, text))
		})
	}
}

func TestProbePrefix(t *testing.T) {
	require.Equal(t, "sluice_", mustParse(t, "compat: {probe_prefix: sluice_}\n"+smallest).Compat.ProbePrefix)
	_, err := Parse("f.yaml", []byte("compat: {probe_prefix: 1-}\n"+smallest))
	require.ErrorContains(t, err, `compat.probe_prefix: "1-" cannot begin the name of a metric`)
}
