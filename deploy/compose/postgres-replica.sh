#!/bin/bash
# Starts a replica of the PostgreSQL at $PGHOST, with the arguments as its own. The first
# start copies the primary.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	until pg_basebackup --username=replica --no-password --pgdata="$PGDATA" --write-recovery-conf --slot=replica --checkpoint=fast; do
		echo "The primary at $PGHOST cannot be copied yet" >&2
		sleep 1
	done
	chmod 0700 "$PGDATA"
fi
exec postgres "$@"
