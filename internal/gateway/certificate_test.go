package gateway

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

func pemUntil(t *testing.T, end time.Time) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: end.Add(-time.Hour), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestCertificate(t *testing.T) {
	end := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	chain := bytes.Join([][]byte{pemUntil(t, end.Add(time.Hour)), []byte("a comment\n"), pemUntil(t, end)}, nil)
	for name, c := range map[string]struct {
		read func() ([]byte, error)
		want int
	}{
		"no TLS":       {nil, 0},
		"not readable": {func() ([]byte, error) { return nil, errors.New("gone") }, 0},
		"no PEM":       {func() ([]byte, error) { return []byte("nothing"), nil }, 0},
		"broken": {func() ([]byte, error) {
			return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}}), nil
		}, 0},
		"a chain": {func() ([]byte, error) { return chain, nil }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			collector := newCertificate(c.read)
			require.Equal(t, c.want, testutil.CollectAndCount(collector))
			if c.want == 1 {
				require.InDelta(t, end.Unix(), testutil.ToFloat64(collector), 0)
			}
			problems, err := testutil.CollectAndLint(collector)
			require.NoError(t, err)
			require.Empty(t, problems)
		})
	}
}
