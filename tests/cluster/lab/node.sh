#!/bin/sh
# The first process of a node, in its namespaces (net, mnt, pid, uts, ipc, cgroup). It makes the file systems a node has,
# starts containerd, imports the images, and keeps kubelet and kube-proxy running. From the environment: NODE (name),
# ADDRESS, FOLDER (the node's own, on disk), BIN, IMAGES (archives to import).
set -u
hostname "$NODE"
mount --make-rprivate /
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
if [ "$CGROUP" = 2 ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    # Processes live in leaves only, or nothing can be delegated.
    mkdir -p /sys/fs/cgroup/init
    echo $$ >/sys/fs/cgroup/init/cgroup.procs
    for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
        echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control || true
    done
else
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    for controller in cpu cpuacct cpuset memory devices freezer blkio pids; do
        mkdir "/sys/fs/cgroup/$controller"
        mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller" || echo "no cgroup $controller"
    done
    mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/unified
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
    mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
fi
# kubelet sets these; here it sets copies, and the machine keeps its own.
for setting in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do
    copy=$FOLDER/conf/$(basename "${setting%%=*}")
    echo "${setting#*=}" >"$copy"
    mount --bind "$copy" "/proc/sys/${setting%%=*}"
done
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns
own() {
    mkdir -p "$FOLDER/$1" "$2"
    mount --bind "$FOLDER/$1" "$2"
}
own cni-net /etc/cni/net.d
own cni-bin /opt/cni/bin
own cni-state /var/lib/cni
own kubelet /var/lib/kubelet
own containerd /var/lib/containerd
own var-log /var/log
mount --make-rshared /

if [ "$CGROUP" = 2 ]; then groups=/sys/fs/cgroup; else groups=/sys/fs/cgroup/unified; fi
keep() { # keep NAME COMMAND...: start it again whenever it ends; in a control group (v2) of its own, as services are
    name=$1
    shift
    mkdir -p "$groups/$name"
    sh -c 'echo $PPID >"$1/cgroup.procs"' keep "$groups/$name"
    while :; do
        "$@" >>"$FOLDER/log/$name.log" 2>&1 &
        echo $! >"/run/$name.pid"
        wait $!
        echo "$name ended: $?"
        sleep 0.5
    done
}
trap 'exit 0' TERM INT
keep containerd containerd --config "$FOLDER/conf/containerd.toml" &
keep kube-proxy "$BIN/kube-proxy" --config "$FOLDER/conf/proxy.yaml" --v=1 &
until ctr version >/dev/null 2>&1; do sleep 0.1; done
for image in $IMAGES; do
    ctr -n k8s.io images import "$image" || echo "cannot import $image"
done
keep kubelet "$BIN/kubelet" --config "$FOLDER/conf/kubelet.yaml" --kubeconfig "$FOLDER/conf/kubelet.kubeconfig" \
    --hostname-override "$NODE" --node-ip "$ADDRESS" --v=2 &
# The shell reaps what is left to it while it waits.
while :; do wait; sleep 1; done
