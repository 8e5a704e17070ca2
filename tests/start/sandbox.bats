#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# --sandbox on, from outside. What is shut is tried from inside by tests/unit/sandbox.c.
#
# Where the kernel has no Landlock, what depends on it is told apart: there the program's own sentence is what is tested.

load ../lib.bash

setup() {
    common_setup
    # With the leak checker, which makes a process of its own at the end, no sandboxed program can end well.
    export ASAN_OPTIONS="detect_leaks=0:${ASAN_OPTIONS-}"
    mkdir images bases elsewhere
    qemu-img create -q -f qcow2 bases/base.img 16M
    qemu-io -f qcow2 -c 'write -q -P 1 0 1M' bases/base.img
    qemu-img create -q -f qcow2 -b ../bases/base.img -F qcow2 images/top.img
    qemu-io -f qcow2 -c 'write -q -P 2 512k 1M' images/top.img
    DISK=file=images/top.img,if=virtio,format=qcow2
    SANDBOX=on
    has_landlock || SANDBOX=on,landlock=optional
}

has_landlock() {
    python3 -c 'import ctypes, sys; sys.exit(ctypes.CDLL(None).syscall(444, None, 0, 1) <= 0)'
}

# need_landlock: without it the program does not start, and says why; then the test is over.
need_landlock() {
    has_landlock && return
    run mg --sandbox on -drive "$DISK" -c quit
    assert_status 1
    assert_output 'merganser: --sandbox on: This kernel cannot guard files'
    skip 'this kernel has no Landlock'
}

# without_landlock COMMAND...: on a kernel that seems to lack it.
without_landlock() {
    timeout -k 5 "$MG_TIMEOUT" python3 - "$@" 3>&- <<'END'
import ctypes, os, struct, sys

class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("code", ctypes.c_char_p)]

ENOSYS, ALLOW = 0x00050000 | 38, 0x7fff0000
code = b"".join(struct.pack("HBBI", *row) for row in [
    (0x20, 0, 0, 0),          # the number of the call
    (0x15, 0, 1, 444),        # landlock_create_ruleset
    (0x06, 0, 0, ENOSYS),
    (0x06, 0, 0, ALLOW)])
libc = ctypes.CDLL(None)
program = Program(4, code)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(program)) == 0
os.execv(sys.argv[1], sys.argv[1:])
END
}

@test "guests work, a snapshot goes beside the image, and all of it is merged again" {
    local aio
    for aio in threads io_uring; do
        run mg --sandbox "$SANDBOX" -drive "$DISK,aio=$aio" -guest profile=stamp,rw=randrw,size=4M,offset=8M \
            -c 'snapshot_blkdev virtio0 images/new.img' -c 'block_stream virtio0' -c 'wait virtio0 done 20s' -c 'info guest'
        assert_status 0
        refute_output 'denied'
        assert_chain images/new.img new.img
        read_pattern images/new.img 0 512k 1
        read_pattern images/new.img 512k 1M 2
        assert_clean images/new.img
        rm images/new.img
    done
}

@test "a snapshot elsewhere is refused in one sentence, and nothing is changed" {
    need_landlock
    md5sum images/* bases/* >before
    run mg --sandbox on -drive "$DISK" -guest profile=none -c '!snapshot_blkdev virtio0 elsewhere/new.img' \
        -c '!snapshot_blkdev virtio0 bases/new.img' -c 'expect chain virtio0 = base <- top'
    assert_status 0
    assert_output "Error: Could not create 'elsewhere/new.img': Permission denied
The sandbox is on: new files can be made in '$PWD/images' only."
    assert_output "Error: Could not create 'bases/new.img': Permission denied"
    [ -z "$(ls elsewhere)" ]
    md5sum images/* bases/* | diff before -
}

@test "other images cannot be read, not even beside a backing file" {
    need_landlock
    qemu-img create -q -f qcow2 bases/other.img 16M
    run mg --sandbox on -drive "$DISK" -guest profile=none -c '!snapshot_blkdev -n virtio0 bases/other.img'
    assert_status 0
    assert_output "Could not open 'bases/other.img': Permission denied"
}

@test "a program that QMP tells nothing new says the sentence without the hint" {
    need_landlock
    run mg --qemu-compat --sandbox on -drive "$DISK" -c 'snapshot_blkdev virtio0 elsewhere/new.img'
    assert_output "Could not create 'elsewhere/new.img': Permission denied"
    refute_output sandbox
}

@test "monitors and exports work, and no new socket goes where no image lies" {
    need_landlock
    mg_start --sandbox on -drive "$DISK" -guest profile=none
    qmp '{"execute": "query-status"}' | grep -q '"running": true'
    run hmp 'nbd_server_start unix:elsewhere/nbd.sock' 'nbd_server_start unix:images/nbd.sock' 'nbd_server_add virtio0'
    assert_output 'Failed to bind socket to elsewhere/nbd.sock: Permission denied'
    run nbdinfo --size "nbd+unix:///virtio0?socket=$PWD/images/nbd.sock"
    assert_output 16777216
}

@test "the demonstration works, and goes away with the program" {
    mkdir demo
    TMPDIR=$PWD/demo run mg --sandbox "$SANDBOX" -c 'block_stream virtio0' -c 'wait virtio0 done 20s' -c 'info chain virtio0'
    assert_status 0
    assert_output '[E]'
    [ -z "$(ls demo)" ]
}

@test "scripts are read" {
    echo 'info name' >elsewhere/script
    echo 'info status' >elsewhere/other
    run mg --sandbox "$SANDBOX" -drive "$DISK" -f elsewhere/script
    assert_status 0
    need_landlock
    run mg --sandbox on -drive "$DISK" -f elsewhere/script -c 'source elsewhere/other'
    assert_status 3
    assert_output "'elsewhere/other': Permission denied"
}

@test "a temporary overlay needs no place of its own, and leaves nothing" {
    need_landlock
    mkdir temporary
    TMPDIR=$PWD/temporary run mg --sandbox "$SANDBOX" -snapshot -drive "$DISK" -guest profile=none \
        -c 'qemu-io virtio0 "write -P 9 0 1M"' -c 'qemu-io virtio0 "read -P 9 0 1M"' -c '!snapshot_blkdev virtio0 temporary/new'
    assert_status 0
    refute_output 'verification failed'
    [ -z "$(ls temporary)" ]
    read_pattern images/top.img 0 512k 1
}

@test "no word of the monitor's leads to a file that was not named" {
    need_landlock
    qemu-img create -q -f qcow2 elsewhere/secret.img 16M
    echo 'fio version 2 iolog' >elsewhere/secret.txt
    ln -s ../elsewhere/secret.img images/link.img
    qemu-img create -q -f qcow2 -b ../elsewhere/secret.img -F qcow2 images/above.img
    qemu-img create -q -f qcow2 -u -b 'json:{"driver":"raw","file":{"driver":"file","filename":"elsewhere/secret.txt"}}' \
        -F raw images/json.img 16M
    md5sum elsewhere/* >before
    cat >commands <<'END'
!snapshot_blkdev virtio0 images/../elsewhere/new.img
!snapshot_blkdev virtio0 /proc/self/cwd/elsewhere/new.img
!snapshot_blkdev -n virtio0 elsewhere/secret.img
!snapshot_blkdev -n virtio0 images/link.img
!drive_add 0 if=none,id=x,file=elsewhere/secret.img,format=raw
!drive_add 0 if=none,id=x,file=images/link.img,format=raw
!drive_add 0 if=none,id=x,file=images/above.img
!drive_add 0 if=none,id=x,file=images/json.img
!drive_add 0 "if=none,id=x,file.driver=raw,file.file.driver=file,file.file.filename=elsewhere/secret.txt"
!logfile elsewhere/log
!logfile elsewhere/secret.txt
!qemu-io virtio0 "write -s elsewhere/secret.txt 0 512"
!source elsewhere/secret.txt
!guest virtio0 profile=replay,iolog=elsewhere/secret.txt
!change ide1-cd0 elsewhere/secret.img raw
!nbd_server_start unix:elsewhere/socket
END
    run mg --sandbox on -drive "$DISK" -drive if=ide,index=2,media=cdrom -guest profile=none -f commands
    assert_status 0
    [ "$(grep -c 'Permission denied' <<<"$output")" = "$(grep -c . commands)" ] || fail "$output"
    md5sum elsewhere/* | diff before -
}

@test "nor does one of QMP's" {
    need_landlock
    qemu-img create -q -f qcow2 elsewhere/secret.img 16M
    md5sum elsewhere/* >before
    mg_start --sandbox on -drive "$DISK" -guest profile=none
    local secret='{"driver": "file", "filename": "elsewhere/secret.img"'
    run qmp '{"execute": "blockdev-add", "arguments": '"$secret"', "node-name": "a"}}' \
        '{"execute": "blockdev-add", "arguments": {"driver": "qcow2", "node-name": "b", "file": '"$secret"'}}}' \
        '{"execute": "blockdev-snapshot-sync", "arguments": {"device": "virtio0", "snapshot-file": "elsewhere/new.img"}}' \
        '{"execute": "blockdev-create", "arguments": {"job-id": "c", "options": {"driver": "file", "filename": "elsewhere/new.img", "size": 0}}}'
    [ "$(grep -o 'elsewhere[^"]*Permission denied' <<<"$output" | wc -l)" = 3 ] || fail "$output"
    for ((i = 0; i < 100; i++)); do
        run qmp '{"execute": "query-jobs"}'
        [[ $output != *concluded* ]] || break
        sleep 0.05
    done
    assert_output "Could not create 'elsewhere/new.img': Permission denied"
    md5sum elsewhere/* | diff before -
}

@test "a guest's iolog that was named is read, and again after a reset" {
    printf 'fio version 2 iolog\nf add\nf open\nf read 0 4096\nf write 4096 4096\nf close\n' >elsewhere/iolog
    run mg --sandbox "$SANDBOX" -drive "$DISK" -guest profile=replay,iolog=elsewhere/iolog --clock virtual \
        -c 'sleep 1s' -c system_reset -c 'sleep 1s' -c 'info guest'
    assert_status 0
    assert_output 'profile=replay reads=4 writes=2 '
}

@test "messages, traces and what a place writes go on into files that are open" {
    run mg --sandbox "$SANDBOX" -drive "$DISK" -guest profile=none -D elsewhere/log -chardev file,id=c,path=elsewhere/said -mon c \
        -c 'trace-event job_* on' -c 'block_stream virtio0' -c 'wait virtio0 done 20s' -c quit
    assert_status 0
    grep -q job_ elsewhere/log
    grep -q 'merganser .* monitor' elsewhere/said
}

@test "the terminal's monitor works, and keeps its history" {
    printf 'info name\nquit\n' | timeout -k 2 20 script -qec "$MERGANSER --sandbox $SANDBOX -drive $DISK -name terns" /dev/null >out
    grep -q terns out
    grep -qx 'info name' state/merganser/history
}

@test "the ring can do what images need, and nothing else" {
    run timeout -k 2 20 strace -f -e trace=io_uring_setup,io_uring_register -o trace \
        "$MERGANSER" --sandbox "$SANDBOX" -drive "$DISK" -c quit
    assert_status 0
    if grep -q 'io_uring_setup.* = [0-9]' trace; then
        grep -q 'IORING_REGISTER_RESTRICTIONS.* = 0' trace
    fi
}

@test "a kernel that cannot guard files is told, and can be put up with" {
    run without_landlock "$MERGANSER" --sandbox on -drive "$DISK" -c quit
    assert_status 1
    [ "$output" = "merganser: --sandbox on: This kernel cannot guard files: it has no Landlock, or it is switched off
--sandbox on,landlock=optional goes on without that." ]
    run without_landlock "$MERGANSER" --sandbox on,landlock=optional -drive "$DISK" -guest profile=none \
        -c 'snapshot_blkdev virtio0 elsewhere/new.img'
    assert_status 0
    assert_output 'warning: --sandbox on: this kernel has no Landlock, all files stay in reach'
    [ -e elsewhere/new.img ]
}

@test "QEMU's way to say it is understood" {
    run mg -sandbox "$SANDBOX,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny" -drive "$DISK" -c quit
    assert_status 0
    run mg -sandbox off -drive "$DISK" -guest profile=none -c 'snapshot_blkdev virtio0 elsewhere/new.img'
    assert_status 0
    run mg -sandbox on,spawn=allow -drive "$DISK" -c quit
    assert_status 1
    assert_output "Parameter 'spawn' expects 'deny': the sandbox always does"
    run mg --sandbox perhaps
    assert_status 1
    assert_output "Parameter 'enable' expects 'on' or 'off'"
    run mg --sandbox on,colour=red
    assert_status 1
    assert_output "Invalid parameter 'colour'"
}
