package config

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/sluice-metrics/sluice/sampler"
)

// Selector is one PromQL series selector.
type Selector = sampler.Selector

// digest identifies what the selectors select, whatever their order and spelling.
func digest(list []Selector) string {
	if len(list) == 0 {
		return "all"
	}
	texts := make([]string, len(list))
	for i, s := range list {
		texts[i] = s.Canonical()
	}
	slices.Sort(texts)
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(texts), "\n")))
	return hex.EncodeToString(sum[:8])
}
