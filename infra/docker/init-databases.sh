#!/bin/sh
# Run once by the postgres image, on an empty data folder: a role and a database of its own for the ledger and for
# Prefect, so that neither can read the other's.
set -eu

own_database() {
    role=$1
    password=$(cat "$2")
    # \password's way: psql quotes the value, and no command line shows it
    DB_ROLE=$role DB_PASSWORD=$password psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 \
        --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
\getenv role DB_ROLE
\getenv password DB_PASSWORD
CREATE ROLE :"role" LOGIN PASSWORD :'password' NOSUPERUSER NOCREATEDB NOCREATEROLE;
CREATE DATABASE :"role" OWNER :"role";
REVOKE ALL ON DATABASE :"role" FROM PUBLIC;
SQL
}

own_database ledger "${LEDGER_PASSWORD_FILE:-/run/secrets/ledger-password}"
own_database prefect "${PREFECT_PASSWORD_FILE:-/run/secrets/prefect-password}"
