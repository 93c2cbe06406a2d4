package strictyaml

import (
	"errors"
	"reflect"
	"slices"
	"strings"

	"github.com/sluice-metrics/sluice/internal/fielderror"
)

// Section is a part of a configuration that can check itself. Its errors carry paths
// from the section down, either as *fielderror.Error or by their text: "key: what is
// wrong". Several are joined by errors.Join.
type Section interface{ Validate() error }

// Check validates the section at path. All that is in its error is a
// *fielderror.Error with its path from the top.
func Check(path string, section Section) error {
	var errs []error
	for _, e := range fielderror.List(section.Validate()) {
		if e.Path == "" {
			e = splitPath(section, e)
		}
		errs = append(errs, &fielderror.Error{Path: fielderror.Join(path, e.Path), Err: e.Err})
	}
	return errors.Join(errs...)
}

// CheckFields checks those fields of the struct that section points to which are a
// Section and are set.
func CheckFields(section any) error {
	var errs []error
	fields, _ := Fields(reflect.ValueOf(section).Elem())
	for _, f := range fields {
		v := f.Value
		if v.Kind() != reflect.Pointer {
			v = v.Addr()
		}
		if checked, ok := v.Interface().(Section); ok && !v.IsNil() {
			errs = append(errs, Check(f.Key, checked))
		}
	}
	return errors.Join(errs...)
}

// splitPath takes the path from the start of an error's text, where one stands there
// that begins with a key of the section.
func splitPath(section Section, e *fielderror.Error) *fielderror.Error {
	path, rest, ok := strings.Cut(e.Err.Error(), ": ")
	v := reflect.ValueOf(section)
	if !ok || v.Kind() != reflect.Pointer || !IsSection(v.Type().Elem()) {
		return e
	}
	first := path
	if i := strings.IndexAny(path, ".["); i >= 0 {
		first = path[:i]
	}
	fields, _ := Fields(v.Elem())
	if !slices.ContainsFunc(fields, func(f Field) bool { return f.Key == first }) {
		return e
	}
	return &fielderror.Error{Path: path, Err: errors.New(rest)}
}
