package mariadb

import (
	"fmt"
	"strconv"
	"strings"
)

// gtids are sequence numbers by replication domain.
type gtids map[string]uint64

// parseGTIDs reads a list of global transaction ids such as 0-1-100,7-3-12: domain,
// server, sequence number. Of several in one domain (a replica of several sources has
// them) the highest counts.
func parseGTIDs(text string) (gtids, error) {
	list := gtids{}
	for id := range strings.SplitSeq(text, ",") {
		id = strings.TrimSpace(id)
		if id == "" {
			continue
		}
		domain, rest, _ := strings.Cut(id, "-")
		_, number, ok := strings.Cut(rest, "-")
		sequence, err := strconv.ParseUint(number, 10, 64)
		if !ok || err != nil {
			return nil, fmt.Errorf("the server's position %q is no list of global transaction ids", text)
		}
		list[domain] = max(list[domain], sequence)
	}
	return list, nil
}

// merge keeps the higher number of each domain.
func (g gtids) merge(other gtids) {
	for domain, sequence := range other {
		g[domain] = max(g[domain], sequence)
	}
}
