//go:build debug

package series

// Poison overwrites a released body, so that a late reader fails loudly.
func Poison(b []byte) {
	for i := range b {
		b[i] = 0xdb
	}
}
