#!/bin/sh
# Start Prefect's server with the secrets it is given as files: Prefect itself knows no NAME_FILE.
set -eu

from_file() {
    eval "path=\${$1_FILE:-}"
    [ -n "$path" ] || return 0
    [ -s "$path" ] || { echo "prefect-server: $1_FILE: $path is missing or empty" >&2; exit 2; }
    value=$(cat "$path")
    export "$1=$value"
}

from_file PREFECT_SERVER_API_AUTH_STRING
from_file PREFECT_SERVER_DATABASE_PASSWORD
from_file PREFECT_SERVER_ENCRYPTION_KEY
exec prefect server start
