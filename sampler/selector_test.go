package sampler

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCanonicalSelectors(t *testing.T) {
	for _, same := range []string{`up{job="a",x=~"b|c"}`, `{ x=~'b|c' , job="a", __name__="up" }`, `up{job="a",x=~"b|c",job="a"}`} {
		s, err := ParseSelector(same)
		require.NoError(t, err)
		require.Equal(t, same, s.String())
		require.Equal(t, `__name__="up",job="a",x=~"b|c"`, s.Canonical())
		require.GreaterOrEqual(t, len(s.Matchers()), 3)
	}
}

// What is never thinned has nothing to leave out instead.
func TestProtectingEverythingIsRefused(t *testing.T) {
	var s ProtectSelector
	require.EqualError(t, s.UnmarshalText([]byte(`{}`)), "selects everything; enabled: false says that nothing is thinned")
	require.ErrorContains(t, s.UnmarshalText([]byte(`{a=}`)), "not a series selector")
	require.NoError(t, s.UnmarshalText([]byte(`{a="b"}`)))
	text, err := s.MarshalText()
	require.NoError(t, err)
	require.Equal(t, `{a="b"}`, string(text))
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
