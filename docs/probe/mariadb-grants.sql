-- The account that the gateway probes MariaDB (10.5 or newer) with. Run it on the primary
-- as an administrator; replication takes it to the replicas. Replace change-me.
--
-- SLAVE MONITOR: thread states, errors and the delay of replication.
-- PROCESS: locks, transactions and sessions of all accounts, and the texts of the
-- statements that run; the gateway reads no text.
-- Positions need no privilege. Nothing can be changed with this account, and no table be
-- read. Without a grant the probe goes on and says which kind is missing
-- (db_probe_privileged 0).
CREATE USER IF NOT EXISTS gateway_probe@'%' IDENTIFIED BY 'change-me' WITH MAX_USER_CONNECTIONS 4;
GRANT SLAVE MONITOR, PROCESS ON *.* TO gateway_probe@'%';
