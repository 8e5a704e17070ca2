#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The human monitor's answers under --qemu-compat are QEMU's, byte for byte: both are asked the same.

load ../lib.bash

# ask_qemu ARGS... <<LINES: the transcript that QEMU gives.
ask_qemu() {
    python3 - "$@" 3>&- <<END
import json, subprocess, sys
lines = """$(cat)""".split("\n")
qemu = subprocess.Popen(["timeout", "-k", "5", "60", "qemu-system-x86_64", "-S", "-display", "none", "-nodefaults", "-qmp", "stdio",
                         "-accel", "tcg"] + sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
def ask(command, **arguments):
    qemu.stdin.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    qemu.stdin.flush()
    while True:
        line = qemu.stdout.readline()
        if not line.startswith("{"):
            continue # some words go to QEMU's standard output
        reply = json.loads(line)
        if "return" in reply or "error" in reply:
            return reply.get("return")
qemu.stdout.readline()
ask("qmp_capabilities")
for line in lines:
    if line.strip():
        print("(qemu) " + line)
        print(ask("human-monitor-command", **{"command-line": line}).replace("\r", ""), end="")
ask("quit")
qemu.wait()
END
}

# What differs between any two runs: generated node-names, sizes on the host.
plain() {
    sed -E 's/#block[0-9]+/#block/g; s/^disk size: .*/disk size/; s/ *$//'
}

# same_answers ARGS... <<LINES
same_answers() {
    local lines
    lines=$(cat)
    ask_qemu "$@" <<<"$lines" | plain >qemu.out
    mg --qemu-compat -guest profile=none -S --on-error=continue -f - "$@" <<<"$lines" | plain >ours.out || true
    diff -u qemu.out ours.out >&2 || fail "the answers differ"
}

# mg with our input instead of none.
mg() {
    timeout -k 5 "$MG_TIMEOUT" "$MERGANSER" "$@" 3>&-
}

@test "words, flags and quotes are read as QEMU reads them" {
    make_chain file-A.img file-B.img
    same_answers -drive "$(chain_drive A B)" <<'END'
foo
foo bar
info foo
info "block"
INFO status
stop x
s x
  s   x
info status x
info block -x
info block -n -x
info block virtio0 x
info block virtio0 -v
info block -v -n virtio0
info block -nv
info block "virtio0"
info block 'virtio0'
info block "virtio0
info block -- virtio0
info block - virtio0
stop|s
help stop|s
block_job_cancel
block_job_cancel -f
block_job_cancel -x virtio0
block_job_cancel -ff
block_job_set_speed virtio0
block_job_set_speed virtio0 1 2
snapshot_blkdev
snapshot_blkdev virtio0
snapshot_blkdev -x virtio0
qemu-io
qemu-io virtio0
qemu-io virtio0 read 0 512
END
}

@test "sizes are read as QEMU reads them" {
    make_chain file-A.img file-B.img
    local size
    for size in 0 1 1k 1K 1M 1G 1T 1P 1E 1.5M 0.5k .5M 5. 0x10 0X1F 010 1e3 1.5e3 +5 0xg k 1.0001k 1.1b 1.5 1k1 1,5 0b1 inf nan \
        1mb 07 1.5B 1B 0x1.8k 9223372036854775807 18446744073709551616 1.1 -1 A 1z 1.5.5 1kb 1b 8E 7.5E; do
        echo "block_stream virtio0 $size nosuch"
    done >lines
    same_answers -drive "$(chain_drive A B)" <lines
}

@test "info block shows disks, nodes and images as QEMU does" {
    make_chain file-A.img file-B.img file-C.img
    qemu-img create -q -f raw raw.img 4M
    same_answers -drive "$(chain_drive A B C)" -drive file=raw.img,if=ide,format=raw,cache=writethrough \
        -drive file=file-A.img,if=none,id=spare,readonly=on,format=qcow2,file.locking=off <<'END'
info block
info block virtio0
info block ide0-hd0
info block spare
info block -v virtio0
info block -v ide0-hd0
info block node-A
info block node-B
info block -n node-C
info block -v -n node-A
END
}

@test "refusals of the job commands are QEMU's" {
    make_chain file-A.img file-B.img
    same_answers -drive "$(chain_drive A B)" <<'END'
info block-jobs
info block-jobs x
block_stream
block_stream nosuch
block_stream virtio0 A
block_stream virtio0 file-A.img
block_stream virtio0 0 nosuch
block_stream virtio0 0 node-A
block_stream virtio0 0 file-B.img
block_stream virtio0 0 file-A.img extra
block_stream ""
block_job_set_speed virtio0 1k
block_job_cancel virtio0
block_job_cancel nosuch
block_job_pause virtio0
block_job_resume virtio0
END
}

@test "info status, name, uuid and blockstats are QEMU's" {
    make_chain file-A.img
    same_answers -drive "$(chain_drive A)" -name merganser -uuid 12345678-9abc-def0-1234-56789abcdef0 <<'END'
info status
info name
info uuid
info blockstats
stop
info status
system_reset
info status
END
}

@test "help for a command is QEMU's" {
    make_chain file-A.img
    same_answers -drive "$(chain_drive A)" <<'END'
help block_stream
help snapshot_blkdev
help block_job_set_speed
help block_job_cancel
help block_job_pause
help block_job_resume
help qemu-io
help stop
help c
help system_reset
help quit
help help
help info block
help info block-jobs
help info foo
help foo
? stop
help info status
END
}

# --- As bytes ----------------------------------------------------------------------------------------------------------

# on_socket PROGRAM ARGS...: every byte that comes back on a unix socket to the lines of keys.txt.
on_socket() {
    python3 - "$@" 3>&- <<'END'
import os, select, socket, subprocess, sys, time
program = subprocess.Popen(["timeout", "-k", "5", "60"] + sys.argv[1:] +
                           ["-display", "none", "-nodefaults", "-monitor", "unix:keys.sock,server=on,wait=off"],
                           stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
conn = socket.socket(socket.AF_UNIX)
for i in range(400):
    try:
        conn.connect("keys.sock")
        break
    except OSError:
        time.sleep(0.05)
def answer(text=b""):
    while not text.endswith(b"\r\n(qemu) ") and select.select([conn], [], [], 10)[0]:
        piece = conn.recv(65536)
        if not piece:
            break
        text += piece
    return text
print(answer())
for line in open("keys.txt", "rb").read().split(b"|"):
    conn.sendall(line)
    print(answer())
conn.close()
program.terminate()
program.wait()
END
}

@test "on a socket each byte is QEMU's: the greeting, what is typed drawn anew, backspace, long lines, answers" {
    printf '%s' "foo
|info  status  
|
|xx \"y
|infox$(printf '\x7f') $(printf '\b') status
|x$(printf '\x1b')[Cy
|ab$(printf '\xc3\xa4\x07')
|$(printf 'a%.0s' {1..300})
|block_stream zz
" >keys.txt
    on_socket qemu-system-x86_64 -S -accel tcg >qemu.out
    rm -f keys.sock
    on_socket "$MERGANSER" --qemu-compat -S -drive if=none >ours.out
    [ "$(wc -l <qemu.out)" = 10 ]
    diff qemu.out ours.out >&2 || fail "the bytes differ"
}

@test "in a pipe there is QEMU's greeting, and its prompt for every line, whatever the line begins with" {
    run timeout 20 "$MERGANSER" --qemu-compat -S -drive if=none <<'END'
# no comment
-foo

info status
quit
END
    assert_status 0
    [ "$output" = "QEMU 7.2.22 monitor - type 'help' for more information
(qemu) # no comment
unknown command: '#'
(qemu) -foo
unknown command: '-foo'
(qemu) 
(qemu) info status
VM status: paused (prelaunch)
(qemu) quit" ]
}

@test "keys that move, control bytes and a line's end typed too late change nothing of what is typed on a socket" {
    mg_start --qemu-compat -S -guest profile=none
    python3 - 3>&- <<'END'
import os
import socket
conn = socket.socket(socket.AF_UNIX)
conn.settimeout(int(os.environ["MG_TIMEOUT"]) / 3)
conn.connect("hmp")
def until(words):
    text = b""
    while words not in text:
        piece = conn.recv(65536)
        if not piece:
            break
        text += piece
    return text
until(b"(qemu) ")
conn.sendall(b"\x7f\b\x01info\x1b[A\x1bOP\x1b[1;5D\x1bx\x1b[~\x1b[\x7f~\x02 stax\x7ftus\r")
assert b"VM status: paused (prelaunch)" in until(b"\r\n(qemu) ")
conn.sendall(b"quit\r\ninfo name\r\n")
assert b"info name" not in until(b"never")
END
    mg_wait
}

@test "on a socket a line's end of two bytes is two ends, and a line's 4096th character is not taken" {
    mg_start --qemu-compat -S -guest profile=none
    python3 - 3>&- <<'END'
import os, socket
conn = socket.socket(socket.AF_UNIX)
conn.settimeout(int(os.environ["MG_TIMEOUT"]))
conn.connect("hmp")
text = b""
def until(words):
    global text
    while words not in text:
        piece = conn.recv(1 << 20)
        assert piece, "the connection ended"
        text = text[-10000:] + piece # a line that is drawn anew with each character is much
    before, _, text = text.partition(words)
    return before
until(b"(qemu) ")
conn.sendall(b"info status\r\n")
assert until(b"(qemu) ").endswith(b"VM status: paused (prelaunch)\r\n")
assert until(b"(qemu) ") == b"\r\n"
conn.sendall(b"a" * 4096 + b"\r")
until(b"unknown command: '")
assert until(b"'") == b"a" * 4095
END
}

@test "under --qemu-compat the lists of commands and topics hold lines of QEMU's alone, in its order" {
    make_chain file-A.img
    local list
    for list in help info 'help info' 'help '; do
        ask_qemu -drive "$(chain_drive A)" <<<"$list" | plain >qemu.out
        mg --qemu-compat -guest profile=none -S -c "$list" -drive "$(chain_drive A)" </dev/null | plain >ours.out
        [ "$(wc -l <ours.out)" -gt 5 ]
        diff qemu.out ours.out | grep '^>' >&2 && fail "$list: these are not QEMU's"
    done
    true
}

@test "every command and every topic explains its words" {
    mg -S -c help -c 'help info' </dev/null >lists
    sed -n 's/^  \([a-z][a-z_|-]*\) .*/\1/p' lists | tr '|' '\n' | sed 's/^/help /' >script
    sed -n 's/^info \([a-z-]*\) .*/help info \1/p' lists >>script
    [ "$(wc -l <script)" -gt 50 ]
    mg -S -f script >out </dev/null
    ! grep -i 'unknown' out
}
