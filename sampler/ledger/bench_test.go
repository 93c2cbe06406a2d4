package ledger_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// What a lane pays for each state that it stores: while it withholds, and while it does not.
func BenchmarkSettle(b *testing.B) {
	onDisk := func(b *testing.B) func(*ledger.Options) {
		root := b.TempDir()
		return func(o *ledger.Options) { o.Dir = root }
	}
	b.Run("sampled", func(b *testing.B) {
		l := start(b, vfs.OS{}, mark(0, 0), onDisk(b))
		begin(b, l, 0, 0.5)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			_, err := l.Settle(ledger.Settlement{Mark: mark(i+1, 0), Committed: mark(i, 0), Deltas: []ledger.Delta{withheld(0, 10, 5)}})
			require.NoError(b, err)
		}
	})
	b.Run("idle", func(b *testing.B) {
		l := start(b, vfs.OS{}, mark(0, 0), onDisk(b))
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			_, err := l.Settle(ledger.Settlement{Mark: mark(i+1, 0), Committed: mark(i, 0)})
			require.NoError(b, err)
		}
	})
}

// full is a ledger with as many steps as it may have.
func full(b *testing.B, root string) *ledger.Ledger {
	l := start(b, vfs.OS{}, mark(0, 0), func(o *ledger.Options) { o.Dir = root })
	n := 0
	for range 16 {
		begin(b, l, n, 0.5)
		for range 4095 {
			n++
			require.NoError(b, l.Step(setting(n, 0.4)))
		}
		n++
		require.NoError(b, l.End(at(n)))
	}
	return l
}

// What a start and a question cost where the ledger is full.
func BenchmarkFull(b *testing.B) {
	root := b.TempDir()
	l := full(b, root)
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			l, err := ledger.Open(options(vfs.OS{}, func(o *ledger.Options) { o.Dir = root }))
			require.NoError(b, err)
			require.NoError(b, l.Close())
		}
	})
	b.Run("missing", func(b *testing.B) {
		for b.Loop() {
			l.Missing(epoch, epoch.Add(time.Hour))
		}
	})
	b.Run("rewrite", func(b *testing.B) {
		// The first record after a start writes all anew.
		for b.Loop() {
			l := start(b, vfs.OS{}, mark(0, 0), func(o *ledger.Options) { o.Dir = root })
			begin(b, l, 16*4096, 0.5)
			require.NoError(b, l.End(at(16*4096)))
		}
	})
}
