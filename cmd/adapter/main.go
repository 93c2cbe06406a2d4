// Command sluice is a gate between everything that speaks Prometheus remote write and the
// storage behind it.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/promslog"
	promslogflag "github.com/prometheus/common/promslog/flag"
	"github.com/prometheus/common/version"
	toolkit "github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v4"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/internal/gateway"
	"github.com/sluice-metrics/sluice/internal/nearest"
)

// Exit codes.
const (
	exitOK    = 0
	exitError = 1 // configuration or run time
	exitUsage = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// flags are what the command line says.
type flags struct {
	configFile    string
	listenAddress string
	webConfigFile string
	storagePath   string
	storageGiven  bool // --storage.path is on the command line
	log           promslog.Config
}

func run(args []string, stdout, stderr io.Writer) int {
	app, commands := commandLine(&flags{log: promslog.Config{Writer: stderr}})
	app.UsageWriter(stdout).ErrorWriter(stderr)
	setHelp(app, args)
	hideUnused(app, args)
	cmd, err := app.Parse(args)
	switch {
	case cmd == helpCommand && !helps(app, args):
		return exitUsage // kingpin has said so
	case help(args) || cmd == helpCommand:
		return exitOK
	}
	if err != nil {
		fmt.Fprintf(stderr, "sluice: %v%s; try --help\n", err, suggestion(app, args))
		return exitUsage
	}
	if name := emptyFlag(app, args); name != "" {
		fmt.Fprintf(stderr, "sluice: --%s is given, but empty; give it a value, or leave it out for the default; try --help\n", name)
		return exitUsage
	}
	return commands[cmd](stdout, stderr)
}

// commandLine returns all flags and commands, and what the commands do, by their names.
func commandLine(f *flags) (*kingpin.Application, map[string]action) {
	app := kingpin.New("sluice", "A gate between Prometheus remote write or OTLP metrics and the storage behind them.")
	app.HelpFlag.Short('h')
	app.Version(version.Print("sluice"))
	app.VersionFlag.Help("Show the version and exit.")
	app.Terminate(nil)
	app.Flag("config.file", "Configuration file. Without one, Sluice keeps everything in an embedded store and writes its own metrics into it.").Default("").StringVar(&f.configFile)
	app.Flag("web.listen-address", "Address to serve remote write, queries, metrics and the status page on.").Default("127.0.0.1:9201").StringVar(&f.listenAddress)
	app.Flag("web.config.file", "File that enables TLS or authentication, as for Prometheus and its exporters.").Default("").StringVar(&f.webConfigFile)
	app.Flag("storage.path", "Directory of the journal, of embedded stores and of dead letters.").Default("data").IsSetByUser(&f.storageGiven).StringVar(&f.storagePath)
	promslogflag.AddFlags(app, &f.log)

	serve := app.Command(defaultCommand, "Run the gateway. The default.").Default()
	commands := map[string]action{
		serve.FullCommand(): func(_, stderr io.Writer) int {
			if err := serveGateway(*f, inForce(app)); err != nil {
				fmt.Fprintf(stderr, "sluice: %v\n", err)
				return exitError
			}
			return exitOK
		},
	}
	add := func(cmd *kingpin.CmdClause, do func(stdout, stderr io.Writer) int) { commands[cmd.FullCommand()] = do }
	add(checkCommand(app, f))
	for cmd, do := range configCommands(app, &f.configFile) {
		add(cmd, do)
	}
	add(ledgerCommand(app, f))
	add(explainCommand(app))
	add(tapCommand(app))
	add(classesCommand(app, &f.configFile))
	add(fidelityCommand(app))
	add(replayCommand(app))
	add(probeCommand(app, &f.configFile))
	add(lockbenchCommand(app))
	add(mixinCommand(app))
	add(demoCommand(app, f))
	return app, commands
}

// helpCommand is the command with which kingpin answers as with --help.
const helpCommand = "help"

// commonFlags are the flags of the program that a command uses. run uses all, and a command
// that is not in it none.
func commonFlags() map[string][]string {
	return map[string][]string{
		"check":       {"config.file", "storage.path"},
		"config show": {"config.file"},
		"classes":     {"config.file"},
		"probe":       {"config.file"},
		"probe once":  {"config.file"},
		"ledger":      {"storage.path"},
		"demo":        {"web.listen-address", "storage.path", "log.level", "log.format"},
	}
}

// hideUnused leaves those flags of the program out of a command's help that the command
// does not use. They are taken all the same.
func hideUnused(app *kingpin.Application, args []string) {
	cmd := picked(app, args)
	if cmd == "" || cmd == defaultCommand {
		return
	}
	for _, f := range app.Model().Flags {
		own := f.Name == app.HelpFlag.Model().Name || f.Name == app.VersionFlag.Model().Name
		if !own && !slices.Contains(commonFlags()[cmd], f.Name) {
			app.GetFlag(f.Name).Hidden()
		}
	}
}

// picked is the command that the arguments are for; empty where they name none.
func picked(app *kingpin.Application, args []string) string {
	// What is wrong with the arguments is told when they are parsed for good.
	context, _ := app.ParseContext(args)
	if context == nil || context.SelectedCommand == nil {
		return ""
	}
	cmd := context.SelectedCommand.FullCommand()
	if i := slices.Index(args, helpCommand); cmd == helpCommand && i >= 0 {
		return picked(app, append([]string{"--help"}, args[i+1:]...))
	}
	return cmd
}

// suggestion names the flag that an unknown one was most likely meant to be.
func suggestion(app *kingpin.Application, args []string) string {
	var known []string
	for _, f := range app.Model().Flags {
		known = append(known, f.Name)
	}
	cmd := picked(app, args)
	for _, c := range app.Model().FlattenedCommands() {
		if c.FullCommand != cmd {
			continue
		}
		for _, f := range c.Flags {
			known = append(known, f.Name)
		}
	}
	for _, a := range args {
		name, ok := strings.CutPrefix(a, "--")
		name, _, _ = strings.Cut(name, "=")
		if !ok || slices.Contains(known, name) {
			continue
		}
		if near := nearest.Word(name, known); near != "" {
			return fmt.Sprintf("; did you mean --%s?", near)
		}
	}
	return ""
}

// emptyFlag names a flag of the program that is given without a value, as a variable that is
// not set makes it: empty would stand for the built-in configuration, or for no authentication.
func emptyFlag(app *kingpin.Application, args []string) string {
	context, err := app.ParseContext(args)
	if err != nil {
		return "" // told when they were parsed for good
	}
	for _, e := range context.Elements {
		f, ok := e.Clause.(*kingpin.FlagClause)
		if !ok || e.Value == nil || strings.TrimSpace(*e.Value) != "" {
			continue
		}
		if name := f.Model().Name; app.GetFlag(name) == f {
			return name
		}
	}
	return ""
}

// helps reports whether the command "help" was asked about nothing or about a command.
func helps(app *kingpin.Application, args []string) bool {
	i := slices.Index(args, helpCommand)
	return i < 0 || i+1 == len(args) || strings.HasPrefix(args[i+1], "-") || app.GetCommand(args[i+1]) != nil
}

// inForce lists the flags of the program that have a value, as they would be given.
func inForce(app *kingpin.Application) []string {
	var list []string
	for _, f := range app.Model().Flags {
		if f.Value.String() != "" && !strings.HasPrefix(f.Name, "help") && f.Name != "version" && !strings.HasPrefix(f.Name, "completion-") {
			list = append(list, fmt.Sprintf("--%s=%s", f.Name, f.Value))
		}
	}
	return list
}

// help reports whether kingpin has answered --help or --version: it does so while
// parsing, and goes on when it must not end the process.
func help(args []string) bool {
	for _, a := range args {
		switch a {
		case "--":
			return false
		case "-h", "--help", "--help-long", "--help-man", "--version":
			return true
		}
	}
	return false
}

// gcPercent is lower than Go's default: nearly all of the heap is reused buffers and the
// series table, so that collections are rare and the room between them is what the
// process would grow by.
const gcPercent = 50

// serveGateway runs the gateway. list are the flags in force.
func serveGateway(f flags, list []string) error {
	logger := promslog.New(&f.log)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if _, err := memlimit.SetGoMemLimitWithOpts(memlimit.WithLogger(slog.New(slog.DiscardHandler))); err != nil {
		logger.Debug("No memory limit to keep to", "err", err)
	}
	c, load, err := loadConfig(f)
	if err != nil {
		return err
	}
	warn(logger, c)
	if err := toolkit.Validate(f.webConfigFile); err != nil {
		return fmt.Errorf("--web.config.file: %w", err)
	}
	listener, err := net.Listen("tcp", f.listenAddress)
	if err != nil {
		return fmt.Errorf("cannot listen on %s (choose another with --web.listen-address): %w", f.listenAddress, err)
	}
	logger.Info("Starting Sluice", "version", version.Info(), "config", describe(f.configFile), "sha256", digestOf(f.configFile), "listen", listener.Addr(), "data", f.storagePath)
	g, err := gateway.New(gateway.Options{
		Config:      c,
		Load:        warning(logger, load),
		StoragePath: f.storagePath,
		Listener:    listener,
		Scheme:      scheme(f.webConfigFile),
		Serve:       server(f, logger),
		Certificate: servedCertificate(f.webConfigFile),
		Flags:       list,
		Logger:      logger,
		Now:         time.Now,
	})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
				_ = g.Reload() // logs its outcome
			}
		}
	}()
	if f.configFile == "" {
		logger.Info("No configuration file: everything is kept in the embedded store, which answers PromQL on the same port; point remote_write, and a Grafana data source of type Prometheus, at the addresses below")
	}
	return g.Run(ctx)
}

// server serves with the TLS and authentication of --web.config.file.
func server(f flags, logger *slog.Logger) func(net.Listener, *http.Server) error {
	addresses, systemd := []string{f.listenAddress}, false
	return func(l net.Listener, s *http.Server) error {
		return toolkit.Serve(l, s, &toolkit.FlagConfig{
			WebListenAddresses: &addresses,
			WebSystemdSocket:   &systemd,
			WebConfigFile:      &f.webConfigFile,
		}, logger.With("component", "web"))
	}
}

// scheme is what clients put before the address.
func scheme(webConfigFile string) string {
	data, err := os.ReadFile(webConfigFile)
	if err != nil {
		return "http" // no file; one that cannot be read ended the start before
	}
	var c struct {
		TLS map[string]any `yaml:"tls_server_config"`
	}
	if yaml.Unmarshal(data, &c) == nil && len(c.TLS) > 0 {
		return "https"
	}
	return "http"
}

func loadConfig(f flags) (*config.Config, func() (*config.Config, error), error) {
	if f.configFile == "" {
		return config.Default(), nil, nil
	}
	load := func() (*config.Config, error) { return config.Load(f.configFile) }
	c, err := load()
	return c, load, err
}

// warn logs the warnings about a configuration.
func warn(logger *slog.Logger, c *config.Config) {
	for _, text := range c.Warnings() {
		logger.Warn("The configuration is valid, but hardly meant so", "warning", text)
	}
}

// warning is load, which may be nil, with the warnings about what it returns logged.
func warning(logger *slog.Logger, load func() (*config.Config, error)) func() (*config.Config, error) {
	if load == nil {
		return nil
	}
	return func() (*config.Config, error) {
		c, err := load()
		if err == nil {
			warn(logger, c)
		}
		return c, err
	}
}

// digestOf begins what sha256sum says of the file; empty where there is none.
func digestOf(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:6])
}

func describe(file string) string {
	if strings.TrimSpace(file) == "" {
		return "built-in"
	}
	return file
}
