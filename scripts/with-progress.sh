#!/bin/sh
# Runs a command that may be silent for minutes, and says every ten seconds
# that it is still at work: with-progress.sh "what it does" COMMAND [ARG ...]
set -eu
what=$1
shift
(
	# Killed alone, the sleep would live on, and with it whoever reads our output.
	sleeper=
	trap '[ -z "$sleeper" ] || kill "$sleeper" 2>/dev/null; exit 0' TERM
	seconds=0
	while :; do
		sleep 10 >/dev/null 2>&1 &
		sleeper=$!
		wait "$sleeper"
		seconds=$((seconds + 10))
		echo "  $what: $seconds s" >&2
	done
) &
ticker=$!
end() {
	kill "$ticker" 2>/dev/null || true
	wait "$ticker" 2>/dev/null || true
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
status=0
"$@" || status=$?
exit "$status"
