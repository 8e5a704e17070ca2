# SPDX-License-Identifier: GPL-2.0-or-later
#
# The same requests, sent to the real QEMU 7.2 and to us, on equal images: every byte that comes back is the same, but for
# times, the numbers of generated node-names, sizes on the host and the package's name.

load ../lib.bash

setup() {
    command -v qemu-system-x86_64 >/dev/null || skip "no qemu-system-x86_64"
    common_setup
    mkdir qemu ours
    (cd qemu && CHAIN_SIZE=64M make_chain file-A.img file-B.img file-C.img file-D.img file-E.img &&
        qemu-img create -q -f qcow2 ide.img 4M)
    cp qemu/*.img ours/
    drives=(-drive "$(chain_drive A B C D E)" -drive file=ide.img,if=ide,format=qcow2)
    qmp=unix:qmp,server=on,wait=off
}

teardown() {
    [ -z "${QEMU_PID-}" ] || kill "$QEMU_PID" 2>/dev/null || true
    common_teardown
}

wait_for_socket() {
    local i
    for ((i = 0; i < 400; i++)); do
        [ ! -S "$1" ] || return 0
        sleep 0.05
    done
    fail "no socket $1"
}

# same_answers <REQUESTS: play them to both and compare.
same_answers() {
    cat >requests
    (cd qemu && exec timeout -k 5 60 qemu-system-x86_64 -S -display none -nodefaults -monitor none "${drives[@]}" \
        -qmp "$qmp" >out 2>&1 </dev/null 3>&-) &
    QEMU_PID=$!
    (cd ours && exec timeout -k 5 60 "$MERGANSER" -S --qemu-compat -monitor none "${drives[@]}" \
        -qmp "$qmp" >out 2>&1 </dev/null 3>&-) &
    MG_PID=$!
    wait_for_socket qemu/qmp
    wait_for_socket ours/qmp
    python3 "$TOP/tests/qmp/transcript.py" qemu/qmp <requests >qemu.txt
    python3 "$TOP/tests/qmp/transcript.py" ours/qmp <requests >ours.txt
    [ -s qemu.txt ]
    diff -u qemu.txt ours.txt >&2 || fail "the answers differ"
}

@test "the greeting, the negotiation and the form of requests: byte for byte as QEMU" {
    same_answers <<'END'
{"execute": "query-status"}
{"execute": "nosuch"}
{"execute":"query-status","id":7}
{"execute":"qmp_capabilities","arguments":{"enable":["foo"]}}
{"execute":"qmp_capabilities","arguments":{"enable":"x"}}
{"execute":"qmp_capabilities","arguments":{"enable":[1]}}
{"execute":"qmp_capabilities","arguments":{"x":1}}
{"execute":"qmp_capabilities"}
{"execute":"qmp_capabilities"}
{"execute":"query-status","id":{"x":[1,2.5,null,true]}}
{"execute":1}
{"execute":null}
{}
[]
1 
"x"
{"execute":"query-status","foo":1}
{"execute":"query-status","arguments":1}
{"execute":"query-status","arguments":{}}
{"execute":"query-status","arguments":{"x":1}}
{"id":5,"arguments":{}}
{"exec-oob":"query-status"}
{"execute":"query-status","execute":"stop"}
{'execute':'query-status','id':'\u00e9/'}
{"execute":"quit","id":9}
END
}

@test "queries: byte for byte as QEMU" {
    same_answers <<'END'
{"execute":"qmp_capabilities"}
{"execute":"query-version"}
{"execute":"query-name"}
{"execute":"query-uuid"}
{"execute":"query-block"}
{"execute":"query-named-block-nodes","arguments":{"flat":true}}
{"execute":"query-named-block-nodes"}
{"execute":"query-named-block-nodes","arguments":{"flat":"x"}}
{"execute":"query-block-jobs"}
{"execute":"quit","id":9}
END
}

@test "refusals of block-stream: byte for byte as QEMU" {
    same_answers <<'END'
{"execute":"qmp_capabilities"}
{"execute":"block-stream"}
{"execute":"block-stream","arguments":{"device":"nosuch"}}
{"execute":"block-stream","arguments":{"device":1}}
{"execute":"block-stream","arguments":{"device":"virtio0","speed":"x"}}
{"execute":"block-stream","arguments":{"device":"virtio0","speed":-1}}
{"execute":"block-stream","arguments":{"device":"virtio0","speed":1.5}}
{"execute":"block-stream","arguments":{"device":"virtio0","speed":null}}
{"execute":"block-stream","arguments":{"device":"virtio0","speed":9223372036854775808}}
{"execute":"block-stream","arguments":{"device":"virtio0","foo":1}}
{"execute":"block-stream","arguments":{"device":"virtio0","base":"nosuch"}}
{"execute":"block-stream","arguments":{"device":"virtio0","base":""}}
{"execute":"block-stream","arguments":{"device":"virtio0","base":"node-A"}}
{"execute":"block-stream","arguments":{"device":"virtio0","base":"file-E.img"}}
{"execute":"block-stream","arguments":{"device":"virtio0","base":"file-A.img","base-node":"node-A"}}
{"execute":"block-stream","arguments":{"device":"virtio0","base":"file-A.img","bottom":"node-B"}}
{"execute":"block-stream","arguments":{"device":"virtio0","base-node":"node-A","bottom":"node-B"}}
{"execute":"block-stream","arguments":{"device":"virtio0","base-node":"nosuch"}}
{"execute":"block-stream","arguments":{"device":"virtio0","base-node":"node-E"}}
{"execute":"block-stream","arguments":{"device":"virtio0","bottom":"nosuch"}}
{"execute":"block-stream","arguments":{"device":"virtio0","bottom":"virtio0"}}
{"execute":"block-stream","arguments":{"device":"node-D","base-node":"node-E"}}
{"execute":"block-stream","arguments":{"device":"virtio0","on-error":"bogus"}}
{"execute":"block-stream","arguments":{"device":"virtio0","backing-file":"x"}}
{"execute":"block-stream","arguments":{"device":"virtio0","job-id":""}}
{"execute":"block-stream","arguments":{"device":"virtio0","job-id":"1abc"}}
{"execute":"block-stream","arguments":{"device":"virtio0","job-id":"a#"}}
{"execute":"block-stream","arguments":{"device":"node-D"}}
{"execute":"block-stream","arguments":{"device":"node-D","base-node":"node-B"}}
{"execute":"block-stream","arguments":{"device":"virtio0","auto-finalize":"x"}}
{"execute":"block-stream","arguments":{"device":"virtio0","filter-node-name":"1"}}
{"execute":"block-stream","arguments":{"device":"virtio0","filter-node-name":"node-E"}}
{"execute":"block-stream","arguments":{"device":"virtio0","snapshot-node-name":"x"}}
{"execute":"block-stream","arguments":{"device":"virtio0","bottom":"node-E"}}
@JOB_STATUS_CHANGE
{"execute":"quit","id":9}
END
}

@test "commands about jobs that are not there: byte for byte as QEMU" {
    same_answers <<'END'
{"execute":"qmp_capabilities"}
{"execute":"block-job-set-speed"}
{"execute":"block-job-set-speed","arguments":{"device":"virtio0","speed":0}}
{"execute":"block-job-set-speed","arguments":{"device":3,"speed":0}}
{"execute":"block-job-cancel"}
{"execute":"block-job-cancel","arguments":{"device":"virtio0","foo":1}}
{"execute":"block-job-cancel","arguments":{"device":"virtio0","force":1}}
{"execute":"block-job-pause","arguments":{"device":"virtio0"}}
{"execute":"block-job-resume","arguments":{"device":"virtio0"}}
{"execute":"block-job-finalize"}
{"execute":"block-job-finalize","arguments":{"id":"x"}}
{"execute":"block-job-dismiss","arguments":{"device":"virtio0"}}
{"execute":"block-job-dismiss","arguments":{"id":"x"}}
{"execute":"quit","id":9}
END
}

@test "human-monitor-command: byte for byte as QEMU" {
    same_answers <<'END'
{"execute":"qmp_capabilities"}
{"execute":"human-monitor-command"}
{"execute":"human-monitor-command","arguments":{"command-line":"info status","cpu-index":0}}
{"execute":"human-monitor-command","arguments":{"command-line":"info status","cpu-index":9}}
{"execute":"human-monitor-command","arguments":{"command-line":""}}
{"execute":"human-monitor-command","arguments":{"command-line":"foo"}}
{"execute":"human-monitor-command","arguments":{"command-line":"info foo"}}
{"execute":"human-monitor-command","arguments":{"command-line":"block_stream"}}
{"execute":"human-monitor-command","arguments":{"command-line":"block_stream virtio0 A"}}
{"execute":"human-monitor-command","arguments":{"command-line":"info block"}}
{"execute":"human-monitor-command","arguments":{"command-line":"info block-jobs"}}
{"execute":"human-monitor-command","arguments":{"command-line":"help stop"}}
{"execute":"human-monitor-command","arguments":{"command-line":"info history"}}
{"execute":"quit","id":9}
END
}

@test "snapshots and their refusals: byte for byte as QEMU" {
    same_answers <<'END'
{"execute":"qmp_capabilities"}
{"execute":"blockdev-snapshot-sync"}
{"execute":"blockdev-snapshot-sync","arguments":{"device":"virtio0"}}
{"execute":"blockdev-snapshot-sync","arguments":{"snapshot-file":"s1"}}
{"execute":"blockdev-snapshot-sync","arguments":{"device":"nosuch","snapshot-file":"s1"}}
{"execute":"blockdev-snapshot-sync","arguments":{"node-name":"nosuch","snapshot-file":"s1"}}
{"execute":"blockdev-snapshot-sync","arguments":{"device":"virtio0","node-name":"node-E","snapshot-file":"s1"}}
{"execute":"blockdev-snapshot-sync","arguments":{"device":"virtio0","snapshot-file":"s1","format":"foo"}}
{"execute":"blockdev-snapshot-sync","arguments":{"device":"virtio0","snapshot-file":"s1","format":"raw"}}
{"execute":"blockdev-snapshot-sync","arguments":{"device":"virtio0","snapshot-file":"s1","mode":"foo"}}
{"execute":"blockdev-snapshot-sync","arguments":{"device":"virtio0","snapshot-file":"nosuch","mode":"existing"}}
{"execute":"blockdev-snapshot-sync","arguments":{"device":"virtio0","snapshot-file":"file-E.img","mode":"existing"}}
{"execute":"blockdev-snapshot-sync","arguments":{"device":"virtio0","snapshot-file":"s1","snapshot-node-name":"node-E"}}
{"execute":"blockdev-snapshot-sync","arguments":{"device":"virtio0","snapshot-file":"s1","snapshot-node-name":"1x"}}
{"execute":"blockdev-snapshot-sync","arguments":{"device":"virtio0","snapshot-file":"s1","snapshot-node-name":"virtio0"}}
{"execute":"blockdev-snapshot-sync","arguments":{"node-name":"node-E","snapshot-file":"s1"}}
{"execute":"blockdev-snapshot-sync","arguments":{"device":"virtio0","snapshot-file":"/nonexistent/s"}}
{"execute":"blockdev-snapshot-sync","arguments":{"device":"virtio0","snapshot-file":"s4","foo":1}}
{"execute":"blockdev-snapshot-sync","arguments":{"device":"virtio0","snapshot-file":1}}
{"execute":"blockdev-snapshot-sync","arguments":{"device":"ide0-hd0","snapshot-file":"s2","snapshot-node-name":"s2"},"id":3}
{"execute":"human-monitor-command","arguments":{"command-line":"info block ide0-hd0"}}
{"execute":"quit","id":9}
END
}

@test "a job that is slowed, paused, resumed, refused a companion, and ends: byte for byte as QEMU" {
    same_answers <<'END'
{"execute":"qmp_capabilities"}
{"execute":"block-stream","arguments":{"device":"virtio0","speed":65536,"on-error":"stop"}}
{"execute":"block-stream","arguments":{"device":"virtio0"}}
{"execute":"block-stream","arguments":{"device":"virtio0","job-id":"other"}}
{"execute":"block-stream","arguments":{"device":"node-D","job-id":"dd"}}
{"execute":"block-stream","arguments":{"device":"ide0-hd0","job-id":"virtio0"}}
~0.5
{"execute":"block-job-pause","arguments":{"device":"virtio0"}}
{"execute":"block-job-pause","arguments":{"device":"virtio0"}}
{"execute":"block-job-set-speed","arguments":{"device":"virtio0","speed":-5}}
{"execute":"block-job-cancel","arguments":{"device":"virtio0"}}
{"execute":"block-job-finalize","arguments":{"id":"virtio0"}}
{"execute":"block-job-dismiss","arguments":{"id":"virtio0"}}
{"execute":"block-job-resume","arguments":{"device":"virtio0"}}
{"execute":"block-job-resume","arguments":{"device":"virtio0"}}
{"execute":"query-block"}
{"execute":"block-job-set-speed","arguments":{"device":"virtio0","speed":0}}
@BLOCK_JOB_COMPLETED
{"execute":"query-block-jobs"}
{"execute":"query-block"}
{"execute":"stop"}
{"execute":"query-status"}
{"execute":"system_reset"}
{"execute":"quit","id":9}
END
}
