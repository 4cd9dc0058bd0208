#!/bin/sh
# Builds errand, errand-shim and errand-controller in two folders, of the working
# tree as it is, and compares. What Go's cache holds is taken from there: what is shown is that
# neither folder, time nor order gets into the binaries.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d /tmp/errand-repro-XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
for dir in "$work/a" "$work/another-folder/below"; do
	mkdir -p "$dir"
	git ls-files -z --cached | xargs -0 tar -cf - | tar -xf - -C "$dir"
	make -s -C "$dir" errand controller VERSION="$VERSION" COMMIT="$COMMIT"
done
for name in errand errand-shim errand-controller; do
	if ! cmp "$work/a/bin/$name" "$work/another-folder/below/bin/$name"; then
		echo "repro: two builds of $name differ" >&2
		exit 1
	fi
done
echo "repro: the same to the byte: errand $(sha256sum <"$work/a/bin/errand" | cut -c1-16), errand-shim $(sha256sum <"$work/a/bin/errand-shim" | cut -c1-16)"
