#!/usr/bin/env bash
# Walks through a Job's life with the built errand and an unmodified kubectl, in
# a temporary folder with an image registry on loopback, and cleans up.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/bin

if [ "$(id -u)" -ne 0 ]; then
	echo "demo: needs root, for containers: sudo make demo" >&2
	exit 1
fi

work=$(mktemp -d /tmp/errand-demo-XXXXXX)
registry='' errand=''

# What errand has left on this machine, by the names that follow from its data
# directory (internal/instance).
left() {
	local f tag
	tag=$(printf %s "$work/data" | sha256sum | cut -c1-6)
	for f in /proc/[0-9]*/cmdline; do
		if { tr '\0' ' ' <"$f"; } 2>/dev/null | grep -qF -e "$work" -e "/run/errand-$tag"; then
			echo "process $(basename "$(dirname "$f")")"
		fi
	done
	grep -F -e "$work" -e "errand-$tag" /proc/self/mountinfo | sed 's/^/mount /' || true
	for f in "/sys/class/net/er-$tag" "/run/errand-$tag" "/sys/fs/cgroup/errand-$tag" /sys/fs/cgroup/*/"errand-$tag"; do
		[ ! -e "$f" ] || echo "$f"
	done
}

cleanup() {
	status=$?
	trap - EXIT
	if [ -n "$errand" ]; then
		kill "$errand" 2>/dev/null || true
		wait "$errand" 2>/dev/null || true
		"$bin/errand" drain --data-dir "$work/data" 2>>"$work/errand.log" || status=1
	fi
	if [ -n "$registry" ]; then
		kill "$registry" 2>/dev/null || true
		wait "$registry" 2>/dev/null || true
	fi
	if [ "$status" -ne 0 ]; then
		echo "demo: failed; errand said:" >&2
		tail -n 50 "$work/errand.log" >&2 || true
	fi
	remains=$(left)
	if [ -n "$remains" ]; then
		echo "demo: errand left behind:" >&2
		echo "$remains" >&2
		status=1
	fi
	rm -rf --one-file-system "$work"
	[ "$status" -ne 0 ] || echo "Done: no process, mount, network interface or cgroup is left behind."
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
run() {
	printf '$ %s\n' "$*"
	eval "$*"
}

say "An image registry on loopback, which stands in for docker.io"
mkfifo "$work/registry.out"
"$bin/errand-test-registry" --dir "$work/registry" >"$work/registry.out" &
registry=$!
read -r conf <"$work/registry.out"

say "errand serve: the API, the Job engine and a node"
mkfifo "$work/errand.err"
"$bin/errand" serve --data-dir "$work/data" --listen 127.0.0.1:0 --registries-conf "$conf" 2>"$work/errand.err" &
errand=$!
: >"$work/errand.log"
# Its first lines say that it is ready; the rest goes to the log.
exec 3<"$work/errand.err"
while read -r line <&3; do
	echo "$line" | tee -a "$work/errand.log"
	case $line in *KUBECONFIG=*) break ;; esac
done
cat <&3 >>"$work/errand.log" &
[ -e "$work/data/kubeconfig" ] || exit 1
export KUBECONFIG=$work/data/kubeconfig PATH="$bin:$PATH" HOME=$work

say "A suspended Job"
run kubectl get nodes
run kubectl apply -f examples/job-echo.yaml
run kubectl wait --for=condition=Suspended job/job-echo --timeout=30s
run kubectl get jobs
run kubectl describe jobs job-echo

say "Resumed, it runs two pods"
run "kubectl patch job/job-echo --type=strategic --patch '{\"spec\":{\"suspend\":false}}'"
run kubectl wait --for=condition=complete job/job-echo --timeout=60s
run kubectl get jobs
run kubectl describe jobs job-echo
run kubectl get pods
run kubectl logs -l job-name=job-echo --prefix

say "100 s after its end it goes, with its pods; here after 1 s"
run "kubectl patch job/job-echo --patch '{\"spec\":{\"ttlSecondsAfterFinished\":1}}'"
run kubectl wait --for=delete job/job-echo --timeout=30s
run kubectl wait --for=delete pod -l job-name=job-echo --timeout=30s
run kubectl get pods
