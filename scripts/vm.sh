#!/bin/sh
# Runs the node and e2e tests in a virtual machine of Debian 13, on which systemd
# is init and cgroups are version 2, without a network: vm.sh FOLDER, which keeps
# the machine's disk for the next time. By $PKGS only those packages are tested
# ("./internal/oci ./test/e2e"), by $RUN only the tests that match. $VM_ACCEL is
# kvm or tcg; without it, tcg, which emulates and takes a multiple, only where
# KVM runs no ordinary kernel. $VM_MEMORY is in MiB.
#
# The machine reads this tree, Go and Go's caches as they are, and writes to none.
# Its packages come from the mirror that this machine's apt names, and are verified
# against Debian's archive keys. Go's settings are to be the Makefile's.
set -eu
mkdir -p "$1"
dir=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
src=$(pwd)
say() { echo "vm: $*" >&2; }
fail() {
	say "$*"
	exit 1
}

keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ "$(uname -m)" = x86_64 ] || fail "the machine is made for x86-64 only, and this is $(uname -m)"
[ "$(id -u)" -eq 0 ] || fail "needs root, to make the machine's root file system: sudo make test-vm"
missing=
for tool in qemu-system-x86_64:qemu-system-x86 mmdebstrap:mmdebstrap mke2fs:e2fsprogs; do
	command -v "${tool%:*}" >/dev/null || missing="$missing ${tool#*:}"
done
[ -z "$missing" ] || fail "please install$missing: apt-get install --no-install-recommends$missing"
[ -e $keys ] || fail "$keys is missing: please install debian-archive-keyring"

work=$(mktemp -d "$dir/run.XXXXXX")
qemu=
limit=
end() {
	trap '' INT TERM
	[ -z "$qemu" ] || kill "$qemu" 2>/dev/null || true
	[ -z "$qemu" ] || wait "$qemu" 2>/dev/null || true
	rm -rf "$work"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# make_disk makes the root file system, and with it the kernel, once for each
# version of what is to be in it.
packages=systemd,systemd-sysv,udev,dbus,kmod,linux-image-amd64,apparmor,nftables,iptables,iproute2,procps,busybox-static,ca-certificates,crun
stamp=$(cat scripts/vm.sh scripts/vm/errand-vm.service | sha256sum | cut -d ' ' -f 1)
make_disk() {
	[ "$(cat "$dir/stamp" 2>/dev/null || true)" != "$stamp" ] || return 0
	need=1500
	free=$(df -Pm "$dir" | awk 'END { print $4 }')
	[ "$free" -ge $need ] || fail "$dir has $free MiB of room, and the machine's disk needs $need"
	mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' | sed -n 's/^Debian Debian //p' | head -n 1)
	say "making a root file system of Debian 13"
	rm -f "$dir/stamp"
	scripts/with-progress.sh "fetching Debian's packages and unpacking them" mmdebstrap --quiet --mode=root --variant=minbase --keyring=$keys \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		--aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' --include=$packages \
		trixie "$work/root" "deb [signed-by=$keys] ${mirror:-http://deb.debian.org/debian} trixie main"
	root=$work/root
	cp scripts/vm/errand-vm.service "$root/etc/systemd/system/"
	mkdir -p "$root/vm" "$root/src" "$root/etc/systemd/system/multi-user.target.wants"
	ln -s ../errand-vm.service "$root/etc/systemd/system/multi-user.target.wants/"
	# Folders of tests are on a disk, as they are on most machines.
	ln -sf /dev/null "$root/etc/systemd/system/tmp.mount"
	echo vm >"$root/etc/hostname"
	echo "127.0.0.1 localhost vm" >"$root/etc/hosts"
	echo "nameserver 127.0.0.1" >"$root/etc/resolv.conf"
	cp "$root"/boot/vmlinuz-* "$dir/vmlinuz"
	cp "$root"/boot/initrd.img-* "$dir/initrd"
	rm -f "$dir/disk"
	truncate -s 12G "$dir/disk"
	mke2fs -q -t ext4 -O ^has_journal -d "$root" "$dir/disk"
	rm -rf "$root"
	echo "$stamp" >"$dir/stamp"
}

# boot boots the kernel by $accel, with more of qemu's arguments, for $limit at most, in
# the place of the shell that calls it.
# A hypervisor that doesn't have the register arch-capabilities has qemu give up.
boot() {
	cpu=max
	[ "$accel" = tcg ] || cpu=host,-arch-capabilities
	append=$1
	shift
	exec ${limit:+timeout $limit} qemu-system-x86_64 -machine q35 -accel "$accel" -cpu $cpu -m "${VM_MEMORY:-4096}" -smp 2 -nodefaults -display none -no-reboot \
		-kernel "$dir/vmlinuz" -initrd "$dir/initrd" -append "console=ttyS0 quiet panic=-1 $append" -serial "file:$work/console" "$@"
}

# Whether KVM runs this kernel: with no root file system it soon ends, by panic=-1.
kvm_works() {
	say "trying whether KVM runs an ordinary kernel"
	(accel=kvm limit=30 boot rdinit=/none) >"$work/kvm" 2>&1
}
choose_accel() {
	accel=${VM_ACCEL:-}
	[ -z "$accel" ] || return 0
	accel=tcg
	if [ ! -e /dev/kvm ]; then
		say "there is no /dev/kvm: load the module kvm_intel or kvm_amd, or allow nested virtualization to this machine, if it is virtual itself"
	elif kvm_works; then
		accel=kvm
	else
		say "KVM doesn't run an ordinary kernel here: $(grep -m 1 . "$work/kvm")"
	fi
	[ $accel = kvm ] || say "the machine is emulated, and everything takes ten times as long"
}

# compile puts each package's tests into the machine's folder, as $share/tests.
compile() {
	tag=node
	for pkg in $pkgs; do
		name=$(echo "${pkg#./}" | tr / _)
		case $pkg in
		./test/e2e*) tag=e2e ;;
		./test/systemd*) tag=systemd ;;
		*) tag=node ;;
		esac
		scripts/with-progress.sh "compiling the tests of $pkg" go test -c -tags $tag -ldflags '-s -w' -o "$share/tests/$name" "$pkg"
		echo "$name ${pkg#./}" >>"$share/packages"
	done
}

share_of() { # tag, folder, options
	echo "-virtfs local,mount_tag=$1,path=$2,security_model=none,multidevs=remap$3"
}

make_disk
choose_accel
share=$work/vm
mkdir -p "$share/tests"
cp scripts/vm/guest.sh "$share/run"
pkgs=${PKGS:-$(grep -rlE '^//go:build node' --include='*_test.go' internal | xargs -n 1 dirname | sort -u | sed 's,^,./,') ./test/systemd ./test/e2e}
compile
slowness=1
[ "$accel" = kvm ] || slowness=20
cat >"$share/env" <<EOF
export RUN='${RUN:-.}' ERRAND_SLOWNESS=$slowness CGO_ENABLED='${CGO_ENABLED:-}' GOFLAGS='${GOFLAGS:-}'
EOF
say "booting"
export TMPDIR="$work"
# shellcheck disable=SC2046 # words
boot "root=/dev/vda rw systemd.show_status=0" \
	-drive "file=$dir/disk,if=virtio,format=raw,snapshot=on,cache=unsafe" \
	-device virtio-serial -chardev "file,id=log,path=/dev/stdout,append=on" -device virtserialport,chardev=log,name=log \
	-object rng-random,id=rng,filename=/dev/urandom -device virtio-rng-pci,rng=rng \
	$(share_of vm "$share" "") $(share_of src "$src" ,readonly=on) $(share_of goroot "$(go env GOROOT)" ,readonly=on) \
	$(share_of gomod "$(go env GOMODCACHE)" ,readonly=on) $(share_of gocache "$(go env GOCACHE)" ,readonly=on) &
qemu=$!
wait $qemu || true
qemu=
if [ ! -e "$share/status" ]; then
	tail -n 20 "$work/console" >&2
	fail "the machine ended before its tests did; its console's last lines are above"
fi
exit "$(cat "$share/status")"
