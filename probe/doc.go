// Package probe watches database clusters: how far each replica is behind, who blocks
// whom, which server is the primary. It knows no database: a kind (package
// probe/<kind>) reads one server and says what it found in a Reading, in the words of
// this package; a Cluster joins the readings of its targets.
//
// Lag has one definition for every engine: the age of the oldest change that the replica
// does not have yet. It is computed from positions and the gateway's own clock; no
// database's clock is believed and nothing is written to a database. What cannot be known
// is unknown, never a number.
package probe
