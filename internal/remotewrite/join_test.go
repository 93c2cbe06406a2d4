package remotewrite

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/golang/snappy"
	"github.com/klauspost/compress/s2"
	ksnappy "github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-metrics/sluice/internal/series"
)

var snappyEncoders = map[string]func(dst, src []byte) []byte{
	"golang": snappy.Encode,
	"s2":     s2.EncodeSnappy,
	"better": s2.EncodeSnappyBetter,
}

var snappyDecoders = map[string]func(dst, src []byte) ([]byte, error){
	"golang": snappy.Decode,
	"s2":     s2.Decode,
	"strict": ksnappy.DecodeStrict,
}

// genPart draws the plain bytes of a part: text that compresses, noise, or a request,
// around the 64 KiB where encoders start a new fragment, and empty ones.
func genPart(t *rapid.T) []byte {
	n := rapid.OneOf(
		rapid.IntRange(0, 300),
		rapid.IntRange(65_500, 65_600),
		rapid.IntRange(0, 200_000),
		rapid.Just(0),
	).Draw(t, "bytes")
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	p := make([]byte, n)
	mask := rapid.SampledFrom([]uint64{0, 0x0101010101010101, 0x1f1f1f1f1f1f1f1f, math.MaxUint64}).Draw(t, "alphabet")
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(p[i:], rng.Uint64()&mask)
	}
	for range rapid.IntRange(0, 20).Draw(t, "repeats") { // copies near and far
		if n > 100 {
			from, to := rng.IntN(n-50), rng.IntN(n-50)
			copy(p[to:to+50], p[from:from+50])
		}
	}
	return p
}

func TestJoined_IsOneSnappyBlock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var j Joined
		var want []byte
		for range rapid.IntRange(0, 6).Draw(t, "parts") {
			plain := genPart(t)
			encoder := rapid.SampledFrom([]string{"golang", "s2", "better"}).Draw(t, "encoder")
			body := snappyEncoders[encoder](nil, plain)
			n, elements, err := SnappyParts(body)
			require.NoError(t, err)
			require.Equal(t, len(plain), n)
			require.Equal(t, body, append(AppendSnappyPreamble(nil, n), elements...))
			require.NoError(t, j.Add(body))
			want = append(want, plain...)
		}
		body := j.AppendTo(nil)
		require.Len(t, body, j.Len())
		require.Equal(t, len(want), j.Decoded())
		for name, decode := range snappyDecoders {
			got, err := decode(nil, body)
			require.NoError(t, err, name)
			require.True(t, bytes.Equal(want, got), name)
		}
	})
}

func TestJoined_RequestsAreOneRequest(t *testing.T) {
	var j Joined
	var want prompb.WriteRequest
	for n := range 5 {
		req := payloadV1(100 * n)
		req.Metadata = []prompb.MetricMetadata{{MetricFamilyName: "f", Help: "h"}}
		require.NoError(t, j.Add(snappy.Encode(nil, mustMarshal(req))))
		want.Timeseries = append(want.Timeseries, req.Timeseries...)
		want.Metadata = append(want.Metadata, req.Metadata...)
	}
	plain, err := snappy.Decode(nil, j.AppendTo(nil))
	require.NoError(t, err)
	var got prompb.WriteRequest
	require.NoError(t, got.Unmarshal(plain))
	require.Equal(t, want, got)
	require.Len(t, scanBytes(t, series.V1, plain).Series, 1000)
}

func TestJoined_ReadsAgainAfterRewind(t *testing.T) {
	for parts := range 4 {
		var j Joined
		for n := range parts {
			require.NoError(t, j.Add(snappy.Encode(nil, bytes.Repeat([]byte{byte(n)}, 1000*n))))
		}
		want := j.AppendTo(nil)
		require.NoError(t, iotest.TestReader(&j, want))
		for range 2 {
			j.Rewind()
			got, err := io.ReadAll(iotest.OneByteReader(&j))
			require.NoError(t, err)
			require.Equal(t, want, got)

			j.Rewind()
			var out bytes.Buffer
			n, err := j.WriteTo(&out)
			require.NoError(t, err)
			require.EqualValues(t, len(want), n)
			require.Equal(t, want, out.Bytes())
			n, err = j.WriteTo(&out)
			require.NoError(t, err)
			require.Zero(t, n)
		}
		// A reader that was stopped in the middle leaves the rest to WriteTo.
		j.Rewind()
		half := make([]byte, len(want)/2)
		_, err := io.ReadFull(&j, half)
		require.NoError(t, err)
		out := bytes.NewBuffer(half)
		_, err = j.WriteTo(out)
		require.NoError(t, err)
		require.Equal(t, want, out.Bytes())
		// A body that is added makes a new block.
		require.NoError(t, j.Add(snappy.Encode(nil, []byte("more"))))
		got, err := io.ReadAll(&j)
		require.NoError(t, err)
		require.Equal(t, j.AppendTo(nil), got)
	}
}

func TestJoined_Reset(t *testing.T) {
	var j Joined
	require.NoError(t, j.Add(snappy.Encode(nil, []byte("body"))))
	j.Reset()
	require.Zero(t, j.Decoded())
	require.Equal(t, []byte{0}, j.AppendTo(nil))
	require.Equal(t, 1, j.Len())
}

// brokenWriter takes some bytes, then fails or falls short.
type brokenWriter struct {
	room int
	err  error
}

func (w *brokenWriter) Write(p []byte) (int, error) {
	n := min(w.room, len(p))
	w.room -= n
	if n < len(p) {
		return n, w.err
	}
	return n, nil
}

func TestJoined_WriteToTellsOfFailures(t *testing.T) {
	cut := errors.New("connection cut")
	for _, c := range []struct{ given, want error }{{cut, cut}, {nil, io.ErrShortWrite}} {
		var j Joined
		require.NoError(t, j.Add(snappy.Encode(nil, []byte("one"))))
		require.NoError(t, j.Add(snappy.Encode(nil, []byte("two"))))
		w := &brokenWriter{room: 5, err: c.given}
		n, err := j.WriteTo(w)
		require.ErrorIs(t, err, c.want)
		require.EqualValues(t, 5, n)
	}
}

func TestJoined_RefusesWhatIsNoBlock(t *testing.T) {
	var j Joined
	for _, body := range [][]byte{
		nil,
		{0x80},
		bytes.Repeat([]byte{0xff}, 11),
		AppendSnappyPreamble(nil, 1<<32),
	} {
		require.ErrorIs(t, j.Add(body), ErrSnappy)
	}
	require.Equal(t, 1, j.Len())
	require.NoError(t, j.Add(AppendSnappyPreamble(nil, 1<<32-1)))
	require.ErrorIs(t, j.Add(AppendSnappyPreamble(nil, 1)), ErrSnappy)
	require.Equal(t, 1<<32-1, j.Decoded())
}

func TestJoined_AllocatesNothingOnceWarm(t *testing.T) {
	body := snappy.Encode(nil, mustMarshal(payloadV1(100)))
	var j Joined
	var out bytes.Buffer
	join := func() {
		j.Reset()
		out.Reset()
		for range 5 {
			if err := j.Add(body); err != nil {
				t.Error(err)
			}
		}
		if _, err := j.WriteTo(&out); err != nil {
			t.Error(err)
		}
	}
	join()
	require.Zero(t, testing.AllocsPerRun(10, join))
}
