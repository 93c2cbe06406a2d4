//go:build debug

package series_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
)

// With the debug tag, who reads a body after its last release reads nonsense.
func TestPoison(t *testing.T) {
	b := series.NewBatch(bufferOf([]byte("the body of a batch")))
	late := b.Body
	b.Retain()
	b.Release()
	require.Equal(t, "the body of a batch", string(late))
	b.Release()
	require.Equal(t, bytes.Repeat([]byte{0xdb}, len(late)), late)
}
