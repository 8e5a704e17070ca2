#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The README's sessions print what the README says.  `scripts/replay --write README.md` brings them up to date.

load ../lib.bash

@test "the README's sessions are as they really print" {
    run timeout -k 5 120 "$TOP/scripts/replay" "$TOP/README.md"
    assert_status 0
}

@test "a session that prints something else is noticed" {
    sed 's/, speed limit 524288 /, speed limit 524289 /' "$TOP/README.md" >README.md
    run timeout -k 5 120 "$TOP/scripts/replay" README.md
    assert_status 1
    assert_output "-Streaming device virtio0: Completed"
    assert_output "+Streaming device virtio0: Completed"
}

@test "a document without a session is a mistake" {
    echo 'Nothing here.' >README.md
    run timeout -k 5 120 "$TOP/scripts/replay" README.md
    assert_status 1
    assert_output "README.md has no session"
}
