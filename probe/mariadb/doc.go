// Package mariadb probes MariaDB 10.5 and newer: replication by global transaction ids,
// locks and transactions of InnoDB.
//
// Positions are the sequence numbers of global transaction ids, one stream for each
// domain; the head is gtid_binlog_pos, so a primary needs a binary log. A server that
// replicates from another one is a replica, also while its threads are stopped, and so is
// one that is read-only without replicating. All others are primary. A server that
// replicates in a ring with its own replica therefore counts as a replica.
//
// MariaDB does not keep the positions of its replicas on the primary: the lag of a replica
// that does not answer is unknown.
package mariadb
