package deploy

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/config"
)

// stopMargin is how much longer than shutdown_timeout a stop may take: requests in
// flight end, the journal and the stores are closed.
const stopMargin = 10 * time.Second

// unit is the systemd unit: the values of each key, in their order.
func unit(t *testing.T) map[string][]string {
	t.Helper()
	keys := map[string][]string{}
	for line := range strings.Lines(read(t, "deploy/systemd/sluice.service")) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "[") {
			continue
		}
		key, value, found := strings.Cut(line, "=")
		require.True(t, found, line)
		keys[key] = append(keys[key], value)
	}
	return keys
}

func TestUnit(t *testing.T) {
	u := unit(t)
	require.Equal(t, []string{"yes"}, u["DynamicUser"])
	require.Equal(t, []string{"on-failure"}, u["Restart"])
	require.Equal(t, []string{"/bin/kill -HUP $MAINPID"}, u["ExecReload"])
	require.Len(t, u["ExecStart"], 1)
	require.Contains(t, u["ExecStart"][0], "--storage.path=/var/lib/"+u["StateDirectory"][0]+" ", "the data is not where the service may write")

	limit, err := time.ParseDuration(u["TimeoutStopSec"][0])
	require.NoError(t, err)
	require.Greater(t, limit, time.Duration(config.Standard().ShutdownTimeout)+stopMargin, "systemd would kill Sluice while it delivers what is left")
}

// TestStartsUseKnownFlags compares the flags in unit, image and compose file with those
// that the program defines.
func TestStartsUseKnownFlags(t *testing.T) {
	known := map[string]bool{}
	for _, m := range regexp.MustCompile(`\.Flag\("([a-z.-]+)"`).FindAllStringSubmatch(read(t, "cmd/adapter/main.go"), -1) {
		known[m[1]] = true
	}
	require.Contains(t, known, "web.listen-address")

	image := regexp.MustCompile(`(?m)^CMD (.*)$`).FindStringSubmatch(read(t, "Dockerfile"))
	require.NotNil(t, image)
	var args []string
	require.NoError(t, json.Unmarshal([]byte(image[1]), &args))
	require.Contains(t, args, "--web.listen-address=0.0.0.0:9201")
	require.Contains(t, args, "--storage.path=/data")

	args = append(args, loadCompose(t).Services["sluice"].Command...)
	args = append(args, strings.Fields(unit(t)["ExecStart"][0])[1:]...)
	require.Len(t, args, 8)
	for _, a := range args {
		name, _, found := strings.Cut(strings.TrimPrefix(a, "--"), "=")
		require.True(t, found, a)
		require.True(t, known[name], "%s: cmd/adapter/main.go defines no such flag", a)
	}
}

func TestImage(t *testing.T) {
	file := read(t, "Dockerfile")
	require.Regexp(t, `(?m)^USER [1-9]\d*:[1-9]\d*$`, file)
	require.Regexp(t, `(?m)^EXPOSE 9201$`, file)
	require.Regexp(t, `(?m)^VOLUME /data$`, file)

	// What the build copies must not be kept out of it.
	for line := range strings.Lines(read(t, ".dockerignore")) {
		for _, needed := range []string{"alerts", "cmd", "config", "dashboards", "exporter", "ha", "internal", "journal", "lock", "probe", "receiver", "router", "sampler", "web", "go.mod", "go.sum", "Makefile", "LICENSE"} {
			require.NotEqual(t, needed, strings.Trim(strings.TrimSpace(line), "/"))
		}
	}
}
