package sampler

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// Selector is a PromQL series selector in a configuration. The zero Selector selects
// everything.
type Selector struct {
	text     string
	matchers []*labels.Matcher
}

var errSelectsEverything = errors.New("selects everything; leave match out for that")

// ParseSelector parses a selector such as {__name__=~"go_.*"}. It fails for one that
// selects everything: configurations say that by leaving the selectors out.
func ParseSelector(text string) (Selector, error) {
	matchers, err := parser.NewParser(parser.Options{}).ParseMetricSelector(text)
	if err != nil {
		return Selector{}, fmt.Errorf("not a series selector: %s", selectorError(text, err))
	}
	if len(matchers) == 0 {
		return Selector{}, errSelectsEverything
	}
	return Selector{text: text, matchers: matchers}, nil
}

// UnmarshalText parses the selector.
func (s *Selector) UnmarshalText(text []byte) error {
	parsed, err := ParseSelector(string(text))
	if err == nil {
		*s = parsed
	}
	return err
}

// ProtectSelector is a Selector of what is never thinned.
type ProtectSelector struct{ Selector }

// UnmarshalText parses the selector.
func (s *ProtectSelector) UnmarshalText(text []byte) error {
	err := s.Selector.UnmarshalText(text)
	if errors.Is(err, errSelectsEverything) {
		return errors.New("selects everything; enabled: false says that nothing is thinned")
	}
	return err
}

// MarshalText writes the selector as it was given.
func (s Selector) MarshalText() ([]byte, error) { return []byte(s.text), nil }

// String is the selector as it was given.
func (s Selector) String() string { return s.text }

// Expected says what the key takes.
func (Selector) Expected() string {
	return `a series selector in single quotes, such as '{job=~"node|api"}'`
}

// Matchers are those that must all match. They belong to the Selector.
func (s Selector) Matchers() []*labels.Matcher { return s.matchers }

// Canonical is the selector in one spelling: equal for two that differ in order, spaces
// or repetition only.
func (s Selector) Canonical() string {
	list := make([]string, len(s.matchers))
	for i, m := range s.matchers {
		list[i] = m.String()
	}
	slices.Sort(list)
	return strings.Join(slices.Compact(list), ",")
}

// matches reports whether the labels are selected; get gives the value of a label, which
// is empty for one that is not there.
func (s Selector) matches(get func(name string) string) bool {
	for _, m := range s.matchers {
		if !m.Matches(get(m.Name)) {
			return false
		}
	}
	return true
}

// selectorError says what is wrong with a selector and where in it.
func selectorError(text string, err error) string {
	var list parser.ParseErrors
	if !errors.As(err, &list) || len(list) == 0 {
		return err.Error()
	}
	first := list[0]
	at := min(max(int(first.PositionRange.Start), 0), len(text))
	message := fmt.Sprintf("%v (at character %d)", first.Err, len([]rune(text[:at]))+1)
	if strings.Contains(text, "=") && !strings.Contains(text, "{") {
		message += "; conditions on labels stand in braces"
	}
	return message
}
