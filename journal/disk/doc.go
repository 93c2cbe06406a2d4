// Package disk keeps the journal in segment files of one directory:
//
//	LOCK                     held while a process uses the directory
//	segments/<number>.seg    records, appended to the newest file only
//	cursors/<escaped name>   the state of one cursor
//	sums/<number>.sum        what a segment holds, to start fast; never needed
//
// A segment is a header, written twice so that one damaged place does not cost it,
// and records. The header holds the format version, when it was created, the backends
// whose counts the records carry, and where the segment before it ends. A record is
//
//	magic        4 bytes
//	header size  4 bytes, little endian, as all fixed numbers
//	body size    4 bytes
//	body CRC     4 bytes, CRC-32C of the body
//	header CRC   4 bytes, CRC-32C of the three numbers before it and the header
//	header       variable-length numbers, see header.append
//	body         as received
//
// The header has a CRC of its own, so that a record whose body is damaged is stepped
// over exactly and what it held is known; and it names its own place, so that bytes
// of another place, or a record inside of a body, are never taken for a record.
// After a damaged header the next record is searched for in the rest of the segment.
//
// What holds at every moment:
//
//   - A record is visible to cursors, and its append answered, only after it was
//     written and in durability fsync also synced. So a stored position is never
//     ahead of what is durable.
//   - A segment in which a write or a sync failed is never written again, nor synced
//     again, but at most cut back to the end of its last good record. The segment
//     after it records that end, so that bytes behind it do not come back after a
//     restart.
//   - Every start writes to a new segment. What a crash may have left behind the last
//     record is so never before new records, and a position never gets to stand in
//     the middle of one.
//   - Numbers of segments are never used twice, so positions grow for ever.
//   - A segment goes only when every stored cursor is behind it.
//
// An append that failed because the file could neither be synced nor cut may be
// delivered after a restart in spite of its error, when the process ended before the
// next segment was created. That is a second delivery of what the sender repeats,
// never a loss.
package disk
