package web

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// countText writes a number in full up to a million, with spaces between thousands.
func countText(n uint64) string {
	if n >= 1_000_000 {
		return short(float64(n))
	}
	if n >= 1000 {
		return fmt.Sprintf("%d\u202f%03d", n/1000, n%1000)
	}
	return strconv.FormatUint(n, 10)
}

// short writes three digits with a prefix.
func short(v float64) string {
	for _, p := range []struct {
		factor float64
		letter string
	}{{1e12, " T"}, {1e9, " G"}, {1e6, " M"}, {1e3, " k"}} {
		if v >= p.factor*0.9995 {
			return digits(v/p.factor) + p.letter
		}
	}
	return digits(v)
}

// digits writes three digits, without a fraction of zero.
func digits(v float64) string {
	precision := 0
	switch {
	case v < 9.995:
		precision = 2
	case v < 99.95:
		precision = 1
	}
	text := strconv.FormatFloat(v, 'f', precision, 64)
	if short, err := strconv.ParseFloat(text, 64); err == nil {
		return strconv.FormatFloat(short, 'f', -1, 64)
	}
	return text
}

func rateText(v float64) string { return short(v) + "/s" }

func bytesText(n float64) string {
	for _, p := range []struct {
		factor float64
		unit   string
	}{{1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= p.factor {
			return digits(n/p.factor) + " " + p.unit
		}
	}
	return digits(n) + " B"
}

func secondsText(s float64) string {
	return durationText(time.Duration(min(s, 1e9) * float64(time.Second)))
}

// durationText writes a time with its two largest units.
func durationText(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d > 0 && d < time.Second:
		return fmt.Sprintf("%d ms", max(1, d.Milliseconds()))
	case d < 10*time.Second && d%time.Second != 0:
		return digits(math.Round(d.Seconds()*10)/10) + " s"
	}
	s := int64(d.Round(time.Second) / time.Second)
	units := []struct {
		length int64
		name   string
	}{{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}}
	for i, u := range units[:3] {
		if s < u.length {
			continue
		}
		text := fmt.Sprintf("%d %s", s/u.length, u.name)
		if rest := s % u.length / units[i+1].length; rest > 0 {
			text += fmt.Sprintf(" %d %s", rest, units[i+1].name)
		}
		return text
	}
	return fmt.Sprintf("%d s", s)
}

// shareText writes a share as a percentage that is 100 only when it is all.
func shareText(v float64) string {
	percent := v * 100
	switch {
	case percent >= 99.95 && v < 1:
		return "99.9 %"
	case percent > 0 && percent < 0.1:
		return "< 0.1 %"
	}
	return strconv.FormatFloat(math.Round(percent*10)/10, 'f', -1, 64) + " %"
}

// clockText is the time of the day, and before today the day.
func clockText(at, now time.Time) string {
	at, now = at.UTC(), now.UTC()
	if at.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return at.Format(time.TimeOnly)
	}
	return at.Format("Jan 2 15:04")
}
