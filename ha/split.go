package ha

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// Field numbers of the messages that a request consists of.
const (
	seriesFieldV1 = 1 // WriteRequest.timeseries
	seriesFieldV2 = 5 // v2.Request.timeseries
	labelsField   = 1 // labels (V1) or labels_refs (V2) of a TimeSeries
	nameField     = 1 // of a Label
	valueField    = 2
)

// part is what a request holds of one replica of one cluster.
type part struct {
	member
	series  int
	counts  series.Counts
	minTime int64
	maxTime int64 // Unix ms; as in remotewrite.Message when there are no samples
	// mark is the newest sample that is not further ahead of the clock than the horizon.
	mark int64

	replicaField []byte // V1: the label as it stood in the first series
	clusterField []byte
	replicaPair  [2]uint32 // V2: likewise, as references
	clusterPair  [2]uint32
}

// split finds out which series of a request belong to HA clusters: those that have both
// labels, each looked at. It borrows the Message.
type split struct {
	cluster, replica []byte // names of the labels
	horizon          int64

	m     *remotewrite.Message
	of    []int // per series: 1 + index into parts; 0 is none
	parts []part
	roles []role // V2: per symbol
	kept  []byte // V2: references of the series at hand
}

// role is what a symbol is when it stands for the name of a label.
type role uint8

const (
	roleCluster role = 1 << iota
	roleReplica
)

func (sp *split) read(m *remotewrite.Message) {
	sp.m = m
	sp.of = make([]int, len(m.Series))
	if m.Version == series.V2 {
		sp.roles = make([]role, m.Symbols())
		for i := range sp.roles {
			if bytes.Equal(m.Symbol(i), sp.cluster) {
				sp.roles[i] |= roleCluster
			}
			if bytes.Equal(m.Symbol(i), sp.replica) {
				sp.roles[i] |= roleReplica
			}
		}
	}
	last := 0
	for i := range m.Series {
		if m.Series[i].Flags&remotewrite.FlagBadRefs != 0 {
			continue // it is refused, whose it may be
		}
		if last == 0 || !sp.same(i, &sp.parts[last-1]) {
			at := sp.find(i)
			if at == 0 {
				continue
			}
			last = at
		}
		sp.of[i] = last
		sp.parts[last-1].add(&m.Series[i], sp.horizon)
	}
}

func (p *part) add(s *remotewrite.Series, horizon int64) {
	p.series++
	p.counts.Add(s.Counts())
	p.minTime = min(p.minTime, s.MinTime)
	p.maxTime = max(p.maxTime, s.MaxTime)
	if s.MaxTime <= horizon {
		p.mark = max(p.mark, s.MaxTime)
	}
}

// same reports whether series i has the labels of the part in the part's own spelling,
// as the neighbours of a series mostly do.
func (sp *split) same(i int, p *part) bool {
	cluster, replica := false, false
	if sp.m.Version == series.V2 {
		for refs := sp.refs(i); len(refs) > 0; {
			var pair [2]uint32
			pair, refs = nextPair(refs)
			cluster = cluster || pair == p.clusterPair
			replica = replica || pair == p.replicaPair
		}
		return cluster && replica
	}
	if sp.m.Series[i].Flags&remotewrite.FlagSplitLabels != 0 {
		return false
	}
	for run := sp.m.LabelBytes(i); len(run) > 0; {
		var field []byte
		field, run = nextField(run)
		cluster = cluster || bytes.Equal(field, p.clusterField)
		replica = replica || bytes.Equal(field, p.replicaField)
	}
	return cluster && replica
}

// find looks at all labels of series i. It returns 1 + the index of the part, or 0 when
// the series belongs to no HA cluster.
func (sp *split) find(i int) int {
	p := part{minTime: 1<<63 - 1, maxTime: noTime, mark: noTime}
	var cluster, replica []byte
	if sp.m.Version == series.V2 {
		for refs := sp.refs(i); len(refs) > 0; {
			var pair [2]uint32
			pair, refs = nextPair(refs)
			switch r := sp.roles[pair[0]]; {
			case r&roleCluster != 0:
				cluster, p.clusterPair = sp.m.Symbol(int(pair[1])), pair
			case r&roleReplica != 0:
				replica, p.replicaPair = sp.m.Symbol(int(pair[1])), pair
			}
		}
	} else {
		for run := sp.labelFields(i); len(run) > 0; {
			var field []byte
			field, run = nextField(run)
			name, value := label(field)
			switch {
			case bytes.Equal(name, sp.cluster):
				cluster, p.clusterField = value, field
			case bytes.Equal(name, sp.replica):
				replica, p.replicaField = value, field
			}
		}
	}
	if !sound(cluster) || !sound(replica) {
		return 0
	}
	p.member = member{string(cluster), string(replica)}
	for at := range sp.parts {
		if sp.parts[at].member == p.member {
			return at + 1
		}
	}
	sp.parts = append(sp.parts, p)
	return len(sp.parts)
}

// sound reports whether the value can name a cluster or a replica. Series with values that
// are no text are refused by what comes after.
func sound(value []byte) bool { return len(value) > 0 && utf8.Valid(value) }

// labelFields is a run of fields of a V1 series that has all its labels, and possibly
// others.
func (sp *split) labelFields(i int) []byte {
	if sp.m.Series[i].Flags&remotewrite.FlagSplitLabels != 0 {
		return sp.m.Content(i)
	}
	return sp.m.LabelBytes(i)
}

// refs are the packed references of the labels of a V2 series, which are sound.
func (sp *split) refs(i int) []byte {
	if sp.m.Series[i].Flags&remotewrite.FlagSplitLabels == 0 {
		return sp.m.Refs(i)
	}
	var refs []byte
	for content := sp.m.Content(i); len(content) > 0; {
		var field []byte
		field, content = nextField(content)
		number, kind, n := protowire.ConsumeTag(field)
		switch {
		case number != labelsField:
		case kind == protowire.BytesType:
			packed, _ := protowire.ConsumeBytes(field[n:])
			refs = append(refs, packed...)
		case kind == protowire.VarintType:
			refs = append(refs, field[n:]...)
		}
	}
	return refs
}

// nextPair takes the first two references off packed ones.
func nextPair(refs []byte) (pair [2]uint32, rest []byte) {
	for k := range pair {
		if len(refs) > 0 && refs[0] < 0x80 {
			pair[k], refs = uint32(refs[0]), refs[1:]
			continue
		}
		v, n := binary.Uvarint(refs)
		if n <= 0 {
			return [2]uint32{}, nil
		}
		pair[k], refs = uint32(v), refs[n:]
	}
	return pair, refs
}

// nextField takes the first field, with its tag, off a message that was walked before.
func nextField(message []byte) (field, rest []byte) {
	n := 0
	if len(message) > 1 && message[0]&7 == byte(protowire.BytesType) && message[0] < 0x80 && message[1] < 0x80 {
		n = 2 + int(message[1])
	} else {
		_, _, n = protowire.ConsumeField(message)
	}
	if n <= 0 || n > len(message) {
		return nil, nil
	}
	return message[:n:n], message[n:]
}

// label reads a V1 label field; nothing where it is another field, or broken.
func label(field []byte) (name, value []byte) {
	number, kind, n := protowire.ConsumeTag(field)
	if n < 0 || number != labelsField || kind != protowire.BytesType {
		return nil, nil
	}
	inside, _ := protowire.ConsumeBytes(field[n:])
	for len(inside) > 0 {
		number, kind, n := protowire.ConsumeTag(inside)
		if n < 0 {
			return nil, nil
		}
		inside = inside[n:]
		if kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, inside); n < 0 {
				return nil, nil
			}
			inside = inside[n:]
			continue
		}
		b, n := protowire.ConsumeBytes(inside)
		if n < 0 {
			return nil, nil
		}
		switch inside = inside[n:]; number {
		case nameField:
			name = b
		case valueField:
			value = b
		}
	}
	return name, value
}

// appendRequest appends a request of the series that take says, by 1 + the index of their
// part (0: of none), in the order of the original, without the replica labels of parts.
// What stands beside the series, symbols and metadata, goes along where beside says.
func (sp *split) appendRequest(dst []byte, beside bool, take func(part int) bool) []byte {
	m := sp.m
	at := uint32(0)
	for i := range m.Series {
		s := &m.Series[i]
		if beside {
			dst = append(dst, m.Data[at:s.From]...)
		}
		at = s.To
		switch of := sp.of[i]; {
		case !take(of):
		case of == 0:
			dst = append(dst, m.Data[s.From:s.To]...)
		case m.Version == series.V2:
			dst = sp.appendStripped(dst, i, seriesFieldV2, sp.appendRefs)
		default:
			dst = sp.appendStripped(dst, i, seriesFieldV1, sp.appendLabels)
		}
	}
	if beside {
		dst = append(dst, m.Data[at:]...)
	}
	return dst
}

// appendStripped appends series i with labels as the function appends them.
func (sp *split) appendStripped(dst []byte, i int, number protowire.Number, labels func([]byte, int) []byte) []byte {
	dst = protowire.AppendTag(dst, number, protowire.BytesType)
	// The length is not known before the labels are there, and takes two bytes mostly.
	const width = 2
	from := len(dst)
	dst = append(dst, 0, 0)
	dst = labels(dst, i)
	if sp.m.Series[i].Flags&remotewrite.FlagSplitLabels == 0 {
		dst = append(dst, sp.m.Rest(i)...)
	}
	n := len(dst) - from - width
	var length [binary.MaxVarintLen64]byte
	w := binary.PutUvarint(length[:], uint64(n))
	if w > width {
		dst = append(dst, length[width:w]...) // room, filled below
	}
	if w != width {
		copy(dst[from+w:from+w+n], dst[from+width:from+width+n])
	}
	copy(dst[from:], length[:w])
	return dst[:from+w+n]
}

// appendLabels appends the label fields of a V1 series without the replica label, and, of
// one whose labels do not stand together, all other fields.
func (sp *split) appendLabels(dst []byte, i int) []byte {
	all := sp.labelFields(i)
	from := 0 // what is not appended yet
	for run := all; len(run) > 0; {
		at := len(all) - len(run)
		var field []byte
		field, run = nextField(run)
		if sp.isReplica(field) {
			dst = append(dst, all[from:at]...)
			from = at + len(field)
		}
	}
	return append(dst, all[from:]...)
}

// isReplica reports whether a V1 label field is the replica label. Labels are mostly
// spelled with their name first and short lengths.
func (sp *split) isReplica(field []byte) bool {
	if len(field) > 4 && field[0] == labelsField<<3|byte(protowire.BytesType) && field[1] < 0x80 && field[2] == nameField<<3|byte(protowire.BytesType) && field[3] < 0x80 {
		n := 4 + int(field[3])
		return n <= len(field) && string(field[4:n]) == string(sp.replica)
	}
	name, _ := label(field)
	return bytes.Equal(name, sp.replica)
}

// appendRefs appends the references of a V2 series without the pair of the replica label
// as one field, and, of one whose references do not stand together, all other fields.
func (sp *split) appendRefs(dst []byte, i int) []byte {
	kept := sp.kept[:0]
	for refs := sp.refs(i); len(refs) > 0; {
		pair, rest := nextPair(refs)
		if sp.roles[pair[0]]&roleReplica == 0 {
			kept = append(kept, refs[:len(refs)-len(rest)]...)
		}
		refs = rest
	}
	sp.kept = kept
	dst = protowire.AppendTag(dst, labelsField, protowire.BytesType)
	dst = protowire.AppendBytes(dst, kept)
	if sp.m.Series[i].Flags&remotewrite.FlagSplitLabels == 0 {
		return dst
	}
	for content := sp.m.Content(i); len(content) > 0; {
		var field []byte
		field, content = nextField(content)
		if number, _, _ := protowire.ConsumeTag(field); number != labelsField {
			dst = append(dst, field...)
		}
	}
	return dst
}
