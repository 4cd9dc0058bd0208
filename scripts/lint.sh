#!/bin/sh
# Formatting, vet and staticcheck, for every build tag that tests use.
set -eu
cd "$(dirname "$0")/.."
unformatted=$(git ls-files '*.go' | xargs gofmt -l)
if [ -n "$unformatted" ]; then
	echo "lint: not formatted (run gofmt -w):" >&2
	echo "$unformatted" >&2
	exit 1
fi
for module in build/runc build/tools test/conformance/upstream test/critest/upstream test/containerd/programs .; do
	(cd "$module" && go mod verify >/dev/null)
done
scripts/with-progress.sh "go vet" go vet -tags node,e2e,slow,cluster,systemd ./...
tool=$(pwd)/bin/staticcheck
(cd build/tools && go build -o "$tool" honnef.co/go/tools/cmd/staticcheck)
scripts/with-progress.sh "staticcheck" "$tool" -tags node,e2e,slow,cluster,systemd ./...
