package remotewrite

import (
	"math"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
)

// beyondOffsets is a request of 4 GiB that takes no memory: nobody may look inside.
func beyondOffsets(t *testing.T) []byte {
	b, err := syscall.Mmap(-1, 0, math.MaxUint32+1, syscall.PROT_NONE, syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_NORESERVE)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, syscall.Munmap(b)) })
	return b
}

func TestDataBeyondOffsets(t *testing.T) {
	var m Message
	require.ErrorContains(t, m.Index(series.V1, beyondOffsets(t), 1), "the limit is 4 GiB - 1")
}
