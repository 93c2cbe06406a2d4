package ledger

// Frame is a frame of a file.
func Frame(number uint64, payload []byte) []byte { return appendFrame(nil, number, payload) }
