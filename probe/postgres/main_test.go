package postgres_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests wait for servers nearly all of the time.
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	code := m.Run()
	testutil.RemovePostgres()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Println(err)
			code = 1
		}
	}
	os.Exit(code)
}
