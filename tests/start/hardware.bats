# SPDX-License-Identifier: GPL-2.0-or-later
#
# -blockdev and -device: what is made of them; options about hardware that is not here.

load ../lib.bash

setup() {
    common_setup
    make_chain base.qcow2 mid.qcow2 a.qcow2
}

@test "the start line of QEMU's live-block-operations document starts, and its commands run" {
    mkdir images
    qemu-img create -q -f qcow2 images/base.qcow2 4M
    (cd images && qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2)
    timeout 60 "$MERGANSER" -display none -no-user-config -nodefaults -m 512 \
        -blockdev node-name=node-A,driver=qcow2,file.driver=file,file.node-name=file,file.filename=./images/top.qcow2 \
        -device virtio-blk,drive=node-A,id=virtio0 -monitor stdio -qmp unix:qmp,server=on,wait=off \
        < <(sleep 20) >out 2>&1 3>&- &
    MG_PID=$!
    for ((i = 0; i < 200; i++)); do [ ! -S qmp ] || break; sleep 0.05; done
    run qmp '{"execute":"blockdev-snapshot-sync","arguments":{"node-name":"node-A","snapshot-file":"b.qcow2","snapshot-node-name":"node-B","format":"qcow2"}}' \
        '{"execute":"blockdev-snapshot-sync","arguments":{"node-name":"node-B","snapshot-file":"c.qcow2","snapshot-node-name":"node-C","format":"qcow2"}}' \
        '{"execute":"block-stream","arguments":{"device":"node-C","job-id":"job0"}}' @BLOCK_JOB_COMPLETED \
        '{"execute":"query-block"}' '{"execute":"quit"}'
    assert_status 0
    refute_output '"error"'
    assert_output '"qdev": "/machine/peripheral/virtio0/virtio-backend"'
    assert_output '"device": "", '
    mg_wait
    assert_chain c.qcow2 c.qcow2
    assert_clean c.qcow2 b.qcow2 images/top.qcow2
}

@test "nodes by reference, at any depth, and a device on top" {
    run mg -S -blockdev driver=file,node-name=f0,filename=base.qcow2,read-only=on \
        -blockdev driver=qcow2,node-name=n0,file=f0,read-only=on \
        -blockdev '{"driver":"qcow2","node-name":"n1","read-only":true,"file":{"driver":"file","filename":"mid.qcow2"},"backing":"n0"}' \
        -blockdev driver=qcow2,node-name=n2,file.driver=file,file.filename=a.qcow2,backing=n1 \
        -device virtio-blk-pci,drive=n2,id=v0,serial=abc -c 'info block' -c 'info block -n' -c 'qemu-io n2 "read -P 1 32896k 64k"'
    assert_status 0
    assert_output 'n2: a.qcow2 (qcow2)'
    assert_output 'Attached to:      /machine/peripheral/v0/virtio-backend'
    assert_output 'n1: mid.qcow2 (qcow2, read-only)'
    assert_output 'f0: base.qcow2 (file, read-only)'
    assert_output '(chain depth: 2)'
}

@test "backing=null in JSON cuts the chain off" {
    run mg -S -blockdev '{"driver":"qcow2","node-name":"n","file":{"driver":"file","filename":"a.qcow2"},"backing":null}' \
        -device virtio-blk,drive=n -c 'info block'
    assert_status 0
    refute_output 'Backing file'
}

@test "the guest works on a -blockdev disk, and is called by its device" {
    run mg -blockdev driver=qcow2,node-name=n,file.driver=file,file.filename=a.qcow2 -device virtio-blk,drive=n,id=disk \
        -guest disk=disk,profile=stamp,size=1M -c 'sleep 0.2' -c 'expect guest clean' -c 'info guest'
    assert_status 0
    assert_output 'disk: profile=stamp '
    refute_output ' writes=0 '
    assert_clean a.qcow2
}

@test "a -drive of if=none is attached by -device, to IDE too" {
    run mg -S -drive file=a.qcow2,if=none,id=d,werror=ignore -device ide-hd,drive=d,bus=ide.1,unit=1,serial=xyz \
        -device ide-cd,id=cd -c 'info block'
    assert_status 0
    assert_output 'd ('
    assert_output 'Attached to:      /machine/peripheral-anon/device[0]'
    assert_output 'cd: [not inserted]'
    refute_output $'d (#block'*$'Removable'
}

@test "auto-read-only=on opens what may only be read" {
    [ "$(id -u)" = 0 ] || skip "only root can become somebody else"
    chmod 444 base.qcow2
    chmod 755 .
    cp "$MERGANSER" program # where it was built, others may not be let in
    run setpriv --reuid=65534 --clear-groups timeout 20 ./program -S -blockdev driver=file,node-name=f,filename=base.qcow2 -c quit
    assert_status 1
    assert_output "Could not open 'base.qcow2': Permission denied"
    run setpriv --reuid=65534 --clear-groups timeout 20 ./program -S \
        -blockdev driver=file,node-name=f,filename=base.qcow2,auto-read-only=on -c 'info block -n'
    assert_status 0
    assert_output 'f: base.qcow2 (file, read-only)'
}

@test "snapshot=on: the guest writes, the image stays, nothing is left behind" {
    mkdir tmp
    sha256sum a.qcow2 mid.qcow2 base.qcow2 >sums
    for words in '-drive file=a.qcow2,if=virtio,snapshot=on' '-snapshot -drive file=a.qcow2,if=virtio'; do
        TMPDIR=$PWD/tmp run mg $words -guest profile=stamp,size=1M -c 'sleep 0.2' -c 'info guest' -c 'info block'
        assert_status 0
        refute_output ' writes=0 '
        assert_output 'ignore flushes'
        sha256sum --quiet -c sums
        [ -z "$(ls -A tmp)" ]
    done
}

@test "hardware that is not here is accepted and listed" {
    run mg -S -machine pc,accel=kvm -enable-kvm -cpu host -smp 4,sockets=2 -m 2G -display none -vga none -nodefaults \
        -netdev user,id=n0 -device virtio-net-pci,netdev=n0 -net none -serial null -boot c -rtc base=utc \
        -object iothread,id=io0 -device virtio-scsi-pci,id=s0 -no-user-config \
        -drive file=a.qcow2,if=none,id=d -device virtio-blk,drive=d,iothread=io0,addr=4 -c 'info ignored'
    assert_status 0
    for word in '-machine pc,accel=kvm' '-enable-kvm' '-cpu host' '-smp 4,sockets=2' '-m 2G' '-display none' '-vga none' \
        -nodefaults '-netdev user,id=n0' '-device virtio-net-pci,netdev=n0' '-net none' '-serial null' '-boot c' \
        '-rtc base=utc' '-object iothread,id=io0' '-device virtio-scsi-pci,id=s0' -no-user-config \
        '-device virtio-blk,drive=d,iothread=io0,addr=4: addr' '-device virtio-blk,drive=d,iothread=io0,addr=4: iothread'; do
        assert_output "$word"
    done
    run mg -S -drive if=none -c 'info ignored' # nothing
    [ "$output" = '(qemu) info ignored' ] || fail "$output"
    run mg --qemu-compat -S -m 2G -c 'info ignored'
    refute_output '-m 2G'
}

@test "help: drives, formats, devices, their properties, places" {
    run mg -drive help
    assert_status 0
    assert_output 'detect-zeroes=off|on|unmap'
    run mg -drive format=help
    assert_output 'Supported formats: qcow2 raw'
    run mg -device help
    assert_output 'name "virtio-blk-pci", bus PCI, alias "virtio-blk"'
    run mg -device ide-hd,help
    assert_output 'ide-hd options:'
    assert_output 'unit=<uint32>'
    run mg -chardev help
    assert_output '  socket'
    run mg -help all
    assert_status 0
    assert_output ' -smp'
    assert_output 'KEY=VALUE'
    run mg --help
    assert_output 'Examples:'
}

@test "info qtree shows what was asked for, and what it came to" {
    qemu-img create -q -f qcow2 a.img 1M
    qemu-img create -q -f raw b.img 1M
    qemu-img create -q -f raw c.img 1M
    run mg -S -guest profile=none -blockdev qcow2,node-name=q,file.driver=file,file.filename=a.img \
        -device virtio-blk-pci,drive=q,id=v0,bootindex=3,serial=abc,logical_block_size=4096,physical_block_size=4096,share-rw=on \
        -drive file=b.img,if=none,id=d,format=raw -device ide-hd,drive=d,id=h0,bus=ide.1 -drive file=c.img,if=virtio,format=raw -c 'info qtree'
    assert_status 0
    assert_output 'dev: virtio-blk-pci, id "v0"'
    assert_output 'dev: virtio-blk-pci, id ""'
    assert_output '            drive = "q"'
    assert_output '            drive = "d"'
    assert_output '            serial = "abc"'
    assert_output '            logical_block_size = 4096 (4 KiB)'
    assert_output '            share-rw = true'
    assert_output 'dev: ide-hd, id "h0"'
}
