/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory that runs out: what is survived, what fails a request, how the program leaves.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <jansson.h>

#include "core/co.h"
#include "core/loop.h"
#include "core/mem.h"

#define PAGE 4096u
#define RESERVE "reserve"

static unsigned denials; /* how many attempts are still refused */
static bool also_reserve;

static bool deny(const struct mem_site *site, size_t size)
{
    if (!denials || (strcmp(site->what, RESERVE) == 0 && !also_reserve)) {
        return false;
    }
    denials--;
    return true;
}

static int setup(void **state)
{
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    loop_init(LOOP_CLOCK_VIRTUAL, 1);
    mem_deny = deny;
    return 0;
}

static int teardown(void **state)
{
    mem_deny = NULL;
    denials = 0;
    also_reserve = false;
    loop_fini();
    return 0;
}

/* --- One failure ------------------------------------------------------------------------------ */

/* The call has met its failure; the loop makes it good. */
static void co_was_refused(void)
{
    assert_int_equal(denials, 0);
    assert_true(mem_is_low);
    co_yield();
    assert_false(mem_is_low);
    denials = 1;
}

static void co_check_text(char *text, const char *expected)
{
    co_was_refused();
    assert_string_equal(text, expected);
    free(text);
}

static CO_ENTRY void co_each_call(void *arg)
{
    char *text;
    void *pages;

    denials = 1;
    co_check_text(strcpy(mem_alloc(10), "a"), "a");
    co_check_text(mem_zalloc(10), "");
    co_check_text(mem_calloc(3, 10), "");
    co_check_text(strcpy(mem_align(512, 512), "b"), "b");
    co_check_text(mem_dup("c", 2), "c");
    co_check_text(mem_strdup("text"), "text");
    co_check_text(mem_strndup("text", 2), "te");
    co_check_text(mem_printf("%d", 7), "7");
    text = mem_strdup("grows");
    co_was_refused();
    text = mem_realloc(text, 5000);
    co_was_refused();
    co_check_text(mem_reallocarray(text, 3, 5000), "grows");
    json_t *json = json_integer(7);

    co_was_refused();
    json_decref(json);
    pages = mem_pages(PAGE);
    co_was_refused();
    memset(pages, 1, PAGE);
    munmap(pages, PAGE);
}

static void one_failure_of_any_call_is_not_noticed(void **state)
{
    loop_run_co(co_each_call, NULL);
}

static unsigned asked;

static void ask(void *arg)
{
    assert_null(co_self());
    asked++;
}

static CO_ENTRY void co_shrinking(void *arg)
{
    struct mem_shrinker shrinker = { .shrink = ask };

    mem_shrinker_add(&shrinker);
    denials = 1;
    free(mem_alloc(1));
    assert_int_equal(asked, 0); /* not in the middle of something */
    co_yield();
    assert_int_equal(asked, 1);
    co_yield();
    assert_int_equal(asked, 1);
    denials = 1;
    free(mem_alloc(1));
    denials = 1;
    also_reserve = true;
    co_yield();
    assert_true(mem_is_low); /* no new reserve yet: asked again */
    co_yield();
    assert_int_equal(asked, 3);
    assert_false(mem_is_low);
    mem_shrinker_remove(&shrinker);
}

static void caches_are_asked_between_two_turns_until_the_reserve_is_back(void **state)
{
    loop_run_co(co_shrinking, NULL);
}

static void a_try_that_fails_says_so_and_costs_no_reserve(void **state)
{
    void *kept = mem_strdup("kept");

    denials = 4;
    assert_null(mem_try_alloc(10));
    assert_null(mem_try_calloc(1, 10));
    assert_null(mem_try_realloc(kept, 10));
    assert_null(mem_try_align(512, 512));
    assert_null(mem_try_calloc(SIZE_MAX, 2));
    assert_false(mem_is_low);
    assert_string_equal(kept, "kept");
    free(kept);
}

static void nothing_at_all_is_something_that_can_be_freed(void **state)
{
    void *a = mem_alloc(0), *b = mem_calloc(0, 8), *c = mem_try_alloc(0), *d = mem_try_calloc(0, 8);

    assert_true(a && b && c && d);
    free(a);
    free(b);
    free(c);
    free(d);
}

/* --- For ever --------------------------------------------------------------------------------- */

static void order(void *arg)
{
    fprintf(stderr, "in order\n");
    free(mem_alloc(1)); /* this may not count on memory, but must not run in circles */
}

static void a_program_without_memory_leaves_with_a_sentence_and_its_code(void **state)
{
    char text[200] = "";
    int fd[2], status;

    assert_int_equal(pipe(fd), 0);
    pid_t pid = fork();

    if (!pid) {
        dup2(fd[1], STDERR_FILENO);
        mem_on_exit(order, NULL);
        denials = UINT32_MAX;
        free(mem_alloc(12345));
        _exit(0);
    }
    close(fd[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(read(fd[0], text, sizeof(text) - 1) > 0);
    close(fd[0]);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), MEM_EXIT);
    assert_string_equal(text, "merganser: out of memory (12345 more bytes wanted), leaving as if "
                              "killed\nin order\n");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_failure_of_any_call_is_not_noticed),
        TEST(caches_are_asked_between_two_turns_until_the_reserve_is_back),
        TEST(a_try_that_fails_says_so_and_costs_no_reserve),
        TEST(nothing_at_all_is_something_that_can_be_freed),
        TEST(a_program_without_memory_leaves_with_a_sentence_and_its_code),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
