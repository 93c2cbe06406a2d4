package config

// Reopenable reports whether a reload may open the backend anew beside the one in
// operation. A store cannot be: its directory is the other's.
func (b *Backend) Reopenable() bool { return b.Kind() != kindTSDB }
