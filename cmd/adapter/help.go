package main

import (
	"fmt"
	"slices"
	"strings"
	"text/template"

	"github.com/alecthomas/kingpin/v2"
)

// summaries say in a few words what the commands are for, in the order of what people need
// first.
func summaries() [][2]string {
	return [][2]string{
		{"run", "run the gateway; what happens without a command"},
		{"demo", "show what it does: own load, a backend that slows down"},
		{"check", "check the configuration file; --probe asks the backends too"},
		{"config init", "write a commented configuration file"},
		{"config convert", "make a prometheus.yml's remote_write one"},
		{"config show", "print the configuration with all defaults"},
		{"config schema", "print its JSON Schema, for editors"},
		{"explain", "tell where a series goes, at which rate, and why"},
		{"tap", "look at samples that go out to a backend"},
		{"ledger", "tell what backends lack of a stretch of time"},
		{"probe once", "print replica lag and locks of all clusters"},
		{"classes", "say which series is in which class of sampling"},
		{"fidelity", "compare queries and alerts with thinned data"},
		{"replay", "play an incident of a backend against a recorded load"},
		{"lockbench", "compare the kinds of locks on your servers"},
		{"mixin", "write dashboards and alerts with your own labels"},
	}
}

// shortHelp is the help of the program; that of a command is kingpin's.
const shortHelp = `usage: sluice [<flags>] [<command>]

A gate between Prometheus remote write or OTLP metrics and the storage behind
them. Without a file it keeps everything in an embedded store.

Commands:
{{Commands}}
Flags:
      --config.file=""       Configuration file.
      --web.listen-address="127.0.0.1:9201"  Where it serves.
      --web.config.file=""   File that turns on TLS or authentication.
      --storage.path="data"  Directory of all that is kept.
      --log.level=info       debug, info, warn or error.
      --log.format=logfmt    logfmt or json.
  -h, --help                 This. --version: the version.

sluice help <command>: its flags. --help-long: all commands with all flags.
`

// defaultCommand is what is done without a command.
const defaultCommand = "run"

// setHelp makes --help of the program fit on a screen.
func setHelp(app *kingpin.Application, args []string) {
	if cmd := picked(app, args); cmd != "" && cmd != defaultCommand || slices.Contains(args, defaultCommand) {
		return // the help of a command was asked for
	}
	app.UsageFuncs(template.FuncMap{"Commands": func() string {
		var b strings.Builder
		for _, s := range summaries() {
			fmt.Fprintf(&b, "  %-15s %s\n", s[0], s[1])
		}
		return b.String()
	}})
	app.UsageTemplate(shortHelp)
}
