# SPDX-License-Identifier: GPL-2.0-or-later
#
# The same requests sent to the same image through merganser and through the real qemu-io; what they answer is compared,
# but for times.
# shellcheck shell=bash disable=SC2154

# images: base, with 1s in its first MiB, and ov above it, with 2s in its first 128 KiB.
images() {
    qemu-img create -q -f qcow2 base 4M
    qemu-io -c 'write -q -P 1 0 1M' base >/dev/null
    qemu-img create -q -f qcow2 -b base -F qcow2 ov
    qemu-io -c 'write -q -P 2 0 128k' ov >/dev/null
    cp ov ov.before
}

# answers: what qemu-io said, without times and without what only the tool around it says.
answers() {
    sed -e '/ ops; /d' -e '/^(qemu)/d' -e '/^qcow2_free_clusters/d' -e '/^qemu-io: Failed to flush/d'
}

# ours OPTIONS COMMAND...: through a drive with these options, on a copy of the images.
ours() {
    local drive=$1 command commands=()
    shift
    for command; do
        commands+=(-c "-qemu-io d \"$command\"")
    done
    cp ov.before ov
    mg --qemu-compat -drive "if=none,id=d,discard=unmap,$drive" "${commands[@]}" 2>errors | answers >ours
    [ "$(head -c 3 ov)" != QFI ] || qemu-img check -q ov
}

# real OPTIONS COMMAND...: through qemu-io --image-opts.
real() {
    local options=$1 command commands=()
    shift
    for command; do
        commands+=(-c "$command")
    done
    cp ov.before ov
    timeout -k 5 20 qemu-io --image-opts "${commands[@]}" "$options" 2>&1 | answers >real
}

# alike OPTIONS COMMAND...: both answer the same.
alike() {
    ours "$@"
    real "$@"
    [ -s real ] || fail "the real one said nothing"
    diff real ours
}
