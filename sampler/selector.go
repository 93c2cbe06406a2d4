package sampler

import (
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// Selector is a PromQL series selector in a configuration.
type Selector struct {
	text     string
	matchers []*labels.Matcher
}

// ParseSelector parses a selector such as {__name__=~"go_.*"}.
func ParseSelector(text string) (Selector, error) {
	matchers, err := parser.NewParser(parser.Options{}).ParseMetricSelector(text)
	if err != nil {
		return Selector{}, fmt.Errorf("not a series selector: %w", err)
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

// MarshalText writes the selector as it was given.
func (s Selector) MarshalText() ([]byte, error) { return []byte(s.text), nil }

// String is the selector as it was given.
func (s Selector) String() string { return s.text }

// Expected says what the key takes.
func (Selector) Expected() string {
	return `a series selector in single quotes, such as '{__name__=~"go_.*"}'`
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
