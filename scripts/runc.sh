#!/bin/sh
# Builds runc, statically, from its Go module: runc.sh TARGET. It does nothing
# where the target exists in the version that build/runc pins, or where the
# host has a runc at least as new (then errand finds that one by $PATH).
set -eu
target=$1
cd "$(dirname "$0")/.."
want=$(cd build/runc && go list -m -f '{{.Version}}' github.com/opencontainers/runc)
want=${want#v}
version() { "$1" --version 2>/dev/null | sed -n 's/^runc version //p'; }
[ "$(version "$target")" != "$want" ] || exit 0
host=$(command -v runc || true)
if [ -n "$host" ]; then
	have=$(version "$host")
	oldest=$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n 1)
	if [ -n "$have" ] && [ "$oldest" = "$want" ]; then
		echo "runc: the host's $host ($have) serves" >&2
		exit 0
	fi
fi
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
