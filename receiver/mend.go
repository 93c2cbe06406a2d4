package receiver

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// maxExamples is how many refused series an answer names.
const maxExamples = 5

// mend writes the request in s anew: without its unacceptable series, with canonical
// labels, one kind of sample a series, and start timestamps where rc.4 has them. Then it
// indexes and resolves what it wrote, so that what follows sees a clean request.
func (in *Ingester) mend(s *scratch) (Result, error) {
	result := Result{Reasons: map[remotewrite.Reason]uint64{}}
	verdicts := in.judge(s)
	b := s.builder(s.msg.Version)
	b.Reset()
	s.kept = s.kept[:0]
	for i := range s.msg.Series {
		switch reason := verdicts[i]; reason {
		case "":
			result.drop(s.msg, i, b.Add(s.msg, i))
		case respell:
			ls, err := s.msg.AppendLabels(s.ls[:0], i)
			if err != nil {
				return Result{}, refuse(http.StatusBadRequest, "%w", err)
			}
			s.ls = ls
			ls, _, _ = remotewrite.CanonicalLabels(ls)
			result.drop(s.msg, i, b.AddLabels(s.msg, i, ls))
		default:
			result.refuse(s.msg, i, reason)
			continue
		}
		s.kept = append(s.kept, i)
	}
	for _, md := range s.md {
		b.AddMetadata(md)
	}
	s.mend = b.AppendTo(s.mend[:0])
	for _, late := range b.Late() {
		result.drop(s.msg, s.kept[late.Ordinal], remotewrite.Outcome{Dropped: late.Dropped, Reason: late.Reason})
	}
	for reason, n := range result.Reasons {
		in.o.Metrics.refused.WithLabelValues(string(reason)).Add(float64(n))
	}
	if err := s.msg.Index(s.msg.Version, s.mend, in.o.Resolver.Seed()); err != nil {
		return Result{}, fmt.Errorf("BUG: a mended request is malformed: %w", err)
	}
	in.o.Resolver.Resolve(s.msg, &s.res)
	if len(s.res.Invalid)+len(s.res.Respell) > 0 {
		return Result{}, fmt.Errorf("BUG: a mended request holds invalid series: %v", s.res.Invalid)
	}
	return result, nil
}

// respell is the verdict on a series that is acceptable in another spelling.
const respell remotewrite.Reason = "respell"

// judge gives a verdict on each series: empty where it is fine as it is.
func (in *Ingester) judge(s *scratch) []remotewrite.Reason {
	v := make([]remotewrite.Reason, len(s.msg.Series))
	for _, i := range s.res.Respell {
		v[i] = respell
	}
	horizon := in.horizon()
	lonely := false
	for i := range s.msg.Series {
		sr := &s.msg.Series[i]
		switch reason := sr.Invalid(); {
		case reason == remotewrite.ReasonExemplarWithoutSample:
			lonely = true
		case reason != "":
			v[i] = reason
		case sr.MaxTime > horizon && sr.Samples+sr.Histograms > 0:
			v[i] = remotewrite.ReasonTooFarInFuture
		}
	}
	for _, bad := range s.res.Invalid {
		v[bad.Series] = bad.Reason
	}
	if lonely {
		s.judgeLonely(v)
	}
	return v
}

// judgeLonely looks at the RW 2.0 series that hold nothing but exemplars. They are fine
// where an acceptable series of the request with the same id has a sample, to which the
// Builder attaches them (M3). Where the id is shared, it may be another's: then the
// Builder tells of them as late drops.
func (s *scratch) judgeLonely(v []remotewrite.Reason) {
	if s.carriers == nil {
		s.carriers = map[series.ID]bool{}
	}
	clear(s.carriers)
	fine := func(i int) bool { return v[i] == "" || v[i] == respell }
	for i := range s.msg.Series {
		if sr := &s.msg.Series[i]; sr.Samples+sr.Histograms > 0 && fine(i) {
			s.carriers[s.res.IDs[i]] = true
		}
	}
	for i := range s.msg.Series {
		if sr := &s.msg.Series[i]; sr.Samples+sr.Histograms == 0 && fine(i) && !s.carriers[s.res.IDs[i]] {
			v[i] = sr.Invalid()
		}
	}
}

func (s *scratch) builder(v series.Version) *remotewrite.Builder {
	p := &s.v1
	if v == series.V2 {
		p = &s.v2
	}
	if *p == nil {
		*p = remotewrite.NewBuilder(remotewrite.BuilderOptions{Version: v, Escaping: remotewrite.EscapeAllow, NHCBOnV1: remotewrite.NHCBKeep})
	}
	return *p
}

func (r *Result) refuse(m *remotewrite.Message, i int, reason remotewrite.Reason) {
	s := &m.Series[i]
	r.count(series.Counts{Samples: uint64(s.Samples), Histograms: uint64(s.Histograms), Exemplars: uint64(s.Exemplars)}, reason)
	if len(r.Examples) < maxExamples {
		r.Examples = append(r.Examples, describe(m, i))
	}
}

func (r *Result) drop(m *remotewrite.Message, i int, o remotewrite.Outcome) {
	if o.Dropped.Zero() {
		return
	}
	r.count(o.Dropped, o.Reason)
	if len(r.Examples) < maxExamples {
		r.Examples = append(r.Examples, describe(m, i))
	}
}

// count notes what was refused. A series without any content counts as one sample, or
// the sender would never learn of it.
func (r *Result) count(c series.Counts, reason remotewrite.Reason) {
	if c.Zero() {
		c.Samples = 1
	}
	r.Refused.Add(c)
	r.Reasons[reason] += c.Samples + c.Histograms + c.Exemplars
}

// describe spells a series for an error message, shortened and without control
// characters.
func describe(m *remotewrite.Message, i int) string {
	ls, err := m.AppendLabels(nil, i)
	if err != nil {
		return fmt.Sprintf("series %d", i)
	}
	var sb strings.Builder
	sb.WriteByte('{')
	for j, l := range ls {
		if j > 0 {
			sb.WriteByte(',')
		}
		if sb.Len() > 120 {
			sb.WriteString("…")
			break
		}
		fmt.Fprintf(&sb, "%.40q=%.60q", l.Name, l.Value)
	}
	sb.WriteByte('}')
	return sb.String()
}

// taken is what the sender need not send again.
func (r *Result) taken() series.Counts {
	c := r.Written
	c.Add(r.Deduplicated)
	return c
}

// Text is the body of the answer to a partial write: how many, why, and which.
func (r *Result) Text() string {
	total := r.taken()
	total.Add(r.Refused)
	var sb strings.Builder
	fmt.Fprintf(&sb, "%d of %d samples rejected:", sum(r.Refused), sum(total))
	reasons := make([]string, 0, len(r.Reasons))
	for reason, n := range r.Reasons {
		reasons = append(reasons, fmt.Sprintf(" %s=%d", reason, n))
	}
	slices.Sort(reasons)
	for _, s := range reasons {
		sb.WriteString(s)
	}
	for i, e := range r.Examples {
		if i == 0 {
			sb.WriteString("; first: ")
		} else {
			sb.WriteString(", ")
		}
		sb.WriteString(e)
	}
	return truncate(sb.String(), maxAnswer)
}

func sum(c series.Counts) uint64 { return c.Samples + c.Histograms + c.Exemplars }

func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}
