package ledger

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// formatVersion is that of the records.
const formatVersion = 1

// maxPayload bounds a record, which a configuration may need.
const maxPayload = 16 << 20

// errVersion is returned for a file whose format this program does not know.
var errVersion = errors.New("written in an unknown format, probably by a newer version: run that version, or move the ledger away and lose what is owed")

// record is what is written at once: one of its fields. A file begins with a header and a
// snapshot, which ends with Ready.
type record struct {
	Time int64 `json:"t,omitempty"` // when it was written, Unix ms

	Begin  *beginRecord  `json:"begin,omitempty"`
	Step   *stepRecord   `json:"step,omitempty"`
	End    *wirePosition `json:"end,omitempty"`
	Gap    *gapRecord    `json:"gap,omitempty"`
	Settle *settleRecord `json:"settle,omitempty"`

	Header *headerRecord `json:"header,omitempty"`
	State  *stateRecord  `json:"state,omitempty"`
	Config *configRecord `json:"config,omitempty"`
	Entry  *entryRecord  `json:"entry,omitempty"`
	More   *moreRecord   `json:"more,omitempty"`
	Ready  bool          `json:"ready,omitempty"`
}

// encode returns the payload of the record.
func (r *record) encode() ([]byte, error) {
	payload, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode a record: %w", err)
	}
	if len(payload) > maxPayload {
		return nil, fmt.Errorf("a record of %d bytes is larger than %d: the configuration of the sampler is too large", len(payload), maxPayload)
	}
	return payload, nil
}

// wirePosition is a position as [segment, offset].
type wirePosition journal.Position

// MarshalJSON implements json.Marshaler.
func (p wirePosition) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "[%d,%d]", p.Segment, p.Offset), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *wirePosition) UnmarshalJSON(b []byte) error {
	var list [2]uint64
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	p.Segment, p.Offset = list[0], int64(list[1])
	return nil
}

// wireCounts are counts as [samples, histograms, exemplars].
type wireCounts series.Counts

// MarshalJSON implements json.Marshaler.
func (c wireCounts) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "[%d,%d,%d]", c.Samples, c.Histograms, c.Exemplars), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (c *wireCounts) UnmarshalJSON(b []byte) error {
	var list [3]uint64
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	c.Samples, c.Histograms, c.Exemplars = list[0], list[1], list[2]
	return nil
}

type wireMark struct {
	Position wirePosition `json:"p,omitzero"`
	Restore  wirePosition `json:"r,omitzero"`
}

func (m Mark) wire() wireMark { return wireMark{wirePosition(m.Position), wirePosition(m.Restore)} }

func (m wireMark) mark() Mark {
	return Mark{Position: journal.Position(m.Position), Restore: journal.Position(m.Restore)}
}

type wireTally struct {
	Taken     wireCounts `json:"k,omitzero"`
	Withheld  wireCounts `json:"w,omitzero"`
	Sent      wireCounts `json:"s,omitzero"`
	GivenBack wireCounts `json:"b,omitzero"`
	Received  [2]int64   `json:"rt,omitzero"`
	Range     [2]int64   `json:"st,omitzero"`
}

func (t *Tally) wire() wireTally {
	return wireTally{
		wireCounts(t.Taken), wireCounts(t.Withheld), wireCounts(t.Sent), wireCounts(t.GivenBack),
		[2]int64{int64(t.First), int64(t.Last)},
		[2]int64{int64(t.Min), int64(t.Max)},
	}
}

func (t *wireTally) tally() Tally {
	return Tally{
		Taken: series.Counts(t.Taken), Withheld: series.Counts(t.Withheld), Sent: series.Counts(t.Sent), GivenBack: series.Counts(t.GivenBack),
		First: Time(t.Received[0]), Last: Time(t.Received[1]), Min: Time(t.Range[0]), Max: Time(t.Range[1]),
	}
}

// stepRecord is a Step.
type stepRecord struct {
	At       wirePosition `json:"at"`
	Time     int64        `json:"t,omitempty"`
	Rate     float64      `json:"r"`
	Pressure float64      `json:"x,omitempty"`
	wireTally
}

func toWire(s Step) stepRecord {
	return stepRecord{wirePosition(s.At), int64(s.Time), s.Rate, s.Pressure, s.Tally.wire()}
}

func (r *stepRecord) step() Step {
	return Step{Setting{journal.Position(r.At), Time(r.Time), r.Rate, r.Pressure}, r.tally()}
}

func (r *stepRecord) at() journal.Position { return journal.Position(r.At) }

// beginRecord opens a sampled entry. Config is set when its digest is new.
type beginRecord struct {
	ID      uint64       `json:"id"`
	From    wirePosition `json:"from"`
	Rebuild wirePosition `json:"rebuild"`
	Digest  string       `json:"digest,omitempty"`
	Config  []byte       `json:"config,omitempty"`
	Step    stepRecord   `json:"step"`
}

type gapRecord struct {
	ID     uint64       `json:"id"`
	From   wirePosition `json:"from"`
	To     wirePosition `json:"to"`
	Cause  string       `json:"cause,omitempty"`
	Pieces []stepRecord `json:"pieces"`
}

// settleRecord is a Settlement with all that followed from it, so that a replay decides
// nothing anew.
type settleRecord struct {
	Mark      wireMark      `json:"m"`
	Committed wireMark      `json:"c"`
	Deltas    []deltaRecord `json:"d,omitempty"`
	// Passed are the gaps which the cursor is behind of now.
	Passed []uint64     `json:"passed,omitempty"`
	Books  []bookRecord `json:"books,omitempty"`
}

// empty reports whether only positions are in it.
func (r *settleRecord) empty() bool { return len(r.Deltas)+len(r.Passed)+len(r.Books) == 0 }

// deltaRecord is a Delta for the step that starts at At.
type deltaRecord struct {
	Entry uint64       `json:"e"`
	At    wirePosition `json:"at"`
	wireTally
	Classes map[string]uint64 `json:"classes,omitempty"`
}

// bookRecord gives up a part of what an entry owes, or closes it.
type bookRecord struct {
	Entry   uint64     `json:"e"`
	GivenUp wireCounts `json:"up,omitzero"`
	Reason  string     `json:"reason,omitempty"`
	Close   bool       `json:"close,omitempty"`
	Kept    bool       `json:"kept,omitempty"`
}

type headerRecord struct {
	Version int    `json:"version"`
	Backend string `json:"backend"`
}

// stateRecord is what a snapshot says beside configurations and entries.
type stateRecord struct {
	NextID    uint64     `json:"next"`
	Settled   wireMark   `json:"m"`
	Committed wireMark   `json:"c"`
	Noted     int64      `json:"noted,omitempty"`
	Withheld  wireCounts `json:"w,omitzero"`
	Since     int64      `json:"since,omitempty"`
}

type configRecord struct {
	Digest string `json:"digest,omitempty"`
	Text   []byte `json:"text"`
}

// entryRecord is an entry of a snapshot, without its steps, which follow.
type entryRecord struct {
	ID      uint64            `json:"id"`
	Kind    Kind              `json:"kind"`
	From    wirePosition      `json:"from"`
	To      wirePosition      `json:"to,omitzero"`
	Rebuild wirePosition      `json:"rebuild,omitzero"`
	Digest  string            `json:"digest,omitempty"`
	Cause   string            `json:"cause,omitempty"`
	Totals  wireTally         `json:"totals"`
	Classes map[string]uint64 `json:"classes,omitempty"`
	GivenUp wireCounts        `json:"up,omitzero"`
	Reason  string            `json:"reason,omitempty"`
	Closed  int64             `json:"closed,omitempty"`
	Inexact bool              `json:"inexact,omitempty"`
	Kept    bool              `json:"kept,omitempty"`
	Passed  bool              `json:"passed,omitempty"`
	Lump    wireCounts        `json:"lump,omitzero"`
	History bool              `json:"history,omitempty"`
	Steps   int               `json:"n"` // how many follow
}

// moreRecord are further steps of the entry before it.
type moreRecord struct {
	Steps []stepRecord `json:"steps"`
}
