package config

import _ "embed"

//go:embed schema.json
var schema string

// Schema is the JSON Schema of the configuration file. It is as strict about keys as Load
// is, and knows nothing of what depends on other values.
func Schema() string { return schema }
