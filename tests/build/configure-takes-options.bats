#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later

load ../lib.bash

# What make would use for a variable.
make_says() {
    echo "print: ; @printf '%s\n' '\$($1)'" >print.mk
    make --no-print-directory -s -f Makefile -f print.mk print
}

@test "configure --help names its options and writes nothing" {
    run "$TOP/configure" --help
    assert_status 0
    for option in --prefix --bindir --enable-sanitize --disable-io-uring CFLAGS; do
        assert_output "$option"
    done
    [ ! -e Makefile ] && [ ! -e config.log ]
}

@test "configure refuses an option that it does not know" {
    run "$TOP/configure" --enable-telepathy
    assert_status 1
    assert_output "configure: error: unknown option '--enable-telepathy'"
    [ ! -e Makefile ]
}

@test "configure refuses a relative prefix" {
    run "$TOP/configure" --prefix=here
    assert_status 1
    assert_output "--prefix needs an absolute directory, not 'here'"
}

@test "configure takes directories, with and without an equals sign" {
    "$TOP/configure" --prefix /opt/duck --bindir=/opt/bin
    [ "$(make_says BINDIR)" = /opt/bin ]
    [ "$(make_says DOCDIR)" = /opt/duck/share/doc/merganser ]
}

@test "configure takes CC and CFLAGS from the environment, and make keeps them when configure runs again" {
    CC='gcc -pipe' CFLAGS='-O1 -DGREETING="\"two words\""' "$TOP/configure" --prefix=/opt/duck
    [ "$(make_says CC)" = 'gcc -pipe' ]
    grep -q '^CFLAGS *= -O1 -DGREETING="\\"two words\\""$' Makefile
    before=$(cat Makefile)
    ./config.status
    [ "$(cat Makefile)" = "$before" ]
}

@test "assertions stay whatever CFLAGS says" {
    CFLAGS=-DNDEBUG "$TOP/configure"
    [[ $(make_says COMPILE) == *-DNDEBUG*-UNDEBUG ]]
}

@test "a sanitized build is sanitized" {
    "$TOP/configure" --enable-sanitize
    [[ $(make_says COMPILE) == *-fsanitize=address,undefined*-fno-sanitize-recover=all* ]]
    [[ $(make_says LINK) == *-fsanitize=address,undefined* ]]
}

@test "git does not see a directory in which is built, and the sources keep their own list" {
    mkdir tree
    cp "$TOP/configure" "$TOP/Makefile.in" tree
    echo mine >tree/.gitignore
    git init -q tree
    mkdir tree/b
    (cd tree/b && ../configure) >/dev/null
    (cd tree && ./configure) >/dev/null
    [ "$(cat tree/.gitignore)" = mine ]
    run git -C tree status --porcelain --ignored b
    assert_output '!! b/'
}
