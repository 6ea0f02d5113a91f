#!/bin/sh
# A kernel of 6.6 or newer: Debian 12's own is 6.1, its backports have one. Vagrant starts the machine again after this.
set -eu
export DEBIAN_FRONTEND=noninteractive
echo "deb http://deb.debian.org/debian bookworm-backports main" >/etc/apt/sources.list.d/backports.list
apt-get -q update
apt-get -q -y install --no-install-recommends -t bookworm-backports "linux-image-$(dpkg --print-architecture)"
