package fidelity_test

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/fidelity"
	"github.com/sluice-metrics/sluice/sampler"
)

func TestClassesOfACapture(t *testing.T) {
	c := fidelity.NewClasses(sampler.NewDescriber(sampler.DescriberOptions{Config: sampler.DefaultConfig()}))
	file := record(t, map[string]curve{"up": constant(1), "go_threads": constant(1), "go_info": constant(1), "g": constant(1)})
	require.NoError(t, c.AddCapture(context.Background(), file))
	require.NoError(t, c.AddSeries(`g{x="y"}`))
	require.ErrorContains(t, c.AddSeries(`g{x=`), "is no series such as")
	require.NoError(t, c.AddSeries(`up{job="b"}`))
	require.NoError(t, c.AddSeries(`up{job="a"}`))
	c.Warnings = []string{"beware"}
	var text bytes.Buffer
	require.NoError(t, c.Write(&text, fidelity.Table))
	require.Regexp(t, `^class +series +reason
normal +\{__name__="g", x="y"\} +everything else
critical +\{__name__="up", job="b"\} +match: \{__name__=~"up\|ALERTS.\*"\}
critical +\{__name__="up", job="a"\} +match: .*

class +count +reason +example
critical +1 +match: .* +\{__name__="up"\}
low +2 +match: .* +\{__name__="go_(threads|info)"\}
normal +1 +everything else +\{__name__="g"\}
$`, text.String())
	text.Reset()
	c.All = true
	require.NoError(t, c.Write(&text, fidelity.Table))
	require.Regexp(t, `^class +series +reason
normal +\{__name__="g", x="y"\} +everything else
critical +\{__name__="up", job="b"\} +match: .*
critical +\{__name__="up", job="a"\} +match: .*
critical +\{__name__="up"\} +match: .*
low +\{__name__="go_info"\} +match: .*
low +\{__name__="go_threads"\} +match: .*
normal +\{__name__="g"\} +everything else
$`, text.String())
	text.Reset()
	require.NoError(t, c.Write(&text, fidelity.JSON))
	var got struct {
		Classes []struct {
			Class  string
			Series int
		}
		Series   []struct{ Series, Class, Reason string }
		Warnings []string
	}
	require.NoError(t, json.Unmarshal(text.Bytes(), &got))
	require.Len(t, got.Classes, 3)
	require.Equal(t, 3, got.Classes[0].Series, "named ones count")
	require.Len(t, got.Series, 7)
	require.Equal(t, `{__name__="go_info"}`, got.Series[4].Series)
	require.Equal(t, "low", got.Series[4].Class)
	require.NotEmpty(t, got.Series[4].Reason)
	require.Equal(t, []string{"beware"}, got.Warnings)
	require.ErrorContains(t, c.Write(&text, fidelity.HTML), "unknown format")
}

func TestClassesOfADamagedCapture(t *testing.T) {
	c := fidelity.NewClasses(sampler.NewDescriber(sampler.DescriberOptions{Config: sampler.DefaultConfig()}))
	require.ErrorContains(t, c.AddCapture(context.Background(), bytes.NewReader([]byte("no capture"))), "damaged capture")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, c.AddCapture(ctx, bytes.NewReader(nil)), context.Canceled)
}
