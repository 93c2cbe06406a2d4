package sampler

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// fleet is a Sampler with many series, a hundred to a target, fed scrape by scrape.
type fleet struct {
	s   *Sampler
	n   uint32
	ids []uint32
	at  int64
	i   uint32
	out []Sample
}

const perTarget = 100

// newFleet makes n series. Their ids are dense, in the order in which they are scraped or,
// if shuffled, in none, so that state is not found one after the other.
func newFleet(t require.TestingT, n uint32, shuffled bool, step Step) *fleet {
	s, err := New(Options{Config: DefaultConfig(), Start: someTime})
	require.NoError(t, err)
	f := &fleet{s: s, n: n, at: someTime, ids: make([]uint32, n), out: make([]Sample, 0, 64)}
	order := rand.New(rand.NewPCG(1, 2)).Perm(int(n))
	for i := range n {
		f.ids[i] = 4096 + i
		if shuffled {
			f.ids[i] = 4096 + uint32(order[i])
		}
		require.NoError(t, s.Know(f.ids[i], Info{
			Key: mix(uint64(i)), Target: mix(uint64(i / perTarget)), Family: uint64(i % perTarget),
			Kind: Kind(i % 4), Class: []uint8{2, 2, 2, 1, 0}[i%5],
		}))
	}
	for range 5 * n {
		f.next()
	}
	s.Set(step)
	for range 40 * perTarget {
		f.next()
	}
	return f
}

// next feeds one sample: every other series rises, the rest rests.
func (f *fleet) next() {
	v := float64(1)
	if f.i&1 == 0 {
		v = float64(f.at / 1000)
	}
	f.out = f.s.Sample(f.ids[f.i], Float(f.at+int64(f.i/perTarget%5000), v), f.out[:0])
	if f.i++; f.i == f.n {
		f.i = 0
		f.at += 5000
	}
}

func BenchmarkSample(b *testing.B) {
	for _, c := range []struct {
		series            uint32
		shuffled, touched bool
	}{{10_000, false, false}, {100_000, false, false}, {100_000, true, false}, {100_000, true, true}, {800_000, false, false}, {800_000, true, false}, {800_000, true, true}} {
		for _, step := range []Step{{1, 0}, {0.25, 0.25}} {
			b.Run(fmt.Sprintf("series=%d/shuffled=%t/touched=%t/rate=%v", c.series, c.shuffled, c.touched, step.Rate), func(b *testing.B) {
				f := newFleet(b, c.series, c.shuffled, step)
				b.ReportAllocs()
				for b.Loop() {
					if c.touched && f.i%64 == 0 {
						f.s.Touch(f.ids[f.i:min(f.i+64, f.n)])
					}
					f.next()
				}
			})
		}
	}
}

func BenchmarkPriority(b *testing.B) {
	f := Film{Target: 42, Cadence: 5000, KeyPeriod: 30_000}
	at := someTime
	for b.Loop() {
		at += 5000
		f.Frame(at, 0.25, 120_000)
	}
}
