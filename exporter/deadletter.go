package exporter

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// DeadLetters keeps what backends refuse, one JSON object a line, one file a backend. A
// file that has reached its bound becomes FILE.1, in place of the FILE.1 before it.
type DeadLetters struct {
	dir   string
	bound int64
	now   func() time.Time
	mu    sync.Mutex
}

// NewDeadLetters returns dead letters in dir, which is made when the first is written.
// Each backend's two files together hold at most twice bound bytes.
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

// Drop counts, by part, what a refused parcel holds, and with keep writes it down. The
// counts hold also when there is an error.
func (d *DeadLetters) Drop(p *Parcel, why Letter, keep bool) ([]series.Counts, error) {
	why.Time = d.now().UTC()
	counts := make([]series.Counts, len(p.Parts))
	var lines []line
	var errs []error
	for k := range p.Parts {
		if err := readPart(&p.Parts[k], &counts[k], func(m *remotewrite.Message, i int) {
			if keep {
				lines = append(lines, newLine(why, m, i))
			}
		}); err != nil {
			errs = append(errs, err)
		}
	}
	if len(lines) > 0 {
		errs = append(errs, d.write(why.Backend, lines))
	}
	return counts, errors.Join(errs...)
}

// readPart calls f for each series message of a part and counts what they hold.
func readPart(p *Part, c *series.Counts, f func(*remotewrite.Message, int)) error {
	plain, err := s2.Decode(make([]byte, p.Batch.Decoded), p.Batch.Body)
	if err != nil {
		return fmt.Errorf("refused batch: %w", err)
	}
	var m remotewrite.Message
	if err := m.Scan(p.Batch.Version, plain); err != nil {
		return fmt.Errorf("refused batch: %w", err)
	}
	for i := range m.Series {
		if !p.Take.Has(i) {
			continue
		}
		s := &m.Series[i]
		c.Add(series.Counts{Samples: uint64(s.Samples), Histograms: uint64(s.Histograms), Exemplars: uint64(s.Exemplars)})
		f(&m, i)
	}
	return nil
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

func (d *DeadLetters) write(backend string, lines []line) (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	path := d.Path(backend)
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return err
	}
	if st, err := os.Stat(path); err == nil && st.Size() >= d.bound {
		if err := os.Rename(path, path+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	for i := range lines {
		if err := enc.Encode(&lines[i]); err != nil {
			return err
		}
	}
	return w.Flush()
}
