package disk

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

// fuzzSegment is a good segment with the number 1.
func fuzzSegment(bodies ...string) []byte {
	h := segmentHeader{backends: []journal.Backend{{Name: "a", Digest: "x"}}}
	b, err := h.encode()
	if err != nil {
		panic(err)
	}
	var scratch []byte
	for i, body := range bodies {
		buf := series.NewBuffer(len(body))
		buf.B = append(buf.B, body...)
		batch := series.NewBatch(buf)
		batch.Version = series.V2
		batch.Counts.Samples = uint64(i)
		if i%2 == 0 {
			batch.Routed = []series.Counts{{Samples: 1}}
		}
		record, err := encode(batch, 1, int64(len(b)), &scratch)
		if err != nil {
			panic(err)
		}
		b = append(b, record...)
		batch.Release()
	}
	return b
}

// Whatever a segment file holds: reading it ends, never leaves the file, and what it
// calls a record is one, byte for byte.
func FuzzReader(f *testing.F) {
	good := fuzzSegment("one", "", "three and some more")
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Add([]byte(recordMagic + recordMagic + segmentMagic))
	torn := append([]byte(nil), good...)
	torn[len(torn)/2] ^= 1
	f.Add(torn)
	f.Fuzz(func(t *testing.T, content []byte) {
		fs := vfs.NewMem()
		file, err := fs.Create("seg")
		require.NoError(t, err)
		_, err = file.WriteAt(content, 0)
		require.NoError(t, err)
		if h, ok, err := parseSegmentHeader(content); ok && err == nil {
			require.LessOrEqual(t, h.size, int64(2*len(content)))
		}
		r := &reader{file: file, id: 1}
		limit := int64(len(content))
		last := int64(0)
		end, err := r.scan(0, limit, limit, func() error {
			h := &r.head
			require.GreaterOrEqual(t, h.offset, last)
			require.LessOrEqual(t, h.end(), limit)
			last = h.end()
			offset, size := h.offset, h.size()
			b, err := r.batch()
			if errors.Is(err, errDamaged) {
				return nil
			}
			require.NoError(t, err)
			defer b.Release()
			var scratch []byte
			again, err := encode(b, 1, offset, &scratch)
			require.NoError(t, err)
			if int64(len(again)) == size { // numbers have longer spellings too
				require.Equal(t, content[offset:offset+size], again)
			}
			return nil
		})
		require.NoError(t, err)
		require.LessOrEqual(t, end, limit)
	})
}

// Whatever a header with a right CRC says, parsing it ends without harm, and what is
// taken as a header says the same when it is written again.
func FuzzHeader(f *testing.F) {
	good := fuzzSegment("one", "two")
	h, _, err := parseSegmentHeader(good)
	if err != nil {
		f.Fatal(err)
	}
	for off := h.size; off < int64(len(good)); {
		size, body, _ := parseFixed(good[off:])
		f.Add(good[off+fixedSize:][:size], uint64(off))
		off += int64(fixedSize + size + body)
	}
	f.Add([]byte(strings.Repeat("\xff", 200)), uint64(0))
	f.Add(make([]byte, minHeaderSize), uint64(0))
	f.Fuzz(func(t *testing.T, text []byte, offset uint64) {
		b := append([]byte(recordMagic), make([]byte, fixedSize-len(recordMagic))...)
		b = append(b, text...)
		binary.LittleEndian.PutUint32(b[4:], uint32(len(text)))
		binary.LittleEndian.PutUint32(b[16:], headerCRC(b))
		var h header
		if !h.parse(b, 1, int64(offset)) {
			return
		}
		require.Equal(t, int64(offset), h.offset)
		batch := &series.Batch{
			Version: h.version, Legacy: h.legacy, Received: h.received, MinTime: h.minTime, MaxTime: h.maxTime,
			Decoded: h.decoded, Series: h.series, Counts: h.counts, Routed: h.routed, CustomBuckets: h.custom,
		}
		again := appendHeader(nil, batch, 1, int64(offset))
		var h2 header
		require.True(t, h2.parse(again, 1, int64(offset)))
		h2.headerSize, h2.bodyCRC = h.headerSize, h.bodyCRC
		require.Equal(t, h, h2)
	})
}

// Whatever a sum file holds, it is taken for what says the same when it is written anew, or
// for nothing, and then the segment is as it was.
func FuzzSum(f *testing.F) {
	of := segment{id: 3, created: 1_700_000_000_000, end: 5000}
	full := of
	for i := range 5 {
		var routed []series.Counts
		if i%2 == 0 {
			routed = []series.Counts{{Samples: 1}, {Exemplars: 1 << 40}}
		}
		full.add(900, int64(i), series.Counts{Samples: 7, Histograms: uint64(i)}, routed)
	}
	sum := appendSum(nil, &full)
	got := of
	require.True(f, parseSum(sum, &got))
	require.Equal(f, full, got)
	for _, other := range []segment{{id: 4, created: of.created, end: 5000}, {id: 3, created: 1, end: 5000}, {id: 3, created: of.created, end: 4999}} {
		as := other
		require.False(f, parseSum(sum, &as))
		require.Equal(f, other, as)
	}
	f.Add(sum[:len(sum)-4])
	f.Add(sum[:20])
	f.Add([]byte(sumMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crcTable()))
		got := of
		if !parseSum(b, &got) {
			require.Equal(t, of, got)
			return
		}
		again := of
		require.True(t, parseSum(appendSum(nil, &got), &again))
		require.Equal(t, got, again)
	})
}
