// Package fielderror lets the Validate method of a configuration section say which
// of its keys is wrong, without knowing where in a file the section stands. Package
// config turns such errors into messages with file, line and column.
package fielderror

import (
	"errors"
	"fmt"
	"strings"
)

// Error is one wrong value. A Validate method returns one, or several by
// errors.Join; Within moves those of a nested section under its key.
type Error struct {
	// Path leads from the section to the value by the keys of the file:
	// "url", "tls_config.ca_file", "targets[2].name"; empty for the section itself.
	Path string
	// Err says what is wrong and what would be right; it does not repeat Path.
	Err error
}

func (e *Error) Error() string {
	if e.Path == "" {
		return e.Err.Error()
	}
	return e.Path + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an *Error for the value at path; format and args are those of
// fmt.Errorf.
func Errorf(path, format string, args ...any) error {
	return &Error{Path: path, Err: fmt.Errorf(format, args...)}
}

// Within returns err as an error of the section around: every path in it is put
// below path. It returns nil for nil.
func Within(path string, err error) error {
	var list []error
	for _, e := range List(err) {
		list = append(list, &Error{Path: Join(path, e.Path), Err: e.Err})
	}
	return errors.Join(list...)
}

// List takes apart what Validate returned: one entry for each wrong value. Errors
// that are no *Error stand with an empty path.
func List(err error) []*Error {
	switch e := err.(type) {
	case nil:
		return nil
	case *Error:
		var list []*Error
		for _, inner := range List(e.Err) {
			list = append(list, &Error{Path: Join(e.Path, inner.Path), Err: inner.Err})
		}
		return list
	case interface{ Unwrap() []error }:
		var list []*Error
		for _, inner := range e.Unwrap() {
			list = append(list, List(inner)...)
		}
		return list
	}
	return []*Error{{Err: err}}
}

// Join puts two paths together; either may be empty.
func Join(path, below string) string {
	if path == "" || below == "" || strings.HasPrefix(below, "[") {
		return path + below
	}
	return path + "." + below
}
