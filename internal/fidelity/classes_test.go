package fidelity_test

import (
	"bytes"
	"context"
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
	c.Warnings = []string{"beware"}
	var text bytes.Buffer
	require.NoError(t, c.Write(&text, fidelity.Table))
	require.Regexp(t, `class +series +reason +example
critical +1 +match: .* +\{__name__="up"\}
low +2 +match: .* +\{__name__="go_(threads|info)"\}
normal +2 +everything else +\{__name__="g"\}
warning: beware
`, text.String())
	text.Reset()
	require.NoError(t, c.Write(&text, fidelity.JSON))
	require.Contains(t, text.String(), `"class": "critical"`)
	require.ErrorContains(t, c.Write(&text, fidelity.HTML), "unknown format")
}

func TestClassesOfADamagedCapture(t *testing.T) {
	c := fidelity.NewClasses(sampler.NewDescriber(sampler.DescriberOptions{Config: sampler.DefaultConfig()}))
	require.ErrorContains(t, c.AddCapture(context.Background(), bytes.NewReader([]byte("no capture"))), "damaged capture")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, c.AddCapture(ctx, bytes.NewReader(nil)), context.Canceled)
}
