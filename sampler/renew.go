package sampler

// Renew says that the backend may not have what the Sampler sent last of each series: each
// is sent at the next frame of its unit in any case.
func (s *Sampler) Renew() {
	for _, c := range s.chunks {
		for i := range c {
			if e := &c[i]; e.unit != 0 && e.flags&live != 0 {
				e.run = 0
				e.flags = e.flags&^flat | absent
			}
		}
	}
}
