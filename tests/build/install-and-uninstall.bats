#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later

load ../lib.bash

# A tree of our build files around a small program, so that nothing depends on the state of another build.
setup() {
    common_setup
    mkdir -p tree/docs/man tree/docs/completions tree/scripts tree/core tree/img tree/monitor
    cp "$TOP"/{configure,Makefile.in,README.md,CHANGELOG.md,LICENSE} tree
    echo '# Design' >tree/docs/DESIGN.md
    echo '.TH MERGANSER 1' >tree/docs/man/merganser.1
    echo '.TH MERGANSER-MONITOR 7' >tree/docs/man/merganser-monitor.7
    : >tree/docs/completions/merganser.bash
    : >tree/docs/completions/_merganser
    cp "$TOP"/scripts/{dist,deb} tree/scripts
    echo 'int answer(void);' >tree/core/answer.h
    printf '#include "core/answer.h"\nint answer(void)\n{\n    return 42;\n}\n' >tree/core/answer.c
    printf '#include "core/answer.h"\nint main(void)\n{\n    return answer();\n}\n' >tree/main.c
    cp tree/main.c tree/img/main.c
    for name in $(sed -n 's/^IMG_BESIDES *= *//p' "$TOP/Makefile.in"); do
        echo 'extern int besides;' >"tree/$name"
    done
}

@test "make builds out of the tree and in it" {
    mkdir out
    (cd out && ../tree/configure && make)
    run ./out/merganser
    assert_status 42
    [ ! -e tree/obj ]
    (cd tree && ./configure && make)
    run ./tree/merganser
    assert_status 42
}

@test "a header that changed is compiled again, and nothing else is" {
    cd tree
    ./configure
    make
    run make
    refute_output CC
    printf 'int answer(void);\nint question(void);\n' >core/answer.h
    touch -d '+2 seconds' core/answer.h
    run make
    assert_output "CC      core/answer.o"
    assert_output "CC      main.o"
}

@test "other flags compile everything again" {
    cd tree
    ./configure
    make
    run make CFLAGS=-O1
    assert_output "CC      core/answer.o"
    run make CFLAGS=-O1
    refute_output CC
}

@test "install puts everything below DESTDIR, uninstall leaves no file" {
    cd tree
    ./configure --prefix=/usr
    make install DESTDIR="$BATS_TEST_TMPDIR/root"
    cd ../root
    [ -x usr/bin/merganser ]
    [ -f usr/share/doc/merganser/README.md ]
    [ -f usr/share/doc/merganser/DESIGN.md ]
    [ -f usr/share/man/man1/merganser.1 ]
    [ -f usr/share/man/man7/merganser-monitor.7 ]
    [ -f usr/share/bash-completion/completions/merganser-img ]
    [ -f usr/share/zsh/site-functions/_merganser ]
    echo kept >usr/bin/another
    make -C ../tree uninstall DESTDIR="$BATS_TEST_TMPDIR/root"
    [ "$(find . -type f)" = ./usr/bin/another ]
    [ ! -d usr/share/doc/merganser ]
}

@test "PREFIX may be said to make, too, and directories may have blanks in their names" {
    cd tree
    ./configure
    make install DESTDIR="$BATS_TEST_TMPDIR/ro ot" PREFIX="/opt/a b"
    cd "../ro ot/opt/a b"
    [ -x bin/merganser-img ]
    [ -f share/doc/merganser/README.md ]
    [ -f share/man/man1/merganser.1 ]
    [ -f share/zsh/site-functions/_merganser ]
    [ "$(ls ../..)" = opt ]
    make -C "$BATS_TEST_TMPDIR/tree" uninstall DESTDIR="$BATS_TEST_TMPDIR/ro ot" PREFIX="/opt/a b"
    [ -z "$(find . ! -type d)" ]
    cd "$BATS_TEST_TMPDIR/tree"
    ./configure --bindir=/elsewhere
    make install DESTDIR="$BATS_TEST_TMPDIR/root" PREFIX=/opt
    [ -x ../root/elsewhere/merganser ]
    [ -f ../root/opt/share/man/man1/merganser.1 ]
}

@test "dist packs sources that build, the same ones into the same bytes" {
    cd tree
    ./configure
    make
    make dist
    cp merganser-*.tar.gz ../first.tar.gz
    touch main.c
    make dist
    cmp merganser-*.tar.gz ../first.tar.gz
    cd ..
    tar xzf first.tar.gz
    cd merganser-[0-9]*
    [ ! -e obj ]
    [ ! -e merganser ]
    ./configure
    make
    run ./merganser
    assert_status 42
}

@test "deb makes a package that dpkg can read, with the libraries that it needs" {
    cd tree
    ./configure
    make deb
    dpkg-deb --extract merganser_*.deb ../out
    [ -x ../out/usr/bin/merganser ]
    [ -f ../out/usr/share/man/man7/merganser-monitor.7.gz ]
    [ -f ../out/usr/share/doc/merganser/changelog.gz ]
    [ -f ../out/usr/share/doc/merganser/copyright ]
    run dpkg-deb --field merganser_*.deb Depends
    assert_output "libc6"
}

@test "distclean leaves what a clone has" {
    cd tree
    find . -type f | sort >../before
    ./configure
    make
    make distclean
    find . -type f | sort >../after
    cmp ../before ../after
}
