// Package sampler decides which samples a backend gets while it lags: a share of them,
// chosen so that dashboards and alerts over the share agree with those over everything.
// What is sent is a subset of what came in, bit for bit; nothing is averaged or made up.
//
// Dropping samples at random tears histograms apart, since their buckets then come from
// different instants; it loses staleness markers and counter resets; and most of what it
// keeps says nothing new. So each scrape target is treated as a film instead:
//
//   - Some scrapes are frames. At a frame every series of the target is sent, unless its
//     value is still the one that was sent last. Which scrapes are frames is a pure
//     function of target, time and rate (Film): a lower rate picks a subset of the same
//     instants, gateways agree without talking, and the frames are evenly spread.
//   - Some frames are key frames, sent whole. They bound how long a live series goes
//     without a sample, so that no query loses it. Series that a rule reads over a range
//     have them as often as the range needs to hold two samples (Need), at any rate.
//   - Events are always sent: the first sample of a series, both sides of a counter
//     reset, both sides of a change of state such as up, staleness markers with the last
//     sample before them. That the sample before an event was withheld is mended by
//     sending it first ("held").
//   - A run of frames that were left out because nothing changed is mended the same way
//     when it ends ("replayed"): a counter's newest such frame is sent, so that its rise
//     is not spread over the run, and those of a gauge that jumps, so that averages over
//     time stay right.
//
// A Describer reads off a series' labels what it is (Info): its target, its kind, and its
// class, by which critical series are thinned late and low ones early, and the shortest
// range in which the rules of that class read it. The Sampler holds 40 bytes for each
// series, in an array by its dense id, and some 200 for each unit, which is the series of
// one class and need in one target. It is fed in the order of the journal by one
// goroutine.
//
// Pressure is the controller that finds how hard to press for the requested share. It
// climbs a ladder: first frames get rarer, down to key frames alone; then, if the floor is
// to be shed, whole families of the lowest class are left out, gaps are widened, and
// families of the next class follow. Critical series are never left out.
//
// What comes out is a function of what came in and of the steps of rate and pressure
// (Step). A restart feeds the same samples and steps again and throws the output away; a
// backfill does so to find exactly what was withheld.
package sampler
