package ha

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"sync"
)

// Store keeps small records that the gateways share. Its methods may be called from
// several goroutines, and make one attempt bounded by the context. The revision of a
// record grows with each write of it; 0 is that of a record that is not there.
type Store interface {
	// ReadRecord returns the record and its revision. One that is not there is no error.
	ReadRecord(ctx context.Context, name string) (value []byte, revision uint64, err error)
	// SwapRecord writes the record if it has still the revision that was read, and
	// returns the new one. swapped is false when another wrote it in between. After an
	// error the record may have been written or not.
	SwapRecord(ctx context.Context, name string, revision uint64, value []byte) (written uint64, swapped bool, err error)
	// Close frees what the store holds. No call is under way or comes after it.
	Close() error
}

// Record is what the gateways agree on about one HA cluster. All times are Unix ms.
type Record struct {
	// Replica is the one that is elected.
	Replica string `json:"replica"`
	// After is where its time begins: samples up to it are its predecessor's.
	After int64 `json:"after"`
	// Accepted is what no accepted sample is newer than. It is written before the samples
	// go into a journal, so that it holds whenever a gateway dies.
	Accepted int64 `json:"accepted"`
	// ReceivedAt is when samples of it were last received and accepted, by the clock of
	// the gateway that did.
	ReceivedAt int64 `json:"received_at"`
	// ElectedAt is when it was elected, by the clock of the gateway that elected it.
	ElectedAt int64 `json:"elected_at"`
	// PatienceMs is how long, at least, others wait before they elect another.
	PatienceMs int64 `json:"patience_ms"`
}

// noTime is before all samples.
const noTime = math.MinInt64

// recordName is the name of a cluster's record. Characters that mean something to a store
// are escaped.
func recordName(cluster string) string { return "ha/" + url.PathEscape(cluster) }

func decodeRecord(value []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(value, &r); err != nil {
		return r, fmt.Errorf("the record of an HA cluster cannot be read, is its name used by something else? %w", err)
	}
	return r, nil
}

func (r Record) encode() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic("BUG: a Record of plain fields cannot be encoded: " + err.Error())
	}
	return b
}

// Memory is a Store in this process: for one gateway that gets both replicas.
type Memory struct {
	mu      sync.Mutex
	records map[string]memoryRecord
}

type memoryRecord struct {
	value    []byte
	revision uint64
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory { return &Memory{records: map[string]memoryRecord{}} }

// ReadRecord implements Store.
func (m *Memory) ReadRecord(_ context.Context, name string) (value []byte, revision uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.records[name]
	return r.value, r.revision, nil
}

// SwapRecord implements Store.
func (m *Memory) SwapRecord(_ context.Context, name string, revision uint64, value []byte) (written uint64, swapped bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.records[name].revision != revision {
		return 0, false, nil
	}
	m.records[name] = memoryRecord{append([]byte(nil), value...), revision + 1}
	return revision + 1, true, nil
}

// Close implements Store. A Memory may be used on.
func (*Memory) Close() error { return nil }
