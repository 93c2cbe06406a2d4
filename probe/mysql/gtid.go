package mysql

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// interval is a run of transaction numbers, both ends included.
type interval struct{ first, last uint64 }

// gtids are the transactions of a set by their source: the server's UUID, with a tag
// behind a colon if they have one.
type gtids map[string][]interval

// parseGTIDs reads a set such as
//
//	3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7:tag:1-3, 2174b383-5441-11e8-b90a-c80aa9429562:1
//
// where numbers behind a tag are the tag's.
func parseGTIDs(text string) (gtids, error) {
	set := gtids{}
	for part := range strings.SplitSeq(text, ",") {
		part = strings.ToLower(strings.TrimSpace(part))
		if part == "" {
			continue
		}
		server, rest, _ := strings.Cut(part, ":")
		source := server
		for word := range strings.SplitSeq(rest, ":") {
			word = strings.TrimSpace(word)
			if word != "" && (word[0] < '0' || word[0] > '9') {
				source = server + ":" + word
				continue
			}
			i, err := parseInterval(word)
			if err != nil {
				return nil, fmt.Errorf("the server's position %q is no set of global transaction ids: %w", text, err)
			}
			set[source] = append(set[source], i)
		}
	}
	return set, nil
}

func parseInterval(text string) (interval, error) {
	from, to, isRange := strings.Cut(text, "-")
	first, err := strconv.ParseUint(from, 10, 64)
	if err != nil {
		return interval{}, err
	}
	if !isRange {
		return interval{first, first}, nil
	}
	last, err := strconv.ParseUint(to, 10, 64)
	if err == nil && last < first {
		err = fmt.Errorf("%s ends before it begins", text)
	}
	return interval{first, last}, err
}

// add puts the transactions of another set into this one.
func (g gtids) add(other gtids) {
	for source, list := range other {
		g[source] = append(g[source], list...)
	}
}

// count is how many transactions of a source are in the set.
func (g gtids) count(source string) (n uint64) {
	list := slices.Clone(g[source])
	slices.SortFunc(list, func(a, b interval) int {
		if a.first < b.first {
			return -1
		}
		return 1
	})
	next := uint64(0) // the lowest number that was not counted yet
	for _, i := range list {
		if i.last < next {
			continue
		}
		n += i.last - max(i.first, next) + 1
		next = i.last + 1
	}
	return n
}
