// Package bytesize reads and writes numbers of bytes as people write them in a
// configuration file.
package bytesize

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes. In text it is a whole number with an optional unit:
// B, the decimal KB, MB, GB, TB (powers of 1000) or the binary KiB, MiB, GiB, TiB
// (powers of 1024).
type Size int64

// The binary units.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
	TiB Size = 1 << 40
)

type unit struct {
	name string
	size Size
}

// The longer names come first, because the shorter ones are their endings.
func units() []unit {
	return []unit{
		{"KiB", KiB},
		{"MiB", MiB},
		{"GiB", GiB},
		{"TiB", TiB},
		{"KB", 1e3},
		{"MB", 1e6},
		{"GB", 1e9},
		{"TB", 1e12},
		{"B", 1},
	}
}

// UnmarshalText reads a size such as 512, 64KiB, 64MB or 10GiB.
func (s *Size) UnmarshalText(text []byte) error {
	number, factor := string(text), Size(1)
	for _, u := range units() {
		if rest, ok := strings.CutSuffix(number, u.name); ok {
			number, factor = strings.TrimSuffix(rest, " "), u.size
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil {
		return fmt.Errorf("%q is not a size: give a whole number with an optional unit, such as 512, 64KiB, 64MB or 10GiB", text)
	}
	if n > uint64(math.MaxInt64/factor) {
		return fmt.Errorf("%q is too large for a size", text)
	}
	*s = Size(n) * factor
	return nil
}

// MarshalText writes the size with the largest binary unit that divides it.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String is the size with the largest binary unit that divides it.
func (s Size) String() string {
	best := unit{"", 1}
	for _, u := range units()[:4] {
		if s != 0 && s%u.size == 0 {
			best = u
		}
	}
	return strconv.FormatInt(int64(s/best.size), 10) + best.name
}
