// Package fidelity tells what thinning does to the answers that people look at: it
// replays a capture of remote-write traffic through a thinner, loads what came in and
// what is left into two Prometheus stores, runs the same range queries and alert rules
// over both, and compares.
//
// A Row is the outcome for one requested rate and one method. All shares are 0 to 1,
// errors are relative (0.1 is ten percent), times are seconds.
//
//   - The error of one step of one result series is |a−b| / max(|a|, mean|a|), at most
//     MaxError, where a is the full answer and mean|a| is over that result series. A step
//     is missing when only the full answer has a value, extra when only the thinned one
//     has, bad when it is missing or its error is above BadError. NaN is no value: graphs
//     have a gap there.
//   - An alert fires as Prometheus would have it, evaluated every RuleStep with its "for".
//     The agreement is the time for which it fires on both sides over the time for which it
//     fires on either, summed over all alerts. An episode is missed or false when the other
//     side has none from EpisodeSlack before it until EpisodeSlack behind it.
//
// Both sides are looked at from Warmup after the first sample on. Recording rules are not
// evaluated: what they gave is in the capture.
package fidelity
