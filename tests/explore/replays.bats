#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later

load ../lib.bash

sim() {
    timeout -k 2 60 "$MERGANSER" --sim "$@"
}

@test "a plan is explored, with counts and a hash at the end" {
    run sim plan=two/4k-v3/write-part+stream
    assert_status 0
    assert_output " moments, "
    assert_output " distinct states, "
    [[ ${lines[-2]} =~ ^hash=[0-9a-f]{16}$ ]]
    [ "${lines[-1]}" = "0 bad" ]
}

@test "a bad state is printed as one line that replays it, with as few operations as show it" {
    run sim plan='two/4k-v3/write-part~3&flush+damage~5'
    assert_status 6
    [ "${lines[-1]}" != "0 bad" ]
    # The last one printed is the one with the fewest operations.
    line=$(printf '%s\n' "${lines[@]}" | grep -- 'merganser --sim .* cut=' | tail -1)
    [[ $line == *" 'plan=two/4k-v3/damage' "* ]]
    # Pasted as it stands.
    PATH=$(dirname "$MERGANSER"):$PATH run timeout -k 2 60 bash -c "$line"
    assert_status 6
    assert_output "rule 10: /B.img: L1 entry 0 has reserved bits"
    [ "${lines[-1]}" = bad ]
}

@test "a cluster that leaks and was not on its way is found" {
    run sim plan=two/4k-v3/leak
    assert_status 6
    assert_output "rule 2: "
    assert_output " clusters leaked, 0 were on their way"
}

@test "an image that nobody may write to and that changes is found, one that the run has made, too" {
    run sim plan=two/4k-v3/stray
    assert_status 6
    assert_output "rule 14: /A.img has been written to"
    run sim plan=two/4k-v3/snapshot+snapshot-node+stray
    assert_status 6
    assert_output "rule 14: /S0.img has been written to"
}

@test "after lies an image that was marked corrupt stays marked, and is not opened for writing" {
    run sim plan=lies~1:one/4k-v3/mark
    assert_status 0
    [ "${lines[-1]}" = "0 bad" ]
    run sim plan=lies~1:one/4k-v3/mark+unmark
    assert_status 6
    assert_output "rule 9: /A.img: the corrupt bit is gone"
}

@test "a request that is never answered ends the program, which says where" {
    run sim plan=two/4k-v3/write-part+hang
    assert_status 134
    assert_output "rule 18: after 300 s something still has no answer"
    assert_output "ended by a signal in merganser --sim seed=1 'plan=two/4k-v3/write-part+hang'"
}

@test "a job that stands still after the disk has lied is helped by the operator, after a restart, too" {
    run sim plan='small:lies~9:four/512-v2/stream-mid+stream-base' go-on=1 points=30
    assert_status 0
    [ "${lines[-1]}" = "0 bad" ]
}

@test "a disk that lies about a sector may cost that sector, and nothing else" {
    for n in 1 2 3 4 5 6; do
        run sim "plan=lies~$n:two/4k-v3/read~3&write-part~7+read~9+read~21" go-on=64
        assert_status 0
        [ "${lines[-1]}" = "0 bad" ]
    done
}

@test "a good state replays as good" {
    run sim seed=1 plan=two/4k-v3/write-part cut=0 keep=power:
    assert_status 0
    [ "${lines[-1]}" = good ]
}

@test "random work, some of it with faults, is counted, and comes out the same twice" {
    run sim swarm=8 points=10 seed=3
    assert_status 0
    first=$output
    run sim swarm=8 points=10 seed=3
    assert_status 0
    [ "$(grep ^hash= <<<"$first")" = "$(grep ^hash= <<<"$output")" ]
    run sim swarm=8 points=10 seed=4
    [ "$(grep ^hash= <<<"$first")" != "$(grep ^hash= <<<"$output")" ]
}

@test "states are written for others, who find in them what the chain is said to hold" {
    mkdir states
    run sim plan=two/4k-v3/stream go-on=1000000 states=states judge-every=1
    assert_status 0
    n=$(find states -name '*.line' | wc -l)
    assert_output " $n second opinions"
    [ "$n" -gt 5 ]
    mkdir one
    for file in states/3.*; do
        mv "$file" "one/${file#states/3.}"
    done
    cd one
    read -r format image line <line
    qemu-img compare -f "$format" -F raw "$image" content
    [[ $line == *" 'plan=two/4k-v3/stream' "* ]]
}

@test "what is no word for --sim is refused in one sentence" {
    for words in 'foo=1' 'all' 'all=two' 'plan=two/4k-v3/fly' 'plan=nine/4k-v3/flush' 'seed=1' 'cut=3' \
        'plan=four/4k-v3/stream cut=3' 'plan=one/4k-v3/stream' ''; do
        read -ra list <<<"$words"
        code=0
        said=$(sim "${list[@]}" 2>errors) || code=$?
        [ "$code" = 1 ] || fail "$words: exit code $code"
        [ "$(wc -l <errors)" = 1 ] || fail "$words: $(cat errors)"
        [[ $(cat errors) == "merganser: --sim: "* ]] || fail "$words: $(cat errors)"
        [ -z "$said" ] || fail "$words: $said"
    done
}

@test "--sim help names chains, formats and operations" {
    run sim help
    assert_status 0
    assert_output "snapshot-existing"
    assert_output "64k-ext"
    assert_output "raw-top"
    run timeout -k 2 10 "$MERGANSER" -S --sim help
    assert_status 2
}
