#!/bin/sh
# Builds containerd, its shim and the CNI plugins that make test-cri needs into a
# folder, from the module test/containerd/programs: containerd.sh FOLDER. It does
# nothing where they are there in the version that the module pins.
set -eu
mkdir -p "$1"
target=$(cd "$1" && pwd)
if ! command -v nft >/dev/null; then
	echo "containerd: the CNI plugin for host ports needs nft: install what Debian calls nftables" >&2
	exit 1
fi
cd "$(dirname "$0")/../test/containerd/programs"
# All that they are made of: the versions, and the compiler's.
want=$(go version; cat go.mod go.sum)
[ ! -e "$target/built-from" ] || [ "$(cat "$target/built-from")" != "$want" ] || exit 0
version=$(go list -m -f '{{.Version}}' github.com/containerd/containerd/v2)
../../../scripts/with-progress.sh "compiling containerd $version and CNI's plugins" \
	go build -ldflags "-s -w -X github.com/containerd/containerd/v2/version.Version=$version" -o "$target/" tool
printf '%s\n' "$want" >"$target/built-from"
