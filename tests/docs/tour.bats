#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
#
# docs/TOUR.md names every source file, and nothing that is not there.

load ../lib.bash

# The files that a page names in code spans, one a line; x.[ch] names two.
named() {
    grep -o '`[a-z][a-z0-9/-]*[.]\(\[ch\]\|c\|h\|bash\)`' "$1" | tr -d '`' |
        sed 's/^\(.*\)\.\[ch\]$/\1.c\n\1.h/' | sort -u
}

# Everything that is no test and was not made by a build.
sources() {
    (cd "$TOP" && find . -name '*.[ch]' ! -path './tests/*' ! -path './build*' ! -path './obj/*' ! -path './.*/*') |
        sed 's|^\./||' | sort
}

@test "every source file has its place in the tour" {
    named "$TOP/docs/TOUR.md" >named
    sources >sources
    [ "$(wc -l <sources)" -gt 100 ]
    run comm -23 sources named
    [ -z "$output" ] || fail "not in docs/TOUR.md: $output"
}

@test "every file that a document names is there" {
    local page name
    for page in README.md docs/TOUR.md docs/DESIGN.md; do
        while read -r name; do
            [ -f "$TOP/$name" ] || fail "$page names $name, which is not there"
        done < <(named "$TOP/$page" | grep /)
    done
}

@test "every link of a document leads to a file" {
    local page target
    cd "$TOP"
    for page in README.md CHANGELOG.md docs/*.md; do
        while read -r target; do
            [ -e "$(dirname "$page")/$target" ] || fail "$page links to $target, which is not there"
        done < <(grep -o '](\([^)#]*\)' "$page" | sed 's/^](//' | grep -v '^https\?:')
    done
}
