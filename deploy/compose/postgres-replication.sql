-- What a replica of PostgreSQL in docker-compose.yml connects with. Run once, on the primary.
CREATE ROLE replica LOGIN REPLICATION;
SELECT pg_create_physical_replication_slot('replica', true);
