package remotewrite

// Reason says in one word why something was refused or dropped. It is the value of
// the label "reason" of the loss counters and part of the texts of 400 answers. The
// empty Reason means that nothing is wrong.
type Reason string

const (
	// ReasonMissingName: no label __name__, or an empty one (M4).
	ReasonMissingName Reason = "missing_name"
	// ReasonEmptyLabelName: a label whose name is empty (M8).
	ReasonEmptyLabelName Reason = "empty_label_name"
	// ReasonDuplicateLabel: two labels of one name (M6).
	ReasonDuplicateLabel Reason = "duplicate_label"
	// ReasonInvalidUTF8: a label name or value that is not UTF-8 (M5).
	ReasonInvalidUTF8 Reason = "invalid_utf8"
	// ReasonInvalidRefs: references to symbols that are odd in number or outside of
	// the table (M2). RW 2.0 only.
	ReasonInvalidRefs Reason = "invalid_refs"
	// ReasonNoSamples: a series without sample, histogram and exemplar (M3). RW 2.0 only.
	ReasonNoSamples Reason = "no_samples"
	// ReasonInvalidHistogram: a native histogram that contradicts itself.
	ReasonInvalidHistogram Reason = "invalid_histogram"
	// ReasonExemplarWithoutTimestamp: an exemplar whose timestamp is missing or 0 (M14).
	ReasonExemplarWithoutTimestamp Reason = "exemplar_without_timestamp"
	// ReasonExemplarWithoutSample: exemplars of a series that has neither sample nor
	// histogram in the same RW 2.0 request (M3).
	ReasonExemplarWithoutSample Reason = "exemplar_without_sample"
	// ReasonTooFarInFuture: a timestamp beyond the receiver's future limit.
	ReasonTooFarInFuture Reason = "too_far_in_future"
	// ReasonMalformedLabels: the inside of an RW 1.0 label is broken, which the walk does
	// not see, so that it is found when a series is seen for the first time; or a series
	// has more than MaxLabels labels.
	ReasonMalformedLabels Reason = "malformed_labels"
)
