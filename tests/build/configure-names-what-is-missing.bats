#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later

load ../lib.bash

# A compiler to which one library is unknown: a link flag, or a header's name in the program.
lacking() {
    cat >cc <<END
#!/bin/sh
case " \$* " in *" $1 "*) exit 1 ;; esac
for word; do case \$word in *.c) ! grep -q '<$1>' "\$word" || exit 1 ;; esac; done
exec gcc "\$@"
END
    chmod +x cc
}

@test "configure names the Debian package of each missing library" {
    while read -r name flag package; do
        lacking "$flag"
        run env CC="$PWD/cc" "$TOP/configure"
        assert_status 1
        assert_output "configure: error: $name not found: install $package"
        [ "$(grep -c 'configure: error' <<<"$output")" = 1 ]
        [ ! -e Makefile ]
    done <<END
readline -lreadline libreadline-dev
zlib -lz zlib1g-dev
libdeflate -ldeflate libdeflate-dev
zstd -lzstd libzstd-dev
uuid -luuid uuid-dev
jansson -ljansson libjansson-dev
liburing -luring liburing-dev
xxhash -lxxhash libxxhash-dev
uthash uthash.h uthash-dev
END
}

@test "configure names everything that is missing at once" {
    cat >cc <<'END'
#!/bin/sh
case " $* " in *" -lz "* | *" -luuid "*) exit 1 ;; esac
exec gcc "$@"
END
    chmod +x cc
    run env CC="$PWD/cc" "$TOP/configure"
    assert_status 1
    assert_output "install zlib1g-dev"
    assert_output "install uuid-dev"
}

@test "without liburing configure goes on when it is told to" {
    lacking -luring
    run env CC="$PWD/cc" "$TOP/configure" --disable-io-uring
    assert_status 0
    run grep -c -- '-luring\|CONFIG_IO_URING' Makefile
    [ "$output" = 0 ]
}

@test "without cmocka configure goes on and says what is lost" {
    lacking -lcmocka
    run env CC="$PWD/cc" "$TOP/configure"
    assert_status 0
    assert_output "without libcmocka-dev there are no unit tests"
    run make unit-tests
    assert_status 2
    assert_output "install libcmocka-dev"
}

@test "without a compiler configure says so" {
    run env CC="$PWD/no-such-compiler" "$TOP/configure"
    assert_status 1
    assert_output "cannot compile and link a program"
}
