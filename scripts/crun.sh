#!/bin/sh
# Makes a crun of Debian 13's package, for measuring: crun.sh FOLDER, which then
# has crun and its libraries. It does nothing where that is there, or where the
# host has a crun that serves. The folder isn't errand's own: beside itself errand
# would find a crun, and prefer it.
#
# The package, its libraries and the patchelf that makes it load them rather than
# the host's come from the mirror that this machine's apt names, and apt verifies
# them against Debian's archive keys. Nothing is installed.
set -eu
folder=$1
oldest=$(sed -n 's/^[[:space:]]*{"crun", release{\([0-9]*\), \([0-9]*\), \([0-9]*\)}},$/\1.\2.\3/p' "$(dirname "$0")/../internal/server/programs.go")
serves() {
	have=$("$1" --version 2>/dev/null | sed -n 's/^crun version \([0-9.]*\).*/\1/; 1s/^[0-9]*\.[0-9]*$/&.0/; 1p')
	[ -n "$have" ] && printf '%s\n%s\n' "$oldest" "$have" | sort -V -C
}
if [ -z "$oldest" ]; then
	echo "crun: internal/server/programs.go doesn't say which crun serves" >&2
	exit 1
fi
! serves "$folder/crun" || exit 0
if host=$(command -v crun) && serves "$host"; then
	echo "crun: the host's $host ($have) serves" >&2
	exit 0
fi
keys=/usr/share/keyrings/debian-archive-keyring.gpg
if ! command -v apt-get >/dev/null || [ ! -e $keys ]; then
	echo "crun: this machine has no apt with Debian's keys: install a crun of $oldest or later in \$PATH" >&2
	exit 1
fi
# Debian's archive, as this machine reaches it.
mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' | sed -n 's/^Debian Debian //p' | head -n 1)
mirror=${mirror:-http://deb.debian.org/debian}

mkdir -p "$folder"
dir=$(cd "$folder" && pwd)
apt=$dir/apt
rm -rf "$dir"
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/parts" "$apt/debs"
echo "deb [signed-by=$keys] $mirror trixie main" >"$apt/sources.list"
: >"$apt/status"
from_debian_13() {
	apt-get -q -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts="$apt/parts" -o Dir::State::Lists="$apt/lists" \
		-o Dir::State::Status="$apt/status" -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root "$@" >/dev/null
}
echo "crun: fetching Debian 13's package from $mirror" >&2
from_debian_13 update
cd "$apt/debs"
from_debian_13 download crun libc6 libyajl2 libseccomp2 libsystemd0 libcap2 libgcc-s1 patchelf libstdc++6
for deb in *.deb; do
	dpkg-deb -x "$deb" "$dir/root"
done
# The folder of the architecture has the loader and all libraries.
mv "$dir"/root/usr/lib/*-linux-gnu* "$dir/lib"
rm -rf "$dir/lib/gconv" "$dir/lib/audit" "$dir"/lib/*.a
set -- "$dir"/lib/ld-linux*
"$1" --library-path "$dir/lib" "$dir/root/usr/bin/patchelf" --set-interpreter "$1" --force-rpath --set-rpath "$dir/lib" "$dir/root/usr/bin/crun"
mv "$dir/root/usr/bin/crun" "$dir/crun"
rm -rf "$dir/root" "$apt"
if ! serves "$dir/crun"; then
	echo "crun: what was made of Debian 13's package doesn't run here, or is too old: ${have:-no version}" >&2
	exit 1
fi
