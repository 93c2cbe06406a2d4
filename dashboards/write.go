package dashboards

import (
	"fmt"
	"os"
	"path/filepath"
)

// File is one dashboard as Grafana imports it.
type File struct {
	Name string // with the extension .json
	JSON []byte
}

// Files makes the dashboards.
func Files(o Options) ([]File, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o.Rename = Renamed(o.Labels, o.Rename)
	var list []File
	for _, d := range all(&o) {
		text, err := encode(&d, &o)
		if err != nil {
			return nil, err
		}
		list = append(list, File{Name: d.name + ".json", JSON: text})
	}
	return list, nil
}

// Write writes the dashboards into the directory, which it makes where it is missing.
// Files of the same names are replaced.
func Write(dir string, o Options) error {
	list, err := Files(o)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the directory of the dashboards: %w", err)
	}
	for _, f := range list {
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.JSON, 0o644); err != nil {
			return fmt.Errorf("write a dashboard: %w", err)
		}
	}
	return nil
}

func all(o *Options) []dashboard {
	return []dashboard{overview(o), backends(o), databases(o), leases(o), internals(o)}
}
