#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# info chain draws what is there.

load ../lib.bash

quiet() {
    mg -guest profile=none "$@"
}

@test "a chain is drawn in the documents' notation" {
    make_chain file-A.img file-B.img file-C.img
    run quiet -drive "$(chain_drive A B C)" -c 'info chain virtio0'
    assert_status 0
    assert_output "  [A] <- [B] <- [C]"
    [[ $output =~ A\ +node-A\ +file-A.img\ +qcow2\ +64\ MiB ]]
    [[ $output =~ C\ +node-C\ +file-C.img\ +qcow2\ +64\ MiB.*guest ]]
}

@test "what an image holds, and what is seen of it" {
    qemu-img create -q -f qcow2 base.img 16M
    qemu-io -f qcow2 -c 'write -q 0 4M' base.img >/dev/null
    qemu-img create -q -f qcow2 -b base.img -F qcow2 top.img
    qemu-io -f qcow2 -c 'write -q 0 1M' top.img >/dev/null
    run quiet -drive file=top.img,if=virtio,format=qcow2 -c 'info chain -json'
    assert_status 0
    [ "$(grep -v '^(qemu)' <<<"$output" | jq -c '[.[0].layers[] | [.name, .holds, .seen]]')" = \
        '[["base",4194304,3145728],["top",1048576,1048576]]' ]
}

@test "an arrow stands over the pair that a job copies between" {
    make_chain file-A.img file-B.img file-C.img file-D.img file-E.img
    run quiet -drive "$(chain_drive A B C D E)" -c 'block_stream node-D 64k file-B.img' -c 'info chain virtio0' \
        -c 'block_job_cancel node-D'
    assert_status 0
    [[ $output =~ $'\n                 ,'-+\ *.*v' '*stream.*$'\n  [A] <- [B] <- [C] <- [D] <- [E]' ]] || \
        [[ $output =~ $'\n                 ,'[-a-z0-9\ %]+v ]] || fail "$output"
    assert_output "job node-D"
}

@test "names that are not unique grow until they are" {
    mkdir a b
    qemu-img create -q -f qcow2 a/disk.img 1M
    qemu-img create -q -f qcow2 -b "$PWD/a/disk.img" -F qcow2 b/disk.img
    run quiet -drive file=b/disk.img,if=virtio,format=qcow2 -c 'info chain' -c 'expect chain virtio0 = a/disk.img <- b/disk.img'
    assert_output "/a/disk.img] <- [b/disk.img]"
}

@test "an unknown disk is named, and what there is" {
    make_chain file-A.img
    run quiet -drive "$(chain_drive A)" -c 'info chain nosuch'
    assert_status 3
    assert_output "Error: Cannot find device='nosuch' nor node-name='nosuch'"
    assert_output "The devices are: virtio0."
}

@test "every info command has -json" {
    make_chain file-A.img file-B.img
    local topic
    for topic in version status name uuid block 'block -n' 'block -v virtio0' blockstats block-jobs 'block-jobs -v' chain guest history; do
        mg -guest profile=none -drive "$(chain_drive A B)" -c "info $topic -json" >out
        tail -n +2 out | jq -e . >/dev/null || fail "info $topic -json: $(cat out)"
    done
    [ "$(mg -guest profile=none -drive "$(chain_drive A B)" -c 'info block -json' | tail -n +2 | jq -r '.[0].inserted.file')" = file-B.img ]
}

@test "info snapshots fails where no disk could hold the state of a machine" {
    truncate -s 1M raw.img
    run mg -S -drive file=raw.img,if=none,id=d,format=raw -c '!info snapshots'
    assert_status 0
    assert_output "no block device can store vmstate for snapshot"
}

@test "a chain of forty layers nests in JSON as deep as it is" {
    qemu-img create -q -f qcow2 0.img 1M
    local i
    for i in {1..39}; do qemu-img create -q -u -f qcow2 -b $((i - 1)).img -F qcow2 $i.img 1M; done
    mg -S -drive file=39.img,if=none,id=d,format=qcow2 -c 'info block -v d -json' >out
    [ "$(tail -n +2 out | jq '[.. | objects | select(has("full-backing-filename"))] | length')" = 39 ] || fail "$(head -c 300 out)"
}

@test "a name that is not UTF-8 is shown, and is well-formed in JSON" {
    local name=$'b\xe9\xff'
    qemu-img create -q -f qcow2 "$name.img" 1M
    run quiet -drive "file=$name.img,if=virtio,format=qcow2" -c 'info chain'
    assert_output '  [b\xe9\xff]'
    quiet -drive "file=$name.img,if=virtio,format=qcow2" -c 'info block -json' | tail -n +2 >json
    [ "$(jq -r '.[0].inserted.file' json)" = $'b\xef\xbf\xbd\xef\xbf\xbd.img' ] || fail "$(cat json)"
}

@test "an empty drive, a disk that no guest has, and one that it may only read have no writers" {
    make_chain file-A.img file-B.img
    run quiet -drive if=none,id=empty -drive file=file-B.img,if=none,id=d,format=qcow2 \
        -drive if=virtio,id=n,driver=null-co,size=1M -c 'info chain empty' -c 'info chain d' -c 'info chain'
    assert_status 0
    [ "$(grep -c '^empty: no medium$' <<<"$output")" = 2 ] || fail "$output"
    [ "$(grep -Ec '^  B +#block[0-9]+ +file-B.img +qcow2 +64 MiB .* -$' <<<"$output")" = 2 ] || fail "$output"
    [ "$(grep -Ec '^  null-co:// .* null-co +1 MiB +1 MiB +1 MiB +guest$' <<<"$output")" = 1 ] || fail "$output"
    run quiet -drive file=file-A.img,if=virtio,format=qcow2,readonly=on -c 'info chain'
    grep -Eq '^  A .* -$' <<<"$output" || fail "$output"
}

@test "a chain is found by a node's name, too" {
    make_chain file-A.img file-B.img
    run quiet -drive "$(chain_drive A B)" -c 'info chain node-A'
    assert_status 0
    assert_output 'node-A: 64 MiB'
    assert_output '  [A]'
}

@test "what cannot be read is not counted" {
    make_chain file-A.img
    printf '[inject-error]\nevent = "l2_load"\nerrno = "5"\n' >rules
    run quiet -drive driver=qcow2,file.driver=blkdebug,file.image.filename=file-A.img,file.config=rules,if=virtio -c 'info chain'
    grep -Eq '^  A .* 64 MiB +0 B ' <<<"$output" || fail "$output"
}

@test "a job that stands still says so on its arrow; one between whose ends nothing lies has none" {
    make_chain a-file-with-a-long-name.img another-file-with-a-long-name.img top.img
    mg_start -guest profile=none -drive file=top.img,if=virtio,format=qcow2,node-name=top
    hmp 'block_stream virtio0 64k' 'block_job_pause virtio0'
    for _ in {1..100}; do hmp 'info chain virtio0' | grep -q paused && break; sleep 0.05; done # it is only asked to
    run hmp 'info chain virtio0'
    grep -Eq '^ +,-+ stream [0-9]+%, paused -+v$' <<<"$output" || fail "$output"
    grep -Eq ' guest, job virtio0$' <<<"$output" || fail "$output"
    hmp 'block_job_cancel -f virtio0'
    for _ in {1..100}; do hmp 'info block-jobs' | grep -q 'No active' && break; sleep 0.05; done
    run qmp '{"execute":"block-stream","arguments":{"job-id":"j","device":"virtio0","base":"another-file-with-a-long-name.img","auto-finalize":false}}' \
        @JOB_STATUS_CHANGE '{"execute":"query-jobs"}'
    run hmp 'info chain virtio0'
    refute_output stream
    assert_output "job j"
}

@test "a job on a disk of no length has done none of it" {
    qemu-img create -q -f qcow2 a.img 0
    qemu-img create -q -f qcow2 -b a.img -F qcow2 b.img 0
    run mg -S -drive file=b.img,if=none,id=d,format=qcow2 -c 'block_stream d 64k' -c 'info chain'
    assert_status 0
    grep -Eq '^ +,-+v stream 0%' <<<"$output" || fail "$output"
}

@test "a job on another disk's chain is not drawn" {
    make_chain file-A.img file-B.img
    qemu-img create -q -f qcow2 -b file-A.img -F qcow2 other.img
    run quiet -drive "$(chain_drive A B)" -drive file=other.img,if=virtio,format=qcow2 -c 'block_stream virtio1 4k' \
        -c 'info chain virtio0' -c 'block_job_cancel -f virtio1'
    assert_status 0
    [ "$(grep -c stream <<<"$output")" = 1 ] || fail "$output" # the command
}
