#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What an operator does to a running stream.

load ../lib.bash

@test "info block-jobs prints QEMU's line" {
    CHAIN_SIZE=8M
    qemu-img create -q -f qcow2 file-A.img 8M
    qemu-io -f qcow2 -c 'write -q -P 1 0 8M' file-A.img >/dev/null
    qemu-img create -q -f qcow2 -b file-A.img -F qcow2 file-B.img
    run mg -drive "$(chain_drive A B)" -c 'info block-jobs' -c 'block_stream virtio0 1k' -c 'info block-jobs' \
        -c 'block_job_cancel -f virtio0' -c 'wait all done 5s' -c 'info block-jobs'
    assert_output "No active jobs"
    [[ $output =~ "Streaming device virtio0: Completed "[0-9]+" of 8388608 bytes, speed limit 1024 bytes/s" ]]
}

@test "a cancelled stream leaves the chain and its content" {
    make_chain file-A.img file-B.img file-C.img
    offline_merge file-C.img merged.raw
    run mg -drive "$(chain_drive A B C)" -c 'block_stream virtio0 64k' -c 'sleep 200ms' -c 'block_job_cancel virtio0' \
        -c 'wait all done 5s' -c 'expect chain virtio0 = A <- B <- C' -c 'expect guest clean'
    assert_status 0
    assert_chain file-C.img file-C.img file-B.img file-A.img
    assert_clean file-C.img
    same_content merged.raw file-C.img
}

@test "a paused stream stands still until it is resumed" {
    make_chain file-A.img file-B.img
    cat >script <<'END'
block_stream virtio0 1M
block_job_pause virtio0
sleep 200ms
expect job virtio0 paused
block_job_resume virtio0
block_job_set_speed virtio0 0
wait virtio0 done 20s
expect chain virtio0 = B
END
    run mg -drive "$(chain_drive A B)" -f script
    assert_status 0
    assert_clean file-B.img
}

@test "a paused job can be cancelled by force only" {
    make_chain file-A.img file-B.img
    mg_start -drive "$(chain_drive A B)"
    hmp 'block_stream virtio0 64k' 'block_job_pause virtio0' >/dev/null
    run hmp 'block_job_cancel virtio0'
    assert_output "Error: The block job for device 'virtio0' is currently paused"
    hmp 'block_job_cancel -f virtio0'
    sleep 0.3
    run hmp 'info block-jobs'
    assert_output "No active jobs"
}

@test "two streams on parts of one chain that do not overlap run side by side" {
    make_chain file-A.img file-B.img file-C.img file-D.img file-E.img
    offline_merge file-E.img merged.raw
    cat >script <<'END'
block_stream node-E 256k file-C.img
block_stream node-C 256k file-A.img
expect job node-E running
expect job node-C running
block_job_set_speed node-E 0
block_job_set_speed node-C 0
wait all done 30s
expect chain virtio0 = A <- C <- E
expect guest clean
END
    run mg -drive "$(chain_drive A B C D E)" -f script
    assert_status 0
    assert_chain file-E.img file-E.img file-C.img file-A.img
    assert_clean file-C.img file-E.img
    same_content merged.raw file-E.img
}

@test "a stream that would conflict is refused in QEMU's words" {
    make_chain file-A.img file-B.img file-C.img file-D.img
    mg_start -drive "$(chain_drive A B C D)"
    hmp 'block_stream virtio0 64k' >/dev/null
    run hmp 'block_stream node-C' 'block_stream virtio0' 'snapshot_blkdev virtio0 x.img qcow2'
    assert_output "Error: Node 'node-C' is busy: block device is in use by block job: stream"
    assert_output "Error: Node 'virtio0' is busy: block device is in use by block job: stream"
    [ ! -e x.img ]
}

@test "the siblings of the layers are untouched" {
    make_chain file-A.img file-B.img file-C.img
    qemu-img create -q -f qcow2 -b file-B.img -F qcow2 sibling.img
    qemu-io -f qcow2 -c 'write -q -P 9 1M 1M' sibling.img >/dev/null
    offline_merge sibling.img sibling.raw
    run mg -drive "$(chain_drive A B C)" -c 'block_stream virtio0' -c wait
    assert_status 0
    same_content sibling.raw sibling.img
    assert_clean sibling.img file-B.img
}

@test "a guest reads what it has written over what a stream has copied, before and after the job's end" {
    CHAIN_SIZE=8M
    qemu-img create -q -f qcow2 file-A.img 8M
    qemu-io -f qcow2 -c 'write -q -P 1 0 8M' file-A.img >/dev/null
    qemu-img create -q -f qcow2 -b file-A.img -F qcow2 file-B.img
    cat >script <<'SCRIPT'
block_stream virtio0 2M
sleep 600ms
block_job_pause virtio0
qemu-io virtio0 "write -P 7 64k 4k"
qemu-io virtio0 "write -z 192k 64k"
qemu-io virtio0 "read -P 7 64k 4k"
qemu-io virtio0 "read -P 1 68k 60k"
qemu-io virtio0 "read -P 0 192k 64k"
block_job_resume virtio0
block_job_set_speed virtio0 0
wait virtio0 done 20s
qemu-io virtio0 "read -P 7 64k 4k"
SCRIPT
    run mg -guest profile=none -drive "$(chain_drive A B)" -f script
    assert_status 0
    [[ $output != *"verification failed"* ]]
    assert_clean file-B.img
    qemu-io -f qcow2 -c 'read -q -P 7 64k 4k' -c 'read -q -P 1 68k 124k' -c 'read -q -P 0 192k 64k' \
        -c 'read -q -P 1 256k 7936k' file-B.img
}

# The classes: "policy|priority" of each thread, the main one first.
classes() {
    chrt -ap "$1" | sed -n 's/.*policy: //p;s/.*priority: //p' | paste -d '|' - -
}

@test "copying goes last among the program's own threads for a processor" {
    make_chain file-A.img file-B.img
    mg_start -guest profile=none -drive "$(chain_drive A B)"
    hmp 'block_stream virtio0 1M' >/dev/null
    sleep 0.3
    local pid
    pid=$(pgrep -P "$MG_PID" merganser)
    case $(classes "$pid" | head -1) in
    'SCHED_OTHER|0') classes "$pid" | grep -q 'SCHED_BATCH|0' ;;
    'SCHED_RR|1' | 'SCHED_FIFO|1') skip "there is nothing below this class" ;;
    *) classes "$pid" | grep -q '|1$' ;;
    esac
}

@test "a job that ended while it was paused is neither resumed nor changed" {
    make_chain file-A.img file-B.img
    mg_start -drive "$(chain_drive A B)" -guest profile=none
    run qmp '{"execute": "block-stream", "arguments": {"device": "virtio0", "job-id": "j", "speed": 4096, "auto-dismiss": false}}' \
        '{"execute": "job-pause", "arguments": {"id": "j"}}' \
        '{"execute": "block-job-cancel", "arguments": {"device": "j", "force": true}}'
    refute_output error
    for ((i = 0; i < 100; i++)); do
        run qmp '{"execute": "query-jobs"}'
        [[ $output != *concluded* ]] || break
        sleep 0.05
    done
    local verb
    for verb in resume set-speed set-latency cancel pause; do
        local more=
        case $verb in
        set-speed) more=', "speed": 1' ;;
        set-latency) more=', "latency": 1' ;;
        esac
        case $verb in
        set-speed) run qmp '{"execute": "block-job-set-speed", "arguments": {"device": "j"'"$more"'}}' ;;
        *) run qmp '{"execute": "job-'$verb'", "arguments": {"id": "j"'"$more"'}}' ;;
        esac
        assert_output error
        echo "$verb: $output" >>answers
    done
    cat answers
    grep -q "resume: .*Can't resume a job that was not paused" answers # the cancel has ended its pause
    [ "$(grep -c "Job 'j' in state 'concluded' cannot accept command verb '\(set-speed\|set-latency\|cancel\|pause\)'" answers)" = 4 ]
    run qmp '{"execute": "job-dismiss", "arguments": {"id": "j"}}'
    refute_output error
}

@test "a name for the node that QEMU would put above is taken" {
    make_chain file-A.img file-B.img
    mg_start -drive "$(chain_drive A B)" -guest profile=none
    run qmp '{"execute": "block-stream", "arguments": {"device": "virtio0", "filter-node-name": "above"}}'
    refute_output error
    hmp 'wait virtio0 done 20s' >/dev/null
    hmp 'expect chain virtio0 = B'
}
