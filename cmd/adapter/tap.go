package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sluice-metrics/sluice/internal/gateway"
)

// tapFlags are what the command line of sluice tap says.
type tapFlags struct {
	backend string
	match   string
	limit   int
	address string
	format  string
}

// tapCommand adds the command "tap". run is called when it was picked and returns the exit
// code.
func tapCommand(app *kingpin.Application) (cmd *kingpin.CmdClause, run func(stdout, stderr io.Writer) int) {
	f := &tapFlags{}
	cmd = app.Command("tap", "Look at what goes out to a backend: a few of the samples that it takes, as it takes them. Asks a running gateway, and does not slow it down. Ctrl-C ends it.")
	cmd.Flag("backend", "Name of the backend. May be left out where there is one only.").StringVar(&f.backend)
	cmd.Flag("match", `Show only series that this selector selects, such as '{job="node"}'.`).StringVar(&f.match)
	cmd.Flag("limit", "End after so many samples. 0: go on.").Default("0").IntVar(&f.limit)
	cmd.Flag("address", "URL of the gateway.").Default("http://127.0.0.1:9201").StringVar(&f.address)
	cmd.Flag("format", "text or json, one object a line.").Default("text").EnumVar(&f.format, "text", "json")
	return cmd, reported("tap", func(ctx context.Context, stdout, _ io.Writer) error { return f.watch(ctx, stdout) })
}

func (f *tapFlags) watch(ctx context.Context, stdout io.Writer) error {
	u, err := gatewayURL(f.address, "api/v1/tap")
	if err != nil {
		return err
	}
	if f.limit < 0 {
		return fmt.Errorf("%w: --limit: must not be negative", errUsage)
	}
	query := url.Values{"backend": {f.backend}, "match": {f.match}}
	if f.limit > 0 {
		query.Set("limit", strconv.Itoa(f.limit))
	}
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return fmt.Errorf("%w: --address: %w", errUsage, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if ctx.Err() != nil {
		return nil // ended by who started it
	}
	if err != nil {
		return fmt.Errorf("no gateway answers at %s (is it running? --address names another): %w", f.address, err)
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	if resp.StatusCode != http.StatusOK {
		return refused(resp, f.address)
	}
	lines := bufio.NewScanner(resp.Body)
	const longest = 1 << 20
	lines.Buffer(nil, longest)
	for lines.Scan() {
		if err := f.print(stdout, lines.Text()); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("the gateway at %s ended the connection: %w", f.address, err)
	}
	return nil
}

// refused is the error of an answer that is no success.
func refused(resp *http.Response, address string) error {
	const most = 4 << 10
	body, _ := io.ReadAll(io.LimitReader(resp.Body, most)) // what there is of it will do
	var refusal struct {
		Error string `json:"error"`
	}
	if resp.StatusCode == http.StatusBadRequest && json.Unmarshal(body, &refusal) == nil && refusal.Error != "" {
		return fmt.Errorf("%w: %s", errUsage, refusal.Error)
	}
	return fmt.Errorf("%s answers %d: %s", address, resp.StatusCode, strings.TrimSpace(string(body)))
}

// print writes one line of the answer.
func (f *tapFlags) print(w io.Writer, line string) error {
	data, ok := strings.CutPrefix(line, "data: ")
	if !ok {
		return nil
	}
	if f.format == "json" {
		_, err := fmt.Fprintln(w, data)
		return err
	}
	var s gateway.Tapped
	if err := json.Unmarshal([]byte(data), &s); err != nil {
		return errors.Join(fmt.Errorf("%s does not answer like a Sluice", f.address), err)
	}
	_, err := fmt.Fprintf(w, "%s  %s  %s\n", time.UnixMilli(s.Time).UTC().Format("15:04:05.000"), s.Series, s.Value)
	return err
}
