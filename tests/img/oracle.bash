# SPDX-License-Identifier: GPL-2.0-or-later
#
# merganser-img beside qemu-img: `load oracle.bash` after lib.bash.
#
# A line of shell is run twice, each time in a fresh copy of ./images and with `img` as the program: once the real
# qemu-img, once ours under the same name. Both must print the same on both channels and return the same.
# shellcheck shell=bash disable=SC2154

# Ours, called qemu-img, so that complaints begin with the same word.
oracle_setup() {
    mkdir -p bin images
    ln -sf "$BUILD_DIR/merganser-img" bin/qemu-img
}

# run_line WHO LINE: into $WHO.out (with the exit code in the last line) and $WHO.err; the copy stays as copy-$WHO.
run_line() {
    local who=$1 line=$2 program
    program=$(command -v qemu-img)
    [ "$who" = real ] || program=$BATS_TEST_TMPDIR/bin/qemu-img
    rm -rf copy "copy-$who"
    cp -a --sparse=always images copy
    (
        cd copy || exit 1
        img() { timeout -k 5 "$MG_TIMEOUT" "$program" "$@" 3>&-; }
        eval "$line"
    ) >"$who.out" 2>"$who.err" </dev/null && true
    echo "exit code $?" >>"$who.out"
    mv copy "copy-$who"
}

# same LINE...: each line has the same results. QEMU forgets the last line's end in some complaints; we do not.
same() {
    local line
    for line; do
        run_line real "$line"
        run_line ours "$line"
        sed -i '$a\' real.err ours.err
        diff real.out ours.out >&2 || fail "other output of: $line" || return 1
        diff real.err ours.err >&2 || fail "other complaints of: $line" || return 1
    done
}
