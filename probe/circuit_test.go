package probe_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/probe"
)

func TestReadWeight(t *testing.T) {
	for _, test := range []struct {
		lag         time.Duration
		connections uint64
		want        int
	}{
		{0, 0, 100},
		{2 * time.Second, 86, 82},
		{15 * time.Second, 42, 21},
		{1999 * time.Millisecond, 9, 95},
		{19 * time.Second, 60, 1},
		{20 * time.Second, 0, 1},
		{time.Hour, 0, 1},
		{0, 1 << 63, 1},
	} {
		require.Equal(t, test.want, probe.ReadWeight(test.lag, test.connections), "%v, %d", test.lag, test.connections)
	}
}

func TestCircuit(t *testing.T) {
	const limit = 10 * time.Second
	known := func(seconds float64) probe.Maybe[time.Duration] {
		return probe.Some(time.Duration(seconds * float64(time.Second)))
	}
	unknown := probe.Maybe[time.Duration]{}
	type step struct {
		lag  probe.Maybe[time.Duration]
		want probe.CircuitState
	}
	for name, test := range map[string]struct {
		changed bool // its role, before the first step
		steps   []step
		opened  uint64
	}{
		"stays closed up to the limit": {steps: []step{{known(10), probe.CircuitClosed}, {unknown, probe.CircuitClosed}, {known(0), probe.CircuitClosed}}},
		"opens beyond the limit, closes after three good": {steps: []step{
			{known(10.1), probe.CircuitOpen},
			{known(9), probe.CircuitOpen},
			{known(6.9), probe.CircuitHalfOpen},
			{known(0), probe.CircuitHalfOpen},
			{known(1), probe.CircuitClosed},
		}, opened: 1},
		"good ones have to come in a row": {steps: []step{
			{known(11), probe.CircuitOpen},
			{known(1), probe.CircuitHalfOpen},
			{known(1), probe.CircuitHalfOpen},
			{known(7), probe.CircuitOpen},
			{known(1), probe.CircuitHalfOpen},
			{unknown, probe.CircuitOpen},
			{known(1), probe.CircuitHalfOpen},
			{known(1), probe.CircuitHalfOpen},
			{known(1), probe.CircuitClosed},
		}, opened: 1},
		"a relapse is no second opening, a return is": {steps: []step{
			{known(11), probe.CircuitOpen},
			{known(1), probe.CircuitHalfOpen},
			{known(12), probe.CircuitOpen},
			{known(1), probe.CircuitHalfOpen},
			{known(1), probe.CircuitHalfOpen},
			{known(1), probe.CircuitClosed},
			{known(11), probe.CircuitOpen},
		}, opened: 2},
		"a change of role takes one good probe": {changed: true, steps: []step{
			{unknown, probe.CircuitOpen}, {known(8), probe.CircuitOpen}, {known(1), probe.CircuitClosed},
		}, opened: 1},
		"a change of role and lag take three": {changed: true, steps: []step{
			{known(11), probe.CircuitOpen}, {known(1), probe.CircuitHalfOpen}, {known(1), probe.CircuitHalfOpen}, {known(1), probe.CircuitClosed},
		}, opened: 1},
	} {
		t.Run(name, func(t *testing.T) {
			var c probe.Circuit
			require.Equal(t, probe.CircuitClosed, c.State())
			if test.changed {
				c.ChangeRole()
				require.Equal(t, probe.CircuitOpen, c.State())
			}
			for i, s := range test.steps {
				c.Observe(s.lag, limit)
				require.Equal(t, s.want, c.State(), "step %d", i)
			}
			require.Equal(t, test.opened, c.Opened())
		})
	}
}
