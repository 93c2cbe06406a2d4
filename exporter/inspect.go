package exporter

import "context"

// Inspector is implemented by backends that can say step by step how they are reached.
type Inspector interface {
	// Inspect talks to the backend and returns what it found, in the order of the steps.
	// It changes nothing there. The first step that fails is the last.
	Inspect(ctx context.Context) []Finding
}

// Finding is one step on the way to a backend.
type Finding struct {
	Step string // such as dns
	OK   bool
	Text string // what was found, or why it fails and what to do
}
