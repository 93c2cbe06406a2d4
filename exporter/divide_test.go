package exporter_test

import (
	"context"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/exporter/exportertest"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

// waiting is a lane that finds requests in the journal when it is run, so that they
// become one parcel.
func waiting(t *testing.T, script exportertest.Script, change func(*exporter.Options), requests ...[]exportertest.Series) (*station, *running) {
	t.Helper()
	s := open(t, vfs.NewMem(), nil, "a")
	r := s.connect("a", exportertest.NewBackend(script), change)
	for _, list := range requests {
		require.NoError(t, s.append(series.V1, list...))
	}
	return s, r
}

func oneOf(names ...string) func(string) bool {
	return func(x string) bool { return slices.Contains(names, x) }
}

// apart is a parcel of five requests of 2,000 series.
func apart() [][]exportertest.Series {
	var list [][]exportertest.Series
	for k := range 5 {
		list = append(list, round(fmt.Sprintf("m%d", k), 2000, 1))
	}
	return list
}

func TestOneBadSeriesIsFound(t *testing.T) {
	const n = 10000
	for _, atomic := range []bool{false, true} {
		most := 0
		for at := 0; at < n; at += 1861 {
			bubble(t, func(t *testing.T) {
				bad := nameOf(fmt.Sprintf("m%d", at/2000), at%2000)
				s, r := waiting(t, exportertest.Strict(oneOf(bad), atomic), nil, apart()...)
				defer s.close()
				r.run()
				b := r.rest(t, time.Minute)
				require.Equal(t, samples(n-1), b.Totals.Delivered)
				require.Equal(t, map[string]series.Counts{exporter.ReasonRefused: samples(1)}, b.Totals.Rejected)
				l := readLetters(t, s.letters("a"))
				require.Len(t, l, 1)
				require.Equal(t, fmt.Sprint(at%2000), l[0].Labels["i"])
				require.Equal(t, "refused: "+bad, l[0].Message)
				require.Equal(t, 400, l[0].Status)
				require.Equal(t, "refused", l[0].Reason)
				require.Equal(t, "a", l[0].Backend)
				require.Len(t, l[0].Samples, 1)
				require.EqualValues(t, 1, r.metric(t, "sluice_lane_divisions_total"))
				most = max(most, r.backend.Attempts())
			})
		}
		t.Logf("atomic %v: at most %d requests", atomic, most)
		require.LessOrEqual(t, most, 2+2*bits.Len(n-1))
	}
}

func TestSeveralBadSeries(t *testing.T) {
	bubble(t, func(t *testing.T) {
		bad := oneOf(nameOf("m", 3), nameOf("m", 4), nameOf("m", 700))
		s, r := waiting(t, exportertest.Strict(bad, false), nil, round("m", 1000, 1))
		defer s.close()
		r.run()
		b := r.rest(t, time.Minute)
		require.Equal(t, samples(997), b.Totals.Delivered)
		require.Equal(t, map[string]series.Counts{exporter.ReasonRefused: samples(3)}, b.Totals.Rejected)
		require.Len(t, readLetters(t, s.letters("a")), 3)
		require.LessOrEqual(t, r.backend.Attempts(), 65)
	})
}

func TestAllBad(t *testing.T) {
	for _, n := range []int{1, 20, 3000} {
		bubble(t, func(t *testing.T) {
			s, r := waiting(t, exportertest.Strict(func(string) bool { return true }, true), nil, round("m", n, 1))
			defer s.close()
			r.run()
			b := r.rest(t, time.Minute)
			require.Zero(t, b.Totals.Delivered)
			require.LessOrEqual(t, r.backend.Attempts(), 65)
			if n <= 20 {
				require.Equal(t, map[string]series.Counts{exporter.ReasonRefused: samples(n)}, b.Totals.Rejected)
			} else {
				require.Equal(t, map[string]series.Counts{exporter.ReasonDivisionLimit: samples(n)}, b.Totals.Rejected)
			}
			require.Len(t, readLetters(t, s.letters("a")), n)
			require.EqualValues(t, n, r.metric(t, "sluice_dead_letters_total", "outcome", "written"))
		})
	}
}

// rounds are k requests with the same n series.
func rounds(k, n int) [][]exportertest.Series {
	var list [][]exportertest.Series
	for at := range k {
		list = append(list, round("m", n, int64(at+1)))
	}
	return list
}

// A parcel with several samples of each series, of which one series is bad. A storage that
// has written everything else at the first attempt refuses what comes again as out of
// order: that must not be told as a loss. One that writes nothing with a 400 gets all of it.
func TestBadSeriesAmongRounds(t *testing.T) {
	for _, c := range []struct {
		rounds, series int
		atomic         bool
	}{{5, 2000, false}, {5, 2000, true}, {2, 5, false}, {2, 5, true}, {3, 2, false}, {3, 2, true}, {3, 1, false}, {3, 1, true}} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				bad := c.series / 2
				s, r := waiting(t, exportertest.Strict(oneOf(nameOf("m", bad)), c.atomic), nil, rounds(c.rounds, c.series)...)
				defer s.close()
				r.run()
				b := r.rest(t, time.Minute)
				for i := range c.series {
					if i != bad {
						require.Len(t, r.backend.Stored(nameOf("m", i)), c.rounds)
					}
				}
				good := c.series - 1
				require.Equal(t, samples(c.rounds), b.Totals.Rejected[exporter.ReasonRefused])
				if c.atomic && c.series > 2 {
					require.Equal(t, samples(c.rounds*good), b.Totals.Delivered)
					require.Zero(t, b.Totals.Rejected[exporter.ReasonRedeliveredRefused])
				}
				sum := b.Totals.Delivered
				sum.Add(b.Totals.Rejected[exporter.ReasonRedeliveredRefused])
				require.Equal(t, samples(c.rounds*good), sum)
				letters := readLetters(t, s.letters("a"))
				require.Len(t, letters, c.rounds)
				for _, l := range letters {
					require.Equal(t, fmt.Sprint(bad), l.Labels["i"])
				}
				t.Logf("%d requests", r.backend.Attempts())
				require.LessOrEqual(t, r.backend.Attempts(), 65)
			})
		})
	}
}

// A sample that is too old for the storage, before good ones of its series.
func TestOneBadSampleOfASeries(t *testing.T) {
	bubble(t, func(t *testing.T) {
		script := func(ctx context.Context, a *exportertest.Attempt) (exporter.Receipt, error) {
			for _, x := range a.Arrivals {
				if x.Time == 1 && x.Series == nameOf("m", 1) {
					return exporter.Receipt{}, &exporter.Error{Class: exporter.Rejected, Status: 400, Message: "too old"}
				}
			}
			return accept(ctx, a)
		}
		s, r := waiting(t, script, nil, rounds(3, 4)...)
		defer s.close()
		r.run()
		b := r.rest(t, time.Minute)
		require.Len(t, r.backend.Stored(nameOf("m", 0)), 3)
		require.Equal(t, samples(11), b.Totals.Delivered)
		require.Equal(t, map[string]series.Counts{exporter.ReasonRefused: samples(1)}, b.Totals.Rejected)
		letters := readLetters(t, s.letters("a"))
		require.Len(t, letters, 1)
		require.Equal(t, "too old", letters[0].Message)
		require.EqualValues(t, 1, letters[0].Samples[0].Time)
	})
}

// Several samples in one message cannot be told apart. What may be there is no loss; where
// there is nothing else in the parcel that can have been refused, it is one.
func TestSeveralSamplesInOneMessage(t *testing.T) {
	long := func(i int) exportertest.Series {
		x := round("m", i+1, 1)[i]
		x.Samples = append(x.Samples, exportertest.Sample{Time: 2, Value: 2})
		return x
	}
	bubble(t, func(t *testing.T) {
		s, r := waiting(t, exportertest.Strict(oneOf(nameOf("m", 3)), false), nil,
			append(round("m", 10, 1)[2:], long(0), long(1)))
		defer s.close()
		r.run()
		b := r.rest(t, time.Minute)
		require.Equal(t, samples(1), b.Totals.Rejected[exporter.ReasonRefused])
		require.Equal(t, samples(4), b.Totals.Rejected[exporter.ReasonRedeliveredRefused])
		require.Equal(t, samples(7), b.Totals.Delivered)
		require.Len(t, readLetters(t, s.letters("a")), 1)
	})
	bubble(t, func(t *testing.T) {
		s, r := waiting(t, exportertest.Strict(oneOf(nameOf("m", 3)), true), nil, []exportertest.Series{long(1), long(2), long(3), long(4)})
		defer s.close()
		r.run()
		b := r.rest(t, time.Minute)
		require.Equal(t, map[string]series.Counts{exporter.ReasonRefused: samples(2)}, b.Totals.Rejected)
		require.Equal(t, samples(6), b.Totals.Delivered)
	})
	bubble(t, func(t *testing.T) {
		s, r := waiting(t, exportertest.Strict(oneOf(nameOf("m", 3)), true), nil, []exportertest.Series{long(3)})
		defer s.close()
		r.run()
		b := r.rest(t, time.Minute)
		require.Equal(t, map[string]series.Counts{exporter.ReasonRefused: samples(2)}, b.Totals.Rejected)
		require.Len(t, readLetters(t, s.letters("a"))[0].Samples, 2)
	})
}

// Series beyond the bound of the series table share ids; only the bad one of them is
// dropped.
func TestSharedIDs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a")
		defer s.close()
		good, bad := labelsOf("m", 1), labelsOf("m", 2)
		backend := exportertest.NewBackend(exportertest.Strict(oneOf(bad.String()), true))
		r := s.connect("a", backend, nil)
		for _, first := range []bool{true, false} {
			list := []exportertest.Series{{Labels: good, Samples: []exportertest.Sample{{Time: 1, Value: 1}}}, {Labels: bad, Samples: []exportertest.Sample{{Time: 1, Value: 1}}}}
			if first {
				slices.Reverse(list)
			}
			list[0].Samples[0].Time, list[1].Samples[0].Time = int64(1+r.Balance().Batches), int64(1+r.Balance().Batches)
			b := exportertest.Batch(t, series.V1, exportertest.Message(t, series.V1, list...), nil)
			b.IDs = []series.ID{7, 7}
			b.Epoch = s.router.Table().Epoch
			require.NoError(t, s.appendBatch(b))
			b.Release()
		}
		r.run()
		b := r.rest(t, time.Minute)
		require.Len(t, backend.Stored(good.String()), 2)
		require.Equal(t, samples(2), b.Totals.Delivered)
		require.Equal(t, map[string]series.Counts{exporter.ReasonRefused: samples(2)}, b.Totals.Rejected)
		for _, l := range readLetters(t, s.letters("a")) {
			require.Equal(t, "2", l.Labels["i"])
		}
	})
}

func TestTooLarge(t *testing.T) {
	bubble(t, func(t *testing.T) {
		// About 45 bytes a series.
		limited := func(ctx context.Context, a *exportertest.Attempt) (exporter.Receipt, error) {
			if a.Counts.Samples > 3000 {
				return exporter.Receipt{}, &exporter.Error{Class: exporter.Rejected, Status: 413, TooLarge: true}
			}
			return accept(ctx, a)
		}
		s, r := waiting(t, limited, nil, apart()...)
		defer s.close()
		r.run()
		b := r.rest(t, time.Minute)
		require.Equal(t, samples(10000), b.Totals.Delivered)
		require.Empty(t, b.Totals.Rejected)
		require.LessOrEqual(t, r.backend.Attempts(), 8)
		before := r.backend.Attempts()
		for at := range int64(10) {
			for k := range 5 {
				s.feed(fmt.Sprintf("m%d", k), 2000, at+2)
			}
		}
		require.Equal(t, samples(110000), r.rest(t, time.Minute).Totals.Delivered)
		tooLarge := 0
		for _, c := range r.backend.Sent()[before:] {
			if c.Samples > 3000 {
				tooLarge++
			}
		}
		require.LessOrEqual(t, tooLarge, 1, "what is too large is learnt")
	})
	bubble(t, func(t *testing.T) { // even one series is
		s, r := waiting(t, func(context.Context, *exportertest.Attempt) (exporter.Receipt, error) {
			return exporter.Receipt{}, &exporter.Error{Class: exporter.Rejected, Status: 413, TooLarge: true}
		}, nil, rounds(3, 2000)...)
		defer s.close()
		r.run()
		b := r.rest(t, time.Minute)
		require.Equal(t, map[string]series.Counts{exporter.ReasonDivisionLimit: samples(6000)}, b.Totals.Rejected)
		require.LessOrEqual(t, r.backend.Attempts(), 65)
	})
	bubble(t, func(t *testing.T) { // many samples of one series
		s, r := waiting(t, func(ctx context.Context, a *exportertest.Attempt) (exporter.Receipt, error) {
			if a.Counts.Samples > 1 {
				return exporter.Receipt{}, &exporter.Error{Class: exporter.Rejected, Status: 413, TooLarge: true}
			}
			return exportertest.Strict(nil, true)(ctx, a)
		}, nil, rounds(20, 1)...)
		defer s.close()
		r.run()
		require.Equal(t, samples(20), r.rest(t, time.Minute).Totals.Delivered)
	})
}

// A storage that fails in the middle of a division gets the same part again; what it
// refuses then may have been written, but only of that part.
func TestFailureInsideADivision(t *testing.T) {
	for _, unknown := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			strict := exportertest.Strict(oneOf(nameOf("m", 10), nameOf("m", 90)), false)
			failed := 0
			script := func(ctx context.Context, a *exportertest.Attempt) (exporter.Receipt, error) {
				first := a.Arrivals[0].Series == nameOf("m", 0) // the half with 10
				if a.Number > 0 && first && failed < 3 {
					failed++
					return exporter.Receipt{}, &exporter.Error{Class: exporter.Retry, Status: 503, Unknown: unknown}
				}
				return strict(ctx, a)
			}
			s, r := waiting(t, script, nil, round("m", 100, 1))
			defer s.close()
			r.run()
			b := r.rest(t, time.Hour)
			require.Equal(t, samples(98), b.Totals.Delivered)
			if unknown {
				require.Equal(t, map[string]series.Counts{
					exporter.ReasonRefused: samples(1), exporter.ReasonRedeliveredRefused: samples(1),
				}, b.Totals.Rejected)
				require.Equal(t, "90", readLetters(t, s.letters("a"))[0].Labels["i"])
				require.Equal(t, samples(49), b.Totals.Redelivered)
			} else {
				require.Equal(t, map[string]series.Counts{exporter.ReasonRefused: samples(2)}, b.Totals.Rejected)
				require.Zero(t, b.Totals.Redelivered)
			}
		})
	}
}

func TestRefusedMetadata(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a", `b {x="y"}`)
		defer s.close()
		a := s.lane("a", exportertest.NewBackend(fail(exporter.Rejected, 400)), nil)
		b := s.lane("b", exportertest.NewBackend(nil), nil)
		require.NoError(t, s.appendMessage(series.V1, exportertest.Metadata(t, "up", "down")))
		require.Zero(t, a.rest(t, time.Minute).Routed)
		require.Zero(t, b.rest(t, time.Minute).Routed)
		require.Equal(t, 1, a.backend.Attempts())
		require.Equal(t, 1, b.backend.Attempts(), "metadata goes to all")
		require.True(t, isNaN(a.metric(t, "remote_write_destination_lag_seconds")))
		require.Empty(t, readLetters(t, s.letters("a")))
	})
}

// A body that cannot be decoded costs itself and nothing that was joined with it.
func TestUndecodableBody(t *testing.T) {
	for _, ids := range []bool{true, false} {
		bubble(t, func(t *testing.T) {
			s, r := waiting(t, nil, nil, round("m0", 10, 1))
			defer s.close()
			b := exportertest.Batch(t, series.V1, exportertest.Message(t, series.V1, round("m1", 10, 1)...), nil)
			for i := range b.Body {
				b.Body[i] = 0xff
			}
			if ids {
				b.IDs = []series.ID{9000, 9001, 9002, 9003, 9004, 9005, 9006, 9007, 9008, 9009}
			}
			b.Epoch = s.router.Table().Epoch
			require.NoError(t, s.appendBatch(b))
			b.Release()
			s.feed("m2", 10, 1)
			r.run()
			got := r.rest(t, time.Minute)
			require.Equal(t, samples(20), got.Totals.Delivered)
			require.Equal(t, map[string]series.Counts{exporter.ReasonUnreadable: samples(10)}, got.Totals.Rejected)
			require.Equal(t, 1, s.log.lines("is lost for this backend"))
		})
	}
}

func TestDeadLettersAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a")
		defer s.close()
		const bound = 4 << 10
		r := s.lane("a", exportertest.NewBackend(fail(exporter.Rejected, 422)), func(o *exporter.Options) {
			o.DeadLetters = exporter.NewDeadLetters(s.dir, bound, time.Now)
		})
		for at := range int64(40) {
			s.feed("m", 3, at+1)
			r.rest(t, time.Minute)
			for _, name := range []string{s.letters("a"), s.letters("a") + ".1"} {
				if st, err := os.Stat(name); err == nil {
					require.LessOrEqual(t, st.Size(), int64(bound))
				}
				readLetters(t, name)
			}
		}
		require.NotEmpty(t, readLetters(t, s.letters("a")+".1"))
		require.EqualValues(t, 120, r.metric(t, "sluice_dead_letters_total", "outcome", "written"))
		newest := readLetters(t, s.letters("a"))
		require.EqualValues(t, 40, newest[len(newest)-1].Samples[0].Time)

		// More than a file can hold at once.
		s.feed("m", 3000, 50)
		r.rest(t, time.Minute)
		require.Positive(t, r.metric(t, "sluice_dead_letters_total", "outcome", "lost"))
		require.EqualValues(t, 3120, r.metric(t, "sluice_dead_letters_total"))
	})
}

func TestDeadLettersThatCannotBeWritten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a")
		defer s.close()
		blocked := filepath.Join(s.dir, "file")
		require.NoError(t, os.WriteFile(blocked, nil, 0o600))
		r := s.lane("a", exportertest.NewBackend(fail(exporter.Rejected, 422)), func(o *exporter.Options) {
			o.DeadLetters = exporter.NewDeadLetters(blocked, 1<<20, time.Now)
		})
		s.feed("m", 5, 1)
		b := r.rest(t, time.Minute)
		require.Equal(t, map[string]series.Counts{exporter.ReasonRefused: samples(5)}, b.Totals.Rejected)
		require.EqualValues(t, 5, r.metric(t, "sluice_dead_letters_total", "outcome", "lost"))
		require.Equal(t, 1, s.log.lines("could not be kept as dead letters"))
	})
}

func TestDeadLetterOfEveryKind(t *testing.T) {
	for _, v := range []series.Version{series.V1, series.V2} {
		bubble(t, func(t *testing.T) {
			s := open(t, vfs.NewMem(), nil, "a")
			defer s.close()
			r := s.lane("a", exportertest.NewBackend(fail(exporter.Rejected, 422)), nil)
			require.NoError(t, s.append(v, exportertest.EveryKind(1000)...))
			b := r.rest(t, time.Minute)
			require.Equal(t, b.Routed, b.Totals.Rejected[exporter.ReasonRefused])
			found := map[string]letter{}
			for _, l := range readLetters(t, s.letters("a")) {
				found[l.Labels["__name__"]] = l
			}
			require.Equal(t, "NaN", found["odd"].Samples[0].Value)
			require.Equal(t, []int64{1000}, found["native"].Histograms)
			require.Equal(t, 1, found["traced_total"].Exemplars)
		})
	}
}

func isNaN(f float64) bool { return f != f }
