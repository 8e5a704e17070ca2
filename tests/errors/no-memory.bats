#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# A program without memory leaves in order: its sentence, exit code 7, whole images; wherever the memory ends.

load ../lib.bash

@test "whatever the limit, the merge is done or the program says why not, and the images are whole" {
    local limit code bad='' seen=''
    if nm -D "$MERGANSER" | grep -q __asan_init; then
        skip 'the address sanitizer wants all addresses for itself'
    fi
    for limit in 30000 536000 538000 540000 541000 542000 543000 544000 545000 546000 2000000; do
        qemu-img create -q -f qcow2 base.img 8M
        qemu-io -f qcow2 -c 'write -q -P 7 1M 3M' base.img
        qemu-img create -q -f qcow2 -b base.img -F qcow2 top.img
        code=0
        (ulimit -v "$limit"; exec timeout -k 2 20 "$MERGANSER" -drive file=top.img,if=virtio,format=qcow2 -guest profile=none \
            -c 'block_stream virtio0' -c 'wait virtio0' -c quit) >out 2>err || code=$?
        seen+=" $code"
        case $code in
            0) ;;
            7) grep -q '^merganser: out of memory ([0-9]* more bytes wanted), leaving as if killed$' err || bad+=" $limit" ;;
            *) bad+=" $limit:$code" ;;
        esac
        qemu-img check -q top.img || [ $? -eq 3 ]
        qemu-io -f qcow2 -c 'read -q -P 7 1M 3M' top.img
    done
    echo "codes:$seen; bad:$bad"
    cat err
    [ -z "$bad" ]
    [[ $seen == *7* && $seen == *0 ]]
}
