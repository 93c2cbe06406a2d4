package remotewrite

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/common/model"

	"github.com/sluice-metrics/sluice/internal/series"
)

// Escaping says what becomes of metric and label names beyond the RW 1.0 charset when
// a backend does not take them (M5). Label values are never touched.
type Escaping uint8

const (
	EscapeAllow       Escaping = iota // names go out as they are
	EscapeUnderscores                 // each character that does not fit becomes "_"
	EscapeDots                        // "." becomes "_dot_", "_" becomes "__", others "__"; this changes fitting names with "_" too
	EscapeValues                      // the name becomes "U__…" with code points in hex, which can be undone
	EscapeRefuse                      // the series is dropped, ReasonUTF8NameRefused
)

var escapings = [...]string{"allow", "underscores", "dots", "values", "refuse"}

// String returns the word used in configuration files.
func (e Escaping) String() string {
	if int(e) < len(escapings) {
		return escapings[e]
	}
	return "unknown"
}

// MarshalText implements encoding.TextMarshaler.
func (e Escaping) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (e *Escaping) UnmarshalText(b []byte) error {
	i := slices.Index(escapings[:], string(b))
	if i < 0 {
		return fmt.Errorf("unknown escaping %q: want one of %s", b, strings.Join(escapings[:], ", "))
	}
	*e = Escaping(i)
	return nil
}

// scheme is the escaping scheme of prometheus/common that e stands for.
func (e Escaping) scheme() model.EscapingScheme {
	switch e {
	case EscapeUnderscores:
		return model.UnderscoreEscaping
	case EscapeDots:
		return model.DotsEscaping
	case EscapeValues:
		return model.ValueEncodingEscaping
	}
	return model.NoEscaping
}

// The classes of bytes in names, as bits.
const (
	byteInLabel  = 1 << iota // letter or "_": fits everywhere in a label name
	byteDigit                // fits but for the first place
	byteColon                // fits in metric names only
	byteDotsKeep             // fits and is kept by EscapeDots
)

var nameBytes = func() (t [256]uint8) {
	for c := range t {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
			t[c] = byteInLabel | byteDotsKeep
		case c == '_':
			t[c] = byteInLabel
		case c >= '0' && c <= '9':
			t[c] = byteDigit | byteDotsKeep
		case c == ':':
			t[c] = byteColon | byteDotsKeep
		}
	}
	return t
}()

// reservedName reports whether a label name has a meaning of its own to Prometheus
// and is never escaped (M9).
func reservedName(name []byte) bool {
	switch string(name) {
	case "__name__", "__type__", "__unit__":
		return true
	}
	return false
}

// keepsName reports whether e leaves a name as it is. metric says that it is the
// value of __name__, not the name of a label.
func (e Escaping) keepsName(name []byte, metric bool) bool {
	if e == EscapeAllow || len(name) == 0 || !metric && reservedName(name) {
		return true
	}
	want := uint8(byteInLabel | byteDigit)
	if metric {
		want |= byteColon
	}
	var keep uint8
	if e == EscapeDots {
		keep = byteDotsKeep
	}
	if nameBytes[name[0]]&byteDigit != 0 {
		return false
	}
	for _, c := range name {
		if k := nameBytes[c]; k&want == 0 || k&keep != keep {
			return false
		}
	}
	return true
}

// name escapes a name that e does not keep. The library treats all names as metric
// names, where ":" fits, so that ":" in label names is left to do here.
func (e Escaping) name(name string, metric bool) string {
	escaped := model.EscapeName(name, e.scheme())
	if metric || !strings.Contains(escaped, ":") {
		return escaped
	}
	switch e {
	case EscapeUnderscores:
		return strings.ReplaceAll(escaped, ":", "_")
	case EscapeDots:
		return strings.ReplaceAll(escaped, ":", "__")
	}
	if escaped == name { // nothing but ":" was wrong with it
		escaped = "U__" + strings.ReplaceAll(name, "_", "__")
	}
	return strings.ReplaceAll(escaped, ":", "_3a_")
}

// What is known about a symbol of the source as a name.
const (
	nameLabelSeen  = 1 << iota // the symbol was judged as a label name
	_                          // and needs escaping
	nameMetricSeen             // the symbol was judged as a metric name
	_                          // and needs escaping
)

// maxEscaped bounds the names that an escaper remembers.
const maxEscaped = 8192

// escaper escapes names and remembers what they became.
type escaper struct {
	how    Escaping
	labels map[string][]byte
	metric map[string][]byte
	out    []Label
}

// keeps reports whether all names among ls may stay.
func (e *escaper) keeps(ls []Label) bool {
	if e.how == EscapeAllow {
		return true
	}
	for _, l := range ls {
		if !e.keepsLabel(l) {
			return false
		}
	}
	return true
}

func (e *escaper) keepsLabel(l Label) bool {
	return e.how.keepsName(l.Name, false) && (string(l.Name) != nameLabel || e.how.keepsName(l.Value, true))
}

// labelsOf returns ls with escaped names, sorted. They hold until the next call and
// share values with ls.
func (e *escaper) labelsOf(ls []Label) ([]Label, Reason) {
	if e.how == EscapeRefuse {
		return nil, ReasonUTF8NameRefused
	}
	e.out = e.out[:0]
	for _, l := range ls {
		if string(l.Name) == nameLabel {
			l.Value = e.name(l.Value, true)
		} else {
			l.Name = e.name(l.Name, false)
		}
		e.out = append(e.out, l)
	}
	slices.SortFunc(e.out, compareNames)
	for i := 1; i < len(e.out); i++ {
		if bytes.Equal(e.out[i-1].Name, e.out[i].Name) {
			return nil, ReasonEscapingCollision
		}
	}
	return e.out, ""
}

func compareNames(a, b Label) int { return bytes.Compare(a.Name, b.Name) }

// name returns the escaped form of a name. It is never overwritten.
func (e *escaper) name(name []byte, metric bool) []byte {
	if e.how.keepsName(name, metric) {
		return name
	}
	known := &e.labels
	if metric {
		known = &e.metric
	}
	if to, ok := (*known)[string(name)]; ok {
		return to
	}
	if *known == nil || len(*known) >= maxEscaped {
		*known = make(map[string][]byte)
	}
	to := []byte(e.how.name(string(name), metric))
	(*known)[string(name)] = to
	return to
}

// keepsNames reports whether the names of series i need no escaping; ok is false when
// its labels cannot be read.
func (b *Builder) keepsNames(m *Message, i int) (keeps, ok bool) {
	if b.o.Escaping == EscapeAllow || m.Series[i].Flags&FlagSplitLabels != 0 {
		return true, true
	}
	if m.Version == series.V2 {
		return b.keepsSymbols(m, m.Refs(i)), true
	}
	return b.keepsLabels(m.LabelBytes(i))
}

// keepsLabels is keepsNames for a run of V1 label fields. What was found fine in the
// series before is not judged again.
func (b *Builder) keepsLabels(run []byte) (keeps, ok bool) {
	memo := &b.kept
	next := memo.spare[:0]
	for p, k := 0, 0; p < len(run); k++ {
		if memo.ends(k, run[p:]) {
			next = memo.tail(next, k, uint32(p), 0)
			break
		}
		l, rest, ok := splitLabel(run[p:])
		if !ok || !b.escape.keepsLabel(l) {
			return false, ok
		}
		next = append(next, memoLabel{in: uint32(p)})
		p = len(run) - len(rest)
	}
	memo.keep(run, next)
	return true, true
}

// keepsSymbols is keepsNames for packed references; each symbol is judged once per
// message.
func (b *Builder) keepsSymbols(m *Message, refs []byte) bool {
	memo := &b.kept
	next := memo.spare[:0]
	for p, k := 0, 0; p < len(refs); k++ {
		if memo.ends(k, refs[p:]) {
			next = memo.tail(next, k, uint32(p), 0)
			break
		}
		name, n := packedRef(refs, p)
		value, v := packedRef(refs, p+n)
		if !b.keepsSymbol(m, name, nameLabelSeen) {
			return false
		}
		if string(m.Symbol(int(name))) == nameLabel && !b.keepsSymbol(m, value, nameMetricSeen) {
			return false
		}
		next = append(next, memoLabel{in: uint32(p)})
		p += n + v
	}
	memo.keep(refs, next)
	return true
}

// keepsSymbol reports whether a symbol of m needs no escaping as the name of a label
// or, with nameMetricSeen, of a metric.
func (b *Builder) keepsSymbol(m *Message, symbol uint32, as uint8) bool {
	known := &b.source.names[symbol]
	if *known&as == 0 {
		*known |= as
		if !b.o.Escaping.keepsName(m.Symbol(int(symbol)), as == nameMetricSeen) {
			*known |= as << 1
		}
	}
	return *known&(as<<1) == 0
}
