package strictyaml

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Encode writes a configuration as a file that Parse and Decode read back to the same
// values, except for secrets, which are hidden. Values equal to those in defaults, a
// configuration of the same type, are marked "# default".
func Encode(v, defaults any) (string, error) {
	n, err := encode(reflect.ValueOf(v).Elem(), reflect.ValueOf(defaults).Elem())
	if err != nil {
		return "", err
	}
	text, err := yaml.Dump(n)
	if err != nil {
		return "", fmt.Errorf("write the configuration as YAML: %w", err)
	}
	return string(text), nil
}

// encode returns the node of v. defaults is invalid where there is none.
func encode(v, defaults reflect.Value) (*yaml.Node, error) {
	t := v.Type()
	switch {
	case t.Kind() == reflect.Pointer && !v.IsNil():
		switch {
		case defaults.IsValid() && !defaults.IsNil():
			defaults = defaults.Elem()
		case IsSection(t.Elem()):
			// By default it is absent; these hold where it is present and empty.
			defaults = newDefault(t.Elem())
		}
		return encode(v.Elem(), defaults)
	case IsSection(t):
		return encodeSection(v, defaults)
	case !isValue(t) && t.Kind() == reflect.Slice && IsSection(t.Elem()):
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			item, err := encode(v.Index(i), newDefault(t.Elem()))
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, item)
		}
		return n, nil
	case !isValue(t) && t.Kind() == reflect.Map:
		return encodeMap(v)
	}
	return encodeValue(v, defaults)
}

func encodeSection(v, defaults reflect.Value) (*yaml.Node, error) {
	fields, free := Fields(v)
	if free.IsValid() {
		return encodeMap(free)
	}
	var defaultFields []Field
	if defaults.IsValid() {
		defaultFields, _ = Fields(defaults)
	}
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, f := range fields {
		if !f.Value.IsValid() {
			continue
		}
		var standard reflect.Value
		if f.Name == "" {
			standard = extraDefault(v, f.Key)
		} else if i := slices.IndexFunc(defaultFields, func(d Field) bool { return d.Key == f.Key }); i >= 0 {
			standard = defaultFields[i].Value
		}
		if unset(f, standard) {
			continue
		}
		value, err := encode(f.Value, standard)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Key, err)
		}
		if isNull(value) {
			continue
		}
		n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: f.Key}, hideNode(f.Key, value))
	}
	return n, nil
}

func encodeMap(v reflect.Value) (*yaml.Node, error) {
	n := &yaml.Node{Kind: yaml.MappingNode}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	for _, key := range keys {
		// The items of a map cannot be addressed; what encodes itself may need it.
		item := reflect.New(v.Type().Elem()).Elem()
		item.Set(v.MapIndex(key))
		value, err := encode(item, reflect.Value{})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		name := &yaml.Node{}
		name.SetString(key.String())
		n.Content = append(n.Content, name, hideNode(key.String(), value))
	}
	return n, nil
}

var number = regexp.MustCompile(`^(0|[1-9][0-9]*)$`)

func encodeValue(v, defaults reflect.Value) (*yaml.Node, error) {
	n := &yaml.Node{}
	if err := n.Encode(v.Interface()); err != nil {
		return nil, err
	}
	switch {
	case n.Kind == yaml.SequenceNode:
		n.Style = yaml.FlowStyle
	case isValue(v.Type()) && n.Kind == yaml.ScalarNode && number.MatchString(n.Value):
		// A type that reads itself takes a bare number as it takes its text.
		n.Tag, n.Style = "!!int", 0
	}
	if defaults.IsValid() && reflect.DeepEqual(v.Interface(), defaults.Interface()) {
		n.LineComment = "default"
	}
	return n, nil
}

// hideNode hides what stands under the name of a secret in plain fields, such as the
// value of a header.
func hideNode(key string, n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.ScalarNode && n.Value != "" && n.ShortTag() == "!!str" && isSecretKey(key) {
		n.SetString(hidden)
	}
	return n
}

// unset reports whether the field has no place in the file: it is not set, and reads
// back as such when it is left out.
func unset(f Field, standard reflect.Value) bool {
	switch f.Value.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Interface:
		return f.Value.IsNil()
	}
	return f.Name != "" && f.omitEmpty && f.Value.IsZero() && (!standard.IsValid() || standard.IsZero())
}

// newDefault is a section of the type with its defaults.
func newDefault(t reflect.Type) reflect.Value {
	v := reflect.New(t).Elem()
	setDefaults(v)
	return v
}

// extraDefault is the section under an Extended key with its defaults.
func extraDefault(v reflect.Value, key string) reflect.Value {
	fresh := newDefault(v.Type())
	section := fresh.Addr().Interface().(Extended).Extra(key, true)
	return reflect.ValueOf(section).Elem()
}
