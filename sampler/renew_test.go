package sampler

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// After Renew each live series is sent at the next frame of its unit, even one that rests,
// and a counter at two, so that its zero slope can be seen again.
func TestRenewSendsWhatRests(t *testing.T) {
	o := newOne(t, KindCounter, 2, nil)
	o.s.Set(Step{0.9, 0.02})
	for range 40 {
		o.scrape(7)
	}
	o.until(7, keyFrame)
	o.scrape(7)
	o.s.Renew()
	frames := 0
	for frames < 2 {
		frame, key := o.is()
		out := o.scrape(7)
		require.Equal(t, frame, len(out) == 1)
		if frame {
			frames++
			require.False(t, key, "that would send it in any case")
		}
	}
	for {
		frame, key := o.is()
		out := o.scrape(7)
		if frame && !key {
			require.Empty(t, out, "it rests as before")
			return
		}
	}
}

func TestRenewChangesNothingElse(t *testing.T) {
	o := newOne(t, KindCounter, 2, nil)
	require.NoError(t, o.s.Know(only+1, Info{Target: 1, Class: 2}))
	before := o.s.Stats()
	o.s.Renew()
	require.Equal(t, before, o.s.Stats())
	require.Equal(t, uint32(0), o.s.entry(only+1).lastAt)
	require.Zero(t, o.s.entry(only+1).flags&absent, "nothing was sent of it that could be missing")
	e := o.s.entry(only)
	require.NotZero(t, e.flags&described)
}
