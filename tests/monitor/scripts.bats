#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Scripts: the transcript, prefixes, exit codes, waiting, expecting.

load ../lib.bash

quiet() {
    mg -guest profile=none "$@"
}

one_disk() {
    qemu-img create -q -f qcow2 disk.img 16M
    qemu-io -f qcow2 -c 'write -q -P 1 0 8M' disk.img >/dev/null
    qemu-img create -q -f qcow2 -b disk.img -F qcow2 over.img
    DISK=file=over.img,if=virtio,format=qcow2
}

@test "the transcript is prompt and command once, then the answer" {
    one_disk
    printf 'info status\n\n# a comment\n   # another\nfoo\r\ninfo block-jobs' >script
    run quiet -drive $DISK --on-error=continue -f script
    assert_status 3
    [ "$output" = "(qemu) info status
VM status: running
(qemu) foo
unknown command: 'foo'
                  ^~~
Type 'help' for a list.
(qemu) info block-jobs
No active jobs" ]
}

@test "scripts and commands run in the order given, then standard input" {
    one_disk
    echo 'info name' >a
    echo 'info uuid' >b
    run timeout "$MG_TIMEOUT" "$MERGANSER" -guest profile=none -drive $DISK -f a -c 'info status' -f b <<<'info block-jobs'
    assert_status 0
    [ "$(grep '^(qemu)' <<<"$output" | tr '\n' ';')" = "(qemu) info name;(qemu) info status;(qemu) info uuid;(qemu) info block-jobs;" ]
}

@test "a dash is standard input" {
    one_disk
    run mg_script -guest profile=none -drive $DISK <<<'info block-jobs'
    assert_status 0
    [ "$output" = "(qemu) info block-jobs
No active jobs" ]
}

@test "a script may be a pipe" {
    one_disk
    mkfifo pipe
    echo 'info status' >pipe &
    run quiet -drive $DISK -f pipe
    assert_status 0
    assert_output "VM status: running"
}

@test "the last line of a pipe needs no end" {
    one_disk
    run mg_script -guest profile=none -drive $DISK < <(printf 'info status\ninfo block-jobs')
    assert_status 0
    [ "${lines[*]: -2}" = "(qemu) info block-jobs No active jobs" ] || fail "$output"
}

@test "no escape sequence and no carriage return off a terminal" {
    one_disk
    quiet -drive $DISK -c 'info block' -c 'help' -c 'info chain' >out
    ! grep -q $'[\e\r]' out
}

@test "a failing command stops -f and -c, and the exit code is 3" {
    one_disk
    printf 'info status\nfoo\ninfo name\n' >script
    run quiet -drive $DISK -f script -c 'info uuid'
    assert_status 3
    refute_output "info name"
    refute_output "info uuid"
    assert_output "script:2: stopped here: foo"
}

@test "standard input goes on, and its exit code tells" {
    one_disk
    run timeout "$MG_TIMEOUT" "$MERGANSER" -guest profile=none -drive $DISK <<<$'foo\ninfo block-jobs'
    assert_status 3
    assert_output "No active jobs"
    run timeout "$MG_TIMEOUT" "$MERGANSER" -guest profile=none -drive $DISK --on-error=stop <<<$'foo\ninfo block-jobs'
    assert_status 3
    refute_output "No active jobs"
}

@test "a line with a dash may fail, one with a mark must" {
    one_disk
    run quiet -drive $DISK -c '-foo' -c '!foo' -c '- info status' -c 'info block-jobs'
    assert_status 0
    assert_output "(qemu) -foo"
    assert_output "(qemu) !foo"
    assert_output "VM status: running"
    run quiet -drive $DISK -c '!info status' -c 'info block-jobs'
    assert_status 5
    assert_output "should have failed"
    refute_output "No active jobs"
}

@test "a wait that runs out of time gives 124" {
    one_disk
    run quiet -drive $DISK -c 'block_stream virtio0 64k' -c 'wait virtio0 done 300ms'
    assert_status 124
    assert_output "Timed out after 300 ms: job 'virtio0' is still there"
}

@test "a job left paused gives 4, and nobody waits for it" {
    one_disk
    run quiet -drive $DISK -c 'block_stream virtio0 64k' -c 'block_job_pause virtio0'
    assert_status 4
    run quiet -drive $DISK -c 'block_stream virtio0 64k' -c 'block_job_pause virtio0' -c wait
    assert_status 4
    assert_output "waits for a decision"
}

@test "running jobs are waited for at the end" {
    one_disk
    run quiet -drive $DISK -c 'block_stream virtio0'
    assert_status 0
    [ -z "$(backing_of over.img)" ]
    assert_clean over.img
}

@test "wait knows a job that has ended" {
    one_disk
    run quiet -drive $DISK -c 'block_stream virtio0' -c 'wait virtio0 done 20s' -c 'wait virtio0' -c 'wait all 1s' \
        -c 'expect job virtio0 completed' -c 'expect no jobs' -c '!wait virtio0 ready' -c '!wait nosuch'
    assert_status 0
    assert_output "Block job 'nosuch' not found"
}

@test "a job that fails gives 4, unless the script says that it may" {
    qemu-img create -q -f qcow2 hole.img 64M
    qemu-io -f qcow2 -c 'write -q 40M 1M' hole.img >/dev/null
    qemu-img create -q -f qcow2 -b hole.img -F qcow2 above.img
    # The base's L2 entry for 40 MiB points into the middle of a cluster.
    printf '\2' | dd of=hole.img bs=1 seek=$((4 * 65536 + 40 * 16 * 8 + 6)) conv=notrunc status=none
    local drive=file=above.img,if=virtio,format=qcow2
    run quiet -drive $drive -c 'block_stream virtio0'
    assert_status 4
    run quiet -drive $drive -c 'block_stream virtio0' -c 'wait virtio0'
    assert_status 4
    assert_output "Error: Job 'virtio0' failed"
    run quiet -drive $drive -c 'block_stream virtio0' -c '!wait virtio0' -c 'expect job virtio0 failed'
    assert_status 0
}

@test "expectations that fail give 5" {
    one_disk
    local line
    for line in 'expect chain virtio0 = over' 'expect chain virtio0 = disk <- nosuch' 'expect job virtio0 running' \
        'expect read virtio0 0 64k pattern 2'; do
        run quiet -drive $DISK -c "$line"
        assert_status 5
    done
    run quiet -drive $DISK -c 'block_stream virtio0 64k' -c 'expect no jobs'
    assert_status 5
}

@test "expectations that hold say nothing" {
    one_disk
    run quiet -drive $DISK -c 'expect chain virtio0 = disk <- over' -c 'expect chain virtio0 = [disk.img] <- [over]' \
        -c 'expect no jobs' -c 'expect read virtio0 0 8M pattern 1' -c 'expect read virtio0 8M 8M pattern 0' -c 'expect guest clean'
    assert_status 0
    ! grep -v '^(qemu)' <<<"$output"
}

@test "an expectation that makes no sense is a failed command" {
    one_disk
    local line
    for line in expect 'expect chain virtio0' 'expect read virtio0 0 64k' 'expect read virtio0 0 64k pattern 256' \
        'expect read virtio0 16M 1 pattern 0' 'expect chain nosuch = A' 'expect guest' 'expect nonsense'; do
        run quiet -drive $DISK -c "$line"
        assert_status 3
    done
}

# says COMMAND: SENTENCE, a row each on standard input: what each command answers in one run.
says() {
    local command sentence
    while IFS='|' read -r command sentence; do
        printf -- '-%s\n' "$command" >>script
        printf '(qemu) -%s\n%s\n' "$command" "${sentence:+Error: $sentence}" | sed '/^$/d' >>want
    done
    mg -S "$@" -f script | sed '/^Try\|^Note:/d' >out
    diff -u want out
}

@test "each wrong wait and expectation is told what it wants" {
    one_disk
    says -drive $DISK <<'END'
wait all|
wait done|
wait ready 5s|
wait nobody|Block job 'nobody' not found
wait all 5s done|'done' is neither ready, done, nor a time
wait virtio0 sometime|'sometime' is neither ready, done, nor a time
sleep long|'long' is no time: 10s, 500ms, 1.5m are
expect job|Usage: expect job JOB STATE
expect job virtio0|Usage: expect job JOB STATE
expect job virtio0 running now|Usage: expect job JOB STATE
expect job virtio0 running|There is no job 'virtio0'
expect no|Usage: expect no jobs
expect no money|Usage: expect no jobs
expect no jobs|
expect chain|Usage: expect chain DISK = BASE <- ... <- TOP
expect chain virtio0|Usage: expect chain DISK = BASE <- ... <- TOP
expect chain virtio0 is x|Usage: expect chain DISK = BASE <- ... <- TOP
expect chain virtio0 =|Usage: expect chain DISK = BASE <- ... <- TOP
expect chain nobody = x|Cannot find device='nobody' nor node-name='nobody'
expect read virtio0 0 512|Usage: expect read DISK OFFSET LENGTH pattern BYTE
expect read virtio0 0 512 byte 0|Usage: expect read DISK OFFSET LENGTH pattern BYTE
expect read virtio0 x 512 pattern 0|Usage: expect read DISK OFFSET LENGTH pattern BYTE
expect read virtio0 0 x pattern 0|Usage: expect read DISK OFFSET LENGTH pattern BYTE
expect read virtio0 0 512 pattern 0 0|Usage: expect read DISK OFFSET LENGTH pattern BYTE
expect read virtio0 0 512 pattern 256|'256' is not a valid pattern byte
expect read virtio0 0 512 pattern -1|'-1' is not a valid pattern byte
expect read virtio0 0 512 pattern 1x|'1x' is not a valid pattern byte
expect read nobody 0 512 pattern 1|Cannot find device='nobody' nor node-name='nobody'
expect guest|Usage: expect guest clean
expect guest dirty|Usage: expect guest clean
END
}

@test "source runs a file and fails where the file fails" {
    one_disk
    printf 'info status\nfoo\ninfo uuid\n' >inner
    run quiet -drive $DISK -c 'source inner' -c 'info block-jobs'
    assert_status 3
    assert_output "(qemu) source inner
(qemu) info status"
    assert_output "Error: The script 'inner' failed"
    refute_output "info uuid"
    refute_output "No active jobs"
    run quiet -drive $DISK -c '-source inner' -c '!source nosuch' -c 'info block-jobs'
    assert_status 0
    assert_output "Error: Could not open 'nosuch': No such file or directory"
}

@test "a script that sources itself is refused" {
    one_disk
    echo 'source loop' >loop
    run quiet -drive $DISK -f loop
    assert_status 3
    assert_output "is running already"
}

@test "an expectation in a sourced file gives 5, a time-out 124" {
    one_disk
    echo 'expect chain virtio0 = over' >inner
    run quiet -drive $DISK -c 'source inner'
    assert_status 5
    printf 'block_stream virtio0 64k\nwait 200ms\n' >inner
    run quiet -drive $DISK -c 'source inner'
    assert_status 124
}

@test "quit ends a script at once, and its code is that of what went before" {
    one_disk
    run quiet -drive $DISK -c 'info status' -c quit -c 'info uuid'
    assert_status 0
    refute_output "info uuid"
    run quiet -drive $DISK -c '-foo' -c 'quit'
    assert_status 0
    run timeout "$MG_TIMEOUT" "$MERGANSER" -guest profile=none -drive $DISK <<<$'foo\nquit\ninfo uuid'
    assert_status 3
}

@test "on the virtual clock a script takes no time, and is the same each time" {
    one_disk
    printf 'sleep 1h\nblock_stream virtio0 1M\nsleep 3s\ninfo block-jobs\nwait 1h\ninfo guest\nexpect guest clean\n' >script
    local start=$SECONDS
    cp over.img first.img
    run mg -drive $DISK --clock virtual --seed 7 -guest rate_iops=1,bs=4k -f script
    assert_status 0
    ((SECONDS - start < 20))
    local first=$output
    cp first.img over.img
    run mg -drive $DISK --clock virtual --seed 7 -guest rate_iops=1,bs=4k -f script
    [ "$output" = "$first" ] || diff <(echo "$first") <(echo "$output")
}

@test "a signal gives 128 and its number" {
    one_disk
    local signal
    for signal in 2 15; do
        mg_start -guest profile=none -drive $DISK
        kill -$signal "$MG_PID"
        # Not by `run`: a subshell has no children. timeout passes the signal on, and the exit code back.
        status=0 output=''
        mg_wait || status=$?
        assert_status $((128 + signal))
    done
}

@test "a script that cannot be read is said, with exit code 1" {
    one_disk
    run quiet -drive $DISK -f nosuch
    assert_status 1
    assert_output "Could not open 'nosuch': No such file or directory"
}

@test "a line that may fail, cut short by a signal, is no failure" {
    one_disk
    local line
    for line in '-sleep 1h' '!sleep 1h'; do
        mg_start -guest profile=none -drive $DISK -c "$line"
        sleep 0.2
        kill -TERM "$MG_PID"
        status=0 output=''
        mg_wait || status=$?
        assert_status 143
        ! grep -q 'Error' mg.out || fail "$(cat mg.out)"
    done
}

@test "on the virtual clock no time passes until a line has come, and a signal is seen meanwhile" {
    one_disk
    run timeout "$MG_TIMEOUT" "$MERGANSER" -clock virtual -guest profile=none -drive $DISK -f - < <(sleep 0.4; echo 'info loop')
    assert_status 0
    grep -Eq '^[0-9]+ turns in [0-9]+ us,' <<<"$output" || fail "$output"
    mkfifo pipe
    sleep 20 >pipe &
    local writer=$!
    env --default-signal=INT,TERM timeout -k 5 20 "$MERGANSER" -clock virtual -guest profile=none -drive $DISK -f - <pipe >out 2>&1 3>&- &
    local reader=$!
    sleep 0.4
    kill -TERM $reader
    local rc=0
    wait $reader || rc=$?
    kill $writer
    [ $rc = 143 ] || fail "exit code $rc: $(cat out)"
}

@test "a stream that is no script ends where that shows, sourced or not" {
    one_disk
    run timeout "$MG_TIMEOUT" "$MERGANSER" -guest profile=none -drive $DISK -f - < <(printf 'info status\ninfo \0name\ninfo uuid\n')
    assert_status 3
    assert_output "VM status: running"
    assert_output "merganser: standard input is no script: line 2 has a zero byte in it"
    refute_output "info uuid"
    mkfifo pipe
    printf '\0\n' >pipe &
    run quiet -drive $DISK -c 'source pipe' -c 'info name'
    assert_status 3
    assert_output "merganser: pipe is no script: line 1 has a zero byte in it"
    refute_output "info name"
}

@test "lines for a monitor may end in CR LF" {
    one_disk
    run timeout "$MG_TIMEOUT" "$MERGANSER" --qemu-compat -guest profile=none -drive $DISK -monitor stdio < <(printf 'info status\r\n\r\ninfo name\r\n')
    assert_output "VM status: running"
    refute_output $'\r'
}

@test "quit in a sourced file ends all scripts, and nothing more is read" {
    one_disk
    printf 'info status\nquit\ninfo name\n' >script
    run quiet -drive $DISK -c 'source script' -c 'info uuid'
    assert_status 0
    refute_output "info name"
    refute_output "info uuid"
    mkfifo pipe
    printf 'quit\ninfo name\n' >pipe &
    run quiet -drive $DISK -f pipe
    assert_status 0
    refute_output "info name"
}

@test "expectations of chains: brackets and blanks, empty names, too many and too few images" {
    make_chain file-A.img file-B.img
    expects() {
        run quiet -drive "$(chain_drive A B)" -c "expect chain virtio0 = $2"
        assert_status "$1"
    }
    expects 0 '[A]<-[B]'
    expects 0 ' A  <-	[ B ] '
    expects 0 'file-A.img <- node-B'
    expects 5 'B'
    expects 5 'A <- B <- C'
    expects 5 'Z <- A <- B'
    expects 5 'A <- '
    expects 5 '<-'
    expects 3 ' '
}

@test "what is read that cannot be read is an error, beyond the end a wrong request" {
    one_disk
    qemu-io -f qcow2 -c 'write -q -P 1 0 64k' disk.img
    printf '[inject-error]\nevent = "read_aio"\nerrno = "5"\niotype = "read"\n' >rules
    run quiet -drive driver=qcow2,file.driver=blkdebug,file.image.filename=disk.img,file.config=rules,if=virtio -c 'expect read virtio0 0 64k pattern 1'
    assert_status 3
    assert_output "Error: Could not read 65536 bytes at 0 of 'virtio0': Input/output error"
    local line
    for line in '0 9999G pattern 1' '9999G 1 pattern 1' '0 1 pattern ""' '0 1 pattern -1' '0 1 pattern 256' '0 1 pattern 1x' '0 1 pattern' 'x 1 pattern 1' '0 x pattern 1' '0 1 nopattern 1' '0 1 pattern 1 2'; do
        run quiet -drive $DISK -c "expect read virtio0 $line"
        assert_status 3
    done
    run quiet -drive $DISK -c 'expect read nosuch 0 1 pattern 1'
    assert_status 3
    run quiet -drive $DISK -c 'expect "' -c 'info name'
    assert_status 3
}
