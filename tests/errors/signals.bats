#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# A signal ends the program in order.

load ../lib.bash

writer=profile=stamp,rw=write,bs=64k,iodepth=8,rate_iops=0,size=200M

@test "what timeout(1) sends twice is one signal: tables are written" {
    local i n
    for i in 1 2 3 4 5; do
        qemu-img create -q -f qcow2 x.img 256M
        mg_start -drive file=x.img,if=virtio,format=qcow2 -guest $writer
        for ((n = 0; n < 500 && $(stat -c %b x.img) < 2048; n++)); do sleep 0.02; done # a MiB of what the guest writes
        mg_stop
        assert_clean x.img
        [ "$(qemu-img map --output=json x.img | jq '[.[] | select(.data) | .length] | add')" -gt 0 ]
    done
}
