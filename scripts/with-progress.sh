#!/bin/sh
# Runs a command that may be silent for minutes, and says every ten seconds
# that it is still at work: with-progress.sh "what it does" COMMAND [ARG ...]
set -eu
what=$1
shift
(
	seconds=0
	while sleep 10; do
		seconds=$((seconds + 10))
		echo "  $what: $seconds s" >&2
	done
) &
ticker=$!
status=0
"$@" || status=$?
kill "$ticker" 2>/dev/null || true
wait "$ticker" 2>/dev/null || true
exit "$status"
