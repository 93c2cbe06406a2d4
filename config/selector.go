package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// Selector is one PromQL series selector.
type Selector struct {
	text     string
	matchers []*labels.Matcher
}

// UnmarshalText parses a selector such as up{job=~"node|api"}.
func (s *Selector) UnmarshalText(text []byte) error {
	matchers, err := parser.NewParser(parser.Options{}).ParseMetricSelector(string(text))
	if err != nil {
		return fmt.Errorf("not a series selector: %s", selectorError(string(text), err))
	}
	if len(matchers) == 0 {
		return errors.New("selects everything; leave match out for that")
	}
	*s = Selector{text: string(text), matchers: matchers}
	return nil
}

// MarshalText writes the selector as it was given.
func (s Selector) MarshalText() ([]byte, error) { return []byte(s.text), nil }

// String is the selector as it was given.
func (s Selector) String() string { return s.text }

// Expected says what the key takes.
func (Selector) Expected() string {
	return `a series selector in single quotes, such as '{job=~"node|api"}'`
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

// canonical is the selector in one spelling.
func (s Selector) canonical() string {
	list := make([]string, len(s.matchers))
	for i, m := range s.matchers {
		list[i] = m.String()
	}
	slices.Sort(list)
	return strings.Join(slices.Compact(list), ",")
}

func digest(list []Selector) string {
	if len(list) == 0 {
		return "all"
	}
	texts := make([]string, len(list))
	for i, s := range list {
		texts[i] = s.canonical()
	}
	slices.Sort(texts)
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(texts), "\n")))
	return hex.EncodeToString(sum[:8])
}
