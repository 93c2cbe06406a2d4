// Package ledger is the durable account of what was withheld from one backend, and by
// which steps, so that it can be told and given back.
//
// What a sampler sends is a function of the journal and of the steps of rate and pressure.
// So the ledger keeps no samples: it keeps the steps, each with the position in the journal
// from which it holds, written before it takes effect. An Entry is a stretch of the journal
// of which less than everything was sent: thinned (KindSampled), passed over
// (KindGap), or, where the ledger itself was damaged, not known (KindUnknown). Entries
// do not overlap and are in the order of the journal.
//
// Beside the steps stand counts: what was withheld, sent after all, given back, given up.
// They move with the backend's cursor. Settle writes what a state of the cursor is about to
// settle, then the caller stores the state. After a crash the cursor is at that state or at
// an older one; Resume takes the counts back to the one that it is at. So nothing is counted
// twice, and nothing is forgotten:
//
//	l, err := ledger.Open(options)
//	resumed, err := l.Resume(ledger.Resumption{Mark: …})    // where the cursor is
//	for _, e := range l.Timeline(position) { … }            // decisions to repeat
//	err = l.Begin(session)                                  // before the first thinned record
//	err = l.Step(setting)                                   // before each change
//	settled, err := l.Settle(settlement)                    // before each Commit of the cursor
//	err = l.End(position)                                   // from here on everything is sent
//
// The file is append-only, of framed records with a checksum. It is rewritten under the
// next number when too much of it is out of date, after a failed write, and by the first
// record after a start; the newest complete file counts. A torn end is cut off, since
// nothing that it could say had taken effect. Damage before the end loses what follows:
// Resume then finds which stretch is not known any more.
//
// A Ledger may be used by several goroutines. One process at a time opens it for
// writing, which the lock of the journal's directory ensures; Read is for others.
package ledger
