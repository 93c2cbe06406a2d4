package tsdb

import (
	"context"
	"errors"
	"testing"

	"github.com/prometheus/prometheus/storage"

	"github.com/sluice-metrics/sluice/exporter/exportertest"
)

// stumbling fails as many commits as left says.
type stumbling struct {
	appendable
	left int
}

func (s *stumbling) AppenderV2(ctx context.Context) storage.AppenderV2 {
	return stumblingAppender{s.appendable.AppenderV2(ctx), s}
}

type stumblingAppender struct {
	storage.AppenderV2
	s *stumbling
}

func (a stumblingAppender) Commit() error {
	if a.s.left > 0 {
		a.s.left--
		return errors.Join(errDisk, a.Rollback())
	}
	return a.AppenderV2.Commit()
}

func TestConformance(t *testing.T) {
	exportertest.Run(t, func(t *testing.T) exportertest.Fixture {
		b := store(t, t.TempDir(), nil)
		return exportertest.Fixture{
			Backend: b,
			Stored: func(t testing.TB) []exportertest.Arrival {
				var list []exportertest.Arrival
				for name, points := range stored(t, b) {
					for _, p := range points {
						x := exportertest.Arrival{Series: name, Kind: "sample", Time: p.t, Value: p.v}
						if p.h != nil || p.fh != nil {
							x.Kind, x.Value = "histogram", 0
						}
						list = append(list, x)
					}
				}
				return list
			},
			Fail: func(n int) { b.into = &stumbling{appendable: b.db, left: n} },
		}
	})
}
