package config

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v4"
)

// relabelRule is what counts of a rule of write_relabel_configs.
type relabelRule struct {
	Action string   `yaml:"action"`
	Labels []string `yaml:"source_labels"`
	Regex  *string  `yaml:"regex"`
}

// relabel makes one selector of those rules that keep or drop series by one label. It
// stops at a rule that changes labels: what later ones would look at is not known.
func (e *conversion) relabel(n *yaml.Node) {
	var matchers []string
	changed := ""
	for i, item := range n.Content {
		path := fmt.Sprintf("write_relabel_configs[%d]", i)
		var r relabelRule
		if err := resolved(item).Load(&r); err != nil {
			e.left = append(e.left, path+": cannot be read: "+err.Error())
			continue
		}
		m, why := r.matcher()
		switch {
		case changed != "":
			why = "comes after " + changed
		case why == "":
			matchers = append(matchers, m)
			continue
		case !r.selects():
			changed = path
		}
		e.left = append(e.left, fmt.Sprintf("%s (%s): %s", path, r.action(), why))
	}
	if len(matchers) == 0 {
		return
	}
	list := &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{word("{" + strings.Join(matchers, ",") + "}")}}
	set(e.backend, "match", list)
}

func (r *relabelRule) action() string {
	if r.Action == "" {
		return "replace"
	}
	return strings.ToLower(r.Action)
}

// selects reports whether the rule takes or leaves whole series.
func (r *relabelRule) selects() bool {
	switch r.action() {
	case "keep", "drop", "keepequal", "dropequal":
		return true
	}
	return false
}

// matcher is the rule as a label matcher, or why it is none.
func (r *relabelRule) matcher() (text, why string) {
	action := r.action()
	switch {
	case !r.selects():
		return "", "Sluice does not change labels; relabel in Prometheus, before it sends to Sluice"
	case action == "keepequal" || action == "dropequal":
		return "", "a selector cannot compare two labels"
	case len(r.Labels) != 1:
		return "", "a selector matches one label at a time; say it as match"
	}
	regex := "(.*)"
	if r.Regex != nil {
		regex = *r.Regex
	}
	if _, err := regexp.Compile(regex); err != nil {
		return "", "the regular expression is not valid: " + err.Error()
	}
	operator := "=~"
	if action == "drop" {
		operator = "!~"
	}
	name := r.Labels[0]
	if !model.LegacyValidation.IsValidLabelName(name) {
		name = strconv.Quote(name)
	}
	return name + operator + strconv.Quote(regex), ""
}
