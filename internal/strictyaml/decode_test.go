package strictyaml

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/bytesize"
)

func TestDecodeKeepsDefaultsAndSetsTheRest(t *testing.T) {
	p, err := decode(`
name: north
pump: {pause: 1m30s, on: yes, tank: 2MiB, maker: Ohm}
spare: {ratio: 0.5}
pumps:
  - small: 255
  - power: 0x10
    on: true
    pause: 1d
labels: {a: b, "c d": 5}
claims: {list: [1, two], deep: {x: true}}
gates:
  - id: g
    user: u
    password: "p w"
    url: http://h/x
    headers: {X-A: {values: [one]}}
    right: {small: 3}
numbers: [1, -2]
`)
	require.NoError(t, err)
	require.Equal(t, "north", p.Name)
	require.Equal(t, 1, p.Pump.Power, "not in the file")
	require.True(t, p.Pump.On)
	require.Equal(t, model.Duration(90*time.Second), p.Pump.Pause)
	require.Equal(t, 2*bytesize.MiB, p.Pump.Tank)
	require.Equal(t, "Ohm", p.Pump.Maker.name)
	require.Equal(t, 5, p.Spare.Power, "SetDefaults behind a pointer")
	require.Equal(t, []int{5, 16}, []int{p.Pumps[0].Power, p.Pumps[1].Power}, "SetDefaults in a list")
	require.Equal(t, map[string]string{"a": "b", "c d": "5"}, p.Labels)
	require.Equal(t, map[string]any{"list": []any{1, "two"}, "deep": map[string]any{"x": true}}, p.Claims)
	g := p.Gates[0]
	require.Equal(t, "p w", string(g.Password))
	require.Equal(t, "http://h/x", g.URL.String())
	require.Equal(t, []string{"one"}, g.Headers.Headers["X-A"].Values)
	require.Nil(t, g.Extra("left", false))
	require.Equal(t, &pump{Power: 7, Small: 3}, g.Extra("right", false))
	require.Equal(t, []int{1, -2}, p.Numbers)
}

func TestDecodeFollowsAliasesAndMerges(t *testing.T) {
	p, err := decode(`
pump: &first {power: 9, on: true, ratio: 0.25}
spare: *first
pumps:
  - <<: *first
    power: 3
  - <<: [{power: 4}, *first]
`)
	require.NoError(t, err)
	require.Equal(t, 9, p.Spare.Power)
	require.Equal(t, pump{Power: 3, On: true, Ratio: 0.25, internal: 1}, p.Pumps[0])
	require.Equal(t, pump{Power: 4, On: true, Ratio: 0.25, internal: 1}, p.Pumps[1])
}

func TestEmptySectionsHaveTheirDefaults(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n", "pump:\n", "pump: {}\n", "pump: ~"} {
		p, err := decode(text)
		require.NoError(t, err, text)
		require.Equal(t, 1, p.Pump.Power)
	}
}

func TestParsed(t *testing.T) {
	for text, want := range map[string]bool{
		"": true, "# nothing\n": true, "\ufeff---\n": true, "a: 1\n": true, "a: 1\n---\nb: 2": true,
		"a: [\n": false, "a: \x00": false,
	} {
		require.Equal(t, want, Parse("f", []byte(text)).Parsed(), "%q", text)
	}
}

func TestValues(t *testing.T) {
	d := Parse("f", []byte("gates:\n  - headers: {X: {files: [a]}, key_file: {values: [b]}}\nlabels: {x_file: c, y_file: [d], z_file: &z e, w_file: *z}\n"))
	d.Decode(&plant{})
	require.Equal(t, []Value{{"labels.w_file", "e"}, {"labels.x_file", "c"}, {"labels.z_file", "e"}}, d.Values("_file"))
}

func TestAliasesCannotMakeTheWorkExplode(t *testing.T) {
	var b strings.Builder
	b.WriteString("claims:\n  a0: &a0 [1]\n")
	for i := range 12 {
		fmt.Fprintf(&b, "  a%d: &a%d [%s]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d, ", i), 9))
	}
	start := time.Now()
	_, err := decode(b.String())
	require.ErrorContains(t, err, "aliases")
	require.Less(t, time.Since(start), 5*time.Second)

	_, err = decode("claims: &c\n  x: [*c]\n")
	require.ErrorContains(t, err, "plant.yaml:2:6: claims.x: an alias in it leads back to itself")
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"name: x\npump: {power: 1}\n",
		"pump: &a\n  power: *a\n",
		"pumps:\n  - <<: [*x]\n  - !!str y\n",
		"claims: {a: [1, {b: c}], ? [x] : y}\n",
		"gates:\n  - {password: a, url: 'http://a:b@c', headers: {X: {secrets: [q]}}}\n",
		"a: \"x\n\ty\n",
		"gates:\n- {password: [\n\"a\", {b: 'c''d'}\n], idd: 5}\n- authorization: {type: x, y: {\nz: 1}}\n",
		"password: &a !!str \"a\\\"b\"c\ntoken:\n- *a\n- ? dsn\n  : x=y\n",
		"name: é\n\tpump: 5\n---\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := decode(text)
		if err != nil {
			list := err.(*Error)
			require.NotEmpty(t, list.Problems)
			for _, problem := range list.Problems {
				require.Positive(t, problem.Line)
				require.Positive(t, problem.Column)
				require.NotEmpty(t, problem.Message)
			}
			require.NotEmpty(t, err.Error())
			return
		}
		once, err := Encode(p, &plant{})
		require.NoError(t, err)
		again, err := decode(once)
		require.NoError(t, err, once)
		twice, err := Encode(again, &plant{})
		require.NoError(t, err)
		require.Equal(t, once, twice)
	})
}
