#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What the program leaves open to others: nothing that a child could inherit, and no socket for anybody but its owner.

load ../lib.bash

setup() {
    common_setup
    # The leak checker does not work under strace.
    export ASAN_OPTIONS="detect_leaks=0:${ASAN_OPTIONS-}"
}

# leaky TRACE: the calls in strace's output that made a descriptor which stays open over an exec. The ring's is closed
# always, without being asked; what the sanitizers read about the process is theirs; standard input, output and error are
# there to be inherited.
leaky() {
    grep -E '(open|openat|creat|socket|socketpair|accept|accept4|pipe|pipe2|dup|dup2|dup3|epoll_create1?|eventfd2?|signalfd4?|timerfd_create|memfd_create|inotify_init1?)\(' "$1" |
        grep -vE 'CLOEXEC|= -1 |dup2\([0-9]+, [012]\)|"/proc/self/(cmdline|environ|maps)"' || true
}

# traced ARGS...: a whole life with everything in it, under strace.
traced() {
    timeout -k 5 60 strace -f -o trace -e trace=desc,network,open,openat,socket,accept4,dup3,pipe2 "$MERGANSER" \
        -monitor unix:hmp,server=on,wait=off -qmp unix:qmp,server=on,wait=off "$@" >mg.out 2>&1 </dev/null 3>&-
}

@test "the trace would show a descriptor that is inherited" {
    strace -f -o trace -e trace=desc,network python3 -c 'import os; os.dup2(0, 50)'
    leaky trace | grep -q dup2
}

@test "no descriptor outlives an exec" {
    local aio pid i
    make_chain file-A.img file-B.img file-C.img
    printf 'info name\n' >script
    mkfifo pipe
    printf 'info status\n' >pipe &
    for aio in threads io_uring; do
        rm -f new.img hmp qmp nbd
        [ $aio = threads ] || printf 'info status\n' >pipe &
        traced -drive "$(chain_drive A B C),aio=$aio" -f script -f pipe &
        pid=$!
        for ((i = 0; i < 200; i++)); do
            [ ! -S hmp ] || break
            sleep 0.05
        done
        hmp 'nbd_server_start unix:nbd' 'nbd_server_add virtio0' 'snapshot_blkdev virtio0 new.img' \
            'block_stream virtio0 file-A.img' 'wait virtio0 done 20s' >/dev/null
        qmp '{"execute": "query-status"}' >/dev/null
        nbdinfo --size "nbd+unix:///virtio0?socket=$PWD/nbd" >/dev/null
        hmp quit >/dev/null
        wait $pid || fail "$(cat mg.out)"
        [ -e new.img ]
        grep -q accept4 trace
        [ -z "$(leaky trace)" ] || fail "$(leaky trace)"
        qemu-img rebase -q -u -b file-B.img -F qcow2 file-C.img
    done
}

@test "nor one of those that few programs have: temporary files, logs, pidfile, places, TCP, a direct file, a terminal" {
    local pid i
    qemu-img create -q -f qcow2 disk.img 16M
    qemu-img create -q -f qcow2 other.img 16M
    python3 - 3>&- <<'END' &
import socket, time
s = socket.socket(socket.AF_UNIX)
s.bind("theirs")
s.listen(1)
conn = s.accept()
time.sleep(20)
END
    pid=$!
    while [ ! -S theirs ]; do sleep 0.02; done
    traced -drive file=disk.img,if=virtio,format=qcow2,snapshot=on -drive file=other.img,if=virtio,format=qcow2,cache=none \
        -D messages -pidfile pidfile -chardev file,id=c,path=said -mon c -monitor tcp:127.0.0.1:0,server=on,wait=off \
        -chardev socket,id=d,path=theirs -mon d -c 'logfile second' -c 'sleep 100ms' -c quit || fail "$(cat mg.out)"
    kill $pid
    [ -z "$(leaky trace)" ] || fail "$(leaky trace)"
    mv trace first
    mkfifo keys
    (sleep 1; printf 'info name\nquit\n') >keys &
    script -qec "strace -f -o trace -e trace=desc,network $MERGANSER -drive file=disk.img,if=virtio,format=qcow2" /dev/null <keys >mg.out 3>&-
    grep -q history trace
    # What readline opens it closes again at once.
    [ -z "$(leaky trace | grep -vE '(history|terminfo/[a-z0-9]/[a-z0-9-]*|inputrc)", O_(RDONLY|WRONLY.O_APPEND)\)')" ] || fail "$(leaky trace)"
    # A socket that nobody listens at any more is looked at, and replaced.
    traced -drive file=disk.img,if=virtio,format=qcow2 -daemonize -pidfile pidfile -monitor unix:theirs,server=on,wait=off &
    pid=$!
    for ((i = 0; i < 200; i++)); do
        [ ! -S qmp ] || break
        sleep 0.05
    done
    hmp quit >/dev/null
    wait $pid || fail "$(cat mg.out)"
    [ -z "$(leaky trace)" ] || fail "$(leaky trace)"
    cat first trace >all
    for i in O_DIRECT '"[^"]*/vl[^"]*"' messages pidfile '"said"' theirs AF_INET; do
        grep -qE "$i" all || echo "not seen: $i" >>missing
    done
    [ ! -e missing ] || fail "$(cat missing)"
}

@test "sockets are for their owner alone, and for him, whatever the umask" {
    local socket mask
    qemu-img create -q -f qcow2 disk.img 16M
    for mask in 0 022 0777; do
        rm -f hmp qmp nbd modes
        mkfifo modes
        # The script stands still while somebody looks.
        (umask $mask; exec timeout -k 5 30 "$MERGANSER" -monitor unix:hmp,server=on,wait=off -qmp unix:qmp,server=on,wait=off \
            -drive file=disk.img,if=virtio,format=qcow2 -guest profile=none -c 'nbd_server_start unix:nbd' -f modes -c quit) \
            >mg.out 2>&1 </dev/null 3>&- &
        exec 7>modes
        for ((i = 0; i < 200; i++)); do
            [ ! -S nbd ] || break
            sleep 0.02
        done
        for socket in hmp qmp nbd; do
            [ "$(stat -c %a,%F "$socket")" = 600,socket ] || fail "umask $mask: $socket: $(stat -c %a,%F "$socket")"
        done
        exec 7>&-
        wait $! || fail "$(cat mg.out)"
    done
}

@test "a socket is never open to others, not even for an instant" {
    qemu-img create -q -f qcow2 disk.img 16M
    timeout -k 5 30 strace -f -o trace -e trace=umask,chmod,fchmod,fchmodat,bind "$MERGANSER" -monitor unix:hmp,server=on,wait=off \
        -drive file=disk.img,if=virtio,format=qcow2 -c 'nbd_server_start unix:nbd' -c quit >/dev/null 3>&-
    # Each one's name is made with its mode, and that is never changed.
    [ "$(grep -oE 'umask\(0177\)|bind|f?chmod' trace | tr '\n' ' ')" = 'umask(0177) bind umask(0177) bind ' ] || fail "$(cat trace)"
}

@test "the table of descriptors is large before threads share it" {
    local least
    least=$(ulimit -n)
    [ "$least" != unlimited ] && [ "$least" -lt 4096 ] || least=4096
    mg_start
    [ "$(awk '/^FDSize/ { print $2 }' "/proc/$(pgrep -P "$MG_PID")/status")" -ge "$least" ]
}
