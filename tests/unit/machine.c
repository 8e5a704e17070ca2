/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The machine: guest memory and its allocator, register regions, interrupt lines, the run state.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/co.h"
#include "core/loop.h"
#include "core/mem.h"
#include "hw/machine.h"

#define RAM (1u << 20)

static int setup(void **state)
{
    loop_init(LOOP_CLOCK_VIRTUAL, 1);
    machine_init(RAM);
    return 0;
}

static int teardown(void **state)
{
    machine_fini();
    loop_fini();
    return 0;
}

static bool timer_fired(void *arg)
{
    return !loop_timer_armed(arg);
}

static void nothing(void *arg)
{
}

static void settle(void)
{
    struct loop_timer timer;

    loop_timer_init(&timer, nothing, NULL);
    loop_timer_arm(&timer, loop_now() + NS_PER_S);
    loop_run_until(timer_fired, &timer);
}

/* --- Memory ----------------------------------------------------------------------------------- */

static void only_ram_can_be_mapped(void **state)
{
    uint8_t *base = memory_map(0, 1);

    assert_int_equal(memory_size(), RAM);
    assert_non_null(base);
    assert_ptr_equal(memory_map(0, RAM), base);
    assert_ptr_equal(memory_map(RAM - 1, 1), base + RAM - 1);
    assert_null(memory_map(0, 0));
    assert_null(memory_map(RAM, 0));
    assert_null(memory_map(RAM, 1));
    assert_null(memory_map(RAM - 1, 2));
    assert_null(memory_map(0, RAM + 1));
    assert_null(memory_map(1, RAM));
    assert_null(memory_map(UINT64_MAX, 1));
    assert_null(memory_map(UINT64_MAX, 2));
    assert_null(memory_map(1, UINT64_MAX));
    assert_null(memory_map(UINT64_MAX - 4095, 8192));
    assert_null(memory_map(MACHINE_MMIO_BASE, 4));
}

static void memory_is_zero_and_keeps_what_is_written(void **state)
{
    uint64_t *p = memory_map(RAM - 8, 8);

    assert_int_equal(*p, 0);
    *p = 0x1234;
    assert_int_equal(*(uint64_t *)memory_map(RAM - 8, 8), 0x1234);
}

static void pages_are_given_once_and_never_page_0(void **state)
{
    static bool given[RAM / 4096];

    memset(given, 0, sizeof(given));
    for (unsigned i = 0; i < RAM / 4096 - 1; i++) {
        uint64_t gpa = guest_alloc(1 + i % 4096);

        assert_int_equal(gpa % 4096, 0);
        assert_true(gpa && gpa < RAM && !given[gpa / 4096]);
        given[gpa / 4096] = true;
    }
}

static void freed_neighbours_join_in_any_order(void **state)
{
    static const unsigned orders[][4] = { { 0, 1, 2, 3 }, { 3, 2, 1, 0 }, { 1, 3, 0, 2 },
                                          { 0, 3, 2, 1 }, { 2, 0, 3, 1 } };
    const size_t all = RAM - 4096, quarter = 4096 * 15;

    for (unsigned i = 0; i < ARRAY_SIZE(orders); i++) {
        uint64_t part[4], rest;

        for (unsigned n = 0; n < 4; n++) {
            part[n] = guest_alloc(quarter);
        }
        rest = guest_alloc(all - 4 * quarter);
        for (unsigned n = 0; n < 4; n++) {
            guest_free(part[orders[i][n]], quarter);
        }
        guest_free(rest, all - 4 * quarter);
        assert_int_equal(guest_alloc(all), 4096); /* one piece again */
        guest_free(4096, all);
    }
}

/* --- Regions ---------------------------------------------------------------------------------- */

struct bank {
    uint64_t offset, value;
    unsigned size, writes;
};

static uint64_t bank_read(void *arg, uint64_t offset, unsigned size)
{
    struct bank *bank = arg;

    bank->offset = offset;
    bank->size = size;
    return 0x1122334455667788ull;
}

static void bank_write(void *arg, uint64_t offset, uint64_t value, unsigned size)
{
    struct bank *bank = arg;

    *bank = (struct bank){ offset, value, size, bank->writes + 1 };
}

static const struct region_ops bank_ops = { .read = bank_read, .write = bank_write };

static void accesses_find_their_region(void **state)
{
    struct bank a = { 0 }, b = { 0 }, c = { 0 };

    machine_add_mmio(MACHINE_MMIO_BASE + 0x2000, 0x100, &bank_ops, &c);
    machine_add_mmio(MACHINE_MMIO_BASE, 0x100, &bank_ops, &a);
    machine_add_mmio(MACHINE_MMIO_BASE + 0x100, 0x10, &bank_ops, &b);
    assert_int_equal(machine_mmio_read(MACHINE_MMIO_BASE + 0xfc, 4), 0x55667788);
    assert_int_equal(a.offset, 0xfc);
    assert_int_equal(machine_mmio_read(MACHINE_MMIO_BASE + 0x100, 1), 0x88);
    assert_int_equal(b.size, 1);
    assert_true(machine_mmio_read(MACHINE_MMIO_BASE + 0x20f8, 8) == 0x1122334455667788ull);
    machine_mmio_write(MACHINE_MMIO_BASE + 0x2004, 0x12345, 2);
    assert_int_equal(c.offset, 4);
    assert_int_equal(c.value, 0x2345);
    machine_remove_regions(&a);
    machine_remove_regions(&b);
    machine_remove_regions(&c);
    assert_int_equal(machine_mmio_read(MACHINE_MMIO_BASE, 4), UINT32_MAX);
}

static void any_number_of_regions_is_there(void **state)
{
    struct bank banks[40] = { 0 };

    for (unsigned i = 0; i < ARRAY_SIZE(banks); i++) {
        machine_add_mmio(MACHINE_MMIO_BASE + 0x100 * (i * 7 % ARRAY_SIZE(banks)), 0x100, &bank_ops, &banks[i]);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(banks); i++) {
        machine_mmio_write(MACHINE_MMIO_BASE + 0x100 * (i * 7 % ARRAY_SIZE(banks)) + 0x10, i, 4);
        assert_int_equal(banks[i].value, i);
        assert_int_equal(banks[i].writes, 1);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(banks); i++) {
        machine_remove_regions(&banks[i]);
    }
}

static void nobody_answers_with_ones(void **state)
{
    struct bank a = { 0 };

    machine_add_mmio(MACHINE_MMIO_BASE, 0x10, &bank_ops, &a);
    assert_int_equal(machine_mmio_read(MACHINE_MMIO_BASE + 0x10, 1), 0xff);
    assert_int_equal(machine_mmio_read(MACHINE_MMIO_BASE + 0x0e, 4), UINT32_MAX); /* half in it */
    assert_int_equal(machine_mmio_read(MACHINE_MMIO_BASE - 1, 2), 0xffff);
    assert_true(machine_mmio_read(0, 8) == UINT64_MAX);
    assert_true(machine_mmio_read(UINT64_MAX, 8) == UINT64_MAX);
    machine_mmio_write(MACHINE_MMIO_BASE + 0x0f, 1, 2);
    machine_mmio_write(UINT64_MAX, 1, 8);
    assert_int_equal(a.writes, 0);
    assert_int_equal(machine_port_in(0x1f7, 1), 0xff);
    machine_remove_regions(&a);
}

static void ports_are_a_space_of_their_own(void **state)
{
    struct bank low = { 0 }, high = { 0 }, small = { 0 };

    machine_add_ports(0x3f6, 1, &bank_ops, &small);
    assert_int_equal(machine_port_in(0x3f6, 4), UINT32_MAX); /* more than there is */
    machine_port_out(0x3f6, 1, 2);
    assert_int_equal(small.writes, 0);
    machine_remove_regions(&small);
    machine_add_ports(0x1f0, 8, &bank_ops, &low);
    machine_add_ports(0xfff8, 8, &bank_ops, &high);
    machine_port_out(0x1f7, 0xa5, 1);
    assert_int_equal(low.offset, 7);
    assert_int_equal(low.value, 0xa5);
    assert_int_equal(machine_port_in(0xffff, 1), 0x88);
    assert_int_equal(machine_port_in(0xffff, 2), 0xffff);
    assert_true(machine_mmio_read(0x1f0, 1) == 0xff);
    machine_remove_regions(&low);
    machine_remove_regions(&high);
}

/* --- Interrupts ------------------------------------------------------------------------------- */

static unsigned interrupts;

static void count_interrupt(void *arg)
{
    interrupts++;
}

static void a_raised_line_calls_the_handler_once_and_later(void **state)
{
    struct irq_line irq = { 0 };

    interrupts = 0;
    irq_attach(&irq, count_interrupt, NULL);
    irq_raise(&irq);
    irq_raise(&irq);
    assert_int_equal(interrupts, 0);
    settle();
    assert_int_equal(interrupts, 1);
    irq_raise(&irq);
    settle();
    assert_int_equal(interrupts, 2);
}

static void a_lowered_line_does_not_interrupt(void **state)
{
    struct irq_line irq = { 0 };

    interrupts = 0;
    irq_attach(&irq, count_interrupt, NULL);
    irq_raise(&irq);
    irq_lower(&irq);
    settle();
    assert_int_equal(interrupts, 0);
}

static void a_new_handler_hears_of_a_line_that_is_up(void **state)
{
    struct irq_line irq = { 0 };

    interrupts = 0;
    irq_raise(&irq);
    settle();
    irq_attach(&irq, count_interrupt, NULL);
    settle();
    assert_int_equal(interrupts, 1);
    irq_raise(&irq);
    irq_attach(&irq, NULL, NULL);
    settle();
    assert_int_equal(interrupts, 1);
}

static CO_ENTRY void close_line(void *arg)
{
    struct irq_line *irq = arg;

    irq_raise(irq);
    co_irq_close(irq);
    free(irq); /* the sanitizer sees whether the loop looks at it again */
}

static void a_closed_line_can_go_away(void **state)
{
    struct irq_line *irq = mem_zalloc(sizeof(*irq));

    interrupts = 0;
    irq_attach(irq, count_interrupt, NULL);
    loop_run_co(close_line, irq);
    settle();
    assert_int_equal(interrupts, 0);
}

/* --- Run state -------------------------------------------------------------------------------- */

static char heard[16];

static void hear_state(struct machine_listener *l, enum run_state now)
{
    strcat(heard, (char[]){ "PRAIS"[now], '\0' });
}

static void hear_reset(struct machine_listener *l)
{
    strcat(heard, "x");
}

static CO_ENTRY void stop(void *arg)
{
    co_machine_stop(*(enum run_state *)arg);
}

static CO_ENTRY void reset(void *arg)
{
    co_machine_reset();
}

static void stop_with(enum run_state why)
{
    loop_run_co(stop, &why);
}

static void listeners_hear_every_change_and_nothing_else(void **state)
{
    struct machine_listener l = { .state_changed = hear_state, .reset = hear_reset };
    struct machine_listener deaf = { 0 };

    heard[0] = '\0';
    machine_listen(&l);
    machine_listen(&deaf);
    assert_string_equal(machine_state_name(), "prelaunch");
    machine_cont();
    machine_cont();
    assert_string_equal(machine_state_name(), "running");
    assert_true(machine_running());
    stop_with(RUN_PAUSED);
    stop_with(RUN_PAUSED);
    assert_string_equal(machine_state_name(), "paused");
    machine_stop_request(RUN_IO_ERROR); /* stopped is stopped: the first reason stays */
    assert_int_equal(machine_state(), RUN_PAUSED);
    machine_cont();
    machine_stop_request(RUN_IO_ERROR);
    assert_string_equal(machine_state_name(), "io-error");
    stop_with(RUN_PAUSED);
    assert_int_equal(machine_state(), RUN_IO_ERROR);
    machine_cont();
    assert_string_equal(heard, "RARIR");
    machine_unlisten(&l);
    machine_unlisten(&deaf);
}

static void a_reset_keeps_running_what_runs(void **state)
{
    struct machine_listener l = { .state_changed = hear_state, .reset = hear_reset };

    heard[0] = '\0';
    machine_listen(&l);
    machine_cont();
    loop_run_co(reset, NULL);
    assert_true(machine_running());
    stop_with(RUN_PAUSED);
    loop_run_co(reset, NULL);
    assert_int_equal(machine_state(), RUN_PRELAUNCH);
    assert_string_equal(heard, "RxAPx");
    machine_unlisten(&l);
}

static void shutdown_is_for_good(void **state)
{
    machine_cont();
    stop_with(RUN_SHUTDOWN);
    assert_string_equal(machine_state_name(), "shutdown");
    machine_cont();
    machine_stop_request(RUN_IO_ERROR);
    loop_run_co(reset, NULL);
    assert_int_equal(machine_state(), RUN_SHUTDOWN);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(only_ram_can_be_mapped),
        TEST(memory_is_zero_and_keeps_what_is_written),
        TEST(pages_are_given_once_and_never_page_0),
        TEST(freed_neighbours_join_in_any_order),
        TEST(accesses_find_their_region),
        TEST(any_number_of_regions_is_there),
        TEST(nobody_answers_with_ones),
        TEST(ports_are_a_space_of_their_own),
        TEST(a_raised_line_calls_the_handler_once_and_later),
        TEST(a_lowered_line_does_not_interrupt),
        TEST(a_new_handler_hears_of_a_line_that_is_up),
        TEST(a_closed_line_can_go_away),
        TEST(listeners_hear_every_change_and_nothing_else),
        TEST(a_reset_keeps_running_what_runs),
        TEST(shutdown_is_for_good),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
