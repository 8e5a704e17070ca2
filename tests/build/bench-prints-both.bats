#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later

load ../lib.bash

bench() {
    TMPDIR=$PWD timeout -k 5 120 "$TOP/scripts/bench" --quick --size 16 "$@"
}

@test "the benchmark prints merganser and QEMU side by side, the machine's own figures, and keeps its images" {
    run bench --json all.json stream-flat
    assert_status 0
    assert_output "cp, MiB/s: "
    assert_output "| stream-flat "
    assert_output " QEMU "
    [ "$(jq -r '.results[0] | "\(.case) \(.ours | length) \(.theirs | length)"' all.json)" = "stream-flat 1 1" ]
    jq -e '.calibration["memcpy, MiB/s"] > 0' all.json
    assert_output "longest turn of merganser's loop: "
    jq -e '.results[0].longest_turn | .ns > 0 and .by != "" and .work_ns > 0 and .work_ns <= .ns' all.json
    assert_clean merganser-bench/flat-16777216/chain.img
    [ ! -e merganser-bench/flat-16777216/top.img ]
}

# fake_merganser [EVENT]: ./idle, which does nothing of what QMP tells it, but says EVENT after a block-stream.
fake_merganser() {
    cat >idle.py <<'END'
import json, socket, sys
path = next(word for word in sys.argv if word.startswith("unix:"))[5:].split(",")[0]
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen()
stream = server.accept()[0].makefile("rw")
def say(**words):
    stream.write(json.dumps(words) + "\n")
    stream.flush()
say(QMP={})
for line in stream:
    say(**{"return": {}})
    if "block-stream" in line and EVENT:
        say(event=EVENT, data={})
END
    printf '#!/bin/sh\nexec python3 %s/idle.py "$@"\n' "$PWD" >idle
    sed -i "1i EVENT = '${1-}'" idle.py
    chmod +x idle
}

@test "a program that leaves the overlay as it was gets no figures" {
    fake_merganser BLOCK_JOB_COMPLETED
    MERGANSER=$PWD/idle run bench stream-flat
    assert_status 1
    assert_output "merganser left the wrong backing file"
    assert_output "FAILED"
}

@test "a benchmark that is ended ends what it has started" {
    local running pid status=0
    fake_merganser
    sed -i '2i import os; open("pid", "w").write(str(os.getpid()))' idle.py
    TMPDIR=$PWD MERGANSER=$PWD/idle "$TOP/scripts/bench" --quick --size 16 stream-flat >/dev/null 3>&- &
    running=$!
    timeout 60 sh -c 'until [ -s pid ]; do sleep 0.05; done'
    pid=$(cat pid)
    kill "$running"
    wait "$running" || status=$?
    assert_status 143
    ! kill -0 "$pid"
}

@test "a case that is not there is named" {
    run bench stream-fast
    assert_status 2
    assert_output "what is 'stream-fast'?"
}
