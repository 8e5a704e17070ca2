/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A disk of memory with a driver of its own, for tests of the guest: latencies by chance, faults by
 * order, and a host that does only a part of what it had begun when the machine is reset.
 *
 * It asserts what a guest must keep to: ranges within the disk, and no two requests at once that
 * overlap and of which one changes something.
 *
 * cmocka's assertions leave a test with a jump, which must not happen on a coroutine's stack: what
 * runs in one uses assert().
 */
#ifndef TESTS_UNIT_GUEST_RIG_H
#define TESTS_UNIT_GUEST_RIG_H

#include <assert.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "block/disk.h"
#include "core/io.h"
#include "core/mem.h"
#include "hw/guest.h"
#include "hw/machine.h"

#define KIB 1024ull
#define MIB (1024ull * KIB)

struct fake_request {
    TAILQ_ENTRY(fake_request) link;
    struct guest_request req;
    struct loop_timer timer;
    struct co *co;
    int result;
};

static struct fake {
    struct machine_device dev; /* first */
    uint8_t *data, *before;
    uint64_t size;
    bool read_only, no_discard;
    uint64_t min_ns, max_ns; /* latency; 0: done at once, without suspending */
    uint32_t max_bytes;
    struct random random;
    TAILQ_HEAD(, fake_request) pending;
    unsigned inflight, most_inflight, count, boots;
    uint64_t trace; /* a sum over all requests and their times */
    /* Orders: */
    unsigned fail_reads, fail_writes, fail_boots; /* so many fail with -EIO */
    uint64_t flip_at;   /* the next read of this byte gives another one; UINT64_MAX: none */
    bool flush_is_last; /* asserted: a flush comes when everything before it is done */
    bool hang;          /* requests wait until it is false and fake_release() is called */
} fake;

struct fake_driver {
    bool aborted;
};

static void fake_wake(struct fake_request *r, int result)
{
    TAILQ_REMOVE(&fake.pending, r, link);
    loop_timer_cancel(&r->timer);
    r->result = result;
    co_wake(r->co);
}

/* The host's part. `half`: of each sector it is chance whether it was reached. */
static void fake_perform(const struct guest_request *req, bool half)
{
    for (uint64_t at = 0; at < req->len; at += 512) {
        uint8_t *sector = fake.data + req->offset + at, *mem = memory_map(req->gpa + at, 512);

        if (half && random_below(&fake.random, 2)) {
            continue;
        }
        if (req->op == GUEST_READ) {
            memcpy(mem, sector, 512);
            if (fake.flip_at - req->offset - at < 512) {
                mem[fake.flip_at - req->offset - at] ^= 0x10;
                fake.flip_at = UINT64_MAX;
            }
        } else if (req->op == GUEST_WRITE) {
            memcpy(sector, mem, 512);
        } else if (req->op == GUEST_DISCARD && random_below(&fake.random, 3)) {
            /* Old, zeroes, or the backing file's. */
            memset(sector, random_below(&fake.random, 2) ? 0 : 0xbb, 512);
        }
    }
}

static int fake_finish(const struct guest_request *req)
{
    unsigned *fail = req->op == GUEST_READ ? &fake.fail_reads : &fake.fail_writes;

    if (req->op != GUEST_FLUSH && *fail) {
        --*fail;
        fake_perform(req, true);
        return -EIO;
    }
    fake_perform(req, false);
    return 0;
}

static void fake_fire(void *arg)
{
    struct fake_request *r = arg;

    if (!fake.hang) {
        fake_wake(r, fake_finish(&r->req));
    }
}

__attribute__((unused)) static void fake_release(void)
{
    struct fake_request *r, *next;

    fake.hang = false;
    for (r = TAILQ_FIRST(&fake.pending); r; r = next) {
        next = TAILQ_NEXT(r, link);
        fake_fire(r);
    }
}

static void fake_check(const struct guest_request *req)
{
    struct fake_request *r;

    assert(req->offset % 512 == 0 && req->len % 512 == 0);
    assert(req->op == GUEST_FLUSH ? !req->len : req->len > 0);
    assert(req->len <= fake.size && req->offset <= fake.size - req->len);
    assert(req->op > GUEST_WRITE || req->len <= fake.max_bytes);
    assert(req->op == GUEST_READ || req->op == GUEST_FLUSH || !fake.read_only);
    assert(!(fake.flush_is_last && req->op == GUEST_FLUSH && fake.inflight));
    TAILQ_FOREACH(r, &fake.pending, link) {
        if (r->req.op != GUEST_READ || req->op != GUEST_READ) {
            assert(r->req.offset >= req->offset + req->len ||
                   req->offset >= r->req.offset + r->req.len);
        }
    }
    fake.trace = (fake.trace ^ (loop_now() + req->op * 7 + req->offset * 11 + req->len)) *
                 0x9e3779b97f4a7c15;
}

static int co_fake_request(void *drv, const struct guest_request *req)
{
    struct fake_request r = { .req = *req, .co = co_self() };

    fake.count++;
    fake_check(req);
    if (((struct fake_driver *)drv)->aborted) {
        return -ECANCELED;
    }
    if (!fake.max_ns) {
        return fake_finish(req);
    }
    fake.inflight++;
    fake.most_inflight = MAX(fake.most_inflight, fake.inflight);
    TAILQ_INSERT_TAIL(&fake.pending, &r, link);
    loop_timer_init(&r.timer, fake_fire, &r);
    loop_timer_arm(&r.timer, loop_now() + fake.min_ns +
                                 random_below(&fake.random, fake.max_ns - fake.min_ns + 1));
    co_suspend();
    fake.inflight--;
    return r.result;
}

/* Reset: what was in flight was done in part. */
static void fake_drop(void)
{
    struct fake_request *r;

    while ((r = TAILQ_FIRST(&fake.pending))) {
        fake_perform(&r->req, true);
        fake_wake(r, -ECANCELED);
    }
}

static int co_fake_boot(struct machine_device *dev, void **out)
{
    assert(dev == &fake.dev);
    co_sleep_ns(NS_PER_MS);
    fake.boots++;
    if (fake.fail_boots) {
        fake.fail_boots--;
        return -ENODEV;
    }
    *out = mem_zalloc(sizeof(struct fake_driver));
    return 0;
}

static void fake_abort(void *drv)
{
    ((struct fake_driver *)drv)->aborted = true;
    fake_drop();
}

static void co_fake_shutdown(void *drv)
{
    fake_abort(drv);
    while (fake.inflight) {
        co_yield();
    }
    free(drv);
}

static uint64_t fake_capacity(void *drv)
{
    return fake.size;
}

static bool fake_read_only(void *drv)
{
    return fake.read_only;
}

static bool fake_can(void *drv, enum guest_op op)
{
    return op == GUEST_READ || op == GUEST_FLUSH ||
           (!fake.read_only && !(op == GUEST_DISCARD && fake.no_discard));
}

static unsigned fake_depth(void *drv)
{
    return 64;
}

static uint32_t fake_max_bytes(void *drv)
{
    return fake.max_bytes;
}

static const struct guest_driver fake_driver = {
    .name = "fake",
    .co_boot = co_fake_boot,
    .co_shutdown = co_fake_shutdown,
    .co_request = co_fake_request,
    .abort = fake_abort,
    .capacity = fake_capacity,
    .read_only = fake_read_only,
    .can = fake_can,
    .depth = fake_depth,
    .max_bytes = fake_max_bytes,
};

/* The device behind the driver: requests that it has when it is reset stay undone until abort()
 * tells their fate. */
static void co_fake_device_reset(struct machine_device *dev)
{
    co_sleep_ns(10 * NS_PER_US);
}

static const struct device_kind fake_kind = { .name = "fake", .co_reset = co_fake_device_reset };

/* --- Tests ------------------------------------------------------------------------------------ */

static struct guest *guest;

/* Bring up clock, machine and disk (of `size` bytes, random content); the guest is made, the
 * machine not started. */
static void rig_begin(enum loop_clock clock, uint64_t seed, uint64_t size)
{
    loop_init(clock, seed);
    io_init();
    machine_init(256 * MIB);
    fake = (struct fake){
        .dev = { .kind = &fake_kind, .disk = disk_new("virtio0", NULL) },
        .size = size,
        .min_ns = 10 * NS_PER_US,
        .max_ns = 200 * NS_PER_US,
        .max_bytes = 1 << 20,
        .flip_at = UINT64_MAX,
    };
    TAILQ_INIT(&fake.pending);
    random_seed(&fake.random, seed + 1);
    fake.data = mem_alloc(size);
    fake.before = mem_alloc(size);
    for (uint64_t i = 0; i < size; i += 8) {
        /* Some of it is zeroes. */
        uint64_t word = i % 65536 < 16384 ? 0 : random_next(&fake.random);

        memcpy(fake.data + i, &word, 8);
    }
    memcpy(fake.before, fake.data, size);
    machine_add_device(&fake.dev);
    guest = guest_new(&fake.dev, &fake_driver);
}

static void co_rig_free_guest(void *arg)
{
    co_guest_free(guest);
    guest = NULL;
}

static void co_rig_free_disk(void *arg)
{
    co_disk_free(fake.dev.disk);
}

static void rig_end(void)
{
    if (guest) {
        loop_run_co(co_rig_free_guest, NULL);
    }
    machine_remove_device(&fake.dev);
    loop_run_co(co_rig_free_disk, NULL);
    assert_true(TAILQ_EMPTY(&fake.pending));
    assert_int_equal(co_count(), 0);
    guest_set_default(NULL, NULL);
    machine_fini();
    io_fini();
    loop_fini();
    free(fake.data);
    free(fake.before);
}

/* One member of the guest's description. */
static json_t *describe(const char *key)
{
    static json_t *all;

    json_decref(all);
    all = guest_describe();
    json_t *value = json_object_get(json_array_get(all, 0), key);

    if (!value) {
        json_decref(all);
        all = NULL;
    }
    return value;
}

__attribute__((unused)) static uint64_t counter(const char *key)
{
    return json_integer_value(describe(key));
}

__attribute__((unused)) static const char *words_of(const char *key)
{
    return json_string_value(describe(key));
}

/* "rw=randread,bs=4k" as an object. */
static json_t *words(const char *list)
{
    AUTOFREE char *copy = mem_strdup(list);
    json_t *object = json_object();
    char *rest;

    for (char *word = strtok_r(copy, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
        char *value = strchr(word, '=');

        *value++ = '\0';
        json_object_set_new(object, word, json_string(value));
    }
    return object;
}

__attribute__((unused)) static void set(const char *list)
{
    struct error err = ERROR_INIT;
    json_t *object = words(list);

    if (guest_configure("virtio0", object, &err)) {
        fprintf(stderr, "%s: %s\n", list, err.text);
        abort();
    }
    json_decref(object);
}

/* Nothing wrong was seen since the beginning. */
__attribute__((unused)) static void assert_clean(void)
{
    assert_int_equal(counter("mismatches"), 0);
    assert_int_equal(counter("errors"), 0);
    assert_int_equal(json_array_size(describe("mismatch_list")), 0);
}

#endif
