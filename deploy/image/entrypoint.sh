#!/bin/sh
# A volume may come empty, and is all that can be written.
set -eu
mkdir -p "$TMPDIR" || {
    echo "feedsieve: user $(id -u) of group $(id -g) cannot write the volume at /data" >&2
    exit 1
}
exec "$BENTO_PATH/env/docker/entrypoint.sh" "$@"
