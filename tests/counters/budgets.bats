#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What the data path costs, in numbers that do not depend on how fast the machine is or what else it does: system calls,
# instructions, bytes of tables, layers visited. The budgets are the figures of the day they were written (in brackets) and
# about 15 % more; who makes something dearer finds out here, and either mends it or says why in this table.

load ../lib.bash

# The budgets are of reads that the page cache answers at once, which tmpfs never lets it.
setup() {
    common_setup
    export ASAN_OPTIONS="detect_leaks=0:${ASAN_OPTIONS-}" # LeakSanitizer does not work under strace
    on_disk=''
    if [ "$(stat -f -c %T .)" = tmpfs ]; then
        on_disk=$(mktemp -d -p /var/tmp)
        cd "$on_disk"
    fi
}

teardown() {
    common_teardown
    [ -z "$on_disk" ] || rm -rf "$on_disk"
}

budget() {
    case $1 in
    system-calls-per-read-depth-1) echo 1.45 ;;   # [1.25] preadv2; every fourth turn asks epoll
    system-calls-per-read-depth-32) echo 1.17 ;;  # [1.01]
    # Device, block, core and libraries; without the guest's own and its hashing.
    instructions-per-read-depth-1) echo 4050 ;;   # [3510]
    instructions-per-read-depth-32) echo 2300 ;;  # [1990] a turn of the loop serves many
    instructions-per-nbd-read) echo 2690 ;;       # [2335] the loop looks for the next one before it sleeps
    table-bytes-per-streamed-gib) echo 1290000 ;; # [1122432]
    writes-per-stream) echo 4.6 ;;                # [4]
    flushes-per-stream) echo 7 ;;                 # [6]
    # Of 64 KiB, eight for each table.
    table-bytes-per-scattered) echo 9500 ;;       # [8412] a table is written once
    flushes-per-1024-scattered) echo 28 ;;        # [24] some of its tables at a time: a 256th of the data, 4 MiB at most
    instructions-per-small-extent) echo 1260 ;;   # [1098] of 2048 in a slice of the map, also those of the layer's tables
    instructions-per-missing-table) echo 42 ;;    # [36] of two layers: read, counted, looked at for what to copy
    fills-per-empty-tib) echo 3 ;;                # [2] the first slice, and the driver says how far it goes on
    reads-per-compressed-mib) echo 5.2 ;;         # [4.56] four clusters of 64 KiB at once
    esac
}

# within NAME VALUE: VALUE, perhaps a fraction, is at most NAME's budget; and not less than half of it, or the table is old.
within() {
    echo "# $1: $2, budget $(budget "$1")" >&3
    awk -v name="$1" -v value="$2" -v budget="$(budget "$1")" 'BEGIN {
        if (value > budget) { print name ": " value " is above " budget; exit 1 }
        if (value < budget / 2) { print name ": " value ": better than the table says, write it down"; exit 1 }
    }'
}

# reads_of FILE: how many requests the guest had answered, from what `info guest` printed last.
reads_of() {
    sed -n 's/^virtio0:.* reads=\([0-9]*\) .*/\1/p' "$1" | tail -1
}

# data_image FILE MIB: full of data.
data_image() {
    qemu-img create -q -f qcow2 "$1" "$2M"
    qemu-io -f qcow2 -c "write -q -P 1 0 $2M" "$1" >/dev/null
}

drive() {
    echo "file=$1,if=virtio,format=qcow2"
}

reader() {
    echo "profile=preserve,rw=randread,bs=4k,rate_iops=0,size=16M,iodepth=$1"
}

optimised_only() {
    ! grep -q '^OUR_CFLAGS.*-fsanitize' "$BUILD_DIR/Makefile" || skip "sanitizers have calls and instructions of their own"
    grep -Eq '^CFLAGS.*-O[2s3]' "$BUILD_DIR/Makefile" || skip "the budgets are those of -O2"
}

# served COUNT RUN...: calls RUN MILLISECONDS, each time for longer, until the guest of busy.out had more than COUNT reads answered:
# on a busy machine that takes its time, and of few reads what begins and ends a run is a part that shows.
served() {
    local count=$1 ms
    shift
    for ms in 500 1500 5000 15000; do
        "$@" "$ms"
        [ "$(reads_of busy.out)" -le "$count" ] || return 0
    done
    fail "only $(reads_of busy.out) reads"
}

# traced FILE ARGS...: merganser, and how often each system call was made. Reading the clock is not counted: the loop asks for the
# processor's time once in so many microseconds, whatever was done meanwhile.
traced() {
    local out=$1
    shift
    strace -f -qq -c -e trace='!clock_gettime' -o "$out" "$MERGANSER" "$@" </dev/null
}

trace_reader() {
    traced busy.st -guest "$(reader "$1")" -drive "$(drive a.img)" -c "sleep ${2}ms" -c 'info guest' >busy.out
}

# calls_per_read DEPTH: all system calls of a run with a busy guest, less those of one without, by read.
calls_per_read() {
    local none busy
    traced none.st -guest profile=none -drive "$(drive a.img)" -c 'sleep 200ms' >/dev/null
    served 5000 trace_reader "$1" || return # nothing ends a $(...) of itself
    none=$(awk '$NF == "total" { print $4 }' none.st)
    busy=$(awk '$NF == "total" { print $4 }' busy.st)
    awk -v calls=$((busy - none)) -v reads="$(reads_of busy.out)" 'BEGIN { print calls / reads }'
}

@test "a guest's read costs little more than one system call" {
    optimised_only
    data_image a.img 16
    within system-calls-per-read-depth-1 "$(calls_per_read 1)"
    within system-calls-per-read-depth-32 "$(calls_per_read 32)"
}

# instructions FILE [EXCLUDE]: what callgrind counted, without functions of the files that match.
instructions() {
    callgrind_annotate --threshold=100 --auto=no "$1" | sed -n 's/^ *\([0-9,]*\) ([ 0-9.]*%) */\1 /p' | grep -v 'PROGRAM TOTALS' |
        grep -Ev "${2:-^$}" | awk '{ gsub(",", "", $1); sum += $1 } END { printf "%d\n", sum }'
}

# How often the loop asks for news before it sleeps, and for the processor's time, depends on the time.
untimed='--toggle-collect=look_for_events* --toggle-collect=end_with_work* --collect-atstart=yes'

# counted FILE ARGS...: merganser under callgrind.
counted() {
    local out=$1
    shift
    timeout -k 5 60 valgrind -q --tool=callgrind $untimed --callgrind-out-file="$out" "$MERGANSER" "$@" </dev/null
}

count_reader() {
    counted busy.cg -guest "$(reader "$1")" -drive "$drive" -c "sleep ${2}ms" -c 'info guest' >busy.out
}

@test "a guest's read of 4 KiB stays within its budget of instructions" {
    optimised_only
    data_image a.img 16
    local drive reads depth
    drive=$(drive a.img),aio=threads
    counted none.cg -guest profile=none -drive "$drive" -c 'sleep 100ms' >/dev/null
    for depth in 1 32; do
        served 3000 count_reader $depth
        reads=$(reads_of busy.out)
        within instructions-per-read-depth-$depth \
            $((($(instructions busy.cg 'hw/guest|xxhash|intrin') - $(instructions none.cg)) / reads))
    done
}

@test "a client's read of 4 KiB stays within its budget of instructions" {
    optimised_only
    data_image a.img 16
    cat >counted <<END
#!/bin/sh
exec valgrind -q --tool=callgrind $untimed --callgrind-out-file=nbd.cg "$MERGANSER" "\$@"
END
    chmod +x counted
    counted none.cg -guest profile=none -drive "$(drive a.img),aio=threads" -c 'sleep 100ms' >/dev/null
    MERGANSER=$PWD/counted mg_start -guest profile=none -drive "$(drive a.img),aio=threads"
    hmp "nbd_server_start -a unix:$PWD/nbd" >/dev/null
    # One at a time: how many requests one look at the socket finds would be a matter of luck.
    timeout -k 2 30 nbdcopy --no-extents --synchronous --connections=1 --threads=1 --requests=1 --request-size=4096 "nbd+unix:///virtio0?socket=$PWD/nbd" null:
    hmp 'info counters -json' >json
    hmp quit >/dev/null
    mg_wait
    [ "$(jq .host.reads json)" -ge 4096 ] || fail "$(cat json)"
    within instructions-per-nbd-read $((($(instructions nbd.cg) - $(instructions none.cg)) / 4096))
}

# counters IMAGE COMMAND...: what `info counters` says as JSON after the commands, at the virtual clock.
counters() {
    local image=$1 args=()
    shift
    for line in "$@"; do
        args+=(-c "$line")
    done
    mg -clock virtual -guest profile=none -drive "$(drive "$image")" "${args[@]}" -c 'info counters -json' >out || { cat out >&2; return 1; }
    sed '1,/^(qemu) info counters -json/d' out
}

@test "what a stream writes besides the data is little" {
    data_image base.img 64
    qemu-img create -q -f qcow2 -b base.img -F qcow2 top.img
    counters top.img 'block_stream virtio0' 'wait virtio0 done 60s' >json
    [ "$(jq '.host."bytes-copied"' json)" = $((64 << 20)) ]
    within table-bytes-per-streamed-gib $(($(jq '.host."bytes-written"' json) * 16))
    within writes-per-stream "$(jq '.host.writes' json)"
    within flushes-per-stream "$(jq '.host.flushes' json)"
}

# scattered_image FILE CLUSTERS: each far from the others.
scattered_image() {
    local i words=()
    qemu-img create -q -f qcow2 "$1" "$(($2 * 64))M"
    for ((i = 0; i < $2; i++)); do
        words+=(-c "write -q -P 1 $((i * 64))M 64k")
    done
    qemu-io -f qcow2 --cache=unsafe "${words[@]}" "$1" >/dev/null
}

@test "scattered clusters cost their tables, written once, and few flushes" {
    scattered_image base.img 1024
    qemu-img create -q -f qcow2 -b base.img -F qcow2 top.img
    counters top.img 'block_stream virtio0' 'wait virtio0 done 60s' >json
    [ "$(jq '.host."bytes-copied"' json)" = $((64 << 20)) ]
    within table-bytes-per-scattered $(($(jq '.host."bytes-written"' json) / 1024))
    within flushes-per-1024-scattered "$(jq '.host.flushes' json)"
    assert_clean top.img
}

@test "scattered clusters are moved many at once" {
    scattered_image base.img 512
    qemu-img create -q -f qcow2 -b base.img -F qcow2 top.img
    strace -f -qq -c -o calls -e trace=copy_file_range "$MERGANSER" -guest profile=none -drive "$(drive top.img),aio=threads" \
        -c 'block_stream virtio0' -c 'wait virtio0 done 60s' </dev/null >/dev/null
    # Only those before it is known that extents cannot be shared, and who was alone in its turn.
    [ "$(awk '$NF == "copy_file_range" { print $4 }' calls)" -le 256 ] || fail "$(cat calls)"
}

# Large pages of the host's cache make each small write into them dear (core/io-host.c).
@test "compressed clusters are read several at once" {
    data_image plain.img 16
    qemu-img convert -c -O qcow2 plain.img base.img
    qemu-img create -q -f qcow2 -b base.img -F qcow2 top.img
    counters top.img 'block_stream virtio0' 'wait virtio0 done 60s' >json
    within reads-per-compressed-mib "$(jq '.host.reads / 16' json)"
}

@test "a large write reaches the host's cache in pieces of 64 KiB" {
    data_image a.img 4
    strace -f -qq -e trace=pwrite64,pwritev -o calls "$MERGANSER" -guest profile=none -drive "$(drive a.img)" \
        -c 'qemu-io virtio0 "write -q -P 7 4k 3M"' </dev/null >/dev/null
    [ "$(sed -n 's/.*) = //p' calls | sort -n | tail -1)" = 65536 ]
    qemu-io -f qcow2 -c 'read -P 7 4k 3M' -c 'read -P 1 0 4k' a.img | grep -c mismatch && return 1
    true
}

# fragmented_chain FILE EXTENTS: an overlay over every other cluster of 512 bytes, over data.
fragmented_chain() {
    data_image base.img 2
    python3 -c 'import sys; sys.stdout.buffer.write((b"2" * 512 + bytes(512)) * int(sys.argv[1]))' $(($2 / 2)) >every-other
    truncate -s 2M every-other
    qemu-img convert -S 512 -f raw -O qcow2 -o cluster_size=512 every-other middle.img
    qemu-img rebase -u -b base.img -F qcow2 middle.img
    qemu-img create -q -f qcow2 -b middle.img -F qcow2 "$1"
}

@test "what an extent in a slice of the map costs does not depend on how many there are" {
    optimised_only
    local extents
    for extents in 256 2048; do
        fragmented_chain top.img $extents
        counted $extents.cg -guest profile=none -drive "$(drive top.img),aio=threads" -c 'qemu-io virtio0 "read -q 0 512"' >/dev/null
    done
    within instructions-per-small-extent $((($(instructions 2048.cg) - $(instructions 256.cg)) / (2048 - 256)))
}

@test "where there is no table, a stream costs a few instructions for each" {
    optimised_only
    local gib
    for gib in 4 36; do
        qemu-img create -q -f qcow2 -o cluster_size=512 base.img ${gib}G
        qemu-img create -q -f qcow2 -o cluster_size=512 -b base.img -F qcow2 top.img
        counted $gib.cg -clock virtual -guest profile=none -drive "$(drive top.img),aio=threads" -c 'block_stream virtio0' -c 'wait virtio0 done 60s' >/dev/null
    done
    within instructions-per-missing-table $((($(instructions 36.cg) - $(instructions 4.cg)) / (32 << 15)))
}

@test "the map's slices suit the clusters of a snapshot, whatever lies below" {
    truncate -s 1T base.raw
    mg -clock virtual -guest profile=none -drive file=base.raw,if=virtio,format=raw -c 'snapshot_blkdev virtio0 top.img' \
        -c 'block_stream virtio0' -c 'wait virtio0 done 60s' -c 'info counters -json' >out
    sed '1,/^(qemu) info counters -json/d' out >json
    within fills-per-empty-tib "$(jq '."chain-map".fills' json)"
}

@test "a read through a warm map visits no layer and reads no table, at any depth" {
    local backing='' i
    for i in 0 1 2 3 4 5 6 7; do
        qemu-img create -q -f qcow2 ${backing:+-b $backing -F qcow2} "l$i.img" 64M
        qemu-io -f qcow2 -c "write -q -P $i $((i * 8))M 8M" "l$i.img" >/dev/null
        backing=l$i.img
    done
    counters l7.img 'qemu-io virtio0 "read 0 64M"' >cold
    counters l7.img 'qemu-io virtio0 "read 0 64M"' 'qemu-io virtio0 "read 0 64M"' >warm
    [ "$(jq '."chain-map"."layers-visited"' cold)" -gt 0 ]
    [ "$(jq '."chain-map"' cold)" = "$(jq '."chain-map"' warm)" ]
    [ "$(jq '.tables' cold)" = "$(jq '.tables' warm)" ]
}

@test "caches stay within their budgets on a disk of 1 TiB, however it is read" {
    python3 - <<'END'
import random
import subprocess
random.seed(3)
subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "huge.img", "1T"], check=True)
words = []
for _ in range(800):
    words += ["-c", f"write -q {random.randrange(1 << 24) << 16} 4k"]
subprocess.run(["qemu-io", "-f", "qcow2", "--cache=unsafe", *words, "huge.img"], check=True)
with open("reads", "w") as script:
    for _ in range(1500):
        print(f'qemu-io virtio0 "read -q {random.randrange(1 << 24) << 16} 64k"', file=script)
    print("info counters -json", file=script)
END
    mg -clock virtual -guest profile=none -drive "$(drive huge.img),l2-cache-size=256k" -map-cache-size 128k -f reads >out
    sed '1,/^(qemu) info counters -json/d' out >json
    [ "$(jq '."chain-map".budget' json)" = 131072 ]
    [ "$(jq '."chain-map".bytes <= 131072' json)" = true ]
    [ "$(jq '."chain-map".evictions > 100' json)" = true ]
    [ "$(jq '.tables.bytes <= 262144 + 8192' json)" = true ]
    [ "$(jq '.tables.evictions > 100' json)" = true ]
}
