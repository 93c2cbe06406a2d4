package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// action runs a command that was picked and returns the exit code.
type action = func(stdout, stderr io.Writer) int

// reported is a command that ends when it is interrupted, and says its error on stderr.
func reported(name string, do func(ctx context.Context, stdout, stderr io.Writer) error) action {
	return func(stdout, stderr io.Writer) int {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		switch err := do(ctx, stdout, stderr); {
		case errors.Is(err, errUsage):
			fmt.Fprintf(stderr, "sluice: %s: %v; try --help\n", name, err)
			return exitUsage
		case err != nil:
			fmt.Fprintf(stderr, "sluice: %s: %v\n", name, err)
			return exitError
		}
		return exitOK
	}
}

// askTimeout bounds how long a gateway may take to answer, or to begin an answer that goes on.
const askTimeout = 30 * time.Second

// ask asks the gateway that --address names. The caller closes the body of the answer, whose
// status may be any.
func ask(ctx context.Context, address, path string, query url.Values) (*http.Response, error) {
	u, err := gatewayURL(address, path)
	if err != nil {
		return nil, err
	}
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("%w: --address: %w", errUsage, err)
	}
	// One request is all there is.
	once := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: askTimeout}).DialContext,
		TLSHandshakeTimeout:   askTimeout,
		ResponseHeaderTimeout: askTimeout,
		DisableKeepAlives:     true,
	}
	resp, err := (&http.Client{Transport: once}).Do(req)
	if err != nil {
		var at *url.Error
		if errors.As(err, &at) {
			err = at.Err // the address is told already
		}
		return nil, fmt.Errorf("no gateway answers at %s (is it running? --address names another): %w", shown(address), err)
	}
	return resp, nil
}

// readAnswer reads an answer of at most so many bytes, and closes it.
func readAnswer(resp *http.Response, most int64) ([]byte, error) {
	defer func() { _ = resp.Body.Close() }() // it was only read
	body, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the answer of %s: %w", resp.Request.URL.Host, err)
	case int64(len(body)) > most:
		return nil, fmt.Errorf("%s does not answer like a Sluice: its answer has more than %d MiB", resp.Request.URL.Host, most>>20)
	}
	return body, nil
}

// gatewayURL is a path of the gateway that --address names.
func gatewayURL(address, path string) (*url.URL, error) {
	base, err := url.Parse(address)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("%w: --address: %q is no URL such as http://127.0.0.1:9201", errUsage, address)
	}
	return base.JoinPath(path), nil
}

// shown is an address that gatewayURL accepts, without its password.
func shown(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "that address"
	}
	return u.Redacted()
}
