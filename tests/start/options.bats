# SPDX-License-Identifier: GPL-2.0-or-later
#
# The command line itself: how options are written, what is refused, and with which exit code.

load ../lib.bash

@test "one dash or two, a value behind a blank or behind a '='" {
    for word in "-name one" "--name one" "-name=one" "--name=one"; do
        run mg $word -drive if=none -c 'info name'
        assert_status 0
        [ "$output" = "(qemu) info name
one" ] || fail "$word: $output"
    done
}

@test "--help names every option and ends well" {
    run mg --help
    assert_status 0
    for word in -drive -hda -hdb -hdc -hdd -guest -S -monitor -qmp -f -c --on-error --clock --seed --name --uuid \
        --qemu-compat --version; do
        assert_output "${word#-}"
    done
    run mg -h
    assert_status 0
    assert_output 'usage: merganser [options] [IMAGE]'
}

@test "--version says which" {
    run mg --version
    assert_status 0
    [[ $output =~ ^merganser\ [0-9]+\.[0-9]+\.[0-9]+$ ]]
}

# refused CODE TEXT ARGS...
refused() {
    local code=$1 text=$2
    shift 2
    run mg "$@"
    assert_status "$code"
    [ "${lines[0]}" = "merganser: $text" ] || fail "$*: $output"
}

@test "QEMU's options, wrongly used, give QEMU's exit code and sentence" {
    refused 1 '-foo: invalid option' -foo
    refused 1 '--foo: invalid option' --foo
    refused 1 '-hdz: invalid option' -hdz x
    refused 1 '-S=1: invalid option' -S=1
    refused 1 '-drive: requires an argument' -drive
    refused 1 '-uuid x: failed to parse UUID string: wrong format' -uuid x
    refused 1 "-name foo=1: Invalid parameter 'foo'" -name foo=1
    refused 1 "-monitor foo: 'foo' is not a valid char driver" -monitor foo
    refused 1 "-qmp unix:x,foo=1: Invalid parameter 'foo'" -qmp unix:x,foo=1
    refused 1 "-qmp unix:x,server=maybe: Parameter 'server' expects 'on' or 'off'" -qmp unix:x,server=maybe
    refused 1 '-monitor stdio: cannot use stdio by multiple character devices' -qmp stdio -monitor stdio
}

@test "our own options, wrongly used, give 2 and one sentence" {
    refused 2 '--seed: requires an argument' --seed
    refused 2 "--clock x: Parameter 'clock' does not accept value 'x'" --clock x
    refused 2 "--seed -1: Parameter 'seed' expects a non-negative number below 2^64" --seed -1
    refused 2 "--on-error=x: Parameter 'on-error' does not accept value 'x'" --on-error=x
}

@test "what cannot be opened gives 1 and QEMU's sentence" {
    refused 1 "-drive file=x: Could not open 'x': No such file or directory" -drive file=x
    refused 1 "-hdb x: Could not open 'x': No such file or directory" -hdb x
    refused 1 "x: Could not open 'x': No such file or directory" x
    refused 1 "-drive file=no,,such: Could not open 'no,such': No such file or directory" -drive file=no,,such
    refused 1 "-qmp unix:m: Failed to connect to 'm': No such file or directory" -drive if=none -qmp unix:m
    refused 1 '-qmp unix:/nonexistent/x,server: Failed to bind socket to /nonexistent/x: No such file or directory' \
        -drive if=none -qmp unix:/nonexistent/x,server
    long=$(printf 'a%.0s' {1..108})
    refused 1 "-qmp unix:$long,server: UNIX socket path '$long' is too long" -drive if=none -qmp "unix:$long,server"
}

@test "-device MODEL,help of a model that is not there says so, and is no failure" {
    run "$MERGANSER" -device foo,help
    assert_status 0
    assert_output "merganser: -device foo,help: Device 'foo' not found"
}

@test "none is a place for human monitors and ports only" {
    refused 1 "-qmp none: 'none' is not a valid char driver" -drive if=none -qmp none
    refused 1 "-debugcon none: 'none' is not a valid char driver" -drive if=none -debugcon none
    run mg -drive if=none -monitor none -serial none -parallel none -gdb none -c quit
    assert_status 0
}

@test "what -guest says wrong is refused" {
    qemu-img create -q -f qcow2 a.img 64M
    refused 1 "-guest foo=1: Invalid parameter 'foo'" -guest foo=1 -hda a.img
    refused 1 "-guest disk=nosuch,bs=4k: Device 'nosuch' not found" -guest disk=nosuch,bs=4k -hda a.img
}

@test "what -guest says for all is held against the disks at the start" {
    qemu-img create -q -f qcow2 a.img 1M
    refused 2 "-guest profile=replay: Profile 'replay' needs iolog=FILE" -guest profile=replay -hda a.img
    refused 2 "-guest profile=replay,iolog=nosuch: Could not open 'nosuch': No such file or directory" -guest profile=replay,iolog=nosuch -S -hda a.img
    echo nonsense >wrong.log
    refused 2 "-guest profile=replay,iolog=wrong.log: 'wrong.log' is not an iolog of fio: it does not begin with 'fio version 2 iolog'" -guest profile=replay,iolog=wrong.log -S -hda a.img
}

@test "-guest is for all disks, or for the one that it names" {
    qemu-img create -q -f qcow2 a.img 64M
    qemu-img create -q -f qcow2 b.img 64M
    run mg -S -drive file=a.img,if=virtio -drive file=b.img,if=virtio -guest disk=virtio1,profile=none \
        -guest profile=stamp -c 'info guest'
    assert_status 0
    assert_output 'virtio0: profile=stamp '
    assert_output 'virtio1: profile=none '
}

@test "-S leaves the machine standing" {
    run mg -S -drive if=none -c 'info status'
    assert_output 'VM status: paused (prelaunch)'
    run mg -drive if=none -c 'info status'
    assert_output 'VM status: running'
}

@test "an image without an option is the first IDE disk, commas and all" {
    qemu-img create -q -f qcow2 x,y.img 1M
    run mg x,y.img -c 'info block'
    assert_status 0
    assert_output 'x,y.img (qcow2)'
    assert_output 'ide0-hd0 ('
}

@test "-name and -uuid are what the monitor shows" {
    run mg -drive if=none -name guest=a,,b -uuid 12345678-9ABC-DEF0-1234-56789abcdef0 -c 'info name' -c 'info uuid'
    assert_output $'\na,b\n'
    assert_output $'\n12345678-9abc-def0-1234-56789abcdef0'
}

@test "a human monitor on a socket, spelled in each of QEMU's ways" {
    for word in server=on,wait=off server,nowait server,wait=off; do
        timeout 60 "$MERGANSER" -drive if=none -monitor "unix:hmp,$word" </dev/null 3>&- &
        MG_PID=$!
        for ((i = 0; i < 200; i++)); do [ ! -S hmp ] || break; sleep 0.05; done
        run hmp 'info status'
        assert_output 'VM status: running'
        hmp quit
        mg_wait
    done
}

@test "-monitor none: the program runs until it is told to quit" {
    timeout 60 "$MERGANSER" -drive if=none -monitor none -qmp unix:qmp,server=on,wait=off -c 'info status' >out </dev/null 3>&- &
    MG_PID=$!
    for ((i = 0; i < 200; i++)); do [ ! -S qmp ] || break; sleep 0.05; done
    sleep 0.3
    kill -0 $MG_PID
    qmp '{"execute": "quit"}'
    mg_wait
    [ "$(cat out)" = "(qemu) info status
VM status: running" ]
}
