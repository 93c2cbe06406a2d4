package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sluice-metrics/sluice/internal/lockbench"
)

// lockbenchFlags are what the command line of sluice lockbench says.
type lockbenchFlags struct {
	file         string
	etcd, redis  string
	postgres     string
	kinds        string
	acquisitions int
	contenders   int
	ttl          time.Duration
	format       string
}

// lockbenchCommand adds the command "lockbench". run is called when it was picked and
// returns the exit code.
func lockbenchCommand(app *kingpin.Application) (cmd *kingpin.CmdClause, run func(stdout, stderr io.Writer) int) {
	f := &lockbenchFlags{}
	cmd = app.Command("lockbench", "Compare the kinds of locks on your own servers: time of an acquisition, contention, release after a crash, and what one stalled server does. "+
		"All is done over the network: a crash is a holder that falls silent, and a stalled server is one whose connections from here are held up; the servers themselves are not touched. Its locks are named lockbench-….")
	cmd.Flag("config", "YAML file with a list leases, each a name and one kind with its keys as in the configuration.").Default("").StringVar(&f.file)
	cmd.Flag("etcd", "Client addresses of an etcd's members, with commas: compares etcd and etcdcas.").Default("").StringVar(&f.etcd)
	cmd.Flag("redis", "Addresses of independent Redis, with commas: compares redis on the first one, and redlock with three or more.").Default("").StringVar(&f.redis)
	cmd.Flag("postgres", "DSN of a PostgreSQL: compares postgres. A table sluice_leases is made there.").Default("").StringVar(&f.postgres)
	cmd.Flag("kind", "Only these kinds, with commas.").Default("").StringVar(&f.kinds)
	cmd.Flag("acquisitions", "Acquisitions of each kind.").Default("1000").IntVar(&f.acquisitions)
	cmd.Flag("contenders", "Contenders for one lock.").Default("4").IntVar(&f.contenders)
	cmd.Flag("ttl", "TTL of the leases.").Default("2s").DurationVar(&f.ttl)
	cmd.Flag("format", "table, json or html.").Default("table").EnumVar(&f.format, "table", "json", "html")
	return cmd, reported("lockbench", f.compare)
}

func (f *lockbenchFlags) compare(ctx context.Context, stdout, stderr io.Writer) error {
	if f.acquisitions < 1 || f.contenders < 1 {
		return fmt.Errorf("%w: --acquisitions and --contenders must be 1 or more", errUsage)
	}
	if f.ttl < 300*time.Millisecond {
		return fmt.Errorf("%w: --ttl: must be 300ms or more", errUsage)
	}
	subjects, err := f.subjects()
	if err != nil {
		return err
	}
	report, err := lockbench.Run(ctx, lockbench.Options{
		Subjects: subjects, Acquisitions: f.acquisitions, Contenders: f.contenders, TTL: f.ttl,
		Progress: func(name string) { fmt.Fprintf(stderr, "measuring %s\n", name) },
		Failed:   func(name, reason string) { fmt.Fprintf(stderr, "%s cannot be measured: %s\n", name, reason) },
	})
	if err != nil {
		return err
	}
	if err := report.Write(stdout, lockbench.Format(f.format)); err != nil {
		return err
	}
	var failed []string
	for _, r := range report.Results {
		if r.Error != "" {
			failed = append(failed, r.Name)
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("%s could not be measured; the reasons are above", strings.Join(failed, ", "))
	}
	return nil
}

// subjects are what the flags ask to compare.
func (f *lockbenchFlags) subjects() ([]lockbench.Subject, error) {
	servers := lockbench.Servers{Etcd: commaList(f.etcd), Redis: commaList(f.redis), Postgres: f.postgres}
	var subjects []lockbench.Subject
	var err error
	if f.file == "" {
		if subjects, err = servers.Subjects(); err != nil {
			return nil, fmt.Errorf("%w: %w", errUsage, err)
		}
	} else {
		if f.etcd+f.redis+f.postgres != "" {
			return nil, fmt.Errorf("%w: --config names the servers; --etcd, --redis and --postgres cannot stand beside it", errUsage)
		}
		data, err := os.ReadFile(f.file)
		if err != nil {
			return nil, fmt.Errorf("--config: %w", err)
		}
		if subjects, err = lockbench.Parse(f.file, filepath.Dir(f.file), data); err != nil {
			return nil, fmt.Errorf("--config: %w", err)
		}
	}
	for _, kind := range commaList(f.kinds) {
		if !slices.ContainsFunc(subjects, func(s lockbench.Subject) bool { return s.Kind == kind }) {
			return nil, fmt.Errorf("%w: --kind: no server was named for the kind %q", errUsage, kind)
		}
	}
	if f.kinds != "" {
		subjects = slices.DeleteFunc(subjects, func(s lockbench.Subject) bool { return !slices.Contains(commaList(f.kinds), s.Kind) })
	}
	return subjects, nil
}

// commaList takes a list with commas apart.
func commaList(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
}
