package receiver_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/receiver"
)

func TestConfig(t *testing.T) {
	c := receiver.DefaultConfig()
	require.NoError(t, c.Validate())
	for path, change := range map[string]func(c *receiver.Config){
		"max_in_flight":       func(c *receiver.Config) { c.MaxInFlight = 0 },
		"max_in_flight_bytes": func(c *receiver.Config) { c.MaxInFlightBytes = c.MaxRequestSize - 1 },
		"admission_timeout":   func(c *receiver.Config) { c.AdmissionTimeout = 0 },
		"max_request_size":    func(c *receiver.Config) { c.MaxRequestSize = 1 },
		"max_decoded_size":    func(c *receiver.Config) { c.MaxDecodedSize = 2 * bytesize.GiB },
		"read_timeout":        func(c *receiver.Config) { c.ReadTimeout = -1 },
		"future_limit":        func(c *receiver.Config) { c.FutureLimit = -1 },
		"protocols":           func(c *receiver.Config) { c.Protocols = nil },
		"protocols[1]":        func(c *receiver.Config) { c.Protocols = []string{"rw1", "rw3"} },
	} {
		c := receiver.DefaultConfig()
		change(&c)
		require.ErrorContains(t, c.Validate(), path+": ", path)
	}
	c.MaxInFlight, c.FutureLimit = 0, -1
	err := c.Validate()
	require.ErrorContains(t, err, "max_in_flight: ", "all problems at once")
	require.ErrorContains(t, err, "future_limit: ")
}
