#!/bin/bash
# Starts a replica of the PostgreSQL at $PGHOST, with the arguments as its own. The first
# start copies the primary. A copy gets the name $PGDATA when it is whole: one that was
# broken off is thrown away by the next start.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	copy=$PGDATA.part
	rm -rf "$copy"
	until pg_basebackup --username=replica --no-password --pgdata="$copy" --write-recovery-conf --slot=replica --checkpoint=fast; do
		echo "The primary at $PGHOST cannot be copied yet" >&2
		rm -rf "$copy"
		sleep 1
	done
	chmod 0700 "$copy"
	mv -T "$copy" "$PGDATA"
fi
exec postgres "$@"
