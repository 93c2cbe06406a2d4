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
	return cmd, reported("tap", f.watch)
}

func (f *tapFlags) watch(ctx context.Context, stdout, stderr io.Writer) error {
	if f.limit < 0 {
		return fmt.Errorf("%w: --limit: must not be negative", errUsage)
	}
	query := url.Values{"backend": {f.backend}, "match": {f.match}}
	if f.limit > 0 {
		query.Set("limit", strconv.Itoa(f.limit))
	}
	resp, err := ask(ctx, f.address, "api/v1/tap", query)
	switch {
	case ctx.Err() != nil && !errors.Is(err, errUsage):
		return nil // ended by who started it
	case err != nil:
		return err
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	if resp.StatusCode != http.StatusOK {
		return refused(resp, f.address)
	}
	if t := resp.Header.Get("Content-Type"); !strings.HasPrefix(t, "text/event-stream") {
		return fmt.Errorf("%s does not answer like a Sluice, but with %q", shown(f.address), t)
	}
	lines := bufio.NewScanner(resp.Body)
	const longest = 1 << 20
	lines.Buffer(nil, longest)
	printed := 0
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		if err := f.print(stdout, data); err != nil {
			return err
		}
		printed++
	}
	switch err := lines.Err(); {
	case ctx.Err() != nil:
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("%s does not answer like a Sluice: %w", shown(f.address), err)
	case err != nil:
		return fmt.Errorf("the gateway at %s is gone: %w", shown(f.address), err)
	case f.limit == 0 || printed < f.limit:
		fmt.Fprintf(stderr, "sluice: tap: the gateway at %s has ended it, as it does when it stops\n", shown(f.address))
	}
	return nil
}

// refused is the error of an answer that is no success, which it closes.
func refused(resp *http.Response, address string) error {
	defer func() { _ = resp.Body.Close() }() // it was only read
	const most = 1 << 10
	body, _ := io.ReadAll(io.LimitReader(resp.Body, most)) // what there is of it will do
	var refusal struct {
		Error string `json:"error"`
	}
	if resp.StatusCode == http.StatusBadRequest && json.Unmarshal(body, &refusal) == nil && refusal.Error != "" {
		return fmt.Errorf("%w: %s", errUsage, refusal.Error)
	}
	return fmt.Errorf("%s answers %d: %s", shown(address), resp.StatusCode, strings.TrimSpace(string(body)))
}

// print writes one sample, as the answer has it.
func (f *tapFlags) print(w io.Writer, data string) error {
	var s gateway.Tapped
	if err := json.Unmarshal([]byte(data), &s); err != nil {
		return fmt.Errorf("%s does not answer like a Sluice: %w", shown(f.address), err)
	}
	if f.format == "json" {
		_, err := fmt.Fprintln(w, data)
		return err
	}
	_, err := fmt.Fprintf(w, "%s  %s  %s\n", time.UnixMilli(s.Time).UTC().Format("15:04:05.000"), s.Series, s.Value)
	return err
}
