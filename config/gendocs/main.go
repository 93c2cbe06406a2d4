// Command gendocs writes the reference of the configuration file from the structs that
// the file is decoded into, their comments and their defaults.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gendocs FILE, in the folder of package config")
		os.Exit(2)
	}
	text, err := page("..")
	if err == nil {
		err = os.WriteFile(os.Args[1], []byte(text), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gendocs:", err)
		os.Exit(1)
	}
}
