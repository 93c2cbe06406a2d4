package pgerror_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/pgerror"
)

func TestOneLine(t *testing.T) {
	refused := &pgconn.PgError{Severity: "FATAL", Message: "no such role", Code: "28000", Detail: "long"}
	for want, err := range map[string]error{
		"FATAL: no such role (SQLSTATE 28000)": fmt.Errorf("connect: %w", refused),
		"a: refused; b: refused":               errors.New("a: refused\n\tb: refused\n a: refused\n"),
	} {
		said := pgerror.OneLine(err)
		require.Equal(t, want, said.Error())
		require.ErrorIs(t, said, err)
	}
}
