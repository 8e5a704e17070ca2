# SPDX-License-Identifier: GPL-2.0-or-later
#
# Without an image: the demonstration chain, in a directory that is gone afterwards.

load ../lib.bash

setup() {
    common_setup
    mkdir tmp
    export TMPDIR=$PWD/tmp
}

@test "without an image the documents' chain and an IDE disk are there" {
    run mg -c 'info chain virtio0' -c 'info block ide0-hd0'
    assert_status 0
    assert_output '[A] <- [B] <- [C] <- [D] <- [E]'
    assert_output 'node-A'
    assert_output 'ide.img (qcow2)'
}

@test "the documents' commands work on it, and its directory is gone at the end" {
    run mg -c 'block_stream virtio0 file-A.img' -c wait -c 'expect chain virtio0 = A <- E' \
        -c 'snapshot_blkdev ide0-hd0 disk.img qcow2' -c 'block_stream ide0-hd0' -c wait -c 'expect guest clean'
    assert_status 0
    [ -z "$(ls -A tmp)" ]
}

@test "a script's path is found though the working directory is another" {
    echo 'info status' >script
    run mg -f script
    assert_status 0
    assert_output 'VM status: running'
}

@test "a relative socket path is where it was said" {
    timeout 60 "$MERGANSER" -monitor none -qmp unix:qmp,server=on,wait=off </dev/null 3>&- &
    MG_PID=$!
    for ((i = 0; i < 200; i++)); do [ ! -S qmp ] || break; sleep 0.05; done
    qmp '{"execute": "quit"}'
    mg_wait
    [ ! -e qmp ]
}

@test "a signal leaves nothing behind" {
    for signal in INT TERM HUP; do
        env --default-signal=INT timeout 60 "$MERGANSER" -monitor none -qmp unix:qmp,server=on,wait=off </dev/null 3>&- 2>err &
        MG_PID=$!
        for ((i = 0; i < 200; i++)); do [ ! -S qmp ] || break; sleep 0.05; done
        qmp '{"execute": "query-status"}' >/dev/null
        [ -n "$(ls -A tmp)" ]
        kill -$signal "$(pgrep -P $MG_PID)"
        rc=0
        mg_wait || rc=$?
        [ $rc = $((128 + $(kill -l $signal))) ] || fail "SIG$signal: exit code $rc"
        [ -z "$(ls -A tmp)" ]
        [ ! -e qmp ]
        [[ $(cat err) == "merganser: terminating on signal "* ]]
    done
}

@test "a place where nothing can be written is named" {
    chmod 500 tmp
    [ "$(id -u)" != 0 ] || TMPDIR=/nonexistent
    run mg
    assert_status 1
    assert_output 'merganser: Could not make the demonstration directory'
}

@test "with -nodefaults there is no demonstration, and names are those of the working directory" {
    qemu-img create -q -f qcow2 a.img 1M
    run mg -nodefaults -c 'info block' -c 'drive_add 0 if=none,id=d,file=a.img,format=qcow2' -c 'info block'
    assert_status 0
    refute_output virtio0
    assert_output 'd (#block'
    [ -z "$(ls -A tmp)" ]
}
