# Two guests send to each other over a link that loses frames; what the device and netem counted goes to the job directory.
lat=(ib_send_lat -d "$IONIAN_VM_RDMA" -x "$IONIAN_VM_GID_INDEX" -n 200 -F)
case $IONIAN_VM_PEER in
0)
    timeout 150 "${lat[@]}" &
    server=$!
    until [ -n "$(ss -Hltn 'sport = :18515')" ]; do
        kill -0 "$server" || exit 1
        sleep 0.1
    done
    touch "$IONIAN_VM_JOB/listening"
    wait "$server"
    status=$?
    rdma statistic show link "$IONIAN_VM_RDMA/1" > "$IONIAN_VM_JOB/rdma-statistic"
    tc -s qdisc show dev eth0 > "$IONIAN_VM_JOB/netem"
    exit "$status"
    ;;
1)
    for ((tries = 0; tries < 600; tries++)); do
        [ -e "$IONIAN_VM_JOB/listening" ] && break
        sleep 0.2
    done
    timeout 120 "${lat[@]}" "$IONIAN_VM_ADDRESS_0"
    ;;
esac
