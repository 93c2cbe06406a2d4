package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sluice-metrics/sluice/config"
)

// inspectTimeout bounds how long check --probe takes.
const inspectTimeout = 20 * time.Second

// checkFlags are what the command line of sluice check says.
type checkFlags struct {
	*flags
	probe bool
}

// checkCommand adds the command "check". run is called when it was picked and returns the
// exit code. all are the flags of the program.
func checkCommand(app *kingpin.Application, all *flags) (cmd *kingpin.CmdClause, run func(stdout, stderr io.Writer) int) {
	f := &checkFlags{flags: all}
	cmd = app.Command("check", "Check the configuration file: all problems at once, with their places. Exit code 1 when there is one.")
	cmd.Flag("probe", "Also talk to the backends: name, connection, TLS, authentication, protocol, clock. One line for each, and exit code 1 when one fails.").BoolVar(&f.probe)
	return cmd, f.check
}

func (f *checkFlags) check(stdout, stderr io.Writer) int {
	if f.configFile == "" {
		fmt.Fprintln(stderr, "sluice: check: which file? Name it with --config.file")
		return exitUsage
	}
	report, ok := config.Check(f.configFile)
	if !ok {
		fmt.Fprint(stderr, report)
		return exitError
	}
	fmt.Fprint(stdout, report)
	if !f.probe {
		return exitOK
	}
	c, err := config.Load(f.configFile)
	if err != nil {
		fmt.Fprintf(stderr, "sluice: check: %v\n", err) // it was changed meanwhile
		return exitError
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	well, err := writeInspections(stdout, c.Inspect(ctx, f.storagePath))
	if err != nil {
		fmt.Fprintf(stderr, "sluice: check: %v\n", err)
	}
	if err != nil || !well {
		return exitError
	}
	return exitOK
}

// writeInspections writes a line for each finding, and reports whether all are well.
func writeInspections(w io.Writer, list []config.Inspection) (well bool, err error) {
	good, bad := "ok  ", "FAIL"
	if terminal(w) {
		good, bad = "\x1b[32mok  \x1b[0m", "\x1b[31mFAIL\x1b[0m"
	}
	well = true
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, i := range list {
		for _, f := range i.Findings {
			mark := good
			if !f.OK {
				mark, well = bad, false
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", mark, i.Backend, f.Step, f.Text)
		}
	}
	return well, t.Flush()
}

// terminal reports whether w is a terminal of somebody who has nothing against colours.
func terminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
