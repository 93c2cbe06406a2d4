package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/promslog"

	"github.com/sluice-metrics/sluice/internal/demo"
)

// demoFlags is what demo has to know of the flags of the program beside their values.
type demoFlags struct {
	*flags
	logGiven bool
}

// demoCommand adds the command "demo". run is called when it was picked and returns the
// exit code.
func demoCommand(app *kingpin.Application, f *flags) (cmd *kingpin.CmdClause, run func(stdout, stderr io.Writer) int) {
	d := &demoFlags{flags: f}
	app.GetFlag("log.level").IsSetByUser(&d.logGiven)
	cmd = app.Command("demo", "Show what Sluice does, without anything else: it makes a load, and slows one of its two backends down and lets it recover, every two minutes. "+
		"Data is in a temporary directory, unless --storage.path names one.")
	return cmd, reported("demo", func(ctx context.Context, stdout, _ io.Writer) error { return d.run(ctx, stdout) })
}

func (d *demoFlags) run(ctx context.Context, stdout io.Writer) error {
	if d.configFile != "" || d.webConfigFile != "" {
		return fmt.Errorf("%w: the demo has its own configuration; --config.file and --web.config.file cannot stand beside it", errUsage)
	}
	listener, err := net.Listen("tcp", d.listenAddress)
	if err != nil {
		return fmt.Errorf("cannot listen on %s (choose another with --web.listen-address): %w", d.listenAddress, err)
	}
	dir := ""
	if d.storageGiven {
		dir = d.storagePath
	}
	return demo.Run(ctx, demo.Options{
		Listener:    listener,
		StoragePath: dir,
		Schedule:    demo.DefaultSchedule(),
		Out:         stdout,
		Logger:      promslog.New(d.quiet()),
		Now:         time.Now,
	})
}

// quiet logs problems alone, unless a level was asked for: the demo says itself what goes
// on, and the page has the rest.
func (d *demoFlags) quiet() *promslog.Config {
	c := d.log
	if !d.logGiven {
		c.Level = promslog.NewLevel()
		_ = c.Level.Set("warn") // it is a level
	}
	return &c
}
