#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The monitor on a terminal: a real one, of a given width, typed at by a small program.

load ../lib.bash

# on_terminal COLUMNS ARGS... <<STEPS: each step is a Python line that uses type(TEXT) and see(TEXT): wait until the screen's text
# holds it (in what came since the last see).
on_terminal() {
    cat >steps.py
    python3 - "$MERGANSER" "$@" 3>&- <<'END'
import fcntl, os, pty, re, select, signal, struct, sys, termios, time
pid, fd = pty.fork()
if pid == 0:
    os.environ["TERM"] = "xterm"
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, int(sys.argv[2]), 0, 0))
    signal.alarm(60) # timeout(1) would pass on the terminal's interrupts once more
    os.execvp(sys.argv[1], [sys.argv[1]] + sys.argv[3:])
seen = ""
def read(seconds):
    global seen
    if not select.select([fd], [], [], seconds)[0]:
        return True
    try:
        data = os.read(fd, 65536)
    except OSError:
        return False
    seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace")).replace("\r", "")
    return bool(data)
def type(text):
    os.write(fd, text.encode())
def see(text):
    global seen
    end = time.time() + 20
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
