# What a guest looks at itself, for `cargo xtask vm --check`: one line `PASS name` or `FAIL name: reason` per property, in the job directory.
# `intruder` is a path of the host, outside of what is shared for writing.
results=$IONIAN_VM_JOB/results

# check NAME FUNCTION: what the function prints is the reason if it fails.
check() {
    local said
    if said=$("$2" 2>&1); then
        echo "PASS $1" >> "$results"
    else
        echo "FAIL $1: $(printf '%s' "$said" | tail -n 3 | tr '\n' ' ')" >> "$results"
    fi
}

# Writing to the host's root fails even when the guest's own mount of it allows it; writing to the guest's view of it does not reach it.
read_only() {
    local below=$IONIAN_VM_HOST_ROOT$intruder
    [ -d "$(dirname "$below")" ] || { echo "the host's folder is not seen"; return 1; }
    touch "$intruder" || return 1
    mount -o remount,rw "$IONIAN_VM_HOST_ROOT" 2> /dev/null
    if touch "$below" 2> /dev/null; then
        echo "$below could be written"
        return 1
    fi
}

link_active() {
    rdma link show "$IONIAN_VM_RDMA/1" | tee /dev/stderr | grep -q 'state ACTIVE physical_state LINK_UP'
}

# A client and a server in this guest, through the device: the server listens before the client begins.
send() {
    local server tries
    ib_send_lat -d "$IONIAN_VM_RDMA" -x "$IONIAN_VM_GID_INDEX" -n 50 -F > /tmp/vm-server 2>&1 &
    server=$!
    for ((tries = 0; tries < 200; tries++)); do
        [ -n "$(ss -Hltn 'sport = :18515')" ] && break
        kill -0 "$server" 2> /dev/null || break
        sleep 0.1
    done
    timeout 60 ib_send_lat -d "$IONIAN_VM_RDMA" -x "$IONIAN_VM_GID_INDEX" -n 50 -F "$IONIAN_VM_ADDRESS_0" || { cat /tmp/vm-server; return 1; }
    wait "$server" || { cat /tmp/vm-server; return 1; }
}

nvme() {
    [ -c /dev/ng0n1 ] || { echo "no /dev/ng0n1"; return 1; }
    dd if=/dev/urandom of=/tmp/vm-pattern bs=64K count=4 status=none || return 1
    dd if=/tmp/vm-pattern of="$IONIAN_VM_NVME" bs=64K seek=16 oflag=direct conv=fsync status=none || return 1
    dd if="$IONIAN_VM_NVME" of=/tmp/vm-read bs=64K skip=16 count=4 iflag=direct status=none || return 1
    cmp /tmp/vm-pattern /tmp/vm-read
}

huge_pages() {
    grep HugePages_Total /proc/meminfo
    [ "$(awk '/HugePages_Total/ { print $2 }' /proc/meminfo)" = 8 ] && grep -q ' /dev/hugepages hugetlbfs ' /proc/mounts
}

check host-root-read-only read_only
check rdma-link-active link_active
check rdma-send send
check nvme-write-read nvme
check huge-pages huge_pages
echo "this goes to standard output"
echo "this goes to standard error" >&2
pwd
exit 7
