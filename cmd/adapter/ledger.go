package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sluice-metrics/sluice/internal/gateway"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// ledgerFlags are what the command line of sluice ledger says.
type ledgerFlags struct {
	*flags
	address string
	asked   bool // --address is on the command line
	backend string
	from    string
	to      string
	format  string
}

// maxLedger bounds the answer of a gateway: it has some hundred bytes for each of the
// stretches, of which a ledger remembers thousands.
const maxLedger = 64 << 20

// ledgerCommand adds the command "ledger". run is called when it was picked and returns
// the exit code. all are the flags of the program.
func ledgerCommand(app *kingpin.Application, all *flags) (cmd *kingpin.CmdClause, run func(stdout, stderr io.Writer) int) {
	f := &ledgerFlags{flags: all}
	cmd = app.Command("ledger", "Tell what backends lack of the samples between two times, and what becomes of it. Asks a running gateway or, with --storage.path, reads its files.")
	cmd.Flag("address", "URL of the gateway.").Default("http://127.0.0.1:9201").IsSetByUser(&f.asked).StringVar(&f.address)
	cmd.Flag("backend", "Name of the backend. Default: all.").StringVar(&f.backend)
	cmd.Flag("from", "Time of the oldest samples: RFC 3339, Unix seconds, or how long ago, such as 2h.").Default("24h").StringVar(&f.from)
	cmd.Flag("to", "Time of the newest samples, likewise. Default: now.").Default("0s").StringVar(&f.to)
	cmd.Flag("format", "table or json.").Default("table").EnumVar(&f.format, "table", "json")
	return cmd, reported("ledger", func(ctx context.Context, stdout, _ io.Writer) error { return f.tell(ctx, stdout) })
}

func (f *ledgerFlags) tell(ctx context.Context, stdout io.Writer) error {
	if f.storageGiven && f.asked {
		return fmt.Errorf("%w: --storage.path reads files and --address asks a gateway; give one of them", errUsage)
	}
	now := time.Now()
	from, err := timeAgo("--from", f.from, now)
	if err != nil {
		return err
	}
	to, err := timeAgo("--to", f.to, now)
	if err != nil {
		return err
	}
	if to.Before(from) {
		return fmt.Errorf("%w: --to is before --from", errUsage)
	}
	var accounts []gateway.Account
	if f.storageGiven {
		accounts, err = f.read(from, to)
	} else {
		accounts, err = f.ask(ctx, from, to)
	}
	if err != nil {
		return err
	}
	if f.format == "json" {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		return e.Encode(ledgerAnswer{accounts})
	}
	if len(accounts) == 0 {
		_, err := fmt.Fprintln(stdout, "nothing was ever withheld from any backend")
		return err
	}
	return writeAccounts(stdout, accounts)
}

// read reads the files below the storage path.
func (f *ledgerFlags) read(from, to time.Time) ([]gateway.Account, error) {
	// A directory without ledgers is one of a gateway that withheld nothing.
	info, err := os.Stat(f.storagePath)
	if err != nil {
		return nil, fmt.Errorf("--storage.path: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("--storage.path: %s is not a directory", f.storagePath)
	}
	return gateway.ReadAccounts(f.storagePath, f.backend, from, to)
}

// timeAgo reads a time, which may be a duration before now.
func timeAgo(flag, text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	at, err := gateway.ParseTime(text)
	if err != nil {
		return at, fmt.Errorf("%w: %s: %w, nor how long ago, such as 2h", errUsage, flag, err)
	}
	return at, nil
}

// ledgerAnswer is what the API answers with.
type ledgerAnswer struct {
	Backends []gateway.Account `json:"backends"`
}

// ask asks a running gateway.
func (f *ledgerFlags) ask(ctx context.Context, from, to time.Time) ([]gateway.Account, error) {
	q := url.Values{"from": {from.Format(time.RFC3339Nano)}, "to": {to.Format(time.RFC3339Nano)}}
	if f.backend != "" {
		q.Set("backend", f.backend)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	resp, err := ask(ctx, f.address, "api/v1/ledger", q)
	switch {
	case errors.Is(err, errUsage):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w; --storage.path reads its files instead", err)
	case resp.StatusCode != http.StatusOK:
		return nil, refused(resp, f.address)
	}
	body, err := readAnswer(resp, maxLedger)
	if err != nil {
		return nil, err
	}
	var answer ledgerAnswer
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("%s does not answer like a Sluice: %w", shown(f.address), err)
	}
	return answer.Backends, nil
}

// writeAccounts writes a table with a line for each stretch, and what the range lacks of
// each backend. Native histograms count as samples.
func writeAccounts(w io.Writer, accounts []gateway.Account) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	sums := make([]uint64, len(accounts))
	head := "BACKEND\tFROM\tTO\tKIND\tSTATE\tRATE\tTAKEN\tWITHHELD\tSENT SOON AFTER\tGIVEN BACK\tGIVEN UP\tMISSING\n"
	for i, a := range accounts {
		for j := range a.Missing {
			m := &a.Missing[j]
			missing := m.Outstanding.Samples + m.Outstanding.Histograms
			sums[i] += missing
			fmt.Fprintf(t, "%s%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\n", head,
				a.Backend, m.From, m.To, m.Kind, m.State, rates(m.MinRate, m.MaxRate),
				m.Taken.Samples+m.Taken.Histograms, m.Withheld.Samples+m.Withheld.Histograms, m.Sent.Samples+m.Sent.Histograms,
				m.GivenBack.Samples+m.GivenBack.Histograms, m.GivenUp.Samples+m.GivenUp.Histograms, missing)
			head = ""
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for i, a := range accounts {
		if _, err := fmt.Fprintf(w, "%s: %s\n", a.Backend, summary(&a, sums[i])); err != nil {
			return err
		}
	}
	return nil
}

func summary(a *gateway.Account, missing uint64) string {
	var text string
	switch {
	case !a.Sampling && len(a.Missing) == 0 && a.Debt.Samples == 0:
		return "everything is sent; adaptive_sampling is off"
	case missing == 0:
		text = "nothing is missing of that time"
	default:
		text = fmt.Sprintf("%d samples are missing", missing)
	}
	if slices.ContainsFunc(a.Missing, func(m ledger.Missing) bool { return m.Inexact }) {
		text += "; the counts may be off"
	}
	if slices.ContainsFunc(a.Missing, func(m ledger.Missing) bool { return m.Estimated }) {
		text += "; what came of parts of stretches is estimated, of whole ones it is exact"
	}
	if a.Debt.Unknown {
		text += "; a part of the ledger is lost, there may be more"
	}
	if !a.Sampling {
		text += "; adaptive_sampling is off now"
	}
	switch n, eta := a.Debt.Samples, a.Debt.ETASeconds; {
	case n > 0 && eta != nil:
		text += fmt.Sprintf("; %d of all times are to be given back, which takes about %v", n, time.Duration(*eta)*time.Second)
	case n > 0:
		text += fmt.Sprintf("; %d of all times were withheld and are not given back so far", n)
	}
	return text
}

// rates is the range of the share that was asked for.
func rates(lowest, highest float64) string {
	low, high := strconv.FormatFloat(lowest, 'f', 2, 64), strconv.FormatFloat(highest, 'f', 2, 64)
	if low == high {
		return low
	}
	return low + " to " + high
}
