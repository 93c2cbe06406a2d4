// Command gendocs writes the reference of the configuration file, and its JSON Schema, from
// the structs that the file is decoded into, their comments and their defaults.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: gendocs REFERENCE SCHEMA, in the folder of package config")
		os.Exit(2)
	}
	for i, write := range []func(root string) (string, error){page, schema} {
		text, err := write("..")
		if err == nil {
			err = os.WriteFile(os.Args[1+i], []byte(text), 0o644)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "gendocs:", err)
			os.Exit(1)
		}
	}
}
