// Package kafka probes consumer groups of Kafka: how far each is behind the end of each
// partition that it has committed in. It speaks to the brokers of one cluster through one
// client and reads groups of the classic protocol.
//
// Lag in seconds is measured from the times at which the gateway saw the ends of the
// partitions, so a lag that is older than the gateway's own start is a lower bound.
//
// The package was tested against an imitation of a broker in the test's own process
// (franz-go's kfake), not against a Kafka.
package kafka
