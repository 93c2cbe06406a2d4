// Package alerts has the alerting and recording rules for Prometheus, as the plain files
// beside the sources, and fits them to a site: other names of alerts, jobs and labels, and
// other thresholds.
package alerts

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// First the addresses of panels in the rules, then what is expected of the rules.
//go:generate env SLUICE_WRITE_DOCS=1 go test -count=1 -run ^TestPanels$ .
//go:generate env SLUICE_WRITE_DOCS=1 go test -count=1 -run ^TestUnitTests$ .

//go:embed *.yaml
var standard embed.FS

// File is one file of rules, as rule_files of Prometheus names it.
type File struct {
	Name string // with the extension .yaml
	YAML []byte
}

// Files makes the rules. With the DefaultOptions they are the files of this folder, byte
// for byte. The error names each bad option.
func Files(o Options) ([]File, error) {
	rules, err := readStandard()
	if err != nil {
		return nil, err
	}
	if err := o.validate(rules); err != nil {
		return nil, err
	}
	if o.standard() {
		return rules, nil
	}
	for i := range rules {
		if rules[i].YAML, err = fit(rules[i].YAML, &o); err != nil {
			return nil, fmt.Errorf("%s: %w", rules[i].Name, err)
		}
	}
	return rules, nil
}

// Write writes the rules into the directory, which it makes where it is missing. Files of
// the same names are replaced.
func Write(dir string, o Options) error {
	list, err := Files(o)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the directory of the rules: %w", err)
	}
	for _, f := range list {
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.YAML, 0o644); err != nil {
			return fmt.Errorf("write rules: %w", err)
		}
	}
	return nil
}

func readStandard() ([]File, error) {
	names, err := fs.Glob(standard, "*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list the built-in rules: %w", err)
	}
	var list []File
	for _, name := range names {
		text, err := standard.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read built-in rules: %w", err)
		}
		list = append(list, File{Name: name, YAML: text})
	}
	return list, nil
}
