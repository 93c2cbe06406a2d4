// Package etcd probes the members of an etcd cluster: which one leads, and how far each
// one's log is behind the longest. Members have no replica lag in seconds: a write that
// was acknowledged is on a majority of them.
//
// Each member is asked over a connection of its own; one that does not answer is absent.
package etcd
