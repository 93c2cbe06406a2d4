package strictyaml

import (
	"reflect"
	"strings"

	"github.com/sluice-metrics/sluice/internal/fielderror"
)

// Defaulter is implemented by the pointer of a section that is created while
// decoding (the item of a list, a section behind a pointer) and whose defaults are
// not the zero values.
type Defaulter interface{ SetDefaults() }

// Extended is implemented by the pointer of a section that has keys beside its
// fields.
type Extended interface {
	// ExtraKeys lists these keys.
	ExtraKeys() []string
	// Extra returns the pointer to the section under one of them, or nil when the
	// key is not set. With create it is set, with its defaults, when it was not.
	Extra(key string, create bool) any
}

// Expecter is implemented by a value type that can say what it takes, as in "a series
// selector in quotes".
type Expecter interface{ Expected() string }

// Field is one key of a section.
type Field struct {
	Key string
	// Owner is the struct that declares the field Name; for a key of an Extended
	// section it is that section and Name is empty.
	Owner reflect.Type
	Name  string
	// Value is the field itself, settable when the section is. Invalid for an
	// Extended key that is not set.
	Value     reflect.Value
	omitEmpty bool
}

// IsSection reports whether values of the type are sections: structs whose keys are
// their fields.
func IsSection(t reflect.Type) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	for i := range t.NumField() {
		if _, ok := t.Field(i).Tag.Lookup("yaml"); ok {
			return true
		}
	}
	return false
}

// Fields lists the keys of the section v in the order in which they are declared;
// inlined structs are part of it. A section of which every key is free (an inlined
// map) is returned as that map.
func Fields(v reflect.Value) (list []Field, free reflect.Value) {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		if strings.Contains(options, "inline") {
			if f.Type.Kind() == reflect.Map {
				free = v.Field(i)
				continue
			}
			inner, _ := Fields(v.Field(i))
			list = append(list, inner...)
			continue
		}
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		list = append(list, Field{Key: name, Owner: t, Name: f.Name, Value: v.Field(i), omitEmpty: strings.Contains(options, "omitempty")})
	}
	if extended, ok := pointer(v).(Extended); ok {
		for _, key := range extended.ExtraKeys() {
			f := Field{Key: key, Owner: t, omitEmpty: true}
			if section := extended.Extra(key, false); section != nil {
				f.Value = reflect.ValueOf(section).Elem()
			}
			list = append(list, f)
		}
	}
	return list, free
}

// allKeys lists for each key of a configuration the sections that have it, as
// "backends[].tsdb".
func allKeys(t reflect.Type) map[string][]string {
	keys := map[string][]string{}
	var walk func(t reflect.Type, path string)
	walk = func(t reflect.Type, path string) {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice && !isValue(t) {
			if t.Kind() == reflect.Slice {
				path += "[]"
			}
			t = t.Elem()
		}
		if !IsSection(t) {
			return
		}
		v := newDefault(t)
		fields, _ := Fields(v)
		for _, f := range fields {
			keys[f.Key] = append(keys[f.Key], path)
			below := fielderror.Join(path, f.Key)
			if f.Name == "" {
				walk(extraDefault(v, f.Key).Type(), below)
			} else {
				walk(f.Value.Type(), below)
			}
		}
	}
	walk(t, "")
	return keys
}

// pointer returns the address of v, or of a copy of it where v has none.
func pointer(v reflect.Value) any {
	if v.CanAddr() {
		return v.Addr().Interface()
	}
	p := reflect.New(v.Type())
	p.Elem().Set(v)
	return p.Interface()
}
