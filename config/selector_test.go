package config

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func selectors(t *testing.T, texts ...string) []Selector {
	t.Helper()
	list := make([]Selector, len(texts))
	for i, text := range texts {
		require.NoError(t, list[i].UnmarshalText([]byte(text)), text)
		require.Equal(t, text, list[i].String())
	}
	return list
}

func TestDigestIgnoresSpelling(t *testing.T) {
	require.Equal(t, "all", digest(nil))
	want := digest(selectors(t, `up{job="a",x=~"b|c"}`, `{y!=""}`))
	require.Len(t, want, 16)
	for _, same := range [][]string{
		{`{y!=""}`, `up{job="a",x=~"b|c"}`},
		{`{ y != "" }`, `up{ x=~'b|c' , job="a" }`},
		{`{y!=""}`, `{y!=""}`, `{__name__="up",job="a",x=~"b|c"}`},
	} {
		require.Equal(t, want, digest(selectors(t, same...)), same)
	}
	for _, other := range [][]string{
		{`{y!=""}`},
		{`{y!=""}`, `up{job="a",x=~"b|d"}`},
		{`{y!=""}`, `up{job="a",x="b|c"}`},
		{`{y!="",job="a"}`, `up{x=~"b|c"}`},
	} {
		require.NotEqual(t, want, digest(selectors(t, other...)), other)
	}
	// The journal keeps digests across versions of the program.
	require.Equal(t, "8332af0a6796949d", want)
}

func TestBadSelectors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{``, `not a series selector: unexpected end of input (at character 1)`},
		{`{}`, `selects everything; leave match out for that`},
		{`{a=}`, `not a series selector: unexpected "}" in label matching, expected string (at character 4)`},
		{`{a="b"`, `not a series selector: unexpected end of input inside braces (at character 7)`},
		{`{a=~"("}`, "not a series selector: error parsing regexp: missing closing ): `(` (at character 2)"},
		{`rate(up[5m])`, `not a series selector: unexpected "(" (at character 5)`},
		{`up offset 5m`, `not a series selector: unexpected <offset> (at character 4)`},
		{`up[5m]`, `not a series selector: unexpected "[" (at character 3)`},
		{`job=node`, `not a series selector: unexpected "=" (at character 4); conditions on labels stand in braces`},
		{`{"ü"="é", b=é}`, `not a series selector: unexpected character inside braces: 'é' (at character 13)`},
		{`{a="b"} or {c="d"}`, `not a series selector: unexpected <op:or> (at character 9)`},
	} {
		var s Selector
		require.EqualError(t, s.UnmarshalText([]byte(c.text)), c.want, c.text)
	}
}
