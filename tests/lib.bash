# SPDX-License-Identifier: GPL-2.0-or-later
#
# What bats files share: `load ../lib.bash` (or `load lib.bash`) at the top of a file.
#
# Every test starts in an empty directory of its own, $BATS_TEST_TMPDIR, with $MERGANSER the program and $TOP the source
# tree. Nothing here waits without a limit: MG_TIMEOUT seconds (60 unless a test says otherwise) end a merganser.
# Images are judged by the real qemu-img and qemu-io.
# shellcheck shell=bash disable=SC2154

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export TOP

# The build to test: what the runner says, or a build in one of the usual places.
if [ -z "${MERGANSER-}" ]; then
    for MERGANSER in "$TOP/build/merganser" "$TOP/merganser"; do
        [ ! -x "$MERGANSER" ] || break
    done
fi
: "${BUILD_DIR:=$(dirname "$MERGANSER")}"
export MERGANSER BUILD_DIR MG_TIMEOUT=${MG_TIMEOUT:-60}
export LC_ALL=C

# A test file with a setup() of its own calls common_setup first.
common_setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    # Nobody's history file is touched.
    export XDG_STATE_HOME=$BATS_TEST_TMPDIR/state HOME=$BATS_TEST_TMPDIR
}

common_teardown() {
    mg_stop
}

setup() {
    common_setup
}

teardown() {
    common_teardown
}

# fail WORDS...: the test ends here, with these words.
fail() {
    printf '%s\n' "$*" >&2
    return 1
}

# --- Running merganser -------------------------------------------------------------------------------------------------

# mg ARGS...: run it to its end. Standard input is empty, so a monitor on stdio ends when its -f and -c have run.
mg() {
    timeout -k 5 "$MG_TIMEOUT" "$MERGANSER" "$@" </dev/null 3>&-
}

# mg_script ARGS... <<END: the same, with a script on standard input, as `-f -` reads it.
mg_script() {
    timeout -k 5 "$MG_TIMEOUT" "$MERGANSER" "$@" -f - 3>&-
}

# chain_drive ID...: what -drive needs for a chain whose layers are called file-ID.img and node-ID, base first, as the
# live-block-operations document has it: on virtio, with all nodes named. `mg -drive "$(chain_drive A B C D E)"`
chain_drive() {
    local ids=("$@") i dots='' top=${*: -1}
    local option="file=file-$top.img,if=virtio,format=qcow2,node-name=node-$top"
    for ((i = ${#ids[@]} - 2; i >= 0; i--)); do
        dots=${dots}backing.
        option+=,${dots}node-name=node-${ids[i]}
    done
    echo "$option"
}

# mg_start ARGS...: start it in the background with QMP on ./qmp and HMP on ./hmp, and wait until both sockets are there. It is
# MG_PID; what it prints goes to ./mg.out. mg_stop (teardown calls it) ends it. What is said to a monitor waits for the disks;
# a test that looks at the images' locks from outside calls mg_ready first.
mg_start() {
    rm -f qmp hmp
    # A background command of a script ignores interrupts; a test of interrupts would not like that. timeout leads a
    # process group, and passes on the signals that it gets.
    env --default-signal=INT,QUIT timeout -k 5 "$MG_TIMEOUT" "$MERGANSER" \
        -monitor unix:hmp,server=on,wait=off -qmp unix:qmp,server=on,wait=off "$@" \
        >mg.out 2>&1 </dev/null 3>&- &
    MG_PID=$!
    local i
    for ((i = 0; i < 200; i++)); do
        [ -S qmp ] && [ -S hmp ] && return 0
        kill -0 $MG_PID 2>/dev/null || break
        sleep 0.05
    done
    cat mg.out >&2
    fail "merganser did not start"
}

# mg_ready: wait until its disks are open.
mg_ready() {
    hmp 'info status' >/dev/null
}

# mg_stop: end what mg_start started, if it still runs. Returns nothing: use mg_wait for the exit code.
mg_stop() {
    [ -n "${MG_PID-}" ] || return 0
    kill "$MG_PID" 2>/dev/null || true
    wait "$MG_PID" 2>/dev/null || true
    MG_PID=
}

# mg_wait: wait for its end (mg_start gave it MG_TIMEOUT seconds) and return its exit code.
mg_wait() {
    local rc=0
    wait "$MG_PID" || rc=$?
    MG_PID=
    return $rc
}

# hmp LINE...: each line to the human monitor of the merganser that mg_start started; prints the answers alone.
hmp() {
    python3 - "$@" 3>&- <<'END'
import os
import re
import socket
import sys

conn = socket.socket(socket.AF_UNIX)
conn.settimeout(int(os.environ["MG_TIMEOUT"]) / 2)
conn.connect("hmp")


def answer():
    data = b""
    while not data.endswith(b"(qemu) "):
        piece = conn.recv(65536)
        if not piece:
            break
        data += piece
    first, newline, rest = data.partition(b"\r\n")
    if b"\x1b[K" in first:  # --qemu-compat: the line, drawn anew with each character
        data = rest
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", data.decode(errors="replace")).replace("\r", "")


answer()
for line in sys.argv[1:]:
    conn.send(line.encode() + b"\n")
    text = answer()
    if text.endswith("(qemu) "):
        text = text[:-len("(qemu) ")]
    first, _, rest = text.partition("\n")
    # A monitor may echo what was typed.
    print(rest if first.strip() == line.strip() else text, end="")
END
}

# qmp WORD...: negotiate; send each WORD that is JSON and wait for its answer; a WORD like @BLOCK_JOB_COMPLETED waits for
# that event (one that has come already counts). Prints everything that came back, one line each.
qmp() {
    python3 - "$@" 3>&- <<'END'
import json
import os
import socket
import sys

conn = socket.socket(socket.AF_UNIX)
conn.settimeout(int(os.environ["MG_TIMEOUT"]))
conn.connect("qmp")
stream = conn.makefile("rw")
events = []


def read():
    line = stream.readline()
    if not line:
        sys.exit("qmp: the connection ended")
    return line, json.loads(line)


def execute(command, quiet=False):
    stream.write(command + "\n")
    stream.flush()
    while True:
        line, reply = read()
        if not quiet:
            print(line, end="", flush=True)
        if "event" in reply:
            events.append(reply["event"])
        else:
            return


read()
execute('{"execute": "qmp_capabilities"}', quiet=True)
for word in sys.argv[1:]:
    if not word.startswith("@"):
        execute(word)
        continue
    while word[1:] not in events:
        line, reply = read()
        print(line, end="", flush=True)
        events.append(reply.get("event"))
    events.remove(word[1:])
END
}

# --- Images ---------------------------------------------------------------------------------------------------------------

# make_chain FILE...: a chain of qcow2 images, base first, each with its backing file recorded by name and format. Size and
# options of all: CHAIN_SIZE (64M), CHAIN_OPTIONS (for qemu-img create -o). Layer number i (from 0) holds the byte i + 1:
#   * in a MiB of its own, at i MiB;
#   * in a staircase from 32 MiB on that the upper layers cover ever less of: all of the layers are seen in it;
#   * in 4 KiB in the midst of the cluster at i * 64 KiB + 48 MiB, so that clusters are partly written.
make_chain() {
    local file backing='' i=0 n=$#
    for file; do
        qemu-img create -q -f qcow2 ${CHAIN_OPTIONS:+-o "$CHAIN_OPTIONS"} \
            ${backing:+-b "$backing" -F qcow2} "$file" "${CHAIN_SIZE:-64M}" || return 1
        qemu-io -f qcow2 -c "write -q -P $((i % 255 + 1)) $((i % 32))M 1M" \
            -c "write -q -P $((i % 255 + 1)) 32M $(((n - i) * 64))k" \
            -c "write -q -P $((i % 255 + 1)) $((48 * 1024 + i * 64 + 12))k 4k" "$file" >/dev/null || return 1
        backing=$file
        i=$((i + 1))
    done
}

# assert_clean IMAGE...: qemu-img check finds neither corruption nor a leak.
assert_clean() {
    local image
    for image; do
        qemu-img check -q "$image" >/dev/null 2>check.out || {
            qemu-img check "$image" >&2 || true
            fail "$image is not clean"
        }
    done
}

# same_content A B: what a guest would read from both is the same, and so is their length.
same_content() {
    [ "$(virtual_size "$1")" = "$(virtual_size "$2")" ] || fail "$1 and $2 differ in size" || return 1
    qemu-img compare "$1" "$2" >&2 || fail "$1 and $2 differ"
}

# offline_merge TOP OUT: what the chain below TOP holds, in one raw file.
offline_merge() {
    qemu-img convert -O raw "$1" "$2"
}

virtual_size() {
    qemu-img info -U --output=json "$1" | jq '."virtual-size"'
}

# The backing file as the image records it; nothing when it has none.
backing_of() {
    qemu-img info -U --output=json "$1" | jq -r '."backing-filename" // empty'
}

# chain_of TOP: the names of all layers, top first, in one line.
chain_of() {
    qemu-img info -U --backing-chain --output=json "$1" | jq -r '[.[].filename | split("/") | last] | join(" ")'
}

# assert_chain TOP NAME...: exactly these layers, top first.
assert_chain() {
    local top=$1
    shift
    [ "$(chain_of "$top")" = "$*" ] || fail "the chain of $top is $(chain_of "$top"), not $*"
}

# read_pattern IMAGE OFFSET LENGTH BYTE: that range holds that byte throughout.
read_pattern() {
    local out
    out=$(qemu-io -r -c "read -P $4 $2 $3" "$1" 2>&1) || fail "$1: $out" || return 1
    [[ $out != *"verification failed"* ]] || fail "$1: $out"
}

# --- Answers --------------------------------------------------------------------------------------------------------------

# assert_output TEXT: $output (of bats' run) holds it.
assert_output() {
    [[ $output == *"$1"* ]] || fail "not in the output: $1
$output"
}

refute_output() {
    [[ $output != *"$1"* ]] || fail "in the output, though it should not be: $1
$output"
}

# assert_status N: the exit code of bats' run.
assert_status() {
    [ "$status" -eq "$1" ] || fail "exit code $status, not $1
$output"
}

# The memory of mg_start's program, KiB; 0 where a sanitizer's own would count as well.
rss_kib() {
    ! grep -q '^OUR_CFLAGS.*-fsanitize' "$BUILD_DIR/Makefile" || { echo 0; return; }
    awk '/VmRSS/ { print $2 }' "/proc/$(pgrep -P "$MG_PID")/status"
}
