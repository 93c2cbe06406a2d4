-- The account that the gateway probes MySQL 8 with. Run it on the primary as an
-- administrator; replication takes it to the replicas. Replace change-me. Written from
-- MySQL's documentation.
--
-- REPLICATION CLIENT: thread states, errors and the delay of replication.
-- PROCESS, SELECT on performance_schema: locks, transactions and sessions of all accounts,
-- and the texts of the statements that run; the gateway reads no text.
-- Positions need no privilege. Nothing can be changed with this account, and no table of
-- yours be read. Without a grant the probe goes on and says which kind is missing
-- (db_probe_privileged 0).
CREATE USER IF NOT EXISTS gateway_probe@'%' IDENTIFIED BY 'change-me' WITH MAX_USER_CONNECTIONS 4;
GRANT REPLICATION CLIENT, PROCESS ON *.* TO gateway_probe@'%';
GRANT SELECT ON performance_schema.* TO gateway_probe@'%';
