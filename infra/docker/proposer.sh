#!/bin/sh
# The proposer as the process itself, so that it gets the container's SIGTERM.
exec python -m deployments.cli "$@"
