/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which engines there are, and which of them is meant when none is named.
 *
 * The engines on real files come and go with io_init() and io_fini(); one in memory
 * (io-sim) makes itself known and is gone before that.
 */
#include "core/io-engine.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const struct io_engine *default_engine;
static const struct io_engine **engines; /* registered ones, and the built-in ones that work here */
static unsigned engine_count;
static struct loop_poller poller;

static void new_turn(void *arg)
{
    io_host_new_turn();
}

void io_engine_register(const struct io_engine *engine)
{
    engines = mem_reallocarray(engines, engine_count + 1, sizeof(*engines));
    engines[engine_count++] = engine;
}

void io_engine_unregister(const struct io_engine *engine)
{
    unsigned i = 0;

    while (i < engine_count && engines[i] != engine) {
        i++;
    }
    assert(i < engine_count);
    memmove(&engines[i], &engines[i + 1], (--engine_count - i) * sizeof(*engines));
    if (!engine_count) {
        free(engines);
        engines = NULL;
    }
    if (default_engine == engine) {
        default_engine = NULL;
    }
}

#ifdef CONFIG_IO_URING
static bool ring_running;

static void start_ring(void)
{
    ring_running = io_ring_init();
    if (ring_running) {
        io_engine_register(&io_engine_uring);
        default_engine = &io_engine_uring;
    }
}

static void stop_ring(void)
{
    if (ring_running) {
        io_engine_unregister(&io_engine_uring);
        io_ring_fini();
        ring_running = false;
    }
}
#else
static void start_ring(void)
{
}

static void stop_ring(void)
{
}
#endif

void io_init(void)
{
    assert(!poller.submit);
    poller.submit = new_turn;
    loop_poller_add(&poller);
    io_pool_init();
    if (loop_is_virtual()) {
        io_engine_register(&io_engine_virtual);
        default_engine = &io_engine_virtual;
        return;
    }
    io_engine_register(&io_engine_threads);
    default_engine = &io_engine_threads;
    start_ring();
}

void io_fini(void)
{
    if (loop_is_virtual()) {
        io_engine_unregister(&io_engine_virtual);
    } else {
        io_engine_unregister(&io_engine_threads);
    }
    stop_ring();
    io_pool_fini();
    loop_poller_remove(&poller);
    poller.submit = NULL;
    default_engine = NULL;
}

const struct io_engine *io_engine_find(const char *name)
{
    if (!name) {
        return default_engine;
    }
    /* On the virtual clock the two engines on real files have one stand-in, also for "io_uring"
     * where there is none: a run does not depend on the machine. */
    if (loop_is_virtual() && (!strcmp(name, "threads") || !strcmp(name, "io_uring"))) {
        return &io_engine_virtual;
    }
    for (unsigned i = 0; i < engine_count; i++) {
        if (!strcmp(engines[i]->name, name)) {
            return engines[i];
        }
    }
    return NULL;
}

const char *io_engine_name(const struct io_engine *engine)
{
    return engine->name;
}

void io_engine_set_default(const struct io_engine *engine)
{
    default_engine = engine;
}
