package sampler

import (
	"regexp"
	"slices"
	"strings"
)

var (
	quoted      = regexp.MustCompile("\"(\\\\.|[^\"\\\\])*\"|'(\\\\.|[^'\\\\])*'|`[^`]*`")
	namedInside = regexp.MustCompile("__name__\\s*=\\s*[\"'`]([a-zA-Z_:][\\w:]*)[\"'`]")
	labelLists  = regexp.MustCompile(`(?i)\b(by|without|on|ignoring|group_left|group_right|keep_metric_names)\s*\([^()]*\)?`)
	braced      = regexp.MustCompile(`\{[^{}]*\}?|\[[^\[\]]*\]?`)
	word        = regexp.MustCompile(`[a-zA-Z_:][\w:]*`)
	called      = regexp.MustCompile(`^\s*\(`)
)

// keywords of PromQL that look like a metric where no bracket follows.
func keywords() []string {
	return []string{
		"and", "or", "unless", "atan2", "bool", "offset", "by", "without", "on", "ignoring", "group_left", "group_right",
		"start", "end", "step", "range", "inf", "nan", "anchored", "smoothed", "fill", "fill_left", "fill_right",
		"sum", "min", "max", "avg", "count", "group", "stddev", "stdvar", "topk", "bottomk", "count_values", "quantile",
		"limitk", "limit_ratio", "keep_metric_names", "default", "if", "ifnot", "with",
	}
}

// addWords adds what look like metrics in a query that does not parse, and returns them in
// their order.
func (m *Metrics) addWords(query, source string) []string {
	var names []string
	for _, parts := range namedInside.FindAllStringSubmatch(query, -1) {
		names = append(names, parts[1])
	}
	query = oldVariable.ReplaceAllString(query, anything)
	query = variable.ReplaceAllString(query, anything)
	query = quoted.ReplaceAllString(query, `""`)
	query = braced.ReplaceAllString(query, " ")
	query = labelLists.ReplaceAllString(query, " ")
	for _, place := range word.FindAllStringIndex(query, -1) {
		name := query[place[0]:place[1]]
		switch {
		case place[0] > 0 && isName(query[place[0]-1]): // the unit of a duration, or the exponent of a number
		case called.MatchString(query[place[1]:]):
		case slices.Contains(keywords(), strings.ToLower(name)), strings.Trim(name, "_:") == "":
		default:
			names = append(names, name)
		}
	}
	var told []string
	var read Metrics
	for _, name := range names {
		if name == anything || slices.Contains(told, name) {
			continue
		}
		told = append(told, name)
		read.put(name, reading{source: source})
	}
	if m.addFilledIn(read) != nil {
		return nil // no name comes to a pattern that is none
	}
	for i := range told {
		told[i] = strings.ReplaceAll(told[i], anything, "*")
	}
	return told
}
