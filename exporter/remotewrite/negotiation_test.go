package remotewrite

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/series"
)

// history collects the turns of a negotiation.
type history []string

func (h *history) add(to series.Version, why string) { *h = append(*h, to.String()+" "+why) }

func TestH9_NegotiationTurns(t *testing.T) {
	now := time.UnixMilli(startTime)
	for _, tt := range []struct {
		name  string
		how   refusal
		class exporter.Class
		trial time.Duration // until the next trial
	}{
		{"415 falls back for an hour", refusedType, exporter.Renegotiate, trialInterval},
		{"2xx without Written headers falls back for an hour", refusedNoWritten, exporter.Renegotiate, trialInterval},
		{"400 to the first request falls back until a trial tells", refusedBad, exporter.Renegotiate, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var turns history
			n := newNegotiation(ProtocolAuto, turns.add)
			c := n.choose()
			require.Equal(t, series.V2, c.version)
			require.Equal(t, tt.class, n.refused(c, tt.how, now))
			require.Equal(t, series.V1, n.choose().version)
			require.Equal(t, history{"rw1 " + string(tt.how)}, turns)
			if tt.trial > 0 {
				require.False(t, n.startTrial(now.Add(tt.trial-1)))
			}
			require.True(t, n.startTrial(now.Add(tt.trial)))
			require.False(t, n.startTrial(now.Add(tt.trial)), "two trials at once")
			n.endTrial(verdictTakes, now.Add(tt.trial))
			require.Equal(t, series.V2, n.choose().version)
			require.Equal(t, history{"rw1 " + string(tt.how), "rw2 trial accepted"}, turns)
			require.Equal(t, exporter.Rejected, n.refused(n.choose(), refusedBad, now), "2.0 is proven by the trial")
		})
	}
}

func TestH9_BadRequestAfterAcceptedIsTheContent(t *testing.T) {
	var turns history
	n := newNegotiation(ProtocolAuto, turns.add)
	now := time.UnixMilli(startTime)
	n.accepted(n.choose(), now)
	require.Equal(t, exporter.Rejected, n.refused(n.choose(), refusedBad, now))
	require.Empty(t, turns)

	n.disconnected() // another receiver may answer now
	require.Equal(t, exporter.Renegotiate, n.refused(n.choose(), refusedBad, now))
	require.Equal(t, exporter.Rejected, n.refused(n.choose(), refusedBad, now), "refused in 1.0 too: it was the content")
	require.Equal(t, history{"rw1 400"}, turns)
}

func TestH9_LateVerdictsDoNotTurn(t *testing.T) {
	var turns history
	n := newNegotiation(ProtocolAuto, turns.add)
	now := time.UnixMilli(startTime)
	first := n.choose()
	require.Equal(t, exporter.Renegotiate, n.refused(first, refusedType, now))
	for _, how := range []refusal{refusedType, refusedBad, refusedNoWritten} {
		require.Equal(t, exporter.Renegotiate, n.refused(first, how, now))
	}
	require.True(t, n.startTrial(now.Add(trialInterval)))
	n.endTrial(verdictTakes, now.Add(trialInterval))
	require.Equal(t, exporter.Renegotiate, n.refused(first, refusedType, now), "about an earlier choice of the same version")
	n.accepted(first, now)
	require.Equal(t, series.V2, n.choose().version)
	require.Len(t, turns, 2)
}

func TestH9_Reconnect(t *testing.T) {
	var turns history
	n := newNegotiation(ProtocolAuto, turns.add)
	now := time.UnixMilli(startTime)
	n.refused(n.choose(), refusedType, now)
	now = now.Add(10 * time.Minute)
	n.disconnected()
	require.False(t, n.startTrial(now), "nobody has answered yet")
	n.accepted(n.choose(), now)
	require.True(t, n.startTrial(now))
	n.endTrial(verdictNot, now)

	n.disconnected()
	n.accepted(n.choose(), now)
	require.False(t, n.startTrial(now.Add(trialRetry-1)), "a shaky connection must not bring a trial with each request")
	require.True(t, n.startTrial(now.Add(trialRetry)))
	n.endTrial(verdictNone, now.Add(trialRetry))
	require.False(t, n.startTrial(now.Add(2*trialRetry-1)))
	require.True(t, n.startTrial(now.Add(2*trialRetry)), "a trial that told nothing is made again soon")
	n.endTrial(verdictNot, now.Add(2*trialRetry))
	require.False(t, n.startTrial(now.Add(2*trialRetry+trialInterval-1)))
	require.Len(t, turns, 1)
}

func TestH9_NeitherIsDenied(t *testing.T) {
	var turns history
	n := newNegotiation(ProtocolAuto, turns.add)
	now := time.UnixMilli(startTime)
	require.Equal(t, exporter.Renegotiate, n.refused(n.choose(), refusedType, now))
	require.Equal(t, exporter.Denied, n.refused(n.choose(), refusedType, now))
	require.True(t, n.startTrial(now), "2.0 is asked again before 1.0 is tried again")
}

func TestH9_ForcedProtocolNeverTurns(t *testing.T) {
	now := time.UnixMilli(startTime)
	for p, v := range map[Protocol]series.Version{ProtocolRW1: series.V1, ProtocolRW2: series.V2} {
		var turns history
		n := newNegotiation(p, turns.add)
		require.Equal(t, exporter.Denied, n.refused(n.choose(), refusedType, now))
		require.Equal(t, exporter.Denied, n.refused(n.choose(), refusedNoWritten, now))
		require.Equal(t, exporter.Rejected, n.refused(n.choose(), refusedBad, now))
		n.disconnected()
		n.accepted(n.choose(), now)
		require.False(t, n.startTrial(now.Add(1000*time.Hour)))
		require.Equal(t, v, n.choose().version)
		require.Empty(t, turns)
	}
}

// Whatever a backend answers and in whatever order, a delivery that is prepared anew
// after each Renegotiate is answered otherwise after a few attempts.
func TestH9_RenegotiationEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := newNegotiation(ProtocolAuto, func(series.Version, string) {})
		now := time.UnixMilli(startTime)
		hows := rapid.SampledFrom([]refusal{refusedType, refusedBad, refusedNoWritten})
		verdicts := rapid.SampledFrom([]verdict{verdictNone, verdictTakes, verdictNot})
		for range 20 { // deliveries
			attempts := 0
			for {
				attempts++
				require.LessOrEqual(t, attempts, 6, "no end to it")
				c := n.choose()
				if c.version == series.V1 && n.startTrial(now) {
					n.endTrial(verdicts.Draw(t, "trial"), now)
				}
				how := hows.Draw(t, "how")
				if c.version == series.V1 && how == refusedNoWritten {
					how = refusedType
				}
				if n.refused(c, how, now) != exporter.Renegotiate {
					break
				}
			}
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(2*time.Hour)).Draw(t, "pause")))
			if rapid.Bool().Draw(t, "lost") {
				n.disconnected()
			}
		}
	})
}
