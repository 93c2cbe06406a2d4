package mysqlsession_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/internal/mysqlsession"
)

// NULL and nonsense are unknown, never 0.
func TestRow(t *testing.T) {
	r := mysqlsession.Row{"n": "7", "f": "1.5", "minus": "-3", "text": "x", "yes": "Yes", "on": "ON", "no": "No"}
	require.Equal(t, probe.Some(uint64(7)), r.Uint("n"))
	require.False(t, r.Uint("null").Known)
	require.False(t, r.Uint("minus").Known)
	require.False(t, r.Uint("text").Known)
	require.Equal(t, probe.Some(1500*time.Millisecond), r.Duration("f", time.Second))
	require.Equal(t, probe.Some(time.Duration(0)), r.Duration("minus", time.Second))
	require.False(t, r.Duration("null", time.Second).Known)
	require.Equal(t, probe.Some(true), r.Yes("yes"))
	require.Equal(t, probe.Some(true), r.Yes("on"))
	require.Equal(t, probe.Some(false), r.Yes("no"))
	require.False(t, r.Yes("null").Known)

	require.Equal(t, mysqlsession.Row{"A": "1"}, mysqlsession.Named([]mysqlsession.Row{
		{"variable_name": "A", "value": "1"}, {"variable_name": "B"},
	}))
}
