package capture_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/capture"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
)

func body(t testing.TB, samples ...prompb.Sample) []byte {
	t.Helper()
	raw, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels:  []prompb.Label{{Name: "__name__", Value: "up"}},
		Samples: samples,
	}}}).Marshal()
	require.NoError(t, err)
	return s2.EncodeSnappy(nil, raw)
}

func TestReader(t *testing.T) {
	first, second := body(t, prompb.Sample{Value: 1, Timestamp: 1000}), body(t, prompb.Sample{Value: 2, Timestamp: 2000}, prompb.Sample{Value: 3, Timestamp: 3000})
	file := capture.AppendRecord(capture.AppendRecord(nil, 1100, first), 3100, second)
	for name, from := range map[string]io.Reader{
		"at once":      bytes.NewReader(file),
		"byte by byte": iotest.OneByteReader(bytes.NewReader(file)),
	} {
		t.Run(name, func(t *testing.T) {
			r := capture.NewReader(from)
			got, err := r.Next()
			require.NoError(t, err)
			require.Equal(t, int64(1100), got.Received)
			require.Equal(t, first, got.Body)
			require.Equal(t, []remotewrite.Sample{{Value: 1, Time: 1000}}, got.Message.AppendSamples(nil, 0))

			got, err = r.Next()
			require.NoError(t, err)
			require.Equal(t, int64(3100), got.Received)
			require.Equal(t, []remotewrite.Sample{{Value: 2, Time: 2000}, {Value: 3, Time: 3000}}, got.Message.AppendSamples(nil, 0))

			for range 2 {
				_, err = r.Next()
				require.Equal(t, io.EOF, err)
			}
		})
	}
}

func TestDamage(t *testing.T) {
	good := capture.AppendRecord(nil, 1100, body(t, prompb.Sample{Value: 1, Timestamp: 1000}))
	header := func(length uint32, received int64) []byte {
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, length), uint64(received))
	}
	tests := map[string]struct {
		tail []byte
		want string
	}{
		"header cut":     {good[:5], "the file ends after 5 of 12 bytes of its header"},
		"body missing":   {good[:12], "the file ends after 0 of"},
		"body cut":       {good[:len(good)-1], "bytes of its body; it may have been cut short"},
		"no body":        {header(0, 1), "it has no body"},
		"huge body":      {header(capture.MaxBody+1, 1), "the limit is"},
		"claims much":    {header(capture.MaxBody, 1), "the file ends after 0 of"},
		"no time":        {header(1, 0), "not Unix milliseconds"},
		"negative time":  {header(1, -1), "not Unix milliseconds"},
		"not snappy":     {capture.AppendRecord(nil, 1, bytes.Repeat([]byte{0xff}, 20)), "no snappy block"},
		"broken snappy":  {capture.AppendRecord(nil, 1, []byte{4, 0xff}), "no snappy block"},
		"bomb":           {capture.AppendRecord(nil, 1, binary.AppendUvarint(nil, 1<<27)), "claims 134217728 after decompression"},
		"larger bomb":    {capture.AppendRecord(nil, 1, binary.AppendUvarint(nil, 1<<31)), "the limit is"},
		"not protobuf":   {capture.AppendRecord(nil, 1, s2.EncodeSnappy(nil, []byte{0x0a, 0x50, 1})), "no RW 1.0 request"},
		"time of a text": {[]byte("# Metrics of the shop, recorded in May"), "the limit is"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := capture.NewReader(bytes.NewReader(append(bytes.Clone(good), test.tail...)))
			_, err := r.Next()
			require.NoError(t, err)
			_, err = r.Next()
			require.ErrorIs(t, err, capture.ErrDamaged)
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, "record 2 at byte ")
			_, again := r.Next()
			require.Equal(t, err, again)
		})
	}
}

func TestReadErrorIsNoDamage(t *testing.T) {
	broken := errors.New("disk gone")
	good := capture.AppendRecord(nil, 1100, body(t, prompb.Sample{Value: 1, Timestamp: 1000}))
	for _, n := range []int{3, 15} {
		r := capture.NewReader(io.MultiReader(bytes.NewReader(good[:n]), iotest.ErrReader(broken)))
		_, err := r.Next()
		require.ErrorIs(t, err, broken)
		require.NotErrorIs(t, err, capture.ErrDamaged)
	}
}

// FuzzReader: whatever the bytes, there is an end, an error says damage, and what was
// read before is the same bytes again.
func FuzzReader(f *testing.F) {
	good := capture.AppendRecord(nil, 1100, body(f, prompb.Sample{Value: 1, Timestamp: 1000}))
	f.Add(good)
	f.Add(append(bytes.Clone(good), good[:20]...))
	f.Add([]byte(strings.Repeat("\x00", 40)))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := capture.NewReader(bytes.NewReader(data))
		var read []byte
		for {
			got, err := r.Next()
			if err == io.EOF {
				require.Equal(t, data, append([]byte{}, read...))
				return
			}
			if err != nil {
				require.ErrorIs(t, err, capture.ErrDamaged)
				return
			}
			read = capture.AppendRecord(read, got.Received, got.Body)
			require.True(t, bytes.HasPrefix(data, read))
		}
	})
}
