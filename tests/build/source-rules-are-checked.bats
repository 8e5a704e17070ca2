#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later

load ../lib.bash

# A small tree that keeps all the rules; each test breaks one.
setup() {
    common_setup
    mkdir -p tree/{core,block,jobs,hw,monitor} tree/obj/{core,block,jobs,hw,monitor}
    cp -r "$TOP/scripts" tree
    local room
    for room in core/mem core/loop block/node jobs/stream hw/ide monitor/hmp; do
        source_file "$room.h" ''
        source_file "$room.c" "#include \"$room.h\""
    done
    cd tree
}

# source_file NAME LINE...: a file with the licence, then these lines.
source_file() {
    local path=$1
    [ -d tree ] && path=tree/$1
    shift
    printf '%s\n' '/* SPDX-License-Identifier: GPL-2.0-or-later */' "$@" >"$path"
}

@test "the small tree keeps all rules" {
    scripts/check-floors
    scripts/check-co
    scripts/check-spdx
}

@test "includes that point down pass" {
    source_file core/loop.c '#include "core/mem.h"'
    source_file jobs/stream.c '#include "block/node.h"' '#include "core/loop.h"' '#include <stdio.h>'
    source_file monitor/hmp.c '#include "jobs/stream.h"' '#include "hw/ide.h"'
    source_file main.c '#include "monitor/hmp.h"'
    scripts/check-floors
}

@test "an include that points up fails" {
    source_file block/node.c '' '#include "jobs/stream.h"'
    run scripts/check-floors
    assert_status 1
    [ "$output" = "block/node.c:3: includes jobs/stream.h: block must not know jobs, which is above it" ]
}

@test "an include that points sideways fails" {
    source_file hw/ide.h '#include "jobs/stream.h"'
    run scripts/check-floors
    assert_status 1
    assert_output "hw/ide.h:2: includes jobs/stream.h: hw and jobs must not know each other"
}

@test "the lower half of core does not know the upper" {
    source_file core/mem.c '#include "core/loop.h"'
    run scripts/check-floors
    assert_status 1
    assert_output "core/mem.c:2: includes core/loop.h: core (floor 0) must not know core (floor 1), which is above it"
}

@test "an include that is not named from the top fails" {
    source_file core/loop.c '#include "mem.h"'
    run scripts/check-floors
    assert_status 1
    assert_output "core/loop.c:2: includes mem.h: an include of ours is named from the top"
}

@test "a symbol reference that points up fails, an include or not" {
    source_file jobs/stream.c 'int stream_start(void);' 'int stream_start(void)' '{' '    return 0;' '}'
    source_file block/node.c 'int stream_start(void);' 'int node_open(void);' \
        'int node_open(void)' '{' '    return stream_start();' '}'
    gcc -c -o obj/jobs/stream.o jobs/stream.c
    gcc -c -o obj/block/node.o block/node.c
    scripts/check-floors
    run scripts/check-floors .
    assert_status 1
    [ "$output" = "block/node.c: uses stream_start of jobs/stream.c: block must not know jobs, which is above it" ]
}

@test "a caller of a co_ function that does not say so fails" {
    source_file block/node.c 'int co_node_read(void);' 'int node_peek(void)' '{' '    return co_node_read();' '}'
    run scripts/check-co
    assert_status 1
    assert_output "block/node.c:5: node_peek() calls co_node_read() and so may suspend"
}

@test "a call through a member named co_ counts as well" {
    source_file block/node.c 'int node_peek(struct node *node)' '{' '    return node->driver->co_read(node);' '}'
    run scripts/check-co
    assert_status 1
    assert_output "node_peek() calls co_read()"
}

@test "co_ functions, entries of coroutines, comments, strings and harmless calls pass" {
    source_file block/node.c \
        '#define CO_ENTRY' \
        '/* node_peek() would call co_node_read() */' \
        'static int co_read_it(void)' '{' '    return co_node_read();' '}' \
        'static CO_ENTRY void entry(void *arg)' '{' '    co_read_it();' '}' \
        'CO_ENTRY' 'static void second_entry(void *arg)' '{' '    co_read_it();' '}' \
        'void node_start(void)' '{' '    co_start(entry, 0); // co_read_it()' '    puts("co_read_it()");' \
        '    co_wake(co_self());' '}'
    scripts/check-co
}

@test "a call that cannot suspend where it stands passes when it says why, on its own line only" {
    source_file block/node.c 'void node_swap(void)' '{' '    co_node_unref(old); /* cannot suspend: not the last */' '}'
    scripts/check-co
    source_file block/node.c 'void node_swap(void)' '{' '    /* cannot suspend: so they say */' '    co_node_unref(old);' '}'
    run scripts/check-co
    assert_status 1
}

@test "a file without its licence fails" {
    echo 'int x;' >core/x.c
    printf '#!/bin/sh\nexit 0\n' >scripts/odd
    chmod +x scripts/odd
    run scripts/check-spdx
    assert_status 1
    assert_output "core/x.c: does not begin with"
    assert_output "scripts/odd: does not begin with"
}

@test "what a build wrote needs no licence" {
    mkdir -p build/obj
    touch build/config.status
    echo 'int x;' >build/obj/x.c
    scripts/check-spdx
}

@test "the shape names the longest function and the largest file" {
    source_file core/mem.c 'int tall(void)' '{' $'\n\n\n\n\n' '    return 0;' '}' 'int small(void)' '{' '}'
    run scripts/shape
    assert_status 0
    [[ $output == *"core/mem.c"*"tall (core/mem.c)"*"small (core/mem.c)"* ]]
}

# offender NAME FUNCTION: an object of NAME.c that calls it, as the compiler would name it.
offender() {
    printf 'int %s();\nint caller%s(void);\nint caller%s(void)\n{\n    return %s();\n}\n' "$2" "$2" "$2" "$2" >"$1.c"
    gcc -w -fno-builtin -c -o "obj/$1.o" "$1.c"
}

@test "a call of the host past the engine fails, whatever the variant" {
    local call
    offender block/node node_size
    scripts/check-seam .
    for call in open64 pread64 preadv64v2 __read_chk __open64_2 __isoc99_fscanf fdatasync rename unlinkat realpath mkdtemp \
        nftw64 fopen64 getline getcwd fcntl64 __fxstat64 copy_file_range clock_gettime time getrandom rand_r \
        arc4random_uniform nanosleep accept4 sendmsg poll epoll_wait mmap64 ioctl io_uring_submit pthread_create syscall; do
        offender block/node "$call"
        run scripts/check-seam .
        assert_status 1
        [[ ${#lines[@]} == 1 && $output == "block/node.c: calls "* ]] || fail "$call: $output"
    done
}

@test "each host object makes calls of its own kind only" {
    offender core/loop clock_gettime
    scripts/check-seam .
    offender core/loop unlink
    run scripts/check-seam .
    assert_status 1
    assert_output "core/loop.c: calls unlink(): for names there are others"
}

@test "nobody runs a command, host object or not" {
    local call
    for call in system popen execve execvp posix_spawnp vfork dlopen; do
        offender core/loop "$call"
        run scripts/check-seam .
        assert_status 1
        assert_output "core/loop.c: calls $call(): nothing here runs a command"
    done
}

@test "a permission that nobody needs any more fails" {
    touch main.c
    offender core/loop node_size
    run scripts/check-seam .
    assert_status 1
    assert_output "check-seam: core/loop uses no clock any more: shorten the list"
    assert_output "check-seam: there is no core/socket any more: shorten the list"
}
