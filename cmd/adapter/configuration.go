package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/docs"
)

// configFlags are what the command line of sluice config says.
type configFlags struct {
	configFile *string
	output     string
	prometheus string
	from       string
	gateway    string
}

// configCommands adds the commands "config init", "config show", "config schema" and
// "config convert". Each function is called when its command was picked and returns the
// exit code.
func configCommands(app *kingpin.Application, configFile *string) map[*kingpin.CmdClause]action {
	f := &configFlags{configFile: configFile}
	all := app.Command("config", "Write and show configuration files.")
	example := all.Command("init", "Write a commented configuration file to start from.")
	show := all.Command("show", "Print the configuration that --config.file amounts to: all keys, secrets hidden, defaults marked. Without --config.file the built-in one.")
	schema := all.Command("schema", "Print the JSON Schema of the configuration file, for editors.")
	convert := all.Command("convert", "Make the remote_write of a Prometheus backends of Sluice. What cannot be carried over stands in comments.")
	convert.Arg("prometheus.yml", "Configuration file of Prometheus.").StringVar(&f.prometheus)
	convert.Flag("from", "Configuration file of Prometheus, as the argument.").StringVar(&f.from)
	convert.Flag("gateway", "URL at which Prometheus reaches Sluice, for its new remote_write.").Default("http://127.0.0.1:9201").StringVar(&f.gateway)
	for _, cmd := range []*kingpin.CmdClause{example, convert} {
		cmd.Flag("output", "File to write, which must not be there yet. Default: standard output.").StringVar(&f.output)
	}
	return map[*kingpin.CmdClause]action{
		example: reported("config init", written(f.example)),
		show:    reported("config show", written(f.show)),
		schema:  reported("config schema", written(writeSchema)),
		convert: reported("config convert", written(f.convert)),
	}
}

// written is a command that only writes to stdout, and needs no time for it.
func written(do func(stdout io.Writer) error) func(ctx context.Context, stdout, stderr io.Writer) error {
	return func(_ context.Context, stdout, _ io.Writer) error { return do(stdout) }
}

func (f *configFlags) example(stdout io.Writer) error {
	if err := f.write(stdout, docs.Example()); err != nil || f.output == "" {
		return err
	}
	_, err := fmt.Fprintf(stdout, "%s: written. Next: edit it, then\n  sluice check --config.file=%s\n", f.output, f.output)
	return err
}

func (f *configFlags) show(stdout io.Writer) error {
	c := config.Default()
	if *f.configFile != "" {
		var err error
		if c, err = config.Load(*f.configFile); err != nil {
			return err
		}
	}
	_, err := io.WriteString(stdout, c.String())
	return err
}

func writeSchema(stdout io.Writer) error {
	_, err := io.WriteString(stdout, config.Schema())
	return err
}

func (f *configFlags) convert(stdout io.Writer) error {
	name := f.prometheus
	switch {
	case name != "" && f.from != "":
		return fmt.Errorf("%w: the file is given twice, also with --from", errUsage)
	case name == "":
		name = f.from
	}
	if name == "" {
		return fmt.Errorf("%w: which file? Name the prometheus.yml", errUsage)
	}
	if u, err := url.Parse(f.gateway); err != nil || u.Host == "" {
		return fmt.Errorf("%w: --gateway: %q is no URL such as http://127.0.0.1:9201", errUsage, f.gateway)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read the configuration of Prometheus: %w", err)
	}
	directory, err := filepath.Abs(filepath.Dir(name))
	if err != nil {
		return fmt.Errorf("find the directory of %s: %w", name, err)
	}
	c, err := config.FromPrometheus(config.PrometheusFile{Name: name, Directory: directory, Data: data, Gateway: f.gateway})
	if err != nil {
		return err
	}
	if err := f.write(stdout, c.Config); err != nil || f.output == "" {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s: written. In %s this takes the place of remote_write:\n\n%s", f.output, name, c.RemoteWrite)
	return err
}

// write writes to the file that was named, or else to stdout. Only the owner may read the
// file: it may come to hold passwords.
func (f *configFlags) write(stdout io.Writer, text string) error {
	if f.output == "" {
		_, err := io.WriteString(stdout, text)
		return err
	}
	file, err := os.OpenFile(f.output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already and is not overwritten; name another file with --output", f.output)
	}
	if err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	_, err = file.WriteString(text)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", f.output, err)
	}
	return nil
}
