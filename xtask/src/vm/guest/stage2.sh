#!/bin/bash
# The second stage of a guest, its process 1, by the host's own programs: loads modules, makes devices, runs the command, waits to be ended.
# `settings` says what to do: kernel_modules, modules, huge_pages, directory, peer, and perhaps address, gid, loss_percent, rdma, nvme.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
control=/run/ionian-vm/control
. "$control/settings"

# The host ends the guest when it has what it waits for.
wait_for_the_end() {
    sync
    while :; do sleep 3600; done
}

# One sentence that says why the command was not run. Whole once it is under its name.
fail() {
    printf '%s\n' "$1" > "$control/failure.partial"
    mv "$control/failure.partial" "$control/failure"
    wait_for_the_end
}

# Waits for a condition, up to ten seconds of the guest's.
await() {
    local tries
    for ((tries = 0; tries < 100; tries++)); do
        "$@" && return 0
        sleep 0.1
    done
    return 1
}

# What a tool says on standard error becomes part of the sentence.
try() {
    local what=$1 said
    shift
    said=$("$@" 2>&1) || fail "$what: $(printf '%s' "$said" | tail -n 1)"
}

mkdir -p /dev/shm /dev/pts /dev/hugepages /lib/modules
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
echo "ionian-vm-$peer" > /proc/sys/kernel/hostname
ulimit -l unlimited
try "the kernel's modules could not be mounted" mount --bind "$kernel_modules" /lib/modules
try "lo could not be brought up" ip link set lo up
for module in $modules; do
    try "the kernel module $module could not be loaded" modprobe "$module"
done

if [ "$huge_pages" -gt 0 ]; then
    echo "$huge_pages" > /proc/sys/vm/nr_hugepages
    got=$(cat /proc/sys/vm/nr_hugepages)
    [ "$got" = "$huge_pages" ] || fail "the guest has memory for $got of $huge_pages huge pages: raise --memory-mib"
    try "the huge pages could not be mounted" mount -t hugetlbfs hugetlbfs /dev/hugepages
fi

if [ -n "$address" ]; then
    await test -e /sys/class/net/eth0 || fail "the guest has no network interface eth0"
    # Without IPv6 addresses of its own, which would add GIDs at times of their own.
    echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6
    try "eth0 could not be given its address" ip address add "$address/24" dev eth0
    try "eth0 could not be brought up" ip link set eth0 up
fi
if [ -n "$loss_percent" ]; then
    try "netem could not be set up on eth0" tc qdisc add dev eth0 root netem loss "$loss_percent%"
fi

if [ -n "$rdma" ]; then
    # The address is there before the device is, so that the device has its GID.
    try "the soft-RoCE device could not be made" rdma link add rxe0 type rxe netdev eth0
    port=/sys/class/infiniband/rxe0/ports/1
    await grep -q ACTIVE "$port/state" || fail "the soft-RoCE device did not become active: $(cat "$port/state")"
    has_gid() { grep -qx "$gid" "$port"/gids/* 2> /dev/null; }
    await has_gid || fail "the soft-RoCE device has no GID for $address"
    found=$(grep -lx "$gid" "$port"/gids/* 2> /dev/null | head -n 1)
    export IONIAN_VM_RDMA=rxe0 IONIAN_VM_GID_INDEX=${found##*/}
fi

if [ -n "$nvme" ]; then
    await test -b /dev/nvme0n1 || fail "the emulated NVMe device did not come: no /dev/nvme0n1"
    export IONIAN_VM_NVME=/dev/nvme0n1
fi

cd "$directory" || fail "the folder $directory is not in the guest: it may be a mount that 9p does not show"
. "$control/environment"
: > "$control/started"
setsid --wait bash "$control/command" > "$control/out" 2> "$control/err" < /dev/null
echo $? > "$control/status.partial"
mv "$control/status.partial" "$control/status"
wait_for_the_end
