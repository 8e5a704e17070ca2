#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Random scripts of an operator, each with its seed: see random-script beside this file.

load ../lib.bash

play() {
    run "$TOP/tests/life/random-script" "$@"
    assert_status 0
}

@test "random script 1 ends well on the virtual clock" { play 1; }
@test "random script 2 ends well on the virtual clock" { play 2; }
@test "random script 3 ends well on the virtual clock" { play 3; }
@test "random script 4 ends well on the virtual clock" { play 4; }
@test "random script 5 ends well on the virtual clock" { play 5; }
@test "random script 6 ends well on the virtual clock" { play 6; }
@test "random script 177 ends well on the virtual clock" { play 177; }
@test "random script 191 ends well on the virtual clock" { play 191; }
@test "random script 308 ends well on the virtual clock" { play 308; }
@test "random script 11 ends well on the real clock" { play 11 real; }
