// Command gendashboards writes the dashboards into the directory that it is given.
package main

import (
	"fmt"
	"os"

	"github.com/sluice-metrics/sluice/dashboards"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gendashboards DIRECTORY")
		os.Exit(2)
	}
	if err := dashboards.Write(os.Args[1], dashboards.DefaultOptions()); err != nil {
		fmt.Fprintln(os.Stderr, "gendashboards:", err)
		os.Exit(1)
	}
}
