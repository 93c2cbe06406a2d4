// Package testutil is the harness of the end-to-end tests: it starts the built
// program and real Prometheus servers, generates load that knows what was
// acknowledged, receives it in a scripted sink that knows what arrived, and breaks
// the connections between them.
//
// Everything listens on 127.0.0.1, lives in the test's temporary directory and ends
// with the test. Nothing here is ever skipped: what is missing fails the test with
// the command that installs it.
package testutil
