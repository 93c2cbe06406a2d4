package exporter

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// DeadLetters keeps what backends refuse, one JSON object a line, one file a backend. A
// file that would exceed its bound becomes FILE.1, in place of the FILE.1 before it.
// All methods may be called from several goroutines.
type DeadLetters struct {
	dir   string
	bound int64
	now   func() time.Time
	mu    sync.Mutex
}

// NewDeadLetters returns dead letters in dir, which is made when the first is written.
// Each backend's two files hold at most bound bytes each.
func NewDeadLetters(dir string, bound int64, now func() time.Time) *DeadLetters {
	return &DeadLetters{dir: dir, bound: bound, now: now}
}

// Letter says why something was refused.
type Letter struct {
	Time    time.Time `json:"time"`
	Backend string    `json:"backend"`
	Reason  string    `json:"reason"`
	Status  int       `json:"status,omitempty"`
	Message string    `json:"message,omitempty"` // the backend's own words
}

// line is one refused series message.
type line struct {
	Letter
	Labels     map[string]string `json:"labels"`
	Samples    []point           `json:"samples,omitempty"`
	Histograms []int64           `json:"histogram_timestamps,omitempty"`
	Exemplars  int               `json:"exemplars,omitempty"`
}

// point is a timestamp in ms and a value, which is text because JSON has no NaN.
type point struct {
	Time  int64  `json:"t"`
	Value string `json:"v"`
}

// Dropped is what became of a dropped parcel.
type Dropped struct {
	Counts []series.Counts // what it holds, by part
	// Written and Lost are how many of its series messages are in the file now, and how
	// many could not be written or did not fit into it.
	Written, Lost int
}

// Drop counts what a refused parcel holds, and with keep writes it down. What it returns
// holds also when there is an error, which says why something is lost.
func (d *DeadLetters) Drop(p *Parcel, why Letter, keep bool) (Dropped, error) {
	why.Time = d.now().UTC()
	dropped := Dropped{Counts: make([]series.Counts, len(p.Parts))}
	var text []byte
	var ends []int // of each line in text
	var errs []error
	var o opener
	for k := range p.Parts {
		part := &p.Parts[k]
		m, err := o.open(part.Batch)
		if err != nil {
			errs = append(errs, fmt.Errorf("refused: %w", err))
			continue
		}
		for i := range m.Series {
			if !part.Take.Has(i) {
				continue
			}
			s := &m.Series[i]
			dropped.Counts[k].Add(series.Counts{Samples: uint64(s.Samples), Histograms: uint64(s.Histograms), Exemplars: uint64(s.Exemplars)})
			if !keep {
				continue
			}
			if text, err = appendLine(text, newLine(why, m, i)); err != nil {
				errs = append(errs, err)
				dropped.Lost++
				continue
			}
			ends = append(ends, len(text))
		}
	}
	if len(ends) == 0 {
		return dropped, errors.Join(errs...)
	}
	fit := len(ends)
	for fit > 0 && int64(ends[fit-1]) > d.bound {
		fit--
	}
	if fit < len(ends) {
		errs = append(errs, fmt.Errorf("%d series are more than the bound of %d bytes for a file", len(ends), d.bound))
	}
	if fit > 0 {
		if err := d.write(why.Backend, text[:ends[fit-1]]); err != nil {
			errs = append(errs, fmt.Errorf("write dead letters: %w", err))
			fit = 0
		}
	}
	dropped.Written = fit
	dropped.Lost += len(ends) - fit
	return dropped, errors.Join(errs...)
}

func appendLine(text []byte, l line) ([]byte, error) {
	b, err := json.Marshal(l)
	if err != nil {
		return text, fmt.Errorf("encode a dead letter: %w", err)
	}
	return append(append(text, b...), '\n'), nil
}

func newLine(why Letter, m *remotewrite.Message, i int) line {
	l := line{Letter: why, Labels: map[string]string{}, Exemplars: int(m.Series[i].Exemplars)}
	if ls, err := m.AppendLabels(nil, i); err == nil {
		for _, lb := range ls {
			l.Labels[string(lb.Name)] = string(lb.Value)
		}
	}
	for _, s := range m.AppendSamples(nil, i) {
		l.Samples = append(l.Samples, point{s.Time, strconv.FormatFloat(s.Value, 'g', -1, 64)})
	}
	for _, h := range m.AppendHistograms(nil, i) {
		l.Histograms = append(l.Histograms, h.Time)
	}
	return l
}

// Path is the file of a backend's dead letters.
func (d *DeadLetters) Path(backend string) string {
	return filepath.Join(d.dir, backend+".jsonl")
}

// write appends whole lines. A file that would exceed its bound is put aside first.
func (d *DeadLetters) write(backend string, text []byte) (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	path := d.Path(backend)
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return err
	}
	size := int64(0)
	switch st, err := os.Stat(path); {
	case err == nil:
		size = st.Size()
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if size > 0 && size+int64(len(text)) > d.bound {
		if err := os.Rename(path, path+".1"); err != nil {
			return err
		}
		size = 0
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(text); err != nil {
		return errors.Join(err, f.Truncate(size)) // no half line stays behind
	}
	return nil
}
