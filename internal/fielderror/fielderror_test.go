package fielderror

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestJoin(t *testing.T) {
	for _, c := range []struct{ path, below, want string }{
		{"", "", ""},
		{"a", "", "a"},
		{"", "b", "b"},
		{"a", "b", "a.b"},
		{"a", "[1].b", "a[1].b"},
		{"a[0]", "b", "a[0].b"},
	} {
		require.Equal(t, c.want, Join(c.path, c.below))
	}
}

func TestListTakesJoinedAndNestedErrorsApart(t *testing.T) {
	require.Empty(t, List(nil))
	require.NoError(t, Within("a", nil))

	inner := errors.Join(
		Errorf("ca_file", "cannot be read: %w", io.ErrUnexpectedEOF),
		errors.New("needs a key"),
	)
	err := errors.Join(
		Errorf("url", "is empty"),
		Within("tls_config", inner),
		&Error{Path: "list", Err: errors.Join(Errorf("[2]", "is odd"), Errorf("[3].x", "is even"))},
		fmt.Errorf("a plain one: %w", io.EOF),
	)
	var got []string
	for _, e := range List(err) {
		got = append(got, e.Path+"|"+e.Err.Error())
	}
	require.Equal(t, []string{
		"url|is empty",
		"tls_config.ca_file|cannot be read: unexpected EOF",
		"tls_config|needs a key",
		"list[2]|is odd",
		"list[3].x|is even",
		"|a plain one: EOF",
	}, got)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, "url: is empty", List(err)[0].Error())
	require.Equal(t, "a plain one: EOF", List(err)[5].Error())
}
