//go:build debug

package series

// poison overwrites a released body, so that a late reader fails loudly.
func poison(b []byte) {
	for i := range b {
		b[i] = 0xdb
	}
}
