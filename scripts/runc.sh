#!/bin/sh
# Builds runc, statically, from its Go module: runc.sh [--pinned] TARGET. It does
# nothing where the target exists in the version that build/runc pins, or,
# without --pinned, where the host has a crun or runc that serves: then errand
# finds that one by $PATH.
set -eu
pinned=
if [ "$1" = --pinned ]; then
	pinned=1
	shift
fi
target=$1
cd "$(dirname "$0")/.."
want=$(cd build/runc && go list -m -f '{{.Version}}' github.com/opencontainers/runc)
want=${want#v}
# Always of three numbers: crun says 1.21.
version() { "$1" --version 2>/dev/null | sed -n 's/^[a-z]* version \([0-9.]*\).*/\1/; 1s/^[0-9]*\.[0-9]*$/&.0/; 1p'; }
# The oldest that serves, as errand itself has it.
oldest() { sed -n 's/^[[:space:]]*{"'"$1"'", release{\([0-9]*\), \([0-9]*\), \([0-9]*\)}},$/\1.\2.\3/p' internal/server/programs.go; }
[ "$(version "$target")" != "$want" ] || exit 0
for name in crun runc; do
	[ -z "$pinned" ] || break
	host=$(command -v "$name" || true)
	[ -n "$host" ] || continue
	have=$(version "$host")
	min=$(oldest "$name")
	if [ -z "$min" ]; then
		echo "runc: internal/server/programs.go doesn't say which $name serves" >&2
		exit 1
	fi
	if [ -n "$have" ] && printf '%s\n%s\n' "$min" "$have" | sort -V -C; then
		echo "runc: the host's $host ($have) serves" >&2
		exit 0
	fi
done
if [ ! -e /usr/include/seccomp.h ]; then
	echo "runc: libseccomp's headers are missing: run make deps" >&2
	exit 1
fi
out=$(pwd)/$target
mkdir -p "$(dirname "$out")"
cd build/runc
CGO_ENABLED=1 ../../scripts/with-progress.sh "compiling runc $want" \
	go build -tags 'seccomp urfave_cli_no_docs netgo osusergo' \
	-ldflags "-s -w -linkmode external -extldflags -static -X main.version=$want" \
	-o "$out" github.com/opencontainers/runc
