# SPDX-License-Identifier: GPL-2.0-or-later
#
# Start lines that QEMU 7.2 refuses: the real one is asked, and says the same sentence and the same exit code.

load ../lib.bash

setup() {
    common_setup
    qemu-img create -q -f qcow2 a.qcow2 1M
    qemu-img create -q -f qcow2 b.qcow2 1M
    qemu-img create -q -f qcow2 -b b.qcow2 -F qcow2 top.qcow2
    truncate -s 1M raw.img
    printf '[device "x"]\n  driver = "foo"\n' >bad.cfg
    printf '[foo]\n  x = "y"\n' >group.cfg
    printf 'hello\n' >lines.cfg
    printf '[memory]\n  foo = "y"\n' >memory.cfg
    printf '[boot-opts]\n  order = "c"\n[smp-opts]\n  cpus = "2"\n[memory]\n  size = "64"\n[foo]\n  x = "y"\n' >boot.cfg
}

# said PROGRAM ARGS...: its complaint without its name, and its exit code.
said() {
    local program=$1 code=0
    shift
    timeout -k 2 20 "$program" -S -display none -nodefaults -monitor none "$@" </dev/null >out 2>err 3>&- || code=$?
    sed -e "s/${program##*/}/PROGRAM/" -e 's/^qemu: /PROGRAM: /' -e '/^WARNING: /d' -e '/^         /d' err
    echo "exit code $code"
}

# alike MACHINE <<LINES: each line is the words of a start line. QEMU is quick to start with no machine at all.
alike() {
    local line count=0 theirs ours machine=$1
    local -a words
    while IFS= read -r line; do
        [ -n "$line" ] || continue
        eval "words=($line)"
        theirs=$(said qemu-system-x86_64 -M "$machine" "${words[@]}")
        ours=$(said "$MERGANSER" --qemu-compat "${words[@]}")
        [ "$ours" = "$theirs" ] || fail "$line
QEMU: $theirs
ours: $ours" || return 1
        [[ $theirs == *"exit code 1" ]] || fail "QEMU takes it: $line" || return 1
        count=$((count + 1))
    done
    [ $count -gt 0 ]
}

@test "-blockdev: what is missing, unknown or of the wrong kind" {
    alike none <<'END'
-blockdev
-blockdev ''
-blockdev foo
-blockdev qcow2
-blockdev help
-blockdev driver=qcow2
-blockdev driver=
-blockdev node-name=x
-blockdev driver=file,filename=a.qcow2
-blockdev driver=file,filename=a.qcow2,node-name=1x
-blockdev driver=file,filename=nosuch,node-name=x
-blockdev driver=file,node-name=x
-blockdev driver=file,filename=a.qcow2,node-name=x,foo=1
-blockdev driver=file,filename=a.qcow2,node-name=x,aio=foo
-blockdev driver=file,filename=a.qcow2,node-name=x,read-only=foo
-blockdev driver=file,filename=a.qcow2,node-name=x,read-only
-blockdev driver=file,filename=a.qcow2,node-name=x,discard=on
-blockdev driver=file,filename=a.qcow2,node-name=x,detect-zeroes=foo
-blockdev driver=file,filename=a.qcow2,node-name=x,cache=none
-blockdev driver=file,filename=a.qcow2,node-name=x,cache.direct=foo
-blockdev driver=file,filename=a.qcow2,node-name=x,cache.writeback=on
-blockdev driver=file,filename=a.qcow2,node-name=x,locking=foo
-blockdev driver=file,filename=a.qcow2,node-name=x,force-share=on
-blockdev driver=file,filename=a.qcow2,node-name=x,aio=native
-blockdev driver.foo=1
-blockdev driver=file,filename=a.qcow2,node-name=x,=y
-blockdev driver=file,filename=a.qcow2,node-name=x,0=y
-blockdev driver=file,filename=a.qcow2,node-name=x,a..b=y
-blockdev driver=file,filename=a.qcow2,node-name=x,a.0=1,a.x=2
END
}

@test "-blockdev: what lies below" {
    alike none <<'END'
-blockdev driver=qcow2,node-name=x,file=nosuch
-blockdev driver=qcow2,node-name=x,file.driver=file
-blockdev driver=qcow2,node-name=x,file.filename=a.qcow2
-blockdev driver=qcow2,node-name=x,file.driver=file,file.filename=a.qcow2,file.foo=bar
-blockdev driver=qcow2,node-name=x,file.driver=file,file.filename=nosuch
-blockdev driver=qcow2,node-name=x,file.driver=file,file.filename=a.qcow2,backing=nosuch
-blockdev driver=qcow2,node-name=x,file.driver=file,file.filename=a.qcow2,backing.driver=foo
-blockdev driver=qcow2,node-name=x,file.driver=file,file.filename=top.qcow2,backing.driver=qcow2,backing.file.driver=file,backing.file.filename=nosuch
-blockdev driver=qcow2,node-name=x,file.driver=file,file.filename=raw.img
-blockdev driver=qcow2,node-name=x,file=x.img,file.driver=file
-blockdev driver=qcow2,node-name=x,file.driver=file,file.filename=a.qcow2,file.node-name=x
-blockdev driver=qcow2,node-name=q,file=f -blockdev driver=file,node-name=f,filename=a.qcow2
-blockdev driver=file,node-name=x,filename=a.qcow2 -blockdev driver=file,node-name=x,filename=b.qcow2
-blockdev driver=file,node-name=f,filename=a.qcow2 -blockdev driver=qcow2,node-name=q,file=f -blockdev driver=qcow2,node-name=q2,file=f
-blockdev driver=file,node-name=f,filename=a.qcow2,read-only=on -blockdev driver=qcow2,node-name=q,file=f
-blockdev driver=raw,node-name=x,file.driver=file,file.filename=a.qcow2,backing=y
END
}

@test "-blockdev in JSON: types are kept" {
    alike none <<'END'
-blockdev '{"driver":"file","node-name":"x","filename":"a.qcow2"'
-blockdev '{"driver":"file","node-name":"x","filename":3}'
-blockdev '{"driver":"file","node-name":3,"filename":"a.qcow2"}'
-blockdev '{"driver":"file","node-name":"x","filename":"a.qcow2","read-only":"on"}'
-blockdev '{"driver":"file","node-name":"x","filename":"a.qcow2","foo":1}'
-blockdev '{"driver":"qcow2","node-name":"x","file":3}'
-blockdev '{"driver":"qcow2","node-name":"x","file":{"driver":"file","filename":3}}'
-blockdev '{"driver":"qcow2","node-name":"x","file":{"driver":"file","filename":"top.qcow2"},"cache":{"direct":"x"}}'
-blockdev '{} x'
-blockdev '[]'
END
}

@test "-device: models, properties, values" {
    alike pc <<'END'
-device
-device ''
-device foo
-device drive=d
-device virtio-blk
-device ide-hd
-device virtio-blk,drive=nosuch
-device ide-hd,drive=nosuch
-device virtio-blk-device
-drive if=none,id=d,file=a.qcow2 -device virtio-blk,drive=d,foo=1
-drive if=none,id=d,file=a.qcow2 -device ide-hd,drive=d,foo=1
-drive if=none,id=d,file=a.qcow2 -device virtio-blk,drive=d,id=1x
-drive if=none,id=d,file=a.qcow2 -device virtio-blk,drive=d,bus=foo
-drive if=none,id=d,file=a.qcow2 -device virtio-blk,drive=d,bus=ide.0
-drive if=none,id=d,file=a.qcow2 -device virtio-blk,drive=d,addr=x
-drive if=none,id=d,file=a.qcow2 -device virtio-blk,drive=d,logical_block_size=513
-drive if=none,id=d,file=a.qcow2 -device virtio-blk,drive=d,logical_block_size=256
-drive if=none,id=d,file=a.qcow2 -device virtio-blk,drive=d,logical_block_size=4096
-drive if=none,id=d,file=a.qcow2 -device virtio-blk,drive=d,min_io_size=x
-drive if=none,id=d,file=a.qcow2 -device virtio-blk,drive=d,opt_io_size=100
-drive if=none,id=d,file=a.qcow2 -device virtio-blk,drive=d,write-cache=foo
-drive if=none,id=d,file=a.qcow2 -device virtio-blk,drive=d,num-queues=0
-drive if=none,id=d,file=a.qcow2 -device virtio-blk,drive=d,num-queues=x
-drive if=none,id=d,file=a.qcow2 -device virtio-blk,drive=d,num-queues=70000
-drive if=none,id=d,file=a.qcow2 -device virtio-blk,drive=d,queue-size=3
-drive if=none,id=d,file=a.qcow2 -device virtio-blk,drive=d,queue-size=2
-drive if=none,id=d,file=a.qcow2 -device virtio-blk,drive=d,werror=foo
-drive if=none,id=d,file=a.qcow2 -device virtio-blk,drive=d,share-rw=x
-drive if=none,id=d,file=a.qcow2 -device virtio-blk,drive=d,iothread=io0
-drive if=none,id=d,file=a.qcow2 -device virtio-blk,drive=d,scsi=on
-drive if=none,id=d,file=a.qcow2 -device ide-hd,drive=d,unit=x
-drive if=none,id=d,file=a.qcow2 -device ide-hd,drive=d,bus=ide.2
-drive if=none,id=d,file=a.qcow2 -device ide-hd,drive=d,bus=ide.0,unit=2
-drive if=none,id=d,file=a.qcow2 -device '{"driver":"virtio-blk","drive":"d","share-rw":"on"}'
-drive if=none,id=d,file=a.qcow2 -device '{"driver":"virtio-blk","drive":3}'
END
}

@test "-device: disks and places that are taken" {
    alike pc <<'END'
-drive if=none,id=d,file=a.qcow2 -device virtio-blk,drive=d -device virtio-blk,drive=d
-drive if=none,id=d -device virtio-blk,drive=d
-drive if=none,id=d -device ide-hd,drive=d
-drive if=none,id=d,file=a.qcow2,readonly=on -device ide-hd,drive=d
-drive if=none,id=d,file=a.qcow2 -drive if=none,id=e,file=b.qcow2 -device virtio-blk,drive=d,id=v -device virtio-blk,drive=e,id=v
-drive if=none,id=d,file=a.qcow2 -drive if=none,id=e,file=b.qcow2 -device ide-hd,drive=d,bus=ide.0,unit=0 -device ide-hd,drive=e,bus=ide.0,unit=0
-blockdev driver=qcow2,node-name=q,file.driver=file,file.filename=a.qcow2 -device virtio-blk,drive=q -device virtio-blk,drive=q
END
}

@test "-chardev, -mon, -monitor, -qmp" {
    alike none <<'END'
-chardev foo,id=x
-chardev socket
-chardev ''
-chardev id=x
-chardev socket,id=1x,path=y
-chardev socket,id=x,path=nosuch
-chardev socket,id=x,path=nosuch,foo=1
-chardev socket,id=x,path=s1,server=maybe
-chardev socket,id=x,path=s1,server=off,wait=off
-chardev socket,id=x,path=s1,server=on,wait=off -chardev socket,id=x,path=s2,server=on,wait=off
-chardev socket,id=x,host=localhost
-chardev socket,id=x,host=127.0.0.1,port=1
-chardev socket,id=x,path=a,host=b,port=1
-chardev file,id=x
-chardev file,id=x,path=/nonexistent/x
-chardev file,id=x,path=of,append=maybe
-chardev stdio,id=x -chardev stdio,id=y
-mon foo
-mon mode=control
-chardev null,id=x -mon chardev=x,mode=foo
-chardev null,id=x -mon x,foo=1
-chardev null,id=x -mon x -mon x
-chardev null,id=x -mon x,mode=readline,pretty=on
-chardev null,id=x -mon x,mode=control,pretty=maybe
-monitor foo:
-monitor tcp:foo
-monitor tcp::5,foo,server,nowait
-monitor telnet:127.0.0.1:1
-monitor unix:x,server=on,wait=off,telnet=maybe
-monitor chardev:foo
-monitor file:/nonexistent/x
-qmp unix:m
-qmp-pretty foo
-daemonize -monitor stdio
END
}

@test "the rest" {
    alike none <<'END'
-foo
--foo
-drive
-snapshot=1
-name
-name foo,foo=1
-name foo,debug-threads=maybe
-uuid x
-uuid ''
-pidfile
-pidfile /nonexistent/x
-D /nonexistent/x
-msg foo
-msg timestamp=maybe
-msg guest-name=on -name me -drive file=x
-readconfig nosuch.cfg
-readconfig bad.cfg
-readconfig group.cfg
-readconfig lines.cfg
-object foo,id=x
-object iothread
-object iothread,id=1x
-object iothread,id=x,foo=1
-object iothread,id=x -object iothread,id=x
-m x
-m size=512,foo=1
-smp foo
-smp cpus=2,foo=1
-accel foo
-display foo
-vga foo
-serial foo
-parallel foo
-netdev foo
-net foo
-action foo=1
-overcommit foo=1
-watchdog-action foo
-drive if=none,file
-drive if=none,a.qcow2
-snapshot -drive file=nosuch,if=none
-
-sandbox foo
-sandbox on,foo=1
-sandbox on,spawn=foo
-readconfig memory.cfg
-readconfig boot.cfg
-chardev socket,id=c,path=nodir/x,server,nowait
-chardev null,id=c -mon c,foo
END
}

@test "drives of a machine" {
    alike pc <<'END'
-cdrom nosuch
-cdrom a.qcow2 -cdrom b.qcow2
-drive file=a.qcow2,index=0,bus=1
-drive file=a.qcow2,bus=-1
-drive file=a.qcow2,index=-2
-drive file=a.qcow2,unit=2
-drive file=a.qcow2,bus=1,unit=0 -drive file=b.qcow2,bus=1,unit=0
-drive file=a.qcow2,if=virtio,index=3 -drive file=b.qcow2,if=virtio,index=3
-drive file=a.qcow2,if=sd
-drive file=a.qcow2,index=0,bus=0 -drive file=b.qcow2,unit=-1,bus=0 -drive file=x
-drive file=a.qcow2,help
-drive file=a.qcow2,if=ide,readonly=on
-drive if=none,file=a.qcow2,copy-on-read=foo
END
}

@test "the machine that is not here: types, properties, accelerators" {
    alike pc <<'END'
-machine foo
-M PC
-machine type=
-machine pc,foo=1
-M isapc,foo=1
-machine pc-i440fx-7.1,foo=1
-machine q35,usb=maybe
-machine pc,acpi=yes
-machine pc,max-ram-below-4g=x
-machine pc,mem-merge
-machine pc,smp=4
-machine pc,smp.foo=4
-machine accel=foo:bar
-machine accel=
-accel tcg -machine accel=tcg
-accel hax
-accel tcg,foo=1
-accel tcg,thread=foo
-accel kvm,kernel-irqchip=foo
END
}

@test "the machine that is not here: processors, memory, boot, kernel" {
    alike pc <<'END'
-cpu foo
-cpu qemu64-v9
-cpu Skylake-Client-noTSX
-cpu ''
-cpu host
-smp 1000
-smp 4,maxcpus=2
-smp 4,sockets=3
-smp 4,clusters=2
-smp 2,threads=foo
-smp 1,foo
-m 1.5
-m 16E
-m 64,slots=foo
-m 64,slots=2
-m 64,maxmem=32
-m 64M,maxmem=64M,slots=1
-m 64,maxmem=128M,slots=300
-boot x
-boot p
-boot cc
-boot foo=1
-boot menu=maybe
-boot menu.x=on
-boot order.0=c
-machine pc,smm.x=on
-smp cpus.x=1
-boot splash-time=70000
-kernel nosuch
-append x
-initrd x
-fw_cfg name=opt/x
END
    alike none <<'END'
-M none -smp 1,dies=2
-rtc foo=1
-rtc base=foo
-rtc clock=foo
-icount auto,foo=1
-overcommit mem-lock=x
-action panic=foo
-compat foo=1
-global foo
-global driver=x
-audiodev none
-audiodev foo,id=x
-numa foo
-netdev foo,id=n
-debugcon foo
-xen-domid 1
-watchdog foo
END
}

@test "what describes a machine in good order is taken, and named by info ignored" {
    run mg --qemu-compat -S -machine q35,accel=tcg,usb=off,smm=auto -M smbus=on -cpu Haswell-noTSX,+avx,-hle -m 64,maxmem=1G,slots=2 \
        -smp 4,sockets=2,cores=2,maxcpus=4 -boot order=cd,menu=on -rtc base=utc,driftfix=slew -drive if=none -monitor none -c quit
    assert_status 0
    assert_output '(qemu) quit'
    refute_output merganser
    run mg -S -M none -smp 1 -drive if=none -c 'info ignored'
    assert_output '-M none'
    [ "$(mg -machine help)" = "$(qemu-system-x86_64 -machine help)" ]
}
