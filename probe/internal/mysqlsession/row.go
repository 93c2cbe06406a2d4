package mysqlsession

import (
	"strconv"
	"time"

	"github.com/sluice-metrics/sluice/probe"
)

// Row holds the cells of a row that are not NULL by the names of their columns, in lower
// case.
type Row map[string]string

// Uint is the cell as a number; unknown if it is NULL, missing or no such number.
func (r Row) Uint(column string) probe.Maybe[uint64] {
	text, ok := r[column]
	n, err := strconv.ParseUint(text, 10, 64)
	if !ok || err != nil {
		return probe.Maybe[uint64]{}
	}
	return probe.Some(n)
}

// Duration is the cell, a number of units, as a duration that is not negative; unknown
// like Uint.
func (r Row) Duration(column string, unit time.Duration) probe.Maybe[time.Duration] {
	text, ok := r[column]
	n, err := strconv.ParseFloat(text, 64)
	if !ok || err != nil {
		return probe.Maybe[time.Duration]{}
	}
	return probe.Some(max(0, time.Duration(n*float64(unit))))
}

// Yes reports whether the cell is one of the words by which a server says yes (Yes, ON,
// 1); unknown if it is NULL or missing.
func (r Row) Yes(column string) probe.Maybe[bool] {
	text, ok := r[column]
	if !ok {
		return probe.Maybe[bool]{}
	}
	return probe.Some(text == "Yes" || text == "ON" || text == "1")
}

// Named turns rows of names and values (variable_name, value) into one row.
func Named(rows []Row) Row {
	out := make(Row, len(rows))
	for _, r := range rows {
		if value, ok := r["value"]; ok {
			out[r["variable_name"]] = value
		}
	}
	return out
}
