#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The monitor on a terminal: a real one, of a given width, typed at by a small program.

load ../lib.bash

# on_terminal COLUMNS ARGS... <<STEPS: each step is a Python line that uses type(TEXT) and see(TEXT): wait until the screen's text
# holds it (in what came since the last see), raw: all that came, escape sequences included.  TERMINAL is its kind.
on_terminal() {
    cat >steps.py
    python3 - "$MERGANSER" "$@" 3>&- <<'END'
import fcntl, os, pty, re, select, signal, struct, sys, termios, time
pid, fd = pty.fork()
if pid == 0:
    os.environ["TERM"] = os.environ.get("TERMINAL", "xterm")
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, int(sys.argv[2]), 0, 0))
    signal.alarm(int(os.environ["MG_TIMEOUT"])) # timeout(1) would pass on the terminal's interrupts once more
    os.execvp(sys.argv[1], [sys.argv[1]] + sys.argv[3:])
seen = raw = ""
def read(seconds):
    global seen, raw
    if not select.select([fd], [], [], seconds)[0]:
        return True
    try:
        data = os.read(fd, 65536)
    except OSError:
        return False
    raw += data.decode(errors="replace")
    seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace")).replace("\r", "")
    return bool(data)
def type(text):
    os.write(fd, text.encode())
def see(text):
    global seen
    end = time.time() + int(os.environ["MG_TIMEOUT"]) / 3
    while text not in seen:
        if time.time() > end or not read(0.2):
            sys.exit("not seen: %r in %r" % (text, seen))
    seen = seen[seen.index(text) + len(text):]
def ends(code):
    while read(1):
        pass
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status != code:
        sys.exit("exit code %d, not %d: %r" % (status, code, seen))
exec(open("steps.py").read())
END
}

image() {
    make_chain file-A.img file-B.img
    DRIVE=(-guest profile=none -drive "$(chain_drive A B)")
}

@test "a prompt, an answer, and Ctrl-D" {
    image
    on_terminal 80 "${DRIVE[@]}" <<'END'
see("monitor - type 'help' for more information\n(qemu) ")
type("info status\r")
see("info status\nVM status: running\n(qemu) ")
type("\4")
ends(0)
END
}

@test "commands, devices, images, files and topics are completed" {
    image
    on_terminal 80 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("block_str\t")
see("block_stream ")
type("vir\t")
see("virtio0 ")
type("node\t")
see("node-A ")
type("\x15info block-j\t\r")
see("No active jobs\n(qemu) ")
type("source file-A\t")
see("file-A.img")
type("\x15quit\r")
ends(0)
END
}

@test "a line tells above the prompt when a job ends, and what is typed stays" {
    image
    on_terminal 100 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("block_stream virtio0 4M\r")
see("(qemu) ")
type("info block-")
see("info block-")
see("virtio0")
see("\n(qemu) info block-")
type("jobs\r")
see("jobs\nNo active jobs\n(qemu) ")
type("quit\r")
ends(0)
END
}

@test "the line tells of a cancelled job, too" {
    image
    on_terminal 100 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("block_stream virtio0 64k\r")
see("(qemu) ")
type("block_job_cancel virtio0\r")
see("Job 'virtio0'")
see("cancelled\n")
type("\x15quit\r")
ends(0)
END
}

@test "on a narrow terminal the line of news leaves what is typed as it is" {
    image
    on_terminal 24 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("block_stream virtio0 4M\r")
see("(qemu) ")
type("qemu-io virtio0 \"read -P 1 0 1M\"")
see("Job 'virtio0'")
type("\r")
see("read 1048576/1048576 bytes at offset 0")
type("quit\r")
ends(0)
END
}

@test "Ctrl-C drops the line, and ends a wait" {
    image
    on_terminal 80 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("nonsense")
see("nonsense")
type("\3")
see("^C\n(qemu) ")
type("sleep 1h\r")
see("sleep 1h\n")
time.sleep(0.3)
type("\3")
see("Interrupted\n(qemu) ")
type("info status\r")
see("VM status: running")
type("quit\r")
ends(0)
END
}

@test "what was typed is there the next time" {
    image
    on_terminal 80 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("info block-jobs\rquit\r")
ends(0)
END
    grep -qx 'info block-jobs' "$XDG_STATE_HOME/merganser/history"
    on_terminal 80 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("\x1b[A\x1b[A\r")
see("No active jobs")
type("quit\r")
ends(0)
END
}

@test "twenty columns are enough" {
    image
    on_terminal 20 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("block_stream virtio0 nosuch-image-of-a-long-name\r")
see("invalid size\n")
see("(qemu) ")
type("info chain virtio0\r")
see("  [A] <- [B]\n")
type("quit\r")
ends(0)
END
}

# --- Nothing is lost by accident ---------------------------------------------------------------------------------------

@test "quit asks once when a job would be cancelled" {
    image
    on_terminal 80 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("block_stream virtio0 64k\r")
see("(qemu) ")
type("quit\r")
see("Job 'virtio0' (stream) has not ended, and will be cancelled. Quit? (y/n) ")
type("n\r")
see("(qemu) ")
type("info block-jobs\r")
see("Streaming device virtio0")
see("(qemu) ")
type("quit\r")
see("Quit? (y/n) ")
type("\t\3")
see("^C\n(qemu) ")
type("quit\r")
see("Quit? (y/n) ")
type("y\r")
ends(0)
END
}

@test "Ctrl-D asks as well, and a second one is a yes" {
    image
    on_terminal 80 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("block_stream virtio0 64k\r")
see("(qemu) ")
type("\4")
see("Job 'virtio0' (stream) has not ended, and will be cancelled. Quit? (y/n) ")
type("\r")
see("(qemu) ")
type("\4")
see("Quit? (y/n) ")
type("\4")
ends(0)
END
}

@test "nobody is asked under --qemu-compat, nor in a script" {
    image
    on_terminal 80 --qemu-compat "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("block_stream virtio0 64k\r")
see("(qemu) ")
type("quit\r")
ends(0)
END
    run mg "${DRIVE[@]}" -c 'block_stream virtio0 64k' -c quit
    assert_status 0
    [[ $output != *"y/n"* ]]
}

@test "Ctrl-C leaves a wait and says that the job goes on" {
    image
    on_terminal 80 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("block_stream virtio0 64k\r")
see("(qemu) ")
type("wait\r")
time.sleep(0.3)
type("\3")
see("Interrupted\nWhat was waited for goes on: info block-jobs -v\n(qemu) ")
type("\3")
see("^C\n(qemu) ")
type("info block-jobs\r")
see("Streaming device virtio0")
type("quit\ry\r")
ends(0)
END
}

@test "Ctrl-C on a command that does not listen does not end the program while a job runs" {
    image
    on_terminal 80 "${DRIVE[@]}" -drive if=none,id=slow,file=null-co://,file.latency-ns=1500000000 <<'END'
see("(qemu) ")
type("block_stream virtio0 64k\r")
see("(qemu) ")
type("qemu-io slow \"read 0 4k\"\r")
time.sleep(0.3)
type("\3")
time.sleep(0.2)
type("\3")
see("Job 'virtio0' (stream) goes on, so Ctrl-C does not end the program; SIGTERM would.\n")
see("read 4096/4096 bytes")
see("(qemu) ")
type("info block-jobs\r")
see("Streaming device virtio0")
type("quit\ry\r")
ends(0)
END
}

# --- News, colours -----------------------------------------------------------------------------------------------------

@test "events off: no news, and events on: news again" {
    image
    on_terminal 100 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("events\r")
see("events are on\n(qemu) ")
type("events off\r")
see("(qemu) ")
type("block_stream virtio0\r")
see("(qemu) ")
type("wait\r")
see("(qemu) ")
type("events\r")
see("events are off\n(qemu) ")
assert "is done" not in raw
type("events on\r")
see("(qemu) ")
type("snapshot_blkdev virtio0 new.img\r")
see("(qemu) ")
type("block_stream virtio0\r")
see("Job 'virtio0' (stream) is done")
type("quit\r")
ends(0)
END
    run mg -drive if=none -c 'events off'
    assert_status 3
    assert_output "Error: News are for a terminal"
}

# wrong_word CHECK ARGS...: an error on a terminal, and a Python line about the bytes that came.
wrong_word() {
    on_terminal 80 "${@:2}" "${DRIVE[@]}" <<END
see("(qemu) ")
type("blok_stream\r")
see("unknown command: 'blok_stream'")
see("(qemu) ")
$1
type("quit\r")
ends(0)
END
}

@test "errors are red on a terminal" {
    image
    wrong_word 'assert "\x1b[31munknown command" in raw, raw'
}

@test "there is no colour with NO_COLOR, on a dumb terminal, under --qemu-compat, in a pipe" {
    image
    local none='assert not re.search(r"\x1b\[[0-9;]*m", raw), raw'
    NO_COLOR=1 wrong_word "$none"
    TERMINAL=dumb wrong_word "$none"
    wrong_word "$none" --qemu-compat
    run mg "${DRIVE[@]}" -c '-blok_stream'
    assert_output "unknown command"
    [[ $output != *$'\x1b'* ]]
}

@test "an empty NO_COLOR asks for nothing" {
    image
    NO_COLOR='' wrong_word 'assert "\x1b[31m" in raw, raw'
}

# --- History -----------------------------------------------------------------------------------------------------------

@test "the history is its owner's alone, and -c, -f and --qemu-compat leave none" {
    image
    echo 'info name' >script
    mg "${DRIVE[@]}" -c 'info uuid' -f script
    on_terminal 80 --qemu-compat "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("info status\rquit\r")
ends(0)
END
    [ ! -e "$XDG_STATE_HOME/merganser/history" ]
    on_terminal 80 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("info status\rquit\r")
ends(0)
END
    [ "$(stat -c %a "$XDG_STATE_HOME/merganser/history")" = 600 ]
    [ "$(cat "$XDG_STATE_HOME/merganser/history")" = $'info status\nquit' ]
}

@test "two that run at once keep the lines of both" {
    image
    on_terminal 80 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("info name\r")
see("(qemu) ")
other, there = pty.fork()
if other == 0:
    signal.alarm(int(os.environ["MG_TIMEOUT"]))
    os.execvp(sys.argv[1], [sys.argv[1], "-drive", "if=none"])
answer = b""
while b"(qemu) " not in answer:
    answer += os.read(there, 65536)
os.write(there, b"info uuid\rquit\r")
os.waitpid(other, 0)
type("info status\rquit\r")
ends(0)
END
    [ "$(cat "$XDG_STATE_HOME/merganser/history")" = $'info name\ninfo uuid\nquit\ninfo status\nquit' ]
}

@test "Ctrl-R finds a line of an earlier run" {
    image
    on_terminal 80 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("info block-jobs\rinfo name\rquit\r")
ends(0)
END
    on_terminal 80 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("\x12jobs")
time.sleep(0.3)
type("\r")
see("No active jobs\n(qemu) ")
type("quit\r")
ends(0)
END
}

# --- Narrow terminals --------------------------------------------------------------------------------------------------

@test "at forty columns info block-jobs -v is broken between words, and its bar fits" {
    image
    on_terminal 40 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("block_stream virtio0 64k\r")
see("(qemu) ")
type("block_job_pause virtio0\r")
see("(qemu) ")
while "block_job_resume" not in raw: # it is only asked to
    time.sleep(0.05)
    type("info block-jobs -v\r")
    see("(qemu) ")
raw = ""
type("info block-jobs -v\r")
see("info block-jobs -v\n")
see("\n    [") # 64 KiB or nothing of it
see("                       ] ")
see("%\n    ")
see("of data\n")
see("    block_job_resume lets it go on\n(qemu) ")
answer = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw).replace("\r", "").split("info block-jobs -v\n")[1]
assert max(map(len, answer.split("\n"))) <= 40, answer
type("quit\ry\r")
ends(4)
END
}

@test "a job that failed says why" {
    image
    ulimit -f $(($(stat -c %s file-B.img) / 1024 + 64))
    on_terminal 80 -qmp unix:qmp,server=on,wait=off "${DRIVE[@]}" <<'END'
import json, socket
see("(qemu) ")
conn = socket.socket(socket.AF_UNIX)
conn.connect("qmp")
stream = conn.makefile("rw")
for command, arguments in (("qmp_capabilities", {}), ("block-stream", {"device": "virtio0", "auto-dismiss": False})):
    stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
stream.flush()
see("failed: ")
type("info block-jobs -v\r")
see("    concluded, ")
see("    failed: ")
see("    job-dismiss (QMP) forgets it\n")
type("quit\r")
ends(4)
END
}

# --- Completion --------------------------------------------------------------------------------------------------------

@test "keys are completed first, then their values" {
    image
    on_terminal 80 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("guest virtio0 prof\t")
see("profile=")
type("st\t")
see("stamp ")
type("\x15guest virtio0 \t\t")
see("iodepth=")
assert "profile=none" not in raw
type("\x15quit\r")
ends(0)
END
}

@test "a file with a blank in its name is quoted when it is completed" {
    image
    echo 'info name' >'my script'
    on_terminal 80 -name one "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("source my\t\r")
see("\"my script\"")
see("(qemu) info name\none\n(qemu) ")
type("quit\r")
ends(0)
END
}

# --- The window, and being stopped -------------------------------------------------------------------------------------

@test "in a narrow window a chain is broken between its boxes, and a job is a line of words" {
    make_chain first-image.img second-image.img third-image.img
    on_terminal 40 -guest profile=none -drive file=third-image.img,if=virtio,format=qcow2 <<'END'
see("(qemu) ")
type("block_stream virtio0 64k\r")
see("(qemu) ")
type("block_job_pause virtio0\r")
see("(qemu) ")
raw = ""
while "paused" not in raw: # it is only asked to
    time.sleep(0.05)
    type("info chain\r")
    see("(qemu) ")
type("info chain\r")
see("\n  virtio0: stream ")
see("paused from [first-image] to [third-image]\n  [first-image] <- [second-image]\n  <- [third-image]\n")
type("quit\ry\r")
ends(4) # the job waits for somebody
END
}

@test "another width counts from then on" {
    image
    on_terminal 80 "${DRIVE[@]}" <<'END'
see("(qemu) ")
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
time.sleep(0.2)
type("help\r")
see("block_stream")
see("...\n")
see("(qemu) ")
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
time.sleep(0.2)
raw = ""
type("help\r")
see("block_stream")
see("(qemu) ")
assert "..." not in raw, raw
type("quit\r")
ends(0)
END
}

@test "continued after a stop it draws its line again" {
    image
    on_terminal 80 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("info sta")
see("info sta")
os.kill(pid, signal.SIGSTOP)
os.kill(pid, signal.SIGCONT)
see("(qemu) info sta")
type("tus\r")
see("VM status: running\n(qemu) ")
type("sleep 300ms\r")
see("sleep 300ms\n")
os.kill(pid, signal.SIGCONT) # nothing to draw
see("(qemu) ")
type("quit\r")
ends(0)
END
}

@test "a signal while a question is open ends the program" {
    image
    on_terminal 80 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("block_stream virtio0 64k\r")
see("(qemu) ")
type("quit\r")
see("Quit? (y/n) ")
os.kill(pid, signal.SIGTERM)
ends(128 + signal.SIGTERM)
END
}

@test "Ctrl-C twice on a command that does not listen ends the program when no job runs" {
    image
    on_terminal 80 "${DRIVE[@]}" -drive if=none,id=slow,file=null-co://,file.latency-ns=2000000000 <<'END'
see("(qemu) ")
type("qemu-io slow \"read 0 4k\"\r")
time.sleep(0.3)
type("\3")
time.sleep(0.2)
type("\3")
ends(128 + signal.SIGINT)
END
}

@test "two jobs are counted in the question, and 'yes' in full is a yes" {
    make_chain file-A.img file-B.img
    qemu-img create -q -f qcow2 -b file-A.img -F qcow2 other.img
    on_terminal 80 -guest profile=none -drive file=file-B.img,if=virtio,format=qcow2 -drive file=other.img,if=virtio,format=qcow2 <<'END'
see("(qemu) ")
type("block_stream virtio0 64k\rblock_stream virtio1 64k\rquit\r")
see("2 jobs have not ended, and will be cancelled. Quit? (y/n) ")
type("yes\r")
ends(0)
END
}

@test "Tab completes nothing in the answer to a question" {
    image
    on_terminal 80 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("block_stream virtio0 64k\rquit\r")
see("Quit? (y/n) ")
time.sleep(0.2)
type("info\t\t")
time.sleep(0.2)
assert "block-jobs" not in seen
type("\x15n\r")
see("(qemu) ")
type("quit\ry\r")
ends(0)
END
}

@test "blanks behind a line, empty lines and a line once more leave one entry in the history" {
    image
    on_terminal 80 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("info name \x16\t \r\r")
see("(qemu) \n(qemu) ")
type("info name\r")
see("(qemu) ")
type("quit\r")
ends(0)
END
    [ "$(cat "$XDG_STATE_HOME/merganser/history")" = $'info name\nquit' ] || fail "$(cat "$XDG_STATE_HOME/merganser/history")"
}

@test "the history lies below the home directory when no place for state is named, and nowhere without one" {
    image
    keeps() {
        on_terminal 80 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("info status\r")
see("VM status: running\n(qemu) ")
type("quit\r")
ends(0)
END
    }
    unset XDG_STATE_HOME
    keeps
    grep -qx 'info status' .local/state/merganser/history
    rm -r .local
    XDG_STATE_HOME=relative keeps
    [ -e .local/state/merganser/history ] && [ ! -e relative ]
    rm -r .local
    HOME=relative keeps
    [ ! -e .local ] && [ ! -e relative ]
    : >taken
    XDG_STATE_HOME=$PWD/taken keeps # nothing can be made there
    unset HOME
    keeps
}

@test "Ctrl-D ends the line also where pastes are not marked" {
    image
    echo 'set enable-bracketed-paste off' >.inputrc
    on_terminal 80 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("\4")
see("\n")
ends(0)
END
}

@test "a terminal of no kind has no colours" {
    image
    TERMINAL='' wrong_word 'assert not re.search(r"\x1b\[[0-9;]*m", raw), raw'
}

# --- More that is completed ----------------------------------------------------------------------------------------------

@test "help's commands, topics, flags, words, formats and jobs are completed" {
    image
    on_terminal 80 "${DRIVE[@]}" <<'END'
def completes(line, whole):
    type(line + "\t")
    see(whole)
    type("\x15")
see("(qemu) ")
completes("help block_str", "help block_stream ")
completes("help info block-j", "help info block-jobs ")
completes("help nosuch x", "help nosuch x")
completes("info block -j", "info block -json ")
completes("info block-jobs -v", "info block-jobs -v ")
completes("info nosuch x", "info nosuch x")
completes("nosuch x", "nosuch x")
completes("snapshot_blkdev virtio0 x.img qc", "snapshot_blkdev virtio0 x.img qcow2 ")
completes("snapshot_blkdev -n vir", "snapshot_blkdev -n virtio0 ")
completes("block_stream -l 2ms vir", "block_stream -l 2ms virtio0 ")
completes("block_stream -l2ms vir", "block_stream -l2ms virtio0 ")
completes("block_stream virtio0 file-A", "block_stream virtio0 file-A.img ")
completes("block_stream nosuch file-A", "block_stream nosuch file-A")
completes("block_stream node-B file-A", "block_stream node-B file-A.img ")
completes("block_stream virtio0 0 node", "block_stream virtio0 0 node-A ")
type("qemu-io #\t")
see("block")
type("\x15")
completes("events of", "events off ")
completes("wait al", "wait all ")
completes("wait vir", "wait virtio0 ")
completes("info status x y z", "info status x y z")
type("block_stream virtio0 64k\r")
see("(qemu) ")
completes("block_job_p", "block_job_pause ")
completes("block_job_pause v", "block_job_pause virtio0 ")
completes("block_job_cancel -", "block_job_cancel -f ")
type("quit\ry\r")
ends(0)
END
}

@test "under --qemu-compat words of ours are not completed" {
    image
    on_terminal 80 --qemu-compat "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("info chai\t")
time.sleep(0.2)
type("\x15block_stream virtio0 file-A\t")
time.sleep(0.2)
type("\x15info block -js\t")
time.sleep(0.2)
assert "chain" not in raw and "file-A.img" not in raw and "-json" not in raw
type("\x15quit\r")
ends(0)
END
}

@test "Ctrl-C ends a source that waits for a pipe, and one whose line waits, whatever its prefix" {
    image
    mkfifo pipe
    printf '%s\n' '-wait virtio0 done 60s' 'info name' >waits
    on_terminal 80 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("source pipe\r")
feed = open("pipe", "w")
feed.write("info status\n")
feed.flush()
see("VM status: running\n")
type("\x03")
see("Error: Interrupted\n")
see("(qemu) ")
feed.close()
type("block_stream -l 1ms virtio0 1\r")
see("(qemu) ")
type("source waits\r")
see("(qemu) -wait virtio0 done 60s\n")
time.sleep(0.2)
type("\x03")
see("Error: Interrupted\n")
see("Error: Interrupted\n")
see("(qemu) ")
type("block_job_cancel virtio0\r")
see("(qemu) ")
type("wait\r")
see("(qemu) ")
type("info uuid\r")
see("00000000")
if "info name" in raw:
    sys.exit("it went on: %r" % raw)
type("quit\r")
ends(0)
END
}

@test "Ctrl-C ends a commit between two pieces, and says that the same command does the rest" {
    image
    on_terminal 100 -guest profile=none -object throttle-group,id=g,x-bps-read=100000 \
        -drive if=virtio,driver=qcow2,file.driver=throttle,file.throttle-group=g,file.file.driver=file,file.file.filename=file-B.img <<'END'
see("(qemu) ")
type("commit virtio0\r")
see("commit virtio0\n")
time.sleep(0.5)
type("\3")
see("'commit' of 'virtio0' was interrupted: what is done is done, the same command does the rest\n(qemu) ")
type("quit\r")
ends(0)
END
    assert_clean file-A.img file-B.img
    read_pattern file-B.img 1M 1M 2
}

@test "devices, properties, drives, media, exports, items and expectations are completed" {
    image
    qemu-img create -q -f raw other.img 1M
    qemu-img create -q -f raw seventh.img 1M
    on_terminal 80 "${DRIVE[@]}" -drive if=none,id=spare,file=other.img,format=raw -drive if=none,id=data -device ide-cd,drive=data \
        -drive if=none,id=more,file=seventh.img,format=raw -device virtio-blk-pci,drive=more,id=disk7 <<'END'
def completes(line, whole):
    type(line + "\t")
    see(whole)
    type("\x15")
see("(qemu) ")
completes("device_del di", "device_del disk7 ")
completes("device_add virtio-blk,ser", "device_add virtio-blk,serial=")
completes("device_add virtio-blk,serial=a,drive=sp", "device_add virtio-blk,serial=a,drive=spare ")
completes("device_add virtio-blk,drive=da", "device_add virtio-blk,drive=da") # a device has it
completes("change data oth", "change data other.img ")
completes("change data other.img ra", "change data other.img raw ")
completes("change data other.img raw ret", "change data other.img raw retain ")
completes("nbd_server_start un", "nbd_server_start unix:")
completes("log none,gu", "log none,guest_errors ")
completes("trace-event job_st", "trace-event job_state_transition ")
completes("expect ch", "expect chain ")
completes("expect chain vir", "expect chain virtio0 ")
completes("expect read vir", "expect read virtio0 ")
completes("expect no j", "expect no jobs ")
completes("expect gu", "expect guest ")
completes("expect guest c", "expect guest clean ")
type("nbd_server_start unix:s\r")
see("(qemu) ")
type("nbd_server_add virtio0 far\r")
see("(qemu) ")
completes("nbd_server_remove f", "nbd_server_remove far ")
type("quit\r")
ends(0)
END
}

@test "models, images that no device has, single items and jobs are completed" {
    image
    qemu-img create -q -f qcow2 loose.img 1M
    qemu-img create -q -f qcow2 taken.img 1M
    on_terminal 80 "${DRIVE[@]}" -drive if=none,id=data -device ide-cd,drive=data,id=slot \
        -blockdev driver=qcow2,node-name=loose,file.driver=file,file.filename=loose.img \
        -blockdev driver=qcow2,node-name=lost,file.driver=file,file.filename=taken.img -device virtio-blk,drive=lost <<'END'
def completes(line, whole):
    type(line + "\t")
    see(whole)
    type("\x15")
see("(qemu) ")
completes("device_add ide-h", "device_add ide-h") # cannot be plugged in
completes("device_add virtio-blk-pci-t", "device_add virtio-blk-pci-transitional ")
completes("device_add virtio-blk,drive=lo", "device_add virtio-blk,drive=loose ")
completes("device_add nosuch,ser", "device_add nosuch,ser")
completes("device_del sl", "device_del sl") # nor out
completes("log gu", "log guest_errors ")
type("block_stream virtio0 1k\r")
see("(qemu) ")
completes("expect job vir", "expect job virtio0 ")
type("block_job_cancel -f virtio0\r")
see("(qemu) ")
type("quit\r")
ends(0)
END
}

@test "quotes and blanks in the names of files and of a chain's images are completed as they have to be typed" {
    make_chain 'a "b.img' 'c d.img'
    on_terminal 80 -guest profile=none -drive 'file=c d.img,if=virtio,format=qcow2' <<'END'
see("(qemu) ")
type("block_stream virtio0 a\t")
see(r'"a \"b.img" ')
type("\x15snapshot_blkdev virtio0 \"a \\\"\t\r")
see("Is another process using the image [a \"b.img]?")
type("quit\r")
ends(0)
END
}

@test "the first Tab tells what there is to choose from" {
    image
    on_terminal 80 "${DRIVE[@]}" <<'END'
see("(qemu) ")
type("help block_job_set\t")
see("block_job_set_latency  block_job_set_speed")
type("\x15quit\r")
ends(0)
END
}
