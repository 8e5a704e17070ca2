#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Commands that are known traps: a warning, a refusal under --safe, nothing under --qemu-compat.

load ../lib.bash

quiet() {
    mg -guest profile=none "$@"
}

# All is open when somebody is answered; the sockets are there before.
started() {
    mg_start -guest profile=none "$@"
    hmp 'info status'
}

# The old root goes away on the host while it is in use: what a snapshot records then leads nowhere.
moved_root() {
    started "$@" -drive file=file-A.img,if=virtio,format=qcow2
    mv file-A.img elsewhere.img
}

@test "an overlay whose recorded backing file is not there is warned of, and made" {
    make_chain file-A.img
    moved_root
    run hmp 'snapshot_blkdev virtio0 new.img'
    assert_output "Warning: the backing file of 'new.img' is recorded as 'file-A.img', which is looked for at 'file-A.img', and nothing is there"
    [ -e new.img ]
}

@test "--safe refuses it, and nothing is made" {
    make_chain file-A.img
    moved_root --safe
    run hmp 'snapshot_blkdev virtio0 new.img'
    assert_output "Error: Refused by --safe: the backing file of 'new.img' is recorded as 'file-A.img'"
    [ ! -e new.img ]
    run qmp '{"execute":"blockdev-snapshot-sync","arguments":{"device":"virtio0","snapshot-file":"new.img"}}'
    assert_output "Refused by --safe: the backing file of 'new.img'"
    [ ! -e new.img ]
}

@test "--qemu-compat says nothing of it" {
    make_chain file-A.img
    moved_root --qemu-compat
    run hmp 'snapshot_blkdev virtio0 new.img'
    [[ $output != *"is recorded"* ]]
    [ -e new.img ]
}

@test "QMP's answer has no room for a warning: it goes to standard error" {
    make_chain file-A.img
    moved_root
    qmp '{"execute":"blockdev-snapshot-sync","arguments":{"device":"virtio0","snapshot-file":"new.img"}}'
    grep "warning: the backing file of 'new.img' is recorded as 'file-A.img'" mg.out
}

@test "an image that is taken as it is (-n) and records another file, or none, is warned of" {
    make_chain file-A.img
    cp file-A.img other.img
    mkdir sub
    qemu-img create -q -f qcow2 -b other.img -F qcow2 wrong.img 8M
    qemu-img create -q -f qcow2 -u -b file-A.img -F qcow2 sub/lost.img 8M
    qemu-img create -q -f qcow2 none.img 8M
    qemu-img create -q -f qcow2 -b file-A.img -F qcow2 right.img 8M
    run quiet -drive file=file-A.img,if=virtio,format=qcow2 -c 'snapshot_blkdev -n virtio0 wrong.img'
    assert_output "Warning: the backing file of 'wrong.img' is recorded as 'other.img', which is looked for at 'other.img', and that is another file than 'file-A.img'"
    run quiet -drive file=file-A.img,if=virtio,format=qcow2 -c 'snapshot_blkdev -n virtio0 sub/lost.img'
    assert_output "Warning: the backing file of 'sub/lost.img' is recorded as 'file-A.img', which is looked for at 'sub/file-A.img', and nothing is there"
    run quiet -drive file=file-A.img,if=virtio,format=qcow2 -c 'snapshot_blkdev -n virtio0 none.img'
    assert_output "Warning: 'none.img' records no backing file, and so will be without 'file-A.img' at the next start"
    run quiet -drive file=file-A.img,if=virtio,format=qcow2 -c 'snapshot_blkdev -n virtio0 right.img'
    [[ $output != *Warning* ]]
}

@test "a stream that would record a name which leads nowhere is warned of" {
    make_chain file-A.img file-B.img file-C.img
    mg_start -guest profile=none -drive "$(chain_drive A B C)"
    run qmp '{"execute":"block-stream","arguments":{"device":"virtio0","base-node":"node-A","backing-file":"nosuch.img"}}'
    assert_output '{"return": {}}'
    grep "warning: the backing file of 'file-C.img' is recorded as 'nosuch.img', which is looked for at 'nosuch.img', and nothing is there" mg.out
}

@test "so is one whose base has been moved, and --safe does not let it begin" {
    make_chain file-A.img file-B.img file-C.img
    started --safe -drive "$(chain_drive A B C)"
    mv file-A.img elsewhere.img
    run hmp 'block_stream virtio0 0 A' 'info block-jobs'
    assert_output "Error: Refused by --safe: the backing file of 'file-C.img' is recorded as 'file-A.img'"
    assert_output "No active jobs"
}

@test "a stream in a chain that is as it should be says nothing" {
    make_chain file-A.img file-B.img file-C.img
    run quiet --safe -drive "$(chain_drive A B C)" -c 'block_stream virtio0 A' -c 'wait' -c 'expect chain virtio0 = A <- C'
    assert_status 0
    [[ $output != *Warning* ]]
}

@test "--safe and --qemu-compat do not go together" {
    run mg --safe --qemu-compat
    assert_status 2
    assert_output "--safe and --qemu-compat: QEMU refuses nothing of what --safe refuses"
}

@test "a file that is not empty is no place for a new image, until one says so" {
    make_chain file-A.img
    echo precious >letter.txt
    run quiet -drive file=file-A.img,if=virtio,format=qcow2 -c 'snapshot_blkdev virtio0 letter.txt'
    assert_status 3
    assert_output "Error: 'letter.txt' is not empty"
    [ "$(cat letter.txt)" = precious ]
}

@test "a smaller size that cuts off data is warned of, and refused under --safe; what is empty may go" {
    qemu-img create -q -f qcow2 disk.img 8M
    qemu-io -f qcow2 -c 'write -q -P 7 5M 64k' disk.img
    run quiet -S --safe -drive file=disk.img,if=virtio,format=qcow2 --on-error=continue -c 'block_resize virtio0 6M' \
        -c 'block_resize virtio0 4M' -c 'info block virtio0 -v'
    assert_output "Error: Refused by --safe: making 'virtio0' smaller, from 6 MiB to 4 MiB, cuts off data: there is some at 5 MiB"
    [ "$(grep -c 'Refused' <<<"$output")" = 1 ]
    [ "$(qemu-img info --output=json disk.img | jq '."virtual-size"')" = $((6 << 20)) ]
    run quiet -S -drive file=disk.img,if=virtio,format=qcow2 -c 'block_resize virtio0 4M'
    assert_output "Warning: making 'virtio0' smaller, from 6 MiB to 4 MiB, cuts off data: there is some at 5 MiB"
    [ "$(qemu-img info --output=json disk.img | jq '."virtual-size"')" = $((4 << 20)) ]
}

# change NAME [NODE]: the recorded name of node-B's (NODE's) backing file, by QMP.
change() {
    qmp "{\"execute\":\"change-backing-file\",\"arguments\":{\"device\":\"virtio0\",\"image-node-name\":\"${2-node-B}\",\"backing-file\":\"$1\"}}"
}

@test "a name that is changed to one that leads nowhere, or elsewhere, is warned of" {
    make_chain file-A.img file-B.img
    cp file-A.img other.img
    mkdir dir
    mg_start -guest profile=none -drive "$(chain_drive A B)"
    change nosuch.img
    grep -q "warning: the backing file of 'file-B.img' is recorded as 'nosuch.img', which is looked for at 'nosuch.img', and nothing is there" mg.out
    change file-A.img/x
    grep -q "recorded as 'file-A.img/x', .*, and nothing is there" mg.out
    change other.img
    grep -q "recorded as 'other.img', .*, and that is another file than 'file-A.img'" mg.out
}

@test "of a name that is no path or cannot be looked at nothing is said, nor of what the command refuses itself" {
    make_chain file-A.img file-B.img
    mkdir dir
    mg_start -guest profile=none -drive "$(chain_drive A B)"
    run change nbd://localhost/x
    assert_output '{"return": {}}'
    change dir
    change file-A.img
    run change x nosuch
    assert_output "Cannot find device='' nor node-name='nosuch'"
    run change x node-A
    assert_output "not allowing backing file change on an image without a backing file"
    run hmp 'snapshot_blkdev -n virtio0 nosuch.img' 'snapshot_blkdev nosuch x.img' 'snapshot_blkdev virtio0' 'block_stream nosuch 0 x'
    [[ $output != *Warning* ]] || fail "$output"
    ! grep warning mg.out
}

@test "a raw image records nothing, so nothing is missing in it" {
    make_chain file-A.img
    qemu-img create -q -f raw raw.img 64M
    run quiet -drive file=file-A.img,if=virtio,format=qcow2 -c 'snapshot_blkdev -n virtio0 raw.img raw'
    [[ $output != *Warning* ]] || fail "$output"
}

@test "a disk without a file is another one than any file that an image records" {
    make_chain file-A.img
    qemu-img create -q -f qcow2 -b file-A.img -F qcow2 top.img
    run quiet -drive driver=null-co,size=64M,if=virtio -c 'snapshot_blkdev -n virtio0 top.img'
    assert_output "and that is another file than 'null-co://'"
}

@test "a stream's base is looked at however it is named, where the stream will find it" {
    make_chain file-A.img file-B.img file-C.img file-D.img
    qemu-img create -q -f qcow2 other.img 1M
    started --safe -drive "$(chain_drive A B C D)" -blockdev qcow2,node-name=other,file.driver=file,file.filename=other.img
    mv file-B.img elsewhere.img
    stream() {
        qmp "{\"execute\":\"block-stream\",\"arguments\":{\"job-id\":\"j\",\"device\":\"virtio0\",$1}}"
    }
    local base
    for base in '"base":"file-B.img"' '"base-node":"node-B"' '"bottom":"node-C"'; do
        run stream "$base"
        assert_output "Refused by --safe: the backing file of 'file-D.img' is recorded as 'file-B.img'"
    done
    for base in '"base-node":"other"' '"base-node":"node-D"' '"base":"nosuch"' '"bottom":"nosuch"'; do
        run stream "$base"
        [[ $output == *error* && $output != *--safe* ]] || fail "$output"
    done
    run stream '"base-node":"node-C","speed":1' # nothing changes in what node-D records
    assert_output '"return"'
}

@test "what is written as zeroes is no data, what cannot be read is not known to be any" {
    qemu-img create -q -f qcow2 disk.img 8M
    qemu-io -f qcow2 -c 'write -q -P 0 3M 3M' disk.img
    run quiet -S --safe -drive file=disk.img,if=virtio,format=qcow2,node-name=top -c 'block_resize virtio0 4M'
    assert_status 0
    qemu-io -f qcow2 -c 'write -q -P 9 3M 64k' -c 'write -q -P 0 3M 1k' disk.img
    run quiet -S --safe -drive file=disk.img,if=virtio,format=qcow2,node-name=top -c 'block_resize virtio0 2M'
    assert_output "cuts off data: there is some at 3 MiB"
    printf '[inject-error]\nevent = "%s"\nerrno = "5"\n' read_aio >rules
    run quiet -S --safe -drive driver=qcow2,file.driver=blkdebug,file.image.filename=disk.img,file.config=rules,if=virtio -c 'block_resize virtio0 3M'
    [[ $output != *"cuts off"* ]] || fail "$output"
    sed -i s/read_aio/l2_load/ rules
    run quiet -S --safe -drive driver=qcow2,file.driver=blkdebug,file.image.filename=disk.img,file.config=rules,if=virtio -c 'block_resize virtio0 2M'
    [[ $output != *"cuts off"* ]] || fail "$output"
    mg_start -S --safe -guest profile=none -drive file=disk.img,if=virtio,format=qcow2,node-name=top
    run qmp '{"execute":"block_resize","arguments":{"node-name":"top","size":1048576}}'
    [[ $output == *"Refused by --safe"* ]] || fail "$output"
    run qmp '{"execute":"block_resize","arguments":{"node-name":"top","size":-1}}'
    assert_output "Parameter 'size' expects a >0 size"
    run qmp '{"execute":"block_resize","arguments":{"node-name":"nosuch","size":1}}' '{"execute":"block_resize","arguments":{"size":1}}'
    assert_output "Cannot find device='' nor node-name='nosuch'"
}

# The disk of `started` gets an overlay that is there, by QMP.
existing() {
    qmp "{\"execute\":\"blockdev-snapshot-sync\",\"arguments\":{\"device\":\"virtio0\",\"snapshot-file\":\"none.img\",\"mode\":\"$1\"}}"
}

@test "QMP's mode says, too, that an image is taken as it is" {
    make_chain file-A.img
    qemu-img create -q -f qcow2 none.img 64M
    started -drive file=file-A.img,if=virtio,format=qcow2
    existing existing
    grep -q "warning: 'none.img' records no backing file" mg.out
}

@test "QMP's mode for a new image is looked at like none at all" {
    make_chain file-A.img
    moved_root --safe
    run existing absolute-paths
    assert_output "Refused by --safe: the backing file of 'none.img' is recorded as 'file-A.img'"
}

@test "an empty name, which stands for no backing file, leads nowhere on purpose" {
    make_chain file-A.img file-B.img
    started --safe -drive "$(chain_drive A B)"
    run change ''
    refute_output "Refused"
}

@test "a larger size cuts off nothing, nor does a smaller one where zeroes are written" {
    qemu-img create -q -f qcow2 disk.img 8M
    qemu-io -f qcow2 -c 'write -q -z 5M 64k' disk.img
    run quiet -S --safe -drive file=disk.img,if=virtio,format=qcow2 -c 'block_resize virtio0 16M' -c 'block_resize virtio0 4M'
    assert_status 0
    [ "$(virtual_size disk.img)" = $((4 << 20)) ]
}

# A disk over file-A.img that its image knows nothing of, or that it knows by another name.
over='file=over.img,if=virtio,format=qcow2,backing.driver=qcow2,backing.file.driver=file,backing.file.filename=file-A.img'
commit_case() { # [args]
    run quiet -S -drive "$over" "$@"
}

@test "a commit that would leave an image empty without its backing file at the next start is warned of, and refused under --safe" {
    make_chain file-A.img
    qemu-img create -q -f qcow2 over.img 64M
    qemu-io -f qcow2 -c 'write -q -P 7 1M 64k' over.img
    cp over.img before.img
    qemu-img create -q -f qcow2 second.img 64M
    for what in virtio0 all; do
        commit_case -drive "${over/over/second}" --safe -c "commit $what"
        assert_output "Error: Refused by --safe: 'over.img' records no backing file: emptied, it reads as zeroes when it is opened without 'file-A.img'"
        qemu-img compare -q over.img before.img
    done
    commit_case -c 'commit virtio0'
    assert_output "Warning: 'over.img' records no backing file: emptied, it reads as zeroes when it is opened without 'file-A.img'"
    run qemu-io -f qcow2 -c 'read -P 7 1M 64k' file-A.img
    [[ $output != *failed* ]] || fail "$output"
}

@test "so is one into another file than the image records" {
    make_chain file-A.img
    cp file-A.img other.img
    qemu-img create -q -f qcow2 -b other.img -F qcow2 over.img
    commit_case --safe -c 'commit virtio0'
    assert_output "Error: Refused by --safe: what is in 'over.img' leaves it, but the backing file of 'over.img' is recorded as 'other.img', which is looked for at 'other.img', and that is another file than 'file-A.img'"
}

@test "a commit is not warned of where the next start finds everything, nor where there is none" {
    make_chain file-A.img file-B.img
    run quiet --safe -S -drive "$(chain_drive A B)" -c 'commit virtio0' -c 'commit all'
    assert_status 0
    run quiet --safe -S -drive file=file-A.img,if=virtio,format=qcow2,snapshot=on -c 'commit virtio0'
    assert_status 0
    run quiet --safe -S -drive file=file-A.img,if=virtio,format=qcow2 -drive if=ide,media=cdrom -c 'commit all' -c 'commit virtio0' \
        -c 'commit nosuch' # and one without a medium
    refute_output Refused
    qemu-img create -q -f qcow2 over.img 64M
    run quiet --safe -S -drive "$over,readonly=on" -c 'commit virtio0'
    assert_output "Block node is read-only"
    refute_output Refused
}
