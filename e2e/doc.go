// Package e2e tests the built program from outside: its command line, its HTTP
// interface and its files, against a real Prometheus of the distribution, against
// Prometheus' own remote-write client as a library, and against a scripted receiver
// that knows what was lost.
//
// The tests need the programs that scripts/install-test-programs fetches. With
// SLUICE_TEST_RACE=1 the program is built with the race detector.
package e2e
