#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What `info block-jobs -v` tells, latency targets, and what the program tells of itself. Whether the figures are right is
# asked by unit tests on the virtual clock (job-progress, job-latency).

load ../lib.bash

half_full() {
    qemu-img create -q -f qcow2 base.img 64M
    qemu-io -f qcow2 -c 'write -q -P 1 0 32M' base.img >/dev/null
    qemu-img create -q -f qcow2 -b base.img -F qcow2 top.img
}

DISK=file=top.img,if=virtio,format=qcow2

virtual() {
    mg -clock virtual -seed 3 -guest profile=none -drive $DISK "$@"
}

@test "info block-jobs -v tells what is done of the real data, how fast and how long" {
    half_full
    run virtual -c 'block_stream virtio0 4M' -c 'sleep 4s' -c 'info block-jobs -v'
    assert_status 0
    assert_output 'Streaming device virtio0: Completed'
    # Half of it, but for the piece that is on its way.
    grep -qE '\[#{11,12} +\]  (49|50)\.[0-9]%  1[56]\.?[0-9]* MiB of 32 MiB of data$' <<<"$output" || fail "$output"
    grep -qE 'running for 4 s, (3\.9[0-9]*|4|4\.0[0-9]*) MiB/s, about (3\.9|4|4\.1).* s left$' <<<"$output" || fail "$output"
}

@test "QEMU's line stays the first, and alone without -v" {
    half_full
    run virtual -c 'block_stream virtio0 1M' -c 'info block-jobs'
    [ "$(grep -c '' <<<"$output")" = 3 ]
    run virtual -qemu-compat -c 'block_stream virtio0 1M' --on-error=continue -c 'info block-jobs -v'
    refute_output 'of data'
}

@test "a job that waits for somebody says what would end it" {
    half_full
    run virtual -c 'block_stream virtio0 1M' -c 'block_job_pause virtio0' -c 'sleep 200ms' -c 'info block-jobs -v'
    assert_output 'paused, '
    assert_output ' since its start'
    assert_output 'block_job_resume lets it go on'
    refute_output 'left'
}

@test "a latency target is taken at the start, changed and taken away" {
    half_full
    run virtual -c 'block_stream -l 2ms virtio0 1M' -c 'info block-jobs -v' -c 'block_job_set_latency virtio0 500us' \
        -c 'info block-jobs -v' -c 'block_job_set_latency virtio0 0' -c 'info block-jobs -v'
    assert_status 0
    [ "$(grep -o 'latency target [0-9]* [mu]s' <<<"$output" | tr '\n' ';')" = 'latency target 2 ms;latency target 500 us;' ]
}

@test "a latency target stands also where no speed was asked for" {
    half_full
    run mg -clock virtual -guest profile=none -drive $DISK -c 'block_stream -l 2ms virtio0' -c 'info block-jobs -v'
    assert_status 0
    assert_output 'latency target 2 ms'
}

@test "a latency that is no time is refused" {
    half_full
    run virtual --on-error=continue -c 'block_stream -l soon virtio0'
    assert_status 3
    assert_output 'block_stream: time expected'
    [ "$(backing_of top.img)" = base.img ]
}

@test "QMP sets a latency target with job-set-latency, in nanoseconds" {
    half_full
    mg_start -guest profile=none -drive $DISK
    run qmp '{"execute": "block-stream", "arguments": {"device": "virtio0", "speed": 65536, "latency": 3000000}}' \
        '{"execute": "job-set-latency", "arguments": {"id": "virtio0", "latency": -1}}' \
        '{"execute": "job-set-latency", "arguments": {"id": "nobody", "latency": 1}}' \
        '{"execute": "job-set-latency", "arguments": {"id": "virtio0", "latency": 1000000}}'
    assert_output "Parameter 'latency' expects a non-negative value"
    assert_output "Block job 'nobody' not found"
    run hmp 'info block-jobs -v'
    assert_output 'latency target 1 ms'
}

@test "what a client of an export waits for counts for a latency target" {
    half_full
    mg_start -drive ${DISK/virtio/none},id=virtio0 # no device
    hmp 'nbd_server_start unix:nbd' 'nbd_server_add -w virtio0' 'block_stream -l 3ms virtio0 64k' >/dev/null
    run hmp 'info block-jobs -v'
    assert_output "the guest's p99 is not known: it is idle"
    qemu-io -f raw -c 'write -q -P 3 0 64k' -c 'read -q -P 3 0 64k' "nbd+unix:///virtio0?socket=$PWD/nbd" >/dev/null
    run hmp 'info block-jobs -v'
    [[ $output =~ "the guest's p99 is "[0-9.]+" " ]]
}

@test "under --qemu-compat there is no latency target" {
    half_full
    mg_start -qemu-compat -guest profile=none -drive $DISK
    run qmp '{"execute": "block-stream", "arguments": {"device": "virtio0", "latency": 3000000}}' \
        '{"execute": "job-set-latency", "arguments": {"id": "virtio0", "latency": 1}}'
    assert_output "Parameter 'latency' is unexpected"
    assert_output 'The command job-set-latency has not been found'
    run hmp 'block_stream -l 2ms virtio0' 'info loop' 'info counters'
    assert_output 'extraneous characters'
    refute_output 'turns'
    refute_output 'chain-map'
}

@test "info loop tells who held the loop, and -r begins anew" {
    half_full
    run mg -guest profile=none -drive $DISK -c 'qemu-io virtio0 "read 0 64M"' -c 'info loop -r' -c 'info loop -json'
    assert_status 0
    assert_output 'longest holds:'
    sed '1,/^(qemu) info loop -json/d' <<<"$output" >json
    [ "$(jq '."longest-ns" >= 0 and .holds < 100 and .turns >= 0' json)" = true ]
}

@test "info counters tells what the caches hold and what the host was asked for" {
    half_full
    run mg -guest profile=none -drive $DISK -c 'qemu-io virtio0 "read 0 1M"' -c 'info counters' -c 'info counters -json'
    assert_status 0
    grep -qE '^  reads +[1-9]' <<<"$output"
    for word in chain-map tables host; do
        grep -qx "$word" <<<"$output"
    done
    sed '1,/^(qemu) info counters -json/d' <<<"$output" >json
    [ "$(jq '.host.reads > 0' json)" = true ]
}

@test "a job whose guest would wait too long says that it is held back, and to what" {
    # A limit that is above what the floor lets through on any medium, memory too, and data for longer than one period.
    qemu-img create -q -f qcow2 full.img 256M
    qemu-io -c 'write -q 0 256M' full.img
    qemu-img create -q -f qcow2 -b full.img -F qcow2 over.img
    run mg -guest profile=preserve,rw=randread -drive file=over.img,if=virtio,format=qcow2 -c 'block_stream -l 1us virtio0 500M' -c 'sleep 250ms' \
        -c 'info block-jobs -v' -c 'block_job_cancel -f virtio0'
    assert_status 0
    [[ $output =~ "latency target 1 us, the guest's p99 is "[0-9.]+" "[mu]"s, held back to "[0-9.]+" "[KM]iB/s ]] || fail "$output"
}

@test "the caches of an image share what cache-size gives" {
    half_full
    run mg -guest profile=none -drive $DISK,cache-size=1M,l2-cache-size=2M
    assert_status 1
    assert_output 'l2-cache-size may not exceed cache-size'
    run mg -guest profile=none -drive $DISK,cache-size=3M,l2-cache-size=2M,refcount-cache-size=1M
    assert_status 1
    assert_output 'cache-size, l2-cache-size and refcount-cache-size may not be set at the same time'
    mg -guest profile=none -drive $DISK,cache-size=1M -c 'block_stream virtio0' -c wait
    assert_clean top.img
}

# scheduling PID: of each of its threads the policy (0: the usual one, 3: batch) and the slice in ns
scheduling() {
    awk '$1 == "policy" { policy = $NF } $1 == "se.slice" { print policy, $NF }' "/proc/$1/task/"*/sched
}

@test "the threads that copy go last for a processor, and those that answer a guest go first, in the sandbox too" {
    local sandbox kernel
    kernel=$(printf '6.12\n%s\n' "$(uname -r)" | sort -V | head -1)
    [ "$kernel" = 6.12 ] && grep -q '^se.slice' /proc/self/sched || skip 'this kernel gives all threads the same slice'
    scheduling $$ | grep -q '^0 ' || skip 'not in the usual scheduling class'
    for sandbox in off on,landlock=optional; do
        half_full
        mg_start -guest profile=preserve --sandbox "$sandbox" -drive $DISK
        hmp 'block_stream virtio0' 'wait'
        scheduling $(cat "/proc/$MG_PID/task/$MG_PID/children") >threads # it is timeout's child
        [ "$(sort -u threads | tr '\n' ';')" = '0 100000;3 100000000;' ] || fail "sandbox $sandbox: $(sort threads)"
        mg_stop
    done
}
