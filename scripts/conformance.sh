#!/bin/sh
# Compiles upstream's e2e.test, the ginkgo that runs it, and the programs in the
# images that its tests run, all from Go's module cache: conformance.sh TARGET
set -eu
mkdir -p "$1"
target=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
scripts=$(pwd)/scripts
cd test/conformance/upstream
"$scripts/with-progress.sh" "compiling upstream's e2e.test (the first time takes many minutes)" \
	go test -c -ldflags '-s -w' -o "$target/e2e.test" k8s.io/kubernetes/test/e2e
"$scripts/with-progress.sh" "compiling ginkgo" \
	go build -ldflags '-s -w' -o "$target/ginkgo" github.com/onsi/ginkgo/v2/ginkgo
"$scripts/with-progress.sh" "compiling agnhost" \
	go build -ldflags '-s -w' -o "$target/agnhost" k8s.io/kubernetes/test/images/agnhost
go build -ldflags '-s -w' -o "$target/nonewprivs" k8s.io/kubernetes/test/images/nonewprivs
kubernetes=$(go list -m -f '{{.Dir}}' k8s.io/kubernetes)
for file in localhost.crt localhost.key; do
	install -m 0644 "$kubernetes/test/images/agnhost/porter/$file" "$target/$file"
done
for program in sh nc nsenter; do
	gcc -Os -Wall -Werror -static -o "$target/$program" "$scripts/../test/conformance/standin/$program.c"
done
# As upstream's build/pause/Makefile has it.
gcc -Os -Wall -Werror -static -DVERSION=v0-conformance -o "$target/pause" "$kubernetes/build/pause/linux/pause.c"
