// Package incident plays a described incident of a backend against a recorded load: what
// the controller and the sampler would have done, second by second, and what queries and
// alerts would have made of what was sent.
//
// A Model is the lane and its backend: requests wait at full resolution, are thinned when
// the lane comes to them, and are in flight until the backend has taken them. Time is that
// of the recording, and nothing waits for a clock.
package incident
