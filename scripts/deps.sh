#!/bin/sh
# Installs the Debian packages that building runc (gcc, pkg-config, libseccomp)
# and the test images (busybox) need. Where all are there, it does nothing.
set -eu
missing=
command -v gcc >/dev/null || missing="$missing gcc libc6-dev"
command -v pkg-config >/dev/null || missing="$missing pkg-config"
[ -e /usr/include/seccomp.h ] || missing="$missing libseccomp-dev"
[ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1 || missing="$missing busybox-static"
[ -z "$missing" ] && exit 0
if ! command -v apt-get >/dev/null; then
	echo "deps: please install with your package manager what Debian calls:$missing" >&2
	exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "deps: needs root to install$missing: run sudo make deps" >&2
	exit 1
fi
echo "deps: installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get -q update >/dev/null
# shellcheck disable=SC2086 # a list of words
apt-get -q install -y --no-install-recommends $missing >/dev/null
