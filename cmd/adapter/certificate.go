package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v4"
)

// servedCertificate reads the certificate that --web.config.file makes the server show,
// as PEM; it is nil where the file has none. Other mistakes in the file ended the start
// before.
func servedCertificate(webConfigFile string) func() ([]byte, error) {
	if scheme(webConfigFile) != "https" {
		return nil
	}
	return func() ([]byte, error) {
		data, err := os.ReadFile(webConfigFile)
		if err != nil {
			return nil, fmt.Errorf("--web.config.file: %w", err)
		}
		var c struct {
			TLS struct {
				File string `yaml:"cert_file"`
				Text string `yaml:"cert"`
			} `yaml:"tls_server_config"`
		}
		if err := yaml.Unmarshal(data, &c); err != nil {
			return nil, fmt.Errorf("--web.config.file: %w", err)
		}
		switch file := c.TLS.File; {
		case c.TLS.Text != "":
			return []byte(c.TLS.Text), nil
		case file == "":
			return nil, errors.New("--web.config.file: tls_server_config names no certificate")
		case !filepath.IsAbs(file):
			c.TLS.File = filepath.Join(filepath.Dir(webConfigFile), file)
		}
		text, err := os.ReadFile(c.TLS.File)
		if err != nil {
			return nil, fmt.Errorf("--web.config.file: %w", err)
		}
		return text, nil
	}
}
