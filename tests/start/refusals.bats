# SPDX-License-Identifier: GPL-2.0-or-later
#
# Disks that cannot be: each wrong option gets the sentence that QEMU 7.2 has for it, exit code 1, and no image is changed.

load ../lib.bash

setup() {
    common_setup
    qemu-img create -q -f qcow2 a.qcow2 1M
    qemu-img create -q -f qcow2 b.qcow2 1M
    qemu-img create -q -f qcow2 -b b.qcow2 -F qcow2 top.qcow2
    truncate -s 1M raw.img
    echo hi >tiny.txt
    : >empty
    mkdir dir
    sha256sum ./*.* >sums
}

# refusals <<LINES: `OPTIONS => TEXT`. Where the text begins with the last option, as it mostly does, that stands there as ...
refusals() {
    local options text words last count=0
    while IFS= read -r line; do
        options=${line%% => *} text=${line#* => }
        read -ra words <<<"$options"
        last=${options##* -}
        [ "$last" = "$options" ] || last=-$last
        run mg -S "${words[@]}"
        [ "$status" = 1 ] || fail "$options: exit code $status: $output" || return 1
        while [[ ${lines[0]} == *": warning: short-form boolean option "* ]]; do lines=("${lines[@]:2}"); done
        [ "${lines[0]}" = "merganser: ${text/#.../$last}" ] || fail "$options: $output" || return 1
        count=$((count + 1))
    done
    [ $count -gt 0 ]
    sha256sum --quiet -c sums
}

@test "files and formats: refused in QEMU's words" {
    refusals <<'END'
-drive file=x => ...: Could not open 'x': No such file or directory
-drive file=x,if=virtio => ...: Could not open 'x': No such file or directory
-drive file=nodir/x,if=none => ...: Could not open 'nodir/x': No such file or directory
-hda x => ...: Could not open 'x': No such file or directory
-hdb x => ...: Could not open 'x': No such file or directory
x => ...: Could not open 'x': No such file or directory
-drive file=dir,if=virtio => ...: 'file' driver requires 'dir' to be a regular file
-drive file=dir,format=qcow2 => ...: 'file' driver requires 'dir' to be a regular file
-drive file=dir,format=raw => ...: 'file' driver requires 'dir' to be a regular file
-hda dir => ...: 'file' driver requires 'dir' to be a regular file
-drive file=raw.img,format=qcow2 => ...: Image is not in qcow2 format
-drive file=tiny.txt,format=qcow2 => ...: Image is not in qcow2 format
-drive file=empty,format=qcow2 => ...: Image is not in qcow2 format
-drive file=a.qcow2,format=foo => ...: Unknown driver 'foo'
-drive file=a.qcow2,format= => ...: Unknown driver ''
-drive file => ...: Could not open 'on': No such file or directory
-drive a.qcow2 => ...: Must specify either driver or file
-drive file=foo:bar => ...: Unknown protocol 'foo'
-drive file=./foo:bar => ...: Could not open './foo:bar': No such file or directory
-drive file=a.qcow2,foo=bar => ...: Block format 'qcow2' does not support the option 'foo'
-drive file=a.qcow2,foo => ...: Block format 'qcow2' does not support the option 'foo'
-drive driver=qcow2,format=qcow2,file=a.qcow2 => ...: Cannot specify both 'driver' and 'format'
-drive file=x,y.img,format=raw => ...: Could not open 'x': No such file or directory
-drive file=no,,such => ...: Could not open 'no,such': No such file or directory
-drive file=no,,such,if=virtio,foo=b,,c => ...: Could not open 'no,such': No such file or directory
foo.img bar.img => foo.img: Could not open 'foo.img': No such file or directory
-drive file=a.qcow2 -drive file=a.qcow2 => ...: Failed to get "write" lock
-drive file=a.qcow2,file.filename=b.qcow2 => ...: Can't specify 'file' and 'filename' options at the same time
-drive file=a.qcow2,format=qcow2,driver=raw => ...: Cannot specify both 'driver' and 'format'
-drive file=a.qcow2,driver=nosuch => ...: Unknown driver 'nosuch'
END
}

@test "values of keys: refused in QEMU's words" {
    refusals <<'END'
-drive file=a.qcow2,if=virtio,cache=foo => ...: invalid cache option
-drive file=a.qcow2,if=virtio,cache= => ...: invalid cache option
-drive file=a.qcow2,if=virtio,cache.direct=foo => ...: Parameter 'cache.direct' expects 'on' or 'off'
-drive file=a.qcow2,if=virtio,aio=foo => ...: invalid aio option
-drive file=a.qcow2,if=virtio,aio=native => ...: aio=native was specified, but it requires cache.direct=on, which was not specified.
-drive file=a.qcow2,if=virtio,werror=foo => ...: 'foo' invalid write error action
-drive file=a.qcow2,if=virtio,rerror=foo => ...: 'foo' invalid read error action
-drive file=a.qcow2,if=virtio,rerror=enospc => ...: 'enospc' invalid read error action
-drive file=a.qcow2,if=virtio,werror=auto => ...: 'auto' invalid write error action
-drive file=a.qcow2,if=virtio,readonly=foo => ...: Parameter 'read-only' expects 'on' or 'off'
-drive file=a.qcow2,if=virtio,media=foo => ...: 'foo' invalid media
-drive file=a.qcow2,snapshot=foo => ...: Parameter 'snapshot' expects 'on' or 'off'
-drive file=a.qcow2,detect-zeroes=foo => ...: invalid parameter value: foo
-drive file=a.qcow2,discard=foo => ...: Invalid discard option
-drive file=a.qcow2,copy-on-read=foo => ...: Parameter 'copy-on-read' expects 'on' or 'off'
-drive file=a.qcow2,if=virtio,read-only=on,readonly=off => ...: 'read-only' and its alias 'readonly' can't be used at the same time
END
}

@test "names: refused in QEMU's words" {
    refusals <<'END'
-drive file=a.qcow2,if=virtio,id=1x => ...: Parameter 'id' expects an identifier
-drive file=a.qcow2,if=virtio,id= => ...: Parameter 'id' expects an identifier
-drive file=a.qcow2,if=virtio,id=a/b => ...: Parameter 'id' expects an identifier
-drive file=a.qcow2,if=virtio,id=x -drive file=b.qcow2,if=virtio,id=x => ...: Duplicate ID 'x' for drive
-drive file=a.qcow2,if=virtio,id=virtio1 -drive file=b.qcow2,if=virtio => ...: Device with id 'virtio1' already exists
-drive file=a.qcow2,if=virtio,node-name=n -drive file=b.qcow2,if=virtio,node-name=n => ...: Duplicate nodes with node-name='n'
-drive file=a.qcow2,if=virtio,node-name=1n => ...: Invalid node-name: '1n'
-drive file=a.qcow2,if=virtio,node-name=#block000 => ...: Invalid node-name: '#block000'
-drive file=a.qcow2,if=virtio,node-name= => ...: Invalid node-name: ''
-drive file=a.qcow2,if=virtio,node-name=abcdefghijklmnopqrstuvwxyz012345 => ...: Node name too long
-drive file=a.qcow2,if=virtio,node-name=x,id=x => ...: Device name 'x' conflicts with an existing node name
-drive file=a.qcow2,if=virtio,node-name=virtio0 => ...: Device name 'virtio0' conflicts with an existing node name
-drive file=a.qcow2,if=virtio,node-name=y -drive file=b.qcow2,if=none,id=y => ...: Device name 'y' conflicts with an existing node name
END
}

@test "places: refused in QEMU's words" {
    refusals <<'END'
-drive if=virtio => ...: Device needs media, but drive is empty
-drive if=none,format=qcow2 => ...: A block device must be specified for "file"
-drive file=a.qcow2,if=foo => ...: unsupported bus type 'foo'
-drive file=a.qcow2,if= => ...: unsupported bus type ''
-drive file=a.qcow2,if=virtio,index=0 -drive file=b.qcow2,if=virtio,index=0 => ...: drive with bus=0, unit=0 (index=0) exists
-drive file=a.qcow2,if=ide,index=0 -drive file=b.qcow2,if=ide,index=0 => ...: drive with bus=0, unit=0 (index=0) exists
-drive file=a.qcow2,if=ide,index=4 => ...: machine type does not support if=ide,bus=2,unit=0
-drive file=a.qcow2,if=ide,index=x => ...: Parameter 'index' expects a number
-drive file=a.qcow2,if=ide,index= => ...: Parameter 'index' expects a number
-drive file=a.qcow2,if=ide,index=1k => ...: Parameter 'index' expects a number
-drive file=a.qcow2,if=ide,bus=0,unit=2 => ...: unit 2 too big (max is 1)
-drive file=a.qcow2,if=ide,bus=2,unit=0 => ...: machine type does not support if=ide,bus=2,unit=0
-drive file=a.qcow2,if=ide,index=0,unit=1 => ...: index cannot be used with bus and unit
-hda a.qcow2 -hda b.qcow2 => ...: drive with bus=0, unit=0 (index=0) exists
-hda a.qcow2 -drive file=b.qcow2,index=0 => ...: drive with bus=0, unit=0 (index=0) exists
-drive file=a.qcow2,if=virtio,serial=abc => ...: Block format 'qcow2' does not support the option 'serial'
-drive file=a.qcow2,if=help => ...: unsupported bus type 'help'
a.qcow2 b.qcow2 => b.qcow2: drive with bus=0, unit=0 (index=0) exists
-drive file=a.qcow2,if=virtio,,x => ...: unsupported bus type 'virtio,x'
END
}

@test "images below: refused in QEMU's words" {
    refusals <<'END'
-drive file=a.qcow2,if=virtio,backing.node-name=bn => ...: Could not open backing file: Must specify either driver or file
-drive file=top.qcow2,if=virtio,backing.foo=1 => ...: Could not open backing file: Block format 'qcow2' does not support the option 'foo'
-drive file=top.qcow2,if=virtio,backing.backing.node-name=bb => ...: Could not open backing file: Could not open backing file: Must specify either driver or file
-drive file=top.qcow2,if=virtio,file.foo=1 => ...: Block protocol 'file' doesn't support the option 'foo'
-drive file=top.qcow2 -drive file=b.qcow2 => ...: Failed to get "write" lock
-drive file=a.qcow2,backing.x.y=1 => ...: Could not open backing file: Must specify either driver or file
-drive file=top.qcow2,backing=nosuch => ...: Could not open backing file: Cannot find device='nosuch' nor node-name='nosuch'
END
}

@test "limits: refused in QEMU's words" {
    refusals <<'END'
-drive file=a.qcow2,bps=x => ...: Parameter 'throttling.bps-total' expects a number
-drive file=a.qcow2,iops_rd=x => ...: Parameter 'throttling.iops-read' expects a number
-drive file=a.qcow2,bps=-1 => ...: bps/iops/max values must be within [0, 1000000000000000]
-drive file=a.qcow2,bps=1000,bps_rd=1000 => ...: bps/iops/max total values and read/write values cannot be used at the same time
-drive file=a.qcow2,bps_max=1000 => ...: bps_max/iops_max require corresponding bps/iops values
-drive file=a.qcow2,bps=10,bps_max=5 => ...: bps_max/iops_max cannot be lower than bps/iops
-drive file=a.qcow2,iops_size=10 => ...: iops size requires an iops value to be set
-drive file=a.qcow2,bps=1,throttling.bps-total=3 => ...: 'throttling.bps-total' and its alias 'bps' can't be used at the same time
-drive file=a.qcow2,bps=10,bps_max=100,throttling.bps-total-max-length=0 => ...: the burst length cannot be 0
END
}

@test "a monitor that cannot be is refused, and the socket of the one before it goes again" {
    run mg -S -drive if=none -monitor unix:first,server=on,wait=off -qmp unix:nodir/second,server=on,wait=off
    assert_status 1
    assert_output "Failed to bind socket to nodir/second: No such file or directory"
    [ ! -e first ]
}

@test "an option that the image is too old for, or a table's piece of less than a sector, is refused" {
    qemu-img create -q -f qcow2 -o compat=0.10 old.qcow2 1M
    run mg -S -drive file=old.qcow2,if=none,format=qcow2,lazy-refcounts=on
    assert_status 1
    assert_output "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level"
    run mg -S -drive file=a.qcow2,if=none,format=qcow2,l2-cache-entry-size=256
    assert_status 1
    assert_output "L2 cache entry size must be a power of two between 512 and the cluster size (65536)"
}
