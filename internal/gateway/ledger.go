package gateway

import (
	"fmt"
	"slices"
	"time"

	"github.com/sluice-metrics/sluice/internal/thinning"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// Account is what was withheld from a backend of the samples of a range of time. GET
// /api/v1/ledger with a range answers with a list of them, under the key backends.
type Account struct {
	Backend string `json:"backend"`
	// Sampling is false where the configuration withholds nothing from the backend.
	Sampling bool             `json:"sampling"`
	Missing  []ledger.Missing `json:"missing"`
	// Debt is what is to be given back, of all times.
	Debt thinning.Debt `json:"debt"`
}

// ReadAccounts reads what was withheld of samples with times from from to to out of the
// files below the storage path, while a gateway uses them or not. backend names one; empty
// is all that anything was ever withheld from.
func ReadAccounts(storage, backend string, from, to time.Time) ([]Account, error) {
	dir := ledgerDir(storage)
	names, err := ledger.Backends(vfs.OS{}, dir)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	accounts := []Account{}
	for _, name := range names {
		if backend != "" && name != backend {
			continue
		}
		v, err := ledger.Read(vfs.OS{}, dir, name)
		if err != nil {
			return nil, err
		}
		a := Account{Backend: name, Sampling: true, Missing: v.Missing(from, to), Debt: debtOf(v.Debt)}
		if a.Missing == nil {
			a.Missing = []ledger.Missing{}
		}
		accounts = append(accounts, a)
	}
	if backend != "" && len(accounts) == 0 {
		return nil, fmt.Errorf("nothing was ever withheld from a backend named %q, by the ledgers in %s", backend, dir)
	}
	return accounts, nil
}

// account is what was withheld from a backend that is not sampled any more.
func (g *Gateway) account(l *line, from, to time.Time) (a Account, err error) {
	v, err := ledger.Read(vfs.OS{}, ledgerDir(g.o.StoragePath), l.config.Name)
	if err != nil {
		return a, err
	}
	return Account{Backend: l.config.Name, Missing: v.Missing(from, to), Debt: debtOf(v.Debt)}, nil
}

// debtOf is what can be told of a debt without a gateway: how many bytes it is, and how
// long giving it back takes, is not known.
func debtOf(d ledger.Debt) thinning.Debt {
	out := thinning.Debt{Samples: d.Counts.Samples + d.Counts.Histograms, Unknown: d.Unknown}
	if d.Oldest != 0 {
		at := d.Oldest.Time()
		out.Oldest = &at
	}
	return out
}

// ParseTime reads a time as the API takes them: RFC 3339 or Unix seconds.
func ParseTime(text string) (time.Time, error) { return timeOf(text, time.Time{}) }
