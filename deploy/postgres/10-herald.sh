#!/bin/sh
# Runs once, when the database cluster is made: a role for Herald that owns its database and can nothing else. The owner of
# a database may create trusted extensions in it, and pg_trgm is one (PostgreSQL 13 and newer), so migrations need no
# superuser. Only the role, and not everyone, may connect.
set -eu
psql -v ON_ERROR_STOP=1 -v password="$HERALD_DB_PASSWORD" --username "$POSTGRES_USER" --dbname postgres <<'SQL'
CREATE ROLE herald LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'password';
CREATE DATABASE herald OWNER herald;
REVOKE ALL ON DATABASE herald FROM PUBLIC;
SQL
