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
