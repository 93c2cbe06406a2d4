package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"syscall"
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

// gatewayURL is a path of the gateway that --address names.
func gatewayURL(address, path string) (*url.URL, error) {
	base, err := url.Parse(address)
	if err != nil || base.Host == "" {
		return nil, fmt.Errorf("%w: --address: %q is no URL such as http://127.0.0.1:9201", errUsage, address)
	}
	return base.JoinPath(path), nil
}
