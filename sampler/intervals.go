package sampler

// Intervals calls do for each target with how many seconds apart its samples of class
// normal are at present, and how many they are in the input. Targets without a sample
// since a time, in Unix ms, are left out. It must not be called while the Sampler is fed.
func (s *Sampler) Intervals(since int64, do func(target uint64, seconds, cadence float64)) {
	class := s.ordinary()
	random := s.method == MethodRandom
	for _, i := range s.targetOf {
		t := &s.targets[i]
		ms := float64(t.cadence.Ms())
		if ms == 0 || s.base+int64(t.lastAt) < since {
			continue
		}
		apart := ms
		switch {
		case s.full:
		case random:
			apart = ms / s.pressure.rate
		default:
			film := Film{Target: t.key, Cadence: t.cadence.Ms(), KeyPeriod: s.keyPeriod}
			apart = ms * float64(film.keyDistance(class.keyGap))
			if rate := min(1, class.weight*paced(class.rate, t.cadence.Ms())); rate > 0 {
				apart = min(apart, ms/rate)
			}
		}
		do(t.key, apart/1000, ms/1000)
	}
}

// ordinary is the class that takes everything else.
func (s *Sampler) ordinary() *classState {
	for i := range s.o.Config.Classes {
		if s.o.Config.Classes[i].takesAll() {
			return &s.classes[i]
		}
	}
	return &s.classes[0]
}
