package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// PrometheusFile is a configuration file of Prometheus whose remote_write is to become
// backends.
type PrometheusFile struct {
	// Name of the file in messages and comments.
	Name string
	// Directory that relative names of files in it are relative to.
	Directory string
	Data      []byte
	// Gateway is the URL at which Prometheus reaches Sluice, without a path.
	Gateway string
}

// Conversion is what FromPrometheus made.
type Conversion struct {
	// Config is a configuration file that Parse takes. What could not be carried over
	// stands in comments.
	Config string
	// RemoteWrite is what then takes the place of remote_write in the file of Prometheus.
	RemoteWrite string
}

// FromPrometheus makes each remote_write of a Prometheus a backend of its own.
func FromPrometheus(f PrometheusFile) (*Conversion, error) {
	entries, err := f.remoteWrites()
	if err != nil {
		return nil, err
	}
	out := &converted{remoteWrite: []string{"remote_write:", "  - url: " + strings.TrimSuffix(f.Gateway, "/") + "/api/v1/write"}}
	var text strings.Builder
	fmt.Fprintf(&text, "# Made of the remote_write of %s. In its place belongs there:\n#\n", f.Name)
	var backends strings.Builder
	for i, n := range entries {
		e := &conversion{file: &f, backend: mapping(), remote: mapping()}
		if err := e.read(n); err != nil {
			return nil, fmt.Errorf("%s:%d: remote_write[%d]: %w", f.Name, n.Line, i, err)
		}
		part, err := e.text(out.unique(e.name))
		if err != nil {
			return nil, fmt.Errorf("%s:%d: remote_write[%d]: %w", f.Name, n.Line, i, err)
		}
		backends.WriteString(part)
		out.sends(e.sends)
	}
	snippet := strings.Join(out.remoteWrite, "\n") + "\n"
	text.WriteString(comment("#   ", snippet))
	text.WriteString("#\n# Nothing is withheld from a backend that lags unless there is a section adaptive_sampling,\n" +
		"# and given back only to one with out_of_order_time_window; see docs/sampling.md.\n\nbackends:\n")
	text.WriteString(backends.String())
	if _, err := Parse(f.Name+", converted", []byte(text.String())); err != nil {
		return nil, fmt.Errorf("what %s says is no valid configuration of Sluice:\n%w", f.Name, err)
	}
	return &Conversion{Config: text.String(), RemoteWrite: snippet}, nil
}

// remoteWrites lists the items of remote_write.
func (f *PrometheusFile) remoteWrites() ([]*yaml.Node, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(f.Data, &document); err != nil {
		return nil, fmt.Errorf("%s is no YAML: %w", f.Name, err)
	}
	if len(document.Content) == 1 {
		for _, p := range keysOf(document.Content[0]) {
			if list := resolved(p.value); p.key == "remote_write" && list.Kind == yaml.SequenceNode && len(list.Content) > 0 {
				return list.Content, nil
			}
		}
	}
	return nil, fmt.Errorf("%s has no remote_write: there is nothing to convert", f.Name)
}

// converted is what the backends have in common.
type converted struct {
	names       []string
	remoteWrite []string
}

// unique is a name of a backend that no other has.
func (c *converted) unique(name string) string {
	for n := 2; slices.Contains(c.names, name); n++ {
		base := strings.TrimSuffix(name, "-"+strconv.Itoa(n-1))
		name = base[:min(len(base), 60)] + "-" + strconv.Itoa(n)
	}
	c.names = append(c.names, name)
	return name
}

// sends adds what Prometheus is to send beside samples.
func (c *converted) sends(keys []string) {
	for _, k := range keys {
		if line := "    " + k + ": true"; !slices.Contains(c.remoteWrite, line) {
			c.remoteWrite = append(c.remoteWrite, line)
		}
	}
}

// conversion is one remote_write on its way.
type conversion struct {
	file    *PrometheusFile
	name    string
	backend *yaml.Node
	remote  *yaml.Node // the section remote_write
	sends   []string   // keys of what Prometheus is to send beside samples
	left    []string   // what is not carried over, and why
}

// alike are the keys that Sluice has by the same name.
var alike = []string{
	"url", "headers", "basic_auth", "authorization", "oauth2", "tls_config", "proxy_url", "no_proxy",
	"proxy_from_environment", "proxy_connect_header", "follow_redirects", "enable_http2", "http_headers",
}

// leftOut says of keys that are not carried over why.
var leftOut = map[string]string{
	"sigv4":                            "Sluice does not sign requests for AWS; put a signing proxy between, such as aws-sigv4-proxy",
	"azuread":                          "Sluice does not fetch tokens of Azure AD; use oauth2 with a client secret, or a proxy",
	"google_iam":                       "Sluice does not fetch tokens of Google IAM; use authorization with a token in a file, or a proxy",
	"metadata_config":                  "metadata is passed on as it is received",
	"round_robin_dns":                  "Sluice keeps its connections open",
	"queue_config.capacity":            "the journal on disk takes its place",
	"queue_config.retry_on_http_429":   "429 is always tried again, after the pause that the backend asks for",
	"queue_config.batch_send_deadline": "a lane sends as soon as there is room for a request",
}

func (e *conversion) leave(key string) {
	why, known := leftOut[key]
	if !known {
		why = "Sluice has nothing like it"
	}
	e.left = append(e.left, key+": "+why)
}

func (e *conversion) read(n *yaml.Node) error {
	if resolved(n).Kind != yaml.MappingNode {
		return errors.New("expected a section (key: value)")
	}
	for _, p := range keysOf(n) {
		switch {
		case slices.Contains(alike, p.key):
			set(e.remote, p.key, e.copied(p.key, p.value))
		case p.key == "name":
			e.name = p.value.Value
		case p.key == "remote_timeout":
			set(e.remote, "timeout", e.copied(p.key, p.value))
		case p.key == "bearer_token", p.key == "bearer_token_file":
			a := mapping()
			set(a, "credentials"+strings.TrimPrefix(p.key, "bearer_token"), e.copied(p.key, p.value))
			set(e.remote, "authorization", a)
		case p.key == "protobuf_message":
			if p.value.Value == "prometheus.WriteRequest" {
				set(e.remote, "protocol", word(string(protocolRW1)))
			}
		case p.key == "send_exemplars", p.key == "send_native_histograms":
			if p.value.Value == "true" {
				e.sends = append(e.sends, p.key)
			}
		case p.key == "queue_config":
			e.queue(p.value)
		case p.key == "write_relabel_configs":
			e.relabel(p.value)
		default:
			e.leave(p.key)
		}
	}
	address := valueOf(e.remote, "url")
	if address == nil {
		return errors.New("has no url")
	}
	e.name = backendNameOf(e.name, address.Value)
	return nil
}

// protocolRW1 is how the file spells remote write 1.0 only.
const protocolRW1 = "rw1"

// backendNameOf is the name of a backend made of the entry's name or, without one, of the
// host that it writes to.
func backendNameOf(name, address string) string {
	if name == "" {
		if u, err := url.Parse(address); err == nil {
			name = u.Hostname()
		}
	}
	name = strings.Trim(regexp.MustCompile(`[^a-zA-Z0-9_-]+`).ReplaceAllString(name, "-"), "-")
	return cmp.Or(name[:min(len(name), 60)], "backend")
}

// mostShards is the largest max_shards there is.
const mostShards = 64

func (e *conversion) queue(n *yaml.Node) {
	for _, p := range keysOf(n) {
		switch p.key {
		case "max_samples_per_send", "min_backoff", "max_backoff":
			set(e.remote, p.key, e.copied(p.key, p.value))
		case "min_shards", "max_shards":
			v := e.copied(p.key, p.value)
			if shards, err := strconv.Atoi(v.Value); err == nil && shards > mostShards {
				e.left = append(e.left, fmt.Sprintf("queue_config.%s: %d is more than the %d that Sluice has at most", p.key, shards, mostShards))
				v.Value = strconv.Itoa(mostShards)
			}
			set(e.remote, p.key, v)
		case "sample_age_limit":
			backlog := mapping()
			set(backlog, "age", e.copied(p.key, p.value))
			set(e.backend, "max_backlog", backlog)
		default:
			e.leave("queue_config." + p.key)
		}
	}
}

// copied is a value without aliases and comments, with names of files that do not depend
// on where the new file is.
func (e *conversion) copied(key string, n *yaml.Node) *yaml.Node {
	n = resolved(n)
	c := &yaml.Node{Kind: n.Kind, Tag: n.Tag, Value: n.Value, Style: n.Style}
	if n.Kind == yaml.MappingNode {
		for _, p := range keysOf(n) {
			set(c, p.key, e.copied(p.key, p.value))
		}
		return c
	}
	for _, item := range n.Content {
		c.Content = append(c.Content, e.copied(key, item))
	}
	file := strings.HasSuffix(key, "_file") || key == "files"
	if file && n.Kind == yaml.ScalarNode && n.Value != "" && !filepath.IsAbs(n.Value) {
		c.Value = filepath.Join(e.file.Directory, n.Value)
	}
	return c
}

// text is the backend as an item of the list, with what was left out as comments.
func (e *conversion) text(name string) (string, error) {
	item := mapping()
	set(item, "name", word(name))
	item.Content = append(item.Content, e.backend.Content...)
	set(item, "remote_write", e.remote)
	written, err := yaml.Dump(&yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{item}})
	if err != nil {
		return "", fmt.Errorf("write the backend: %w", err)
	}
	var b strings.Builder
	for _, l := range e.left {
		b.WriteString("  # not carried over: " + strings.Join(strings.Fields(l), " ") + "\n")
	}
	for line := range strings.Lines(string(bytes.TrimRight(written, "\n")) + "\n") {
		b.WriteString("  " + line)
	}
	return b.String(), nil
}

// comment puts each line behind a prefix.
func comment(prefix, text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(prefix + line)
	}
	return b.String()
}

// pair is a key of a mapping with its value.
type pair struct {
	key   string
	value *yaml.Node // not an alias
}

// keysOf lists the keys of a mapping, and those that "<<" merges into it.
func keysOf(n *yaml.Node) []pair {
	n = resolved(n)
	var list []pair
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].ShortTag() != "!!merge" {
			list = append(list, pair{n.Content[i].Value, resolved(n.Content[i+1])})
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].ShortTag() != "!!merge" {
			continue
		}
		for _, p := range keysOf(n.Content[i+1]) {
			if !slices.ContainsFunc(list, func(o pair) bool { return o.key == p.key }) {
				list = append(list, p)
			}
		}
	}
	return list
}

func resolved(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func mapping() *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode} }

func word(text string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(text)
	return n
}

func set(m *yaml.Node, key string, value *yaml.Node) {
	m.Content = append(m.Content, word(key), value)
}

func valueOf(m *yaml.Node, key string) *yaml.Node {
	for _, p := range keysOf(m) {
		if p.key == key {
			return p.value
		}
	}
	return nil
}
