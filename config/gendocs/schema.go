package main

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"time"

	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v4"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/strictyaml"
)

const (
	// schemaID is where the schema is found on line.
	schemaID = "https://raw.githubusercontent.com/sluice-metrics/sluice/main/config/schema.json"

	durationPattern = `^([0-9]+y)?([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$|^0$`
	sizePattern     = `^[0-9]+ ?(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?$`
)

// object is a JSON object.
type object = map[string]any

// schema returns the JSON Schema of the configuration file; root is the folder of the
// module. It has the keys of the reference, and is as strict about them as a start is, but
// for what depends on other values.
func schema(root string) (string, error) {
	w := &schemaWriter{
		texts:       writer{comments: comments{root: root, packages: map[string]*sources{}}},
		definitions: object{},
		names:       map[reflect.Type]string{},
	}
	top, err := w.section("", reflect.ValueOf(config.Standard()).Elem())
	if err != nil {
		return "", err
	}
	top["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	top["$id"] = schemaID
	top["title"] = "Configuration of Sluice"
	top["description"] = "The file that Sluice is started with: --config.file"
	top["$defs"] = w.definitions
	text, err := json.MarshalIndent(top, "", "  ")
	if err != nil {
		return "", fmt.Errorf("write the schema: %w", err)
	}
	return string(text) + "\n", nil
}

type schemaWriter struct {
	texts       writer
	definitions object
	names       map[reflect.Type]string // of sections in definitions
}

// required matches the text of a key that has to be given.
var required = regexp.MustCompile(`\b[Rr]equired\b`)

// section returns the schema of a section, whose defaults are in v.
func (w *schemaWriter) section(path string, v reflect.Value) (object, error) {
	fields, free := strictyaml.Fields(v)
	if free.IsValid() {
		item, err := w.value(path+".name", reflect.New(free.Type().Elem()).Elem())
		return object{"type": "object", "additionalProperties": item}, err
	}
	properties, needed, kinds := object{}, []string{}, []object{}
	for _, f := range fields {
		text, ok, err := w.texts.meaning(f)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		standard := f.Value
		if f.Name == "" {
			standard = extraDefault(v, f.Key)
			kinds = append(kinds, object{"required": []string{f.Key}})
		}
		property, err := w.value(strings.TrimPrefix(path+"."+f.Key, "."), standard)
		if err != nil {
			return nil, err
		}
		property["description"] = text
		if d, ok := scalarDefault(f); ok {
			property["default"] = d
		}
		properties[f.Key] = property
		if f.Name != "" && required.MatchString(text) {
			needed = append(needed, f.Key)
		}
	}
	s := object{"type": "object", "properties": properties, "additionalProperties": false}
	if len(needed) > 0 {
		s["required"] = needed
	}
	if len(kinds) > 0 {
		s["oneOf"] = kinds
	}
	return s, nil
}

// extraDefault is the section under a key that is a kind, with its defaults.
func extraDefault(v reflect.Value, key string) reflect.Value {
	return reflect.ValueOf(reflect.New(v.Type()).Interface().(strictyaml.Extended).Extra(key, true)).Elem()
}

// value returns the schema of what stands under a key.
func (w *schemaWriter) value(path string, v reflect.Value) (object, error) {
	section, suffix, ok := sectionIn(v)
	if !ok {
		return w.plain(v.Type())
	}
	name, known := w.names[section.Type()]
	if !known {
		name = strings.TrimPrefix(path, ".")
		w.names[section.Type()] = name
		s, err := w.section(path, section)
		if err != nil {
			return nil, err
		}
		w.definitions[name] = s
	}
	ref := object{"$ref": "#/$defs/" + name}
	switch {
	case suffix != "":
		list := object{"type": []string{"array", "null"}, "items": ref}
		if path == "backends" {
			list = object{"type": "array", "items": ref, "minItems": 1}
		}
		return list, nil
	case v.Kind() == reflect.Pointer:
		return ref, nil
	}
	return object{"anyOf": []object{ref, {"type": "null"}}}, nil
}

// text is what a key takes that takes text: YAML reads some texts as something else.
func text() object { return object{"type": []string{"string", "number", "boolean"}} }

// plain returns the schema of a value that is no section.
func (w *schemaWriter) plain(t reflect.Type) (object, error) {
	switch t {
	case reflect.TypeFor[model.Duration](), reflect.TypeFor[time.Duration]():
		return object{"type": []string{"string", "integer"}, "pattern": durationPattern, "minimum": 0, "maximum": 0}, nil
	case reflect.TypeFor[bytesize.Size]():
		return object{"type": []string{"string", "integer"}, "pattern": sizePattern, "minimum": 0}, nil
	case reflect.TypeFor[commonconfig.TLSVersion]():
		return object{"enum": []string{"TLS10", "TLS11", "TLS12", "TLS13"}}, nil
	}
	switch t.Kind() {
	case reflect.Pointer:
		return w.plain(t.Elem())
	case reflect.Bool:
		return object{"type": "boolean"}, nil
	case reflect.Int, reflect.Int64:
		return object{"type": "integer"}, nil
	case reflect.Uint, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer", "minimum": 0}, nil
	case reflect.Float64:
		return object{"type": "number"}, nil
	case reflect.Interface:
		return object{}, nil
	case reflect.Slice:
		if readsItself(t) {
			break
		}
		items, err := w.plain(t.Elem())
		return object{"type": "array", "items": items}, err
	case reflect.Map:
		items, err := w.plain(t.Elem())
		return object{"type": "object", "additionalProperties": items}, err
	case reflect.String:
		return w.words(t)
	}
	return text(), nil
}

// readsItself reports whether the type takes a text, whatever its kind.
func readsItself(t reflect.Type) bool {
	switch reflect.New(t).Interface().(type) {
	case yaml.Unmarshaler, encoding.TextUnmarshaler, interface{ UnmarshalYAML(func(any) error) error }:
		return true
	}
	return false
}

// words returns the schema of a text, or of one of the words that its type has constants
// for.
func (w *schemaWriter) words(t reflect.Type) (object, error) {
	path, own := strings.CutPrefix(t.PkgPath(), module)
	if !own {
		return text(), nil
	}
	words, err := w.texts.comments.words(path, t.Name())
	if err != nil || len(words) == 0 {
		return text(), err
	}
	return object{"enum": words}, nil
}

// scalarDefault is the default of a key as the file would have it.
func scalarDefault(f strictyaml.Field) (any, bool) {
	written := strings.Trim(defaultOf(f), "`")
	if written == "" {
		return nil, false
	}
	var v any
	if err := yaml.Unmarshal([]byte(written), &v); err != nil {
		return nil, false
	}
	return v, true
}
