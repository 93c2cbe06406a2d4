package etcd

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// ReadRecord returns a small record beside the locks and its revision. The revision of one
// that is not there is 0.
func (c *Client) ReadRecord(ctx context.Context, name string) (value []byte, revision uint64, err error) {
	kv, _, err := c.get(ctx, name)
	if err != nil || kv == nil {
		return nil, 0, err
	}
	return kv.Value, uint64(kv.ModRevision), nil
}

// SwapRecord writes a record if it still has the revision, and returns the new one. swapped
// is false when it has another. After an error the record may have been written or not; so
// it may when swapped is false and the value is the one that was to be written, because a
// member that does not answer is not the only one that is asked.
func (c *Client) SwapRecord(ctx context.Context, name string, revision uint64, value []byte) (written uint64, swapped bool, err error) {
	etcd, err := c.connected(ctx)
	if err != nil {
		return 0, false, c.failed("connect", err)
	}
	key := c.key(name)
	answer, _, err := anyMember(ctx, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return etcd.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(key), "=", int64(revision))).
			Then(clientv3.OpPut(key, string(value))).
			Commit()
	})
	if err != nil {
		return 0, false, c.failed("write a record", err)
	}
	return uint64(answer.Header.Revision), answer.Succeeded, nil
}
