package redis

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// swapRecord writes "<revision> <value>".
var swapRecord = redis.NewScript(`
local value = redis.call('GET', KEYS[1])
local revision = value and string.match(value, '^(%d+) ') or '0'
if revision ~= ARGV[1] then
  return 0
end
local written = tonumber(revision) + 1
redis.call('SET', KEYS[1], string.format('%d ', written) .. ARGV[2])
return written
`)

// ReadRecord returns a small record beside the locks and its revision. The revision of one
// that is not there is 0.
func (s *Store) ReadRecord(ctx context.Context, name string) (value []byte, revision uint64, err error) {
	text, err := s.client.Get(ctx, s.keys(name)[0]).Result()
	if errors.Is(err, redis.Nil) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, s.failed("read a record", err)
	}
	revision, rest, err := parse(text)
	if err != nil {
		return nil, 0, s.failed("read a record", err)
	}
	return []byte(rest), revision, nil
}

// SwapRecord writes a record if it still has the revision, and returns the new one. swapped
// is false when it has another. After an error the record may have been written or not.
func (s *Store) SwapRecord(ctx context.Context, name string, revision uint64, value []byte) (written uint64, swapped bool, err error) {
	n, err := swapRecord.Run(ctx, s.client, s.keys(name)[:1], fmt.Sprint(revision), value).Uint64()
	if err != nil {
		return 0, false, s.failed("write a record", err)
	}
	return n, n != 0, nil
}
