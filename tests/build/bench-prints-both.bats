#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later

load ../lib.bash

@test "the stream benchmark prints merganser and QEMU side by side, and keeps its images for the next time" {
    mkdir scratch
    TMPDIR=$PWD/scratch BENCH_SIZE=64 run timeout -k 5 120 "$TOP/scripts/bench" --runs 1 stream
    assert_status 0
    assert_output "Stream of 64 MiB, medians of 1 runs (QEMU emulator version"
    [[ $output == *$'\nmerganser '*$'\nQEMU  '*$'\ncp  '*$'\nQEMU / ours '* ]]
    assert_clean scratch/merganser-bench/base.img
    [ ! -e scratch/merganser-bench/top.img ]
}

@test "a program that leaves the overlay as it was gets no figures" {
    mkdir scratch
    printf '#!/bin/sh\nexit 0\n' >idle
    chmod +x idle
    TMPDIR=$PWD/scratch BENCH_SIZE=64 MERGANSER=$PWD/idle run timeout -k 5 120 "$TOP/scripts/bench" --runs 1 stream
    assert_status 1
    assert_output "merganser left a backing file"
    refute_output "medians"
}

@test "the opening benchmark prints time and memory for one image and for 64 layers" {
    mkdir scratch
    TMPDIR=$PWD/scratch run timeout -k 5 120 "$TOP/scripts/bench" --runs 1 open
    assert_status 0
    [[ $output == *"layer-1.img"*" ms, "*" MiB"*"layer-64.img"*" ms, "*" MiB"* ]]
}
