package strictyaml

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v4"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/fielderror"
	"github.com/sluice-metrics/sluice/internal/nearest"
)

// decode sets v, which holds the default, from n.
func (d *Document) decode(n *yaml.Node, v reflect.Value, path string) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if !d.spend(n, path) {
		return
	}
	t := v.Type()
	switch {
	case t.Kind() == reflect.Pointer:
		if isNull(n) {
			d.fail(n, path, "expected "+describe(t.Elem())+", got nothing; remove the key, or write {} to have all defaults")
			return
		}
		if v.IsNil() {
			v.Set(reflect.New(t.Elem()))
			setDefaults(v.Elem())
		}
		d.decode(n, v.Elem(), path)
	case IsSection(t):
		d.section(n, v, path)
	case isValue(t):
		d.value(n, v, path)
	case t.Kind() == reflect.Slice:
		d.list(n, v, path)
	case t.Kind() == reflect.Map && t.Key().Kind() == reflect.String:
		d.mapping(n, v, path)
	default:
		d.value(n, v, path)
	}
}

// spend counts one value, and reports once when there are too many.
func (d *Document) spend(n *yaml.Node, path string) bool {
	if d.budget == 0 {
		return false
	}
	if d.budget--; d.budget == 0 {
		d.fail(n, path, fmt.Sprintf("the file has more than %d values, aliases counted each time they are used", maxNodes))
		return false
	}
	return true
}

// section decodes a struct. A section that is there but empty has its defaults.
func (d *Document) section(n *yaml.Node, v reflect.Value, path string) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "expected "+describe(v.Type())+", got "+d.found(n, path))
		return
	}
	fields, free := Fields(v)
	if free.IsValid() {
		d.mapping(n, free, path)
		return
	}
	var before place
	for _, p := range d.pairs(n, path) {
		i := slices.IndexFunc(fields, func(f Field) bool { return f.Key == p.name })
		if i < 0 && n.Style&yaml.FlowStyle != 0 && p.value.Value == "" && isNull(p.value) && holdsSecret(before.name) {
			// The rest of a password may not be shown as a key.
			d.add(d.at(Problem{Path: step(path, before.name), Message: "a comma ends a value that has no quotes; put the value in quotes"}, before.key))
			continue
		}
		before = p
		if i < 0 {
			d.unknown(p, fields, path)
			continue
		}
		below := step(path, p.name)
		d.places[below] = p
		f := fields[i]
		if f.Name != "" {
			d.decode(p.value, f.Value, below)
			continue
		}
		extra := v.Addr().Interface().(Extended).Extra(f.Key, true)
		d.decode(p.value, reflect.ValueOf(&extra).Elem().Elem(), below)
	}
}

// list decodes a list. A list of sections may be there but empty, as a section may.
func (d *Document) list(n *yaml.Node, v reflect.Value, path string) {
	if isNull(n) && IsSection(v.Type().Elem()) {
		return
	}
	if n.Kind != yaml.SequenceNode {
		message := "expected " + describe(v.Type()) + ", got " + d.found(n, path)
		switch {
		case n.Kind == yaml.ScalarNode && !isNull(n):
			message += "; put it in [ ]"
		case n.Kind == yaml.MappingNode && IsSection(v.Type().Elem()):
			message += `; begin each item with "- "`
		}
		d.fail(n, path, message)
		return
	}
	items := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		below := path + "[" + strconv.Itoa(i) + "]"
		d.places[below] = place{value: item}
		if isNull(item) {
			d.fail(item, below, "expected "+describe(v.Type().Elem())+", got nothing")
			continue
		}
		setDefaults(items.Index(i))
		d.decode(item, items.Index(i), below)
	}
	v.Set(items)
}

func (d *Document) mapping(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "expected "+describe(v.Type())+", got "+d.found(n, path))
		return
	}
	m := reflect.MakeMap(v.Type())
	for _, p := range d.pairs(n, path) {
		below := step(path, p.name)
		d.places[below] = p
		item := reflect.New(v.Type().Elem()).Elem()
		setDefaults(item)
		d.decode(p.value, item, below)
		m.SetMapIndex(reflect.ValueOf(p.name).Convert(v.Type().Key()), item)
	}
	v.Set(m)
}

// value decodes what is no section, list or map: the type itself, or the YAML
// library, says whether it fits.
func (d *Document) value(n *yaml.Node, v reflect.Value, path string) {
	anything := v.Kind() == reflect.Interface
	if !anything && (n.Kind != yaml.ScalarNode || isNull(n)) {
		d.fail(n, path, "expected "+describe(v.Type())+", got "+d.found(n, path))
		return
	}
	if anything && d.cyclic(n, path) {
		return
	}
	decoded := reflect.New(v.Type())
	err := n.Load(decoded.Interface())
	if err == nil {
		v.Set(decoded.Elem())
		return
	}
	if _, whole := foreign(v.Type()); whole {
		d.fail(n, path, "expected "+describe(v.Type())+", got "+d.found(n, path))
		return
	}
	if anything {
		// The library's words quote the value, which may be a secret further in.
		d.fail(n, path, "a value in it is not what its tag (such as !!int) says")
		return
	}
	var load *yaml.LoadError
	if errors.As(err, &load) && load.Unwrap() != nil {
		err = load.Unwrap()
	}
	var bad *url.Error
	if errors.As(err, &bad) {
		text := fmt.Sprintf("expected %s, got %s", describe(v.Type()), d.found(n, path))
		if !quotesSecret(bad.Err.Error(), n.Value) {
			text += ": " + bad.Err.Error()
		}
		err = errors.New(text)
	}
	d.fail(n, path, err.Error())
}

// cyclic refuses an alias below n that leads back to a node around it.
func (d *Document) cyclic(n *yaml.Node, path string) bool {
	var around []*yaml.Node
	var walk func(*yaml.Node) bool
	walk = func(n *yaml.Node) bool {
		if !d.spend(n, path) || slices.Contains(around, n) {
			return true
		}
		if n.Kind == yaml.AliasNode {
			return walk(n.Alias)
		}
		around = append(around, n)
		defer func() { around = around[:len(around)-1] }()
		return slices.ContainsFunc(n.Content, walk)
	}
	if !walk(n) {
		return false
	}
	if d.budget == 0 {
		return true
	}
	d.fail(n, path, "an alias in it leads back to itself")
	return true
}

// pairs lists the keys of a mapping with what "<<" merges into it, and reports keys
// that stand twice.
func (d *Document) pairs(n *yaml.Node, path string) []place {
	var list []place
	seen := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		for key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.ShortTag() == "!!merge" {
			continue
		}
		if key.Kind != yaml.ScalarNode {
			d.fail(n.Content[i], path, "expected a word as key, got "+d.found(key, path))
			continue
		}
		if first := seen[key.Value]; first != nil {
			d.add(d.at(Problem{
				Path:    step(path, key.Value),
				Message: fmt.Sprintf("duplicate key; the first is in line %d", first.Line),
			}, n.Content[i]))
			continue
		}
		seen[key.Value] = key
		list = append(list, place{name: key.Value, key: n.Content[i], value: value})
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].ShortTag() == "!!merge" {
			list = d.merge(n.Content[i+1], path, seen, list)
		}
	}
	return list
}

// merge adds the keys of the mapping, or of the list of mappings, that a "<<" names,
// where they are not there yet.
func (d *Document) merge(n *yaml.Node, path string, seen map[string]*yaml.Node, list []place) []place {
	if !d.spend(n, path) {
		return list
	}
	from := n
	for from.Kind == yaml.AliasNode {
		from = from.Alias
	}
	switch from.Kind {
	case yaml.SequenceNode:
		for _, item := range from.Content {
			list = d.merge(item, path, seen, list)
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(from.Content); i += 2 {
			key := from.Content[i]
			switch {
			case key.ShortTag() == "!!merge":
				list = d.merge(from.Content[i+1], path, seen, list)
			case key.Kind == yaml.ScalarNode && seen[key.Value] == nil:
				seen[key.Value] = key
				list = append(list, place{name: key.Value, key: key, value: from.Content[i+1]})
			}
		}
	default:
		d.fail(n, path, "expected an alias of a section behind <<, got "+d.found(from, path))
	}
	return list
}

func (d *Document) unknown(p place, fields []Field, path string) {
	known := make([]string, len(fields))
	for i, f := range fields {
		known[i] = f.Key
	}
	message := "unknown field"
	if near := nearest.Word(p.name, known); near != "" {
		// What was meant is in the file: that it is missing would be said in vain.
		d.breaks(step(path, near))
		message += fmt.Sprintf("; did you mean %q?", near)
	} else if where := d.keys[p.name]; len(where) == 1 {
		message += "; it belongs to " + cmp.Or(where[0], "the top of the file")
	} else if len(known) <= 12 {
		message += "; known here: " + strings.Join(known, ", ")
	}
	d.add(d.at(Problem{Path: step(path, p.name), Message: message}, p.key))
}

func setDefaults(v reflect.Value) {
	if defaulter, ok := pointer(v).(Defaulter); ok {
		defaulter.SetDefaults()
	}
}

var (
	unmarshalerType     = reflect.TypeFor[yaml.Unmarshaler]()
	textUnmarshalerType = reflect.TypeFor[interface{ UnmarshalText([]byte) error }]()
	funcUnmarshalerType = reflect.TypeFor[interface{ UnmarshalYAML(func(any) error) error }]()
)

// isValue reports whether the type decodes itself.
func isValue(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(unmarshalerType) || p.Implements(textUnmarshalerType) || p.Implements(funcUnmarshalerType)
}

// foreign says what the value types of other modules take, which cannot say it
// themselves. whole is false where their own errors say more.
func foreign(t reflect.Type) (expected string, whole bool) {
	switch t {
	case reflect.TypeFor[model.Duration](), reflect.TypeFor[time.Duration]():
		return "a duration such as 30s, 5m, 1h30m or 15d", true
	case reflect.TypeFor[commonconfig.Secret]():
		return "a text", true
	case reflect.TypeFor[commonconfig.TLSVersion]():
		return "a TLS version: TLS10, TLS11, TLS12 or TLS13", true
	case reflect.TypeFor[commonconfig.URL]():
		return "a URL such as http://127.0.0.1:9090/api/v1/write", false
	case reflect.TypeFor[bytesize.Size]():
		return "a size such as 512, 64KiB, 64MB or 10GiB", false
	}
	return "", !isValue(t) && t.Kind() != reflect.Interface
}

// describe says in words what a type takes.
func describe(t reflect.Type) string {
	if expecter, ok := reflect.New(t).Interface().(Expecter); ok {
		return expecter.Expected()
	}
	if text, _ := foreign(t); text != "" {
		return text
	}
	switch t.Kind() {
	case reflect.Pointer:
		return describe(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Int8, reflect.Int16, reflect.Int32:
		largest := int64(1)<<(t.Bits()-1) - 1
		return fmt.Sprintf("a whole number from %d to %d", -largest-1, largest)
	case reflect.Uint, reflect.Uint64:
		return "a whole number, not negative"
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return fmt.Sprintf("a whole number from 0 to %d", int64(1)<<t.Bits()-1)
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Slice:
		return "a list"
	case reflect.Map:
		return "names with values (name: value)"
	case reflect.Struct:
		if IsSection(t) {
			return "a section (key: value)"
		}
	}
	return "a text"
}

// found says in words what the file has at path.
func (d *Document) found(n *yaml.Node, path string) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a section (key: value)"
	case yaml.SequenceNode:
		return "a list"
	}
	if isNull(n) {
		return "nothing"
	}
	if d.secret(path) {
		return "a text"
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "the number " + n.Value
	case "!!bool":
		return n.Value
	}
	text := []rune(hideInText(n.Value))
	if len(text) > 60 {
		text = append(text[:60], '…')
	}
	return strconv.Quote(string(text))
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// step is the path of a key below path.
func step(path, key string) string {
	if !plainKey.MatchString(key) {
		return path + "[" + strconv.Quote(key) + "]"
	}
	return fielderror.Join(path, key)
}
