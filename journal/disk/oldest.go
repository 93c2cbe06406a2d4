package disk

// IDsOldest is when the oldest batch whose series ids the journal remembers was received,
// Unix ms; ok is false when it remembers none. Whoever evicts series ids has to look at
// this and at what lanes hold.
func (j *Journal) IDsOldest() (ms int64, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.tail.ids.entries.len() > 0:
		return j.tail.ids.entries.at(0).received, true
	case j.tail.entries.len() > 0:
		return j.tail.entries.at(0).batch.Received, true
	}
	return 0, false
}
