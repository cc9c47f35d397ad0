#!/bin/busybox sh
# The first stage of a guest, in its initial archive: goes to the host's root, read-only over 9p, with a tmpfs above it.
B=/bin/busybox

# The host looks for such a line on the console when no command was run.
fail() {
    $B echo "ionian-vm: $1"
    $B echo b > /proc/sysrq-trigger
    $B sleep 60
}

$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
$B mount -t devtmpfs dev /dev
$B grep -q ionian_vm_probe /proc/cmdline && fail "the kernel runs"

while read -r module; do
    $B insmod "/modules/$module" || fail "the module $module could not be loaded"
done < /order

share() {
    $B mount -t 9p -o "$1,trans=virtio,version=9p2000.L,msize=512000,cache=$2" "$3" "$4" ||
        fail "the share '$3' could not be mounted over 9p"
}
share ro loose host /lower
$B mount -t tmpfs -o size=75% tmpfs /upper || fail "the guest's tmpfs could not be mounted"
$B mkdir /upper/files /upper/work
$B mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work overlay /new ||
    fail "the overlay above the host's root could not be mounted"

# The guest's own /run holds what it shares with the host; there is nothing of the host's /run in it.
$B mkdir -p /new/run /new/dev /new/sys /new/proc
$B mount -t tmpfs -o mode=755 tmpfs /new/run
$B mkdir -p /new/run/ionian-vm/host /new/run/ionian-vm/control /new/run/ionian-vm/job
share rw none control /new/run/ionian-vm/control
share rw none job /new/run/ionian-vm/job
$B mount --move /lower /new/run/ionian-vm/host
[ -x /new/bin/bash ] || fail "the host has no /bin/bash"
for folder in dev sys proc; do
    $B mount --move "/$folder" "/new/$folder"
done
exec $B switch_root /new /bin/bash /run/ionian-vm/control/stage2
