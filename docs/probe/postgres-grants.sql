-- The account with which Sluice probes PostgreSQL 13 or newer. Run it once per cluster, on
-- the primary, as a superuser; replicas get it by replication:
--
--   psql -h PRIMARY -U postgres -f postgres-grants.sql
--
-- Then give it a password (psql: \password probe), put that into the target's
-- password_file, and let the gateways in by a line in pg_hba.conf of every server:
--
--   host  postgres  probe  GATEWAY/32  scram-sha-256

-- A few connections: one for each gateway, and one more while a gateway reconnects.
CREATE ROLE probe LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION CONNECTION LIMIT 8;

-- Statistics, activity and locks of all sessions, replication, slots. It reads no table of
-- yours. Without it the metrics of these groups are absent, and db_probe_privileged is 0.
GRANT pg_monitor TO probe;

-- The probe only reads and is quick; this holds even if a gateway asked for more.
ALTER ROLE probe SET default_transaction_read_only = on;
ALTER ROLE probe SET statement_timeout = '5s';
ALTER ROLE probe SET idle_in_transaction_session_timeout = '10s';
