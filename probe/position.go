package probe

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// PartitionName is the name of the stream of one Kafka partition.
func PartitionName(topic string, partition int32) string {
	return topic + "/" + strconv.FormatInt(int64(partition), 10)
}

// ErrPosition is wrapped by the errors of ParsePosition.
var ErrPosition = errors.New("not a position")

// ParsePosition reads a position as an application gets it from its database with a
// commit, and returns the least position of each stream: an LSN of PostgreSQL
// ("0/16B3748"), a GTID position of MariaDB ("0-1-100", several separated by commas), or
// a number for engines with one stream (Redis' master_repl_offset).
func ParsePosition(text string) (map[string]uint64, error) {
	if high, low, ok := strings.Cut(text, "/"); ok {
		h, err := strconv.ParseUint(high, 16, 32)
		l, err2 := strconv.ParseUint(low, 16, 32)
		if err = errors.Join(err, err2); err != nil {
			return nil, fmt.Errorf("%w: %q looks like an LSN, but: %w", ErrPosition, text, err)
		}
		return map[string]uint64{"": h<<32 | l}, nil
	}
	if !strings.Contains(text, "-") {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%w: %q is no LSN, no GTID position and no number: %w", ErrPosition, text, err)
		}
		return map[string]uint64{"": n}, nil
	}
	least := map[string]uint64{}
	for gtid := range strings.SplitSeq(text, ",") {
		part := strings.Split(strings.TrimSpace(gtid), "-")
		if len(part) != 3 {
			return nil, fmt.Errorf("%w: %q in %q is not domain-server-sequence", ErrPosition, gtid, text)
		}
		domain, err := strconv.ParseUint(part[0], 10, 32)
		sequence, err2 := strconv.ParseUint(part[2], 10, 64)
		if err = errors.Join(err, err2); err != nil {
			return nil, fmt.Errorf("%w: %q in %q: %w", ErrPosition, gtid, text, err)
		}
		name := strconv.FormatUint(domain, 10)
		least[name] = max(least[name], sequence)
	}
	return least, nil
}
