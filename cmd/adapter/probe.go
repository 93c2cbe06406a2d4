package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/internal/gateway"
	"github.com/sluice-metrics/sluice/probe"
)

// probeCommand adds the command "probe once". run is called when it was picked and returns
// the exit code: 1 also where a target does not answer.
func probeCommand(app *kingpin.Application, configFile *string) (cmd *kingpin.CmdClause, run func(stdout, stderr io.Writer) int) {
	probes := app.Command("probe", "Look at the database clusters of the configuration.")
	cmd = probes.Command("once", "Print roles, replica lag and locks of all clusters of --config.file, as of now. Needs no running gateway.")
	format := cmd.Flag("format", "table or json.").Default("table").Enum("table", "json")
	return cmd, reported("probe once", func(ctx context.Context, stdout, _ io.Writer) error {
		return probeOnce(ctx, *configFile, *format, stdout)
	})
}

func probeOnce(ctx context.Context, file, format string, out io.Writer) error {
	if file == "" {
		return fmt.Errorf("%w: say with --config.file which file has the clusters", errUsage)
	}
	c, err := config.Load(file)
	if err != nil {
		return err
	}
	list, err := gateway.ProbeOnce(ctx, c, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	write := probe.WriteTable
	if format == "json" {
		write = probe.WriteJSON
	}
	if err := write(out, list); err != nil {
		return err
	}
	for _, s := range list {
		for i := range s.Targets {
			if !s.Targets[i].Success {
				return fmt.Errorf("%s of cluster %s does not answer: %s", s.Targets[i].Target, s.Cluster, s.Targets[i].Error)
			}
		}
	}
	return nil
}
