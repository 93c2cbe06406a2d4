// Package strictyaml reads one YAML file into structs and reports everything that is
// wrong with it at once: each problem with file, line, column, the path of the key,
// what was expected, the line itself and a caret. It writes the structs back with
// secrets hidden.
//
// A struct with a yaml tag on a field is a section: its keys are its fields, and
// its own UnmarshalYAML is not called, because that would hide where in it a mistake
// is. Everything else is a value and decodes itself.
package strictyaml

import (
	"cmp"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/sluice-metrics/sluice/internal/fielderror"
)

// Document is a file that is being read. It is used by one goroutine.
type Document struct {
	name     string
	lines    []string
	root     *yaml.Node // nil when the file is empty or cannot be parsed
	places   map[string]place
	unusable map[string]bool // paths whose values could not be decoded
	broken   map[string]bool // these, and all above them
	problems []Problem
	keys     map[string][]string // where each key of the configuration belongs
	budget   int
}

// Problem is one mistake in a file.
type Problem struct {
	Line, Column int    // from 1; columns count characters
	Path         string // keys from the top, as backends[1].url; empty for the whole file
	Message      string
	width        int  // characters to underline
	inherited    bool // located at the nearest key above, because the file has none at Path
}

// place is where a path stands in the file. Items of a list have no key.
type place struct {
	name       string // of the key, also where the key is an alias
	key, value *yaml.Node
}

// maxNodes bounds the work that a small file can ask for by aliases of aliases.
const maxNodes = 200_000

// Parse reads the YAML of data; name stands for the file in messages. Problems, if
// any, are kept for Err; a document that cannot be parsed has no keys.
func Parse(name string, data []byte) *Document {
	text := strings.TrimPrefix(string(data), "\ufeff")
	d := &Document{
		name:     name,
		lines:    strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n"),
		places:   map[string]place{},
		broken:   map[string]bool{},
		unusable: map[string]bool{},
		budget:   maxNodes,
	}
	if !d.plainText() {
		return d
	}
	loader, err := yaml.NewLoader(strings.NewReader(text))
	if err != nil {
		d.syntax(err)
		return d
	}
	var first, second yaml.Node
	if err := loader.Load(&first); err != nil {
		d.syntax(err)
		return d
	}
	switch err := loader.Load(&second); {
	case err == nil:
		d.add(Problem{Line: second.Line, Column: second.Column, width: 1, Message: "a second YAML document; a file holds one"})
	case !errors.Is(err, io.EOF):
		d.syntax(err)
	}
	if len(first.Content) == 1 && !isNull(first.Content[0]) {
		d.root = first.Content[0]
		d.places[""] = place{value: d.root}
	}
	return d
}

// Parsed reports whether the file is YAML. When it is not, checks of its values would
// only say that all are missing.
func (d *Document) Parsed() bool { return d.root != nil || len(d.problems) == 0 }

// Decode sets what into points to from the file. into holds the defaults; keys that
// the file does not have stay as they are. Call it once.
func (d *Document) Decode(into any) {
	d.keys = allKeys(reflect.TypeOf(into).Elem())
	if d.root != nil {
		d.decode(d.root, reflect.ValueOf(into).Elem(), "")
	}
}

// Inherit decodes the section at a path once more, into one that has other values than its
// standard for the keys that the file does not have. It is called after Decode, with a
// pointer to a type that the path was decoded into; what is wrong has been reported then.
// It does nothing where the file has no such section.
func (d *Document) Inherit(path string, into any) {
	where, ok := d.places[path]
	if !ok {
		return
	}
	problems, budget := d.problems, d.budget
	d.decode(where.value, reflect.ValueOf(into).Elem(), path)
	d.problems, d.budget = problems, budget
}

// Report adds the errors of a check of what was decoded, with their paths. What it
// says of values that could not be decoded, of what is in them, or of sections around
// them, is left out.
func (d *Document) Report(err error) {
	for _, e := range fielderror.List(err) {
		if !d.broken[e.Path] && !d.withinUnusable(e.Path) {
			d.add(d.locate(Problem{Path: e.Path, Message: d.withoutValue(e)}))
		}
	}
}

// withoutValue is the text of an error, which may quote the value that it is about, without
// that value where it is a secret.
func (d *Document) withoutValue(e *fielderror.Error) string {
	text := e.Err.Error()
	where, ok := d.places[e.Path]
	if !ok || where.value == nil || !d.secret(e.Path) {
		return text
	}
	for where.value.Kind == yaml.AliasNode {
		where.value = where.value.Alias
	}
	return hideQuoted(text, where.value.Value)
}

// secret reports whether the value at path is not to be shown.
func (d *Document) secret(path string) bool {
	name := "" // of the key below
	for ; path != ""; path = parent(path) {
		where := d.places[path]
		if where.key == nil {
			continue
		}
		if holdsSecret(where.name) && (!isAuthorization(where.name) || !shownInAuthorization(name)) {
			return true
		}
		name = where.name
	}
	return false
}

func (d *Document) withinUnusable(path string) bool {
	for ; path != ""; path = parent(path) {
		if d.unusable[path] {
			return true
		}
	}
	return d.unusable[""]
}

// Value is a text that stands in the file.
type Value struct{ Path, Text string }

// Values lists the texts that the file has under keys with the given ending.
func (d *Document) Values(ending string) []Value {
	var list []Value
	for path, where := range d.places {
		n := where.value
		for n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		if n.Kind == yaml.ScalarNode && strings.HasSuffix(where.name, ending) && !d.broken[path] {
			list = append(list, Value{path, n.Value})
		}
	}
	slices.SortFunc(list, func(a, b Value) int { return strings.Compare(a.Path, b.Path) })
	return list
}

// Err returns nil or an *Error with all problems in the order of the file.
func (d *Document) Err() error {
	if len(d.problems) == 0 {
		return nil
	}
	list := slices.Clone(d.problems)
	slices.SortStableFunc(list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Message, b.Message))
	})
	list = slices.CompactFunc(list, func(a, b Problem) bool {
		// The same words in the file can stand under several paths, by aliases.
		samePlace := a.Line == b.Line && a.Column == b.Column && !a.inherited && !b.inherited
		return a.Message == b.Message && (samePlace || a.Path == b.Path)
	})
	shown := map[int]bool{}
	for _, p := range list {
		shown[p.Line-1] = true
	}
	return &Error{File: d.name, Problems: list, lines: d.lines, secrets: findSecrets(d.lines, shown, d.root)}
}

func (d *Document) add(p Problem) {
	p.Path, p.Message = hideInText(p.Path), hideInText(p.Message)
	d.problems = append(d.problems, p)
}

// breaks notes that the value at path is not what the file's author wanted.
func (d *Document) breaks(path string) {
	for ; path != ""; path = parent(path) {
		d.broken[path] = true
	}
	d.broken[""] = true
}

// fail reports that the value at path cannot be decoded.
func (d *Document) fail(at *yaml.Node, path, message string) {
	d.breaks(path)
	d.unusable[path] = true
	p := Problem{Path: path, Message: message}
	switch {
	case d.secret(path):
		p.Message = hideQuoted(message, at.Value)
		d.add(d.at(p, d.keyOf(path).key)) // the value may not be shown
	case isNull(at) && at.Value == "":
		d.add(d.locate(p)) // there is nothing to underline
	default:
		d.add(d.at(p, at))
	}
}

// keyOf returns the place of the key at path, or of the list in which path is an item.
func (d *Document) keyOf(path string) place {
	for ; path != ""; path = parent(path) {
		if where, ok := d.places[path]; ok && where.key != nil {
			return where
		}
	}
	return place{}
}

// locate places a problem at the key of its path, or at the nearest key above that
// the file has.
func (d *Document) locate(p Problem) Problem {
	for path := p.Path; ; path = parent(path) {
		where, ok := d.places[path]
		p.inherited = path != p.Path
		switch {
		case ok && path == p.Path && where.value != nil && where.value.Kind == yaml.ScalarNode && where.value.Value != "":
			return d.at(p, where.value)
		case ok && where.key != nil:
			return d.at(p, where.key)
		case ok && path != "":
			return d.at(p, where.value)
		case path == "":
			// About the whole file: no line to show.
			p.Line, p.Column = 1, 1
			return p
		}
	}
}

func (d *Document) at(p Problem, n *yaml.Node) Problem {
	p.Line, p.Column = n.Line, n.Column
	if p.Line < 1 || p.Line > len(d.lines) {
		p.Line, p.Column, p.width = 1, 1, 1
		return p
	}
	line := []rune(d.lines[p.Line-1])
	p.Column, p.width = token(line, p.Column, n.Value)
	return p
}

// plainText refuses what is not text before the parser sees it, because the parser
// does not say where it stands.
func (d *Document) plainText() bool {
	for i, line := range d.lines {
		column := 0
		for at, r := range line {
			column++
			bad := ""
			if _, size := utf8.DecodeRuneInString(line[at:]); r == utf8.RuneError && size == 1 {
				bad = "not UTF-8 text"
			} else if r < ' ' && r != '\t' && r != '\r' || r == 0x7f {
				bad = "a control character; in double quotes it can be written as \\x and two hex digits"
			}
			if bad != "" {
				d.add(Problem{Line: i + 1, Column: column, width: 1, Message: bad})
				return false
			}
		}
	}
	return true
}

// syntax reports an error of the YAML parser.
func (d *Document) syntax(err error) {
	var e *yaml.LoadError
	if !errors.As(err, &e) {
		if !errors.Is(err, io.EOF) {
			d.add(Problem{Line: 1, Column: 1, width: 1, Message: "not YAML: " + err.Error()})
		}
		return
	}
	if strings.Contains(e.Message, "no documents in stream") {
		return
	}
	p := Problem{Line: e.Mark.Line, Column: max(e.Mark.Column, 1), width: 1, Message: "not YAML: " + plainWords(e)}
	// The end of the file is a line that nobody sees.
	for p.Line > 1 && (p.Line > len(d.lines) || strings.TrimSpace(d.lines[p.Line-1]) == "") {
		p.Line--
		p.Column = utf8.RuneCountInString(d.lines[min(p.Line, len(d.lines))-1]) + 1
	}
	p.Line = min(max(p.Line, 1), len(d.lines))
	line := d.lines[p.Line-1]
	indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
	if strings.Contains(indent, "\t") {
		p.Message = "not YAML: a tab in the indentation; use spaces"
		p.Column = strings.IndexByte(indent, '\t') + 1
	}
	d.add(p)
}

// plainWords says what the parser found, for people who do not know its grammar.
func plainWords(e *yaml.LoadError) string {
	message := strings.TrimPrefix(e.Message, "yaml: ")
	switch message {
	case "mapping values are not allowed in this context":
		return "a key (word and colon) cannot stand here; a value with ': ' in it needs quotes"
	case "found character that cannot start any token":
		return "this character cannot start a value; put the value in quotes"
	case "did not find expected key", "did not find expected '-' indicator":
		return "the indentation fits neither the keys before nor the section around; that section starts in " + e.ContextMark.String()
	case "found unexpected end of stream":
		if e.ContextMark.Line > 0 {
			return "the quote that opens in " + e.ContextMark.String() + " is never closed"
		}
	}
	if strings.HasPrefix(message, "unknown anchor ") {
		// Its name may be a password that begins with a star; the line shows what may be seen.
		return "a value that begins with * stands for an anchor (&name), and there is none of this name; a text needs quotes"
	}
	if rest, ok := strings.CutPrefix(message, "did not find expected "); ok {
		message = "expected " + rest
	}
	if strings.HasPrefix(e.ContextMsg, "while parsing a flow ") && e.ContextMark != e.Mark {
		message += " for the bracket that opens in " + e.ContextMark.String()
	}
	return message
}

// parent is the path without its last step; keys with other characters than letters,
// digits, '_' and '-' are written in brackets.
func parent(path string) string {
	if strings.HasSuffix(path, `"]`) {
		if i := strings.LastIndex(path, `["`); i >= 0 {
			return path[:i]
		}
	}
	if i := strings.LastIndexAny(path, ".["); i >= 0 {
		return path[:i]
	}
	return ""
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}
