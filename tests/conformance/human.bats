#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The scripts of human/ and qmp/, sent to a real QEMU and to us: tests/conformance/run says how.

load ../lib.bash

@test "every answer of the human monitor and of QMP is QEMU's, or a difference that is kept and still there" {
    command -v qemu-system-x86_64 >/dev/null || skip "no qemu-system-x86_64"
    timeout -k 5 $((MG_TIMEOUT * 4)) "$TOP/tests/conformance/run" >&2 3>&-
}

@test "a difference that nobody keeps fails the run" {
    command -v qemu-system-x86_64 >/dev/null || skip "no qemu-system-x86_64"
    printf '%s\n' 'info version' 'quit now' >same.txt
    timeout -k 5 "$MG_TIMEOUT" "$TOP/tests/conformance/run" same.txt 3>&-
    printf '%s\n' 'info name' >other.txt
    # A QEMU that has a name is another QEMU.
    printf '#!/bin/sh\nexec qemu-system-x86_64 -name other "$@"\n' >named
    chmod +x named
    ! QEMU=$PWD/named timeout -k 5 "$MG_TIMEOUT" "$TOP/tests/conformance/run" other.txt 3>&-
}
