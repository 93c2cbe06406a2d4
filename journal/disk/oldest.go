package disk

// TailOldest is when the oldest batch in the in-memory tail was received, Unix ms; ok is
// false when the tail is empty. Batches that a cursor reads from the disk have no ids yet,
// so whoever evicts series ids has to look at the tail and at what lanes hold.
func (j *Journal) TailOldest() (ms int64, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.tail.entries.len() == 0 {
		return 0, false
	}
	return j.tail.entries.at(0).batch.Received, true
}
