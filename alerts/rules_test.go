package alerts

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

// updateEnv makes TestUnitTests and TestPanels write files instead of comparing them.
const updateEnv = "SLUICE_WRITE_DOCS"

const evaluation = 30 * time.Second

// examples are all examples by the file of rules that they are of.
func examples() map[string][]example {
	return map[string][]example{
		"gateway.yaml": gatewayExamples, "backends.yaml": backendExamples, "sampling.yaml": samplingExamples,
		"databases.yaml": databaseExamples, "leases.yaml": leaseExamples, "transactions.yaml": transactionExamples,
	}
}

// ruleFile is a file of rules as this test reads it.
type ruleFile struct {
	Groups []struct {
		Name     string
		Interval string
		Rules    []ruleText
	}
}

type ruleText struct {
	Record, Alert, Expr, For string
	Labels, Annotations      map[string]string
}

func readRules(t *testing.T, text []byte) []ruleText {
	t.Helper()
	var f ruleFile
	require.NoError(t, yaml.Unmarshal(text, &f))
	var all []ruleText
	for _, g := range f.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// The files of promtool's unit tests.
type (
	testFile struct {
		RuleFiles []string    `yaml:"rule_files"`
		Interval  string      `yaml:"evaluation_interval"`
		Tests     []testGroup `yaml:"tests"`
	}
	testGroup struct {
		Name     string        `yaml:"name"`
		Interval string        `yaml:"interval"`
		Series   []inputSeries `yaml:"input_series"`
		Tests    []alertTest   `yaml:"alert_rule_test"`
	}
	inputSeries struct {
		Series string `yaml:"series"`
		Values string `yaml:"values"`
	}
	alertTest struct {
		At     string     `yaml:"eval_time"`
		Alert  string     `yaml:"alertname"`
		Expect []expected `yaml:"exp_alerts"`
	}
	expected struct {
		Labels      map[string]string `yaml:"exp_labels"`
		Annotations map[string]string `yaml:"exp_annotations"`
	}
)

func scrape(text string) string { return strings.ReplaceAll(text, "$", scraped) }

func input(data string) []inputSeries {
	list := []inputSeries{}
	for line := range strings.Lines(scrape(data)) {
		series, values, _ := strings.Cut(strings.TrimSpace(line), "} ")
		list = append(list, inputSeries{series + "}", values})
	}
	return list
}

var pair = regexp.MustCompile(`(\w+)="([^"]*)"`)

// expected is the alert as the rule with the severity makes it out of the example.
func (e *example) expected(t *testing.T, rules []ruleText, severity string) expected {
	t.Helper()
	i := slices.IndexFunc(rules, func(r ruleText) bool { return r.Alert == "Sluice"+e.alert && r.Labels["severity"] == severity })
	require.GreaterOrEqual(t, i, 0, "no alert %s of severity %s", e.alert, severity)
	x := expected{map[string]string{"severity": severity}, map[string]string{}}
	all := map[string]string{}
	for _, m := range pair.FindAllStringSubmatch(scrape(e.labels), -1) {
		if all[m[1]] = m[2]; m[2] != "" {
			x.Labels[m[1]] = m[2]
		}
	}
	for name, text := range rules[i].Annotations {
		x.Annotations[name] = templated.ReplaceAllStringFunc(text, func(m string) string {
			inner := templated.FindStringSubmatch(m)[1]
			if label, ok := strings.CutPrefix(inner, "$labels."); ok {
				return all[label]
			}
			require.NotEmpty(t, e.value, "%s shows a value", e.alert)
			return e.value
		})
	}
	return x
}

var templated = regexp.MustCompile(`\{\{ (\S+)[^}]* \}\}`)

// group is one example as a unit test.
func (e *example) group(t *testing.T, rules []ruleText) []testGroup {
	t.Helper()
	name := strings.TrimSpace(e.alert + " " + e.variant)
	always := []expected{}
	if e.beside != "" {
		always = append(always, e.expected(t, rules, e.beside))
	}
	at := func(d time.Duration, list ...expected) alertTest {
		return alertTest{model.Duration(d).String(), "Sluice" + e.alert, append(slices.Clone(always), list...)}
	}
	fires := at(e.at, e.expected(t, rules, e.severity))
	groups := []testGroup{{name + ": fires, and not before", evaluation.String(), input(e.data), []alertTest{at(e.at - evaluation), fires}}}
	for _, why := range slices.Sorted(maps.Keys(e.quiet)) {
		groups = append(groups, testGroup{name + ": quiet, " + why, evaluation.String(), input(e.quiet[why]), []alertTest{at(e.at)}})
	}
	for _, why := range slices.Sorted(maps.Keys(e.almost)) {
		just := *e
		just.value = e.almost[why].value
		groups = append(groups, testGroup{name + ": quiet, " + why, evaluation.String(), input(e.almost[why].data), []alertTest{
			{model.Duration(e.at).String(), "Sluice" + e.alert, []expected{just.expected(t, rules, e.beside)}},
		}})
	}
	nothing := testGroup{name + ": no data", evaluation.String(), []inputSeries{}, []alertTest{{model.Duration(min(e.at, time.Hour)).String(), fires.Alert, []expected{}}}}
	if e.alert == "Absent" {
		nothing.Tests[0].Expect = fires.Expect
	}
	return append(groups, nothing)
}

// TestUnitTests makes promtool's unit tests out of the examples, compares them with the
// files in tests, and runs them.
func TestUnitTests(t *testing.T) {
	promtool := testutil.Tool(t, "promtool")
	standard, err := Files(DefaultOptions())
	require.NoError(t, err)
	for _, f := range standard {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			rules := readRules(t, f.YAML)
			file := testFile{RuleFiles: []string{"../" + f.Name}, Interval: evaluation.String()}
			covered := map[string]bool{}
			for _, e := range examples()[f.Name] {
				file.Tests = append(file.Tests, e.group(t, rules)...)
				covered["Sluice"+e.alert+" "+e.severity] = true
			}
			for _, r := range rules {
				if r.Alert != "" {
					require.True(t, covered[r.Alert+" "+r.Labels["severity"]], "%s has no example", r.Alert)
				}
			}
			text, err := yaml.Marshal(file)
			require.NoError(t, err)
			text = append([]byte("# Written by \"go generate ./alerts\" from the examples in the Go tests. Do not edit.\n"), text...)
			path := filepath.Join("tests", f.Name)
			if os.Getenv(updateEnv) != "" {
				require.NoError(t, os.WriteFile(path, text, 0o644))
			}
			committed, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, string(text), string(committed), "%s is not what the examples make; run: go generate ./alerts", path)
			out, err := exec.Command(promtool, "test", "rules", path).CombinedOutput()
			require.NoError(t, err, "%s", out)
		})
	}
}
