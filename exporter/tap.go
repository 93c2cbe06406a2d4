package exporter

// Tap looks at what goes out.
type Tap interface {
	// Sent is called with each parcel that the backend has taken, by the goroutine that
	// sent it and by several at a time. It must not block. The parcel is borrowed for the
	// call; a batch of it that is retained may be looked at for longer.
	Sent(p *Parcel)
}
