package alerts

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// panels are where each alert leads: the dashboard, and the title of a panel of it.
var panels = map[string][2]string{
	"Down":                     {"overview", "Gateways"},
	"Absent":                   {"overview", "Gateways"},
	"Restarting":               {"overview", "Restarts"},
	"ConfigReloadFailed":       {"internals", "Configuration"},
	"Refusing":                 {"overview", "Requests by answer"},
	"InvalidSamples":           {"overview", "Refused samples by reason"},
	"MemoryNearLimit":          {"internals", "Share of the memory limit"},
	"FilesNearLimit":           {"internals", "Open files"},
	"CertificateExpires":       {"backends", "Certificate of the backend"},
	"ClockSkew":                {"backends", "Clock difference"},
	"DataDropped":              {"backends", "Lost by reason"},
	"BackendRejects":           {"backends", "Lost by reason"},
	"ConservationBroken":       {"internals", "Own check of the books"},
	"BackendDown":              {"backends", "State"},
	"BackendFailing":           {"backends", "Attempts by outcome"},
	"BackendBehind":            {"backends", "Queue age and length"},
	"LaneSaturated":            {"backends", "Parcels in flight"},
	"QueueFullIn12h":           {"overview", "Disk left"},
	"QueueFullIn4h":            {"overview", "Disk left"},
	"DiskErrors":               {"internals", "Write errors"},
	"SamplingActive":           {"backends", "Lag against sampling rate"},
	"DebtNotShrinking":         {"backends", "Debt and when it is paid"},
	"SamplingFails":            {"backends", "Failures to write things down"},
	"ReplicaLagHigh":           {"databases", "Replica lag"},
	"LocksBlocked":             {"databases", "Longest wait"},
	"ProbeFailing":             {"databases", "Probes"},
	"TwoPrimaries":             {"databases", "Primaries"},
	"LockLost":                 {"leases", "Lost leases by reason"},
	"TwoLeaders":               {"leases", "Held by"},
	"LeaseStoreDown":           {"leases", "Lost leases by reason"},
	"TransactionSlow":          {"leases", "Time of a transaction"},
	"TransactionRollbacksHigh": {"leases", "Rolled back"},
	"TransactionNestingDeep":   {"leases", "Nesting"},
	"PoolNearlyFull":           {"leases", "Use of the pool"},
	"ConnectionQueueSlow":      {"leases", "Waits for a connection"},
	"StatementTimeouts":        {"leases", "Waits for a connection"},
}

// board is what of a dashboard addresses depend on.
type board struct {
	UID        string
	Panels     []boardPanel
	Templating struct{ List []struct{ Name string } }
}

type boardPanel struct {
	ID          int
	Type, Title string
	Panels      []boardPanel
}

func (b *board) panel(title string) int {
	id := 0
	var look func([]boardPanel)
	look = func(list []boardPanel) {
		for _, p := range list {
			if p.Title == title && p.Type != "row" {
				id = p.ID
			}
			look(p.Panels)
		}
	}
	look(b.Panels)
	return id
}

var address = regexp.MustCompile(`dashboard: '/d/([a-z-]+)(?:\?(?:viewPanel=\d+&?)?([^']*))?'`)

// TestPanels compares where alerts lead with the committed dashboards.
func TestPanels(t *testing.T) {
	for _, f := range mustFiles(t) {
		text, err := os.ReadFile(f.Name)
		require.NoError(t, err)
		parts := strings.SplitAfter(string(text), "  - alert: Sluice")
		for i, part := range parts[1:] {
			name, _, _ := strings.Cut(part, "\n")
			where, ok := panels[name]
			require.True(t, ok, "alert %s leads to no panel", name)
			raw, err := os.ReadFile(filepath.Join("..", "dashboards", where[0]+".json"))
			require.NoError(t, err)
			var b board
			require.NoError(t, json.Unmarshal(raw, &b))
			id := b.panel(where[1])
			require.NotZero(t, id, "dashboard %s has no panel %q", where[0], where[1])
			m := address.FindStringSubmatch(part)
			require.NotNil(t, m, name)
			query := fmt.Sprintf("viewPanel=%d", id)
			if m[2] != "" {
				query += "&" + m[2]
			}
			for _, v := range regexp.MustCompile(`var-([a-z]+)=`).FindAllStringSubmatch(m[2], -1) {
				require.Contains(t, fmt.Sprint(b.Templating.List), "{"+v[1]+"}", "dashboard %s has no variable %s", where[0], v[1])
			}
			parts[i+1] = strings.Replace(part, m[0], fmt.Sprintf("dashboard: '/d/%s?%s'", b.UID, query), 1)
		}
		want := strings.Join(parts, "")
		if os.Getenv(updateEnv) != "" {
			require.NoError(t, os.WriteFile(f.Name, []byte(want), 0o644))
			continue
		}
		require.Equal(t, want, string(text), "panels of dashboards have moved; run: go generate ./alerts")
	}
}
