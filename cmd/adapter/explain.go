package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sluice-metrics/sluice/internal/gateway"
)

// explainFlags are what the command line of sluice explain says.
type explainFlags struct {
	series  string
	address string
	format  string
}

// explainCommand adds the command "explain". run is called when it was picked and returns
// the exit code.
func explainCommand(app *kingpin.Application) (cmd *kingpin.CmdClause, run func(stdout, stderr io.Writer) int) {
	f := &explainFlags{}
	cmd = app.Command("explain", "Tell where a series goes: to which backends, at which rate now, by which rule, in which class; and who sent it last. Asks a running gateway.")
	cmd.Arg("series", `The series, in single quotes, such as 'up{job="node"}'.`).Required().StringVar(&f.series)
	cmd.Flag("address", "URL of the gateway.").Default("http://127.0.0.1:9201").StringVar(&f.address)
	cmd.Flag("format", "table or json.").Default("table").EnumVar(&f.format, "table", "json")
	return cmd, reported("explain", func(ctx context.Context, stdout, _ io.Writer) error { return f.tell(ctx, stdout) })
}

func (f *explainFlags) tell(ctx context.Context, stdout io.Writer) error {
	e, err := f.ask(ctx)
	if err != nil {
		return err
	}
	if f.format == "json" {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(e)
	}
	return writeExplanation(stdout, e)
}

// ask asks a running gateway.
func (f *explainFlags) ask(ctx context.Context) (*gateway.Explanation, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	resp, err := ask(ctx, f.address, "api/v1/explain", url.Values{"series": {f.series}})
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, refused(resp, f.address)
	}
	const most = 8 << 20
	body, err := readAnswer(resp, most)
	if err != nil {
		return nil, err
	}
	e := &gateway.Explanation{}
	if err := json.Unmarshal(body, e); err != nil {
		return nil, fmt.Errorf("%s does not answer like a Sluice: %w", shown(f.address), err)
	}
	return e, nil
}

// writeExplanation writes a table, and below it why less than everything is sent.
func writeExplanation(w io.Writer, e *gateway.Explanation) error {
	fmt.Fprintln(w, e.Series)
	if s := e.LastSent; s != nil {
		fmt.Fprintf(w, "last sent at %s by %s\n", s.At.UTC().Format(time.RFC3339), s.By())
	} else {
		fmt.Fprintln(w, "nobody has sent it lately")
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "BACKEND\tGETS IT\tCLASS\tRULE\tSENT NOW")
	var reasons []string
	for _, r := range e.Routes {
		gets, class, rule, rate := "no", "-", "-", "-"
		if r.Takes {
			gets, rate = "all series", strconv.FormatFloat(r.Rate*100, 'f', 1, 64)+" %"
		}
		if r.Selector != "" {
			gets = r.Selector
		}
		if r.Sampling {
			class, rule = r.Class, r.Rule
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", r.Backend, gets, class, rule, rate)
		if r.Why != "" {
			reasons = append(reasons, r.Backend+": "+r.Why)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, reason := range reasons {
		fmt.Fprintln(w, reason)
	}
	return nil
}
