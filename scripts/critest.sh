#!/bin/sh
# Compiles upstream's critest and crictl, and the program in an image that its
# tests run, all from Go's module cache: critest.sh TARGET
set -eu
mkdir -p "$1"
target=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
scripts=$(pwd)/scripts
cd test/critest/upstream
"$scripts/with-progress.sh" "compiling upstream's critest and crictl (the first time takes some minutes)" \
	go test -c -ldflags '-s -w' -o "$target/critest" sigs.k8s.io/cri-tools/cmd/critest
go build -ldflags '-s -w' -o "$target/crictl" sigs.k8s.io/cri-tools/cmd/crictl
cd ../../conformance/upstream
go build -ldflags '-s -w' -o "$target/nonewprivs" k8s.io/kubernetes/test/images/nonewprivs
