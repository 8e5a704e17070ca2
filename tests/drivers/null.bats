#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# null-co and null-aio: disks without content.

load ../lib.bash

# asks OPTIONS COMMAND...: a drive with these options.
asks() {
    local options=$1 command commands=()
    shift
    for command; do
        commands+=(-c "-qemu-io d \"$command\"")
    done
    mg --qemu-compat --clock virtual -drive "if=none,id=d,$options" "${commands[@]}" -c 'info block -v'
}

@test "both take everything, and show a size of 1 GiB unless told otherwise" {
    local driver
    for driver in null-co null-aio; do
        asks driver=$driver 'write -P 5 0 64k' 'write -z 0 64k' 'discard 0 64k' 'read 0 64k' flush >out
        ! grep -q failed out
        grep -q "^image: $driver://" out
        grep -q 'virtual size: 1 GiB' out
        asks driver=$driver,size=1M 'write 1M 512' >out
        grep -q 'virtual size: 1 MiB' out
        grep -q 'write failed: Input/output error' out
    done
}

@test "each request takes its latency" {
    mg --clock virtual -guest profile=none -drive if=virtio,driver=null-co,latency-ns=3000000 -c 'info loop' -c 'qemu-io virtio0 "read 0 512"' \
        -c 'qemu-io virtio0 "read 0 512"' >out
    [ "$(grep -c '00.00 sec (166.667 KiB/sec and 333.3333 ops/sec)' out)" = 2 ]
}

@test "null-co:// is a file name, and no other" {
    asks file=null-co://,format=raw 'write 0 64k' >out
    ! grep -q failed out
    ! mg --qemu-compat -drive if=none,id=d,file=null-co://x >out 2>&1
    grep -q "The only allowed filename for this driver is 'null-co://'" out
}

@test "a negative latency is refused" {
    ! mg -drive if=none,id=d,driver=null-co,latency-ns=-1 >out 2>&1
    grep -q 'latency-ns' out
}
