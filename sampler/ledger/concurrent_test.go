package ledger_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// Whoever asks while the lane records gets a whole answer.
func TestAskingWhileRecording(t *testing.T) {
	l := start(t, vfs.NewMem(), mark(0, 0), small)
	begin(t, l, 0, 0.5)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for asked := false; ; asked = true {
				v := l.View()
				if e := v.Entries[0]; e.Totals.Withheld.Samples != v.Withheld.Samples || v.Debt.Counts != e.Outstanding() {
					t.Errorf("a torn answer: %+v", v)
					return
				}
				l.Missing(epoch, epoch.Add(time.Hour))
				l.Timeline(at(0))
				l.Debt()
				l.Needed()
				l.Excess()
				l.Config("d1")
				select {
				case <-done:
					if asked {
						return
					}
				default:
				}
			}
		})
	}
	wg.Go(func() {
		defer close(done)
		for i := range 200 {
			if i > 0 {
				if err := l.Step(setting(i, 0.4)); err != nil {
					t.Error(err)
				}
			}
			_, err := l.Settle(ledger.Settlement{Mark: mark(i+1, 0), Committed: mark(i, 0), Deltas: []ledger.Delta{withheld(i, 10, 5)}})
			if err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	require.Equal(t, samples(1000), l.Debt().Counts)
}
