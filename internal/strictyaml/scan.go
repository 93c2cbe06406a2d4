package strictyaml

import (
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"
)

// maxScanned is the length in bytes above which nothing of a line is shown.
const maxScanned = 16 << 10

// findSecrets finds what may not be shown of those lines of a file that are shown, in the
// order of the line. root is nil where the file could not be parsed; then the words of the
// lines decide, and hide rather too much.
func findSecrets(lines []string, shown map[int]bool, root *yaml.Node) map[int][]span {
	found := make(map[int][]span, len(shown))
	var s scanner
	for i, line := range lines {
		list := s.line(line)
		if shown[i] {
			found[i] = merged(append(inCharacters(line, list), inText(line, urlInLine)...))
		}
	}
	if root != nil {
		w := secretWalk{lines: lines, found: found, seen: map[*yaml.Node]bool{}}
		w.node(root, false)
	}
	for i, list := range found {
		if len(lines[i]) > maxScanned {
			list = []span{{0, len(lines[i])}}
		}
		found[i] = merged(list)
	}
	return found
}

var (
	keyValue    = regexp.MustCompile(`(?:"([A-Za-z][A-Za-z0-9_.-]*)"|'([A-Za-z][A-Za-z0-9_.-]*)'|([A-Za-z][A-Za-z0-9_.-]*))\s*:\s*`)
	anchorOrTag = regexp.MustCompile(`^(?:[&!][^\s,]*\s+)*`)
	// nextKey is what follows a value in a section in braces, where a comma can also be part
	// of a password that lacks its quotes.
	nextKey = regexp.MustCompile(`^(?:,\s*(?:$|["']?[A-Za-z][A-Za-z0-9_.-]*["']?\s*:)|[\]}]\s*(?:$|[,\]}#]))`)
)

// scanner goes through the lines of a file for the values under keys of secrets.
type scanner struct {
	open  []byte // brackets, or the quote, that the value has open at the end of a line
	below *key   // whose value goes on in lines that are further in
}

// key is a key in a line.
type key struct {
	column        int
	list          bool // nothing stands behind it: its value may be a list that is not further in
	authorization bool
}

// line returns what is secret in the next line, in bytes.
func (s *scanner) line(line string) []span {
	line = strings.TrimRight(line, " \t\r")
	end := len(line)
	indent := end - len(strings.TrimLeft(line, " \t"))
	if indent == end {
		return nil
	}
	braces := strings.IndexByte(line, '{') // from there on commas end values
	at := 0
	var list []span
	switch {
	case len(s.open) > 0:
		at = s.value(line, 0, braces)
		list = append(list, span{indent, at})
		if len(s.open) > 0 {
			return list
		}
	case s.below != nil && (indent > s.below.column || s.below.list && indent == s.below.column && line[indent] == '-'):
		if !s.below.authorization {
			return []span{{indent, end}}
		}
		if m := matchKey(line, indent); m == nil || !shownInAuthorization(m.name) {
			from := indent
			if m != nil {
				from = m.end
			}
			return []span{{from, end}}
		}
		return nil
	}
	s.below = nil
	shown := span{} // an authorization in braces, of which keys are shown
	for m := matchKey(line, at); m != nil; m = matchKey(line, at) {
		at = m.end
		within := m.start < shown.to
		switch {
		case within && shownInAuthorization(m.name), !within && !holdsSecret(m.name):
			continue
		case at == end || line[at] == '#':
			s.below = &key{column: m.start, list: true, authorization: isAuthorization(m.name)}
			return list
		case line[at] == '{' && isAuthorization(m.name):
			shown = span{at, s.value(line, at, braces)}
			if len(s.open) > 0 {
				s.open, shown.to = nil, end
				s.below = &key{column: m.start, authorization: true}
			}
			continue
		}
		to := s.value(line, at, braces)
		list = append(list, span{at, to})
		if to == end && len(s.open) == 0 && s.below == nil {
			s.below = &key{column: m.start}
		}
		at = to
	}
	return list
}

// match is a key that a line has, up to its value.
type match struct {
	name       string
	start, end int
}

func matchKey(line string, from int) *match {
	m := keyValue.FindStringSubmatchIndex(line[from:])
	if m == nil {
		return nil
	}
	found := &match{start: from + m[0], end: from + m[1]}
	for i := 2; i < len(m); i += 2 {
		if m[i] >= 0 {
			found.name = line[from+m[i] : from+m[i+1]]
		}
	}
	return found
}

// value returns where the value that starts at from, or has gone on up to there, ends. In
// open stays what the line does not close. braces is where the first { of the line stands.
func (s *scanner) value(line string, from, braces int) int {
	i := from
	if len(s.open) == 0 {
		i += len(anchorOrTag.FindString(line[from:])) // which may as well begin a password
		if i == len(line) {
			return i
		}
		if !strings.ContainsRune("\"'[{", rune(line[i])) {
			return plainEnd(line, i, braces)
		}
		s.open, i = []byte{line[i]}, i+1
	}
	for ; i < len(line) && len(s.open) > 0; i++ {
		top := s.open[len(s.open)-1]
		switch c := line[i]; {
		case top == '"' && c == '\\', top == '\'' && c == '\'' && i+1 < len(line) && line[i+1] == '\'':
			i++
		case top == '"' || top == '\'':
			if c == top {
				s.open = s.open[:len(s.open)-1]
			}
		case c == '[' || c == '{':
			s.open = append(s.open, c)
		case (c == '"' || c == '\'') && (i == 0 || strings.IndexByte(" \t,[{:", line[i-1]) >= 0):
			s.open = append(s.open, c)
		case c == ']' || c == '}':
			s.open = s.open[:len(s.open)-1]
		}
	}
	if len(s.open) > 0 || i > len(line) {
		return len(line)
	}
	// What stands behind a quote or bracket belongs to a value that was not quoted well.
	rest := strings.TrimLeft(line[i:], " \t")
	if rest == "" || strings.IndexByte("#]},", rest[0]) >= 0 {
		return i
	}
	return plainEnd(line, i, braces)
}

// plainEnd is where a value without quotes ends: in braces before what can only be the
// next key or the end of the section, else at the end of the line.
func plainEnd(line string, from, braces int) int {
	if braces < 0 || from <= braces {
		return len(line)
	}
	for i := from; i < len(line); i++ {
		if strings.IndexByte(",]}", line[i]) >= 0 && nextKey.MatchString(line[i:]) {
			return i
		}
	}
	return len(line)
}

// secretWalk finds the values of secrets in what was parsed: those that do not stand
// behind their key, but in the next line or at an anchor.
type secretWalk struct {
	lines []string
	found map[int][]span      // by the lines that matter
	seen  map[*yaml.Node]bool // whether it was seen as part of a secret
}

func (w *secretWalk) node(n *yaml.Node, secret bool) {
	if before, ok := w.seen[n]; ok && (before || !secret) {
		return
	}
	w.seen[n] = secret
	switch n.Kind {
	case yaml.AliasNode:
		w.node(n.Alias, secret)
	case yaml.ScalarNode:
		if secret {
			w.hide(n)
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			name, value := n.Content[i], n.Content[i+1]
			w.node(name, secret)
			if isAuthorization(name.Value) && value.Kind == yaml.MappingNode {
				w.authorization(value)
				continue
			}
			w.node(value, secret || holdsSecret(name.Value))
		}
	default:
		for _, item := range n.Content {
			w.node(item, secret)
		}
	}
}

func (w *secretWalk) authorization(n *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		w.node(n.Content[i+1], !shownInAuthorization(n.Content[i].Value))
	}
}

// hide hides a value in the line where it begins. The lines after that are further in than
// its key, or within its quotes: the scanner finds them.
func (w *secretWalk) hide(n *yaml.Node) {
	if _, shown := w.found[n.Line-1]; !shown || n.Value == "" || len(w.lines[n.Line-1]) > maxScanned {
		return
	}
	text := w.lines[n.Line-1]
	line := []rune(text)
	column, width := token(line, n.Column, n.Value)
	from := column - 1
	if from >= len(line) {
		return
	}
	to := len(line)
	switch rest := string(line[from:]); {
	case line[from] == '"' || line[from] == '\'':
		var s scanner
		to = from + len([]rune(rest[:s.value(rest, 0, 0)]))
	case strings.HasPrefix(rest, n.Value):
		to = from + width
	}
	w.found[n.Line-1] = append(w.found[n.Line-1], span{from, to})
}
