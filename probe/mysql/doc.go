// Package mysql probes MySQL 8: replication by global transaction ids, locks and
// transactions of InnoDB.
//
// Positions are numbers of transactions, one stream for each server (and tag) whose
// transactions are in gtid_executed. A server that replicates from another one is a
// replica, also while its threads are stopped, and so is one that is read-only without
// replicating, as the secondaries of group replication are. All others are primary.
//
// MySQL does not keep the positions of its replicas on the primary: the lag of a replica
// that does not answer is unknown.
//
// The statements follow MySQL's documentation; they have not been run against a MySQL
// server. What is common with MariaDB was tested there.
package mysql
