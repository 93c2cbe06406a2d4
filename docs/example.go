// Package docs holds those pages of the documentation that the program writes too.
package docs

import _ "embed"

//go:embed sluice.example.yaml
var example string

// Example is a complete configuration file with comments, and with the sections that few
// need as comments.
func Example() string { return example }
