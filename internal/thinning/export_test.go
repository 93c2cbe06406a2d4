package thinning

// Locked reports whether somebody holds the lock that Forget waits for.
func (t *Thinner) Locked() bool {
	if t.mu.TryLock() {
		t.mu.Unlock()
		return false
	}
	return true
}
