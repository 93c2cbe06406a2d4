package mariadb

import "time"

// RecheckAfter shortens the time after which missing privileges are looked for again.
func (p *Prober) RecheckAfter(d time.Duration) { p.recheck = d }
