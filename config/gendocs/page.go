package main

import (
	"encoding"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v4"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/strictyaml"
)

const introduction = `# Configuration

<!-- Written by "go generate ./config" from the comments in the sources. Do not edit. -->

Sluice runs without a configuration file: it then keeps what it receives in an embedded
store. With ` + "`--config.file=sluice.yaml`" + ` it does what the file says, and only that.

- The file is strict YAML. A key that does not exist, a key that stands twice, or a value
  that does not fit is an error; values are refused, never adjusted.
- ` + "`sluice check --config.file=sluice.yaml`" + ` reports everything that is wrong at once, with
  line and column, and ends with exit code 1 when there is something. A start and a reload
  check the same; a reload that fails leaves the old configuration in force.
- ` + "`sluice check --probe`" + ` also talks to the backends: name, connection, TLS, authentication,
  protocol, clock.
- ` + "`sluice config init`" + ` writes the file below, ` + "`sluice config convert prometheus.yml`" + ` one that has the
  remote_write of a Prometheus, ` + "`sluice config show`" + ` what a file amounts to, with all defaults.
- ` + "`sluice config schema`" + ` prints the JSON Schema of the file. Editors with the YAML language server
  complete and check keys with it: begin the file with
  ` + "`# yaml-language-server: $schema=sluice.schema.json`" + `.
- Environment variables are not expanded. Secrets can be kept in files (` + "`password_file`" + ` and
  other keys that end in ` + "`_file`" + `), whose names are relative to the folder of the
  configuration file, and are never printed.
- Anchors, aliases and ` + "`<<`" + ` work, so that two backends can share settings.

## Values

**Durations** are numbers with units, largest unit first: ` + "`500ms`, `30s`, `5m`, `1h30m`, `7d`, `2w`, `1y`" + `.
A number alone is refused, except ` + "`0`" + `. A day has 24 hours, a week 7 days, a year 365 days.

**Sizes** are whole numbers of bytes with an optional unit: ` + "`512`, `64KiB`, `10GiB`" + ` in powers
of 1024 (KiB, MiB, GiB, TiB), ` + "`64MB`" + ` in powers of 1000 (KB, MB, GB, TB).

**Selectors** are PromQL series selectors without a range or an offset, in single quotes
because of their braces: ` + "`'up'`, `'{job=~\"node|api\"}'`" + `.

## Example

`

// page returns the reference; root is the folder of the module.
func page(root string) (string, error) {
	example, err := os.ReadFile(filepath.Join(root, "docs", "sluice.example.yaml"))
	if err != nil {
		return "", err
	}
	w := &writer{
		comments: comments{root: root, packages: map[string]*sources{}},
		seen:     map[reflect.Type]string{},
	}
	w.printf("%sThis is [sluice.example.yaml](sluice.example.yaml).\n\n```yaml\n%s```\n\n## Keys\n", introduction, example)
	if err := w.section("", "", reflect.ValueOf(config.Standard()).Elem()); err != nil {
		return "", err
	}
	return w.text.String(), nil
}

type writer struct {
	text     strings.Builder
	comments comments
	seen     map[reflect.Type]string // sections that are described already, and where
}

func (w *writer) printf(format string, args ...any) { fmt.Fprintf(&w.text, format, args...) }

// below is a section that follows the table in which its key stands.
type below struct {
	path, about string
	defaults    reflect.Value
}

// section writes the table of the section at path, and the sections in it.
func (w *writer) section(path, about string, v reflect.Value) error {
	if path != "" {
		w.printf("\n### `%s`\n\n%s\n", path, about)
	}
	fields, free := strictyaml.Fields(v)
	if free.IsValid() {
		return w.freeNames(path, free.Type().Elem())
	}
	w.printf("\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n")
	var inner []below
	for _, f := range fields {
		text, ok, err := w.meaning(f)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		standard := f.Value
		if f.Name == "" {
			standard = extraDefault(v, f.Key)
		}
		at := strings.TrimPrefix(path+"."+f.Key, ".")
		if section, suffix, ok := sectionIn(standard); ok {
			at += suffix
			if where, ok := w.seen[section.Type()]; ok {
				text += fmt.Sprintf(" The keys are those of [`%s`](#%s).", where, anchor(where))
			} else {
				inner = append(inner, below{at, text, section})
				w.seen[section.Type()] = at
				text = fmt.Sprintf("See [`%s`](#%s).", at, anchor(at))
			}
		}
		w.printf("| `%s` | %s | %s | %s |\n", f.Key, kindOf(standard.Type()), defaultOf(f), escape(text))
	}
	for _, b := range inner {
		if err := w.section(b.path, b.about, b.defaults); err != nil {
			return err
		}
	}
	return nil
}

// freeNames writes of a section whose keys are not fixed.
func (w *writer) freeNames(path string, item reflect.Type) error {
	w.printf("\nThe keys are free names.\n")
	return w.section(path+".<name>", "One of them.", reflect.New(item).Elem())
}

func (w *writer) meaning(f strictyaml.Field) (text string, ok bool, err error) {
	if f.Name != "" {
		return w.comments.of(f)
	}
	name := f.Owner.Name()
	about := kinds[name+"."+f.Key]
	if about == "" {
		return "", false, fmt.Errorf("the kind %s.%s has no text in foreign.go", name, f.Key)
	}
	return fmt.Sprintf("%s A %s has exactly one kind.", about, strings.ToLower(name)), true, nil
}

// sectionIn returns the section, with its defaults, that a field holds, points to, or
// lists, and what its path has at the end.
func sectionIn(v reflect.Value) (section reflect.Value, suffix string, ok bool) {
	t := v.Type()
	switch {
	case t.Kind() == reflect.Pointer:
		t = t.Elem()
	case t.Kind() == reflect.Slice:
		t, suffix = t.Elem(), "[]"
	case strictyaml.IsSection(t):
		return v, "", true
	}
	if !strictyaml.IsSection(t) {
		return reflect.Value{}, "", false
	}
	fresh := reflect.New(t)
	if d, ok := fresh.Interface().(strictyaml.Defaulter); ok {
		d.SetDefaults()
	}
	return fresh.Elem(), suffix, true
}

// kindOf names what a key takes.
func kindOf(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[model.Duration](), reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.TypeFor[bytesize.Size]():
		return "size"
	case reflect.TypeFor[config.Selector]():
		return "selector"
	case reflect.TypeFor[commonconfig.Secret]():
		return "secret"
	case reflect.TypeFor[commonconfig.URL]():
		return "URL"
	}
	if t.Kind() == reflect.Slice && reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return "text" // read from one, whatever it is made of
	}
	switch t.Kind() {
	case reflect.Pointer:
		return kindOf(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64, reflect.Uint, reflect.Uint32, reflect.Uint64:
		return "whole number"
	case reflect.Float64:
		return "number"
	case reflect.Slice:
		return "list of " + plural(kindOf(t.Elem()))
	case reflect.Map:
		return "names with " + plural(kindOf(t.Elem()))
	case reflect.Struct:
		if strictyaml.IsSection(t) {
			return "section"
		}
	}
	return "text"
}

func plural(kind string) string {
	if kind == "" || strings.HasPrefix(kind, "list of") {
		return kind
	}
	return kind + "s"
}

// defaultOf is the default of a key that has a value, and nothing for one that has to
// be given or is not set.
func defaultOf(f strictyaml.Field) string {
	v := f.Value
	if !v.IsValid() || strictyaml.IsSection(v.Type()) || v.Kind() == reflect.Slice && strictyaml.IsSection(v.Type().Elem()) {
		return "" // too much for a table
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.String, reflect.Struct:
		if v.IsZero() {
			return ""
		}
	}
	n := &yaml.Node{}
	if err := n.Encode(v.Interface()); err != nil || n.Kind == yaml.ScalarNode && n.Value == "null" {
		return ""
	}
	n.Style = yaml.FlowStyle
	text, err := yaml.Dump(n)
	if err != nil {
		return ""
	}
	return "`" + strings.Trim(strings.TrimSpace(string(text)), "'") + "`"
}

// anchor is the name that the renderers of Markdown give to a heading.
func anchor(path string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(".[]<>", r) {
			return -1
		}
		return r
	}, strings.ToLower(path))
}

func escape(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
