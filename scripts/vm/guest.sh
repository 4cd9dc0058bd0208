#!/bin/bash
# What the virtual machine of scripts/vm.sh runs once it has booted: the tests in
# /vm/tests of the packages in /vm/packages. Then it ends the machine.
set -u
while [ ! -e /dev/virtio-ports/log ]; do udevadm settle; done
exec </dev/null >/dev/virtio-ports/log 2>&1
. /vm/env
# What runs from the host's folders is read once: nothing in them changes meanwhile.
share() { mkdir -p "$2" && mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose "$1" "$2"; }
share src /src && share goroot /usr/local/go && share gomod /root/go/pkg/mod && share gocache /mnt/gocache || {
	systemctl poweroff
	exit 1
}
# Tests that compile something add to Go's cache: here, for as long as the machine runs.
mkdir -p /mnt/new/upper /mnt/new/work /root/.cache/go-build
mount -t overlay -o lowerdir=/mnt/gocache,upperdir=/mnt/new/upper,workdir=/mnt/new/work gocache /root/.cache/go-build
export PATH=/usr/local/go/bin:$PATH GOPROXY=off GOTOOLCHAIN=local
echo "$(uname -sr), $(systemctl --version | head -n 1), cgroups: $(stat -fc %T /sys/fs/cgroup), up in $(cut -d ' ' -f 1 /proc/uptime) s"
/src/bin/errand doctor
status=0
while read -r name pkg; do
	cd "/src/$pkg" || exit
	began=$SECONDS
	"/vm/tests/$name" -test.count=1 -test.timeout=0 -test.v -test.run "$RUN" 2>&1 | tee /root/log | grep -a --line-buffered '^--- '
	code=${PIPESTATUS[0]}
	# What the tests said is shown only where one failed.
	result="$(grep -ac '^--- PASS' /root/log) passed, $(grep -ac '^--- FAIL' /root/log) failed, $(grep -ac '^--- SKIP' /root/log) skipped"
	if [ $code -eq 0 ]; then
		echo "ok    $pkg  $((SECONDS - began)) s: $result"
	else
		status=1
		cat /root/log
		echo "FAIL  $pkg  $((SECONDS - began)) s: $result"
	fi
done </vm/packages
echo $status >/vm/status
systemctl poweroff
