#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Every count, offset, size, shift and divisor of an image at its extremes, and every length of a cut file, with the real
# qemu-img as the judge. The rows are in hostile.py.

load ../lib.bash

judged() {
    timeout -k 2 $((2 * MG_TIMEOUT)) python3 "$TOP/tests/qcow2/hostile.py" "$BUILD_DIR/merganser-img" "$1" || fail "not as qemu-img"
}

@test "hostile images of version 2" { judged 2; }
@test "hostile images of version 3" { judged 3; }
