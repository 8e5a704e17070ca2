#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later

load ../lib.bash

# A machine of our own making: every package is there but jq, and apt-get, sudo and id do as the test says.
setup() {
    common_setup
    mkdir bin
    for tool in bash sh cat grep tail rm touch mktemp env gcc make; do
        ln -s "$(command -v $tool)" bin/$tool
    done
    command_says dpkg-query 'case $3 in jq) [ -f installed ] && echo installed || exit 1 ;; *) echo installed ;; esac'
    command_says apt-get 'echo "apt-get $*" >>log; case $1 in install) touch installed ;; esac'
    command_says sudo 'echo "sudo $*" >>log; [ "$1" != -n ] || shift; exec "$@"'
    root 0
}

command_says() {
    printf '#!/bin/sh\n%s\n' "$2" >bin/$1
    chmod +x bin/$1
}

root() {
    command_says id "echo $1"
}

packages() {
    PATH=$PWD/bin run "$TOP/scripts/packages" "$@"
}

@test "nothing is said and nothing is done when nothing is missing" {
    packages demo
    assert_status 0
    [ -z "$output" ] && [ ! -e log ]
}

@test "root installs what is missing, and says what" {
    packages check
    assert_status 0
    [ "$output" = "Installing: jq" ]
    grep -qx 'apt-get update' log
    grep -qx 'apt-get install -y --no-install-recommends jq' log
    refute_output sudo
}

@test "somebody else does it through sudo" {
    root 1000
    packages check
    assert_status 0
    [ "$output" = "Installing: jq" ]
    grep -q '^sudo .*apt-get install -y --no-install-recommends jq' log
}

@test "without root and sudo the one command to run is printed" {
    root 1000
    rm bin/sudo
    packages check
    assert_status 1
    assert_output "    su -c 'apt-get update && apt-get install -y --no-install-recommends jq'"
    [ ! -e log ]
}

@test "when apt-get fails its words and the one command to run are printed" {
    command_says apt-get 'echo "E: the network is out to lunch"; exit 100'
    packages check
    assert_status 1
    assert_output "E: the network is out to lunch"
    assert_output "    apt-get update && apt-get install -y --no-install-recommends jq"
}

@test "the list can be asked for" {
    packages --list build
    assert_status 0
    assert_output libzstd-dev
    refute_output bats
    packages --list check
    assert_output libzstd-dev
    assert_output bats
}
