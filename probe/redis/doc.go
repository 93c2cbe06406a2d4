// Package redis probes Redis 7: replication, and consumer groups of the streams that the
// configuration names.
//
// Positions are replication offsets, and master_replid is their history. A primary sends
// its replicas a ping every few seconds (repl-ping-replica-period), which moves the
// offset: on an idle primary a replica that is cut off lacks the pings, and its lag is the
// age of the oldest one.
//
// The primary knows the offsets of its replicas until it drops them (repl-timeout); they
// stand in for a replica that does not answer. Redis Cluster and Sentinel are not probed.
package redis
