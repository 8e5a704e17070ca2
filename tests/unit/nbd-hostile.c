/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD server and clients that mean no good: wrong frames, half frames, no frames, no reading.  Every case must end in
 * an error reply or in the end of that session, and the server must serve the next client.  Disk and clock are simulated, the
 * sockets are real; the client is driven from the same thread.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/file.h"
#include "block/node.h"
#include "core/bytes.h"
#include "core/io-sim.h"
#include "core/loop.h"
#include "core/mem.h"
#include "export/nbd-session.h"
#include "tests/unit/sim-world.h"

extern const struct driver driver_raw;

#define SIZE (8u << 20)

static char dir[] = "/tmp/merganser-unit.XXXXXX";
static char *path;
static struct disk *disk;

/* The byte of the disk at an offset. */
static uint8_t content(uint64_t at)
{
    return at % 251 + at / 65536;
}

static CO_ENTRY void disk_up(void *arg)
{
    json_t *options = json_pack("{s:s, s:b}", "driver", "raw", "read-only", 0);
    AUTOFREE uint8_t *bytes = mem_alloc(SIZE);
    struct error err = ERROR_INIT;

    for (uint64_t i = 0; i < SIZE; i++) {
        bytes[i] = content(i);
    }
    io_sim_create("disk", SIZE);
    assert_int_equal(io_sim_write("disk", 0, bytes, SIZE), 0);
    disk = disk_new("disk", co_node_open("disk", options, &err));
    assert_false(error_is_set(&err));
    json_decref(options);
}

static CO_ENTRY void disk_down(void *arg)
{
    co_nbd_server_end();
    co_disk_free(disk);
}

static int setup(void **state)
{
    struct nbd_export_spec spec = { .name = "disk", .description = "the only one", .writable = true };
    struct error err = ERROR_INIT;

    alarm(240); /* a client that waits for ever is a failure */
    sim_begin(5);
    loop_run_co(disk_up, NULL);
    strcpy(dir, "/tmp/merganser-unit.XXXXXX");
    assert_non_null(mkdtemp(dir));
    path = mem_printf("%s/nbd", dir);
    assert_int_equal(nbd_server_start(path, 0, &err), 0);
    spec.disk = disk;
    assert_int_equal(nbd_export_add(&spec, &err), 0);
    return 0;
}

static int teardown(void **state)
{
    loop_run_co(disk_down, NULL);
    assert_int_equal(access(path, F_OK), -1);
    rmdir(dir);
    free(path);
    io_sim_fini();
    io_fini();
    assert_int_equal(co_count(), 0);
    loop_fini();
    return 0;
}

/* --- A client --------------------------------------------------------------------------------------------------------------- */

struct client {
    int fd;
    uint8_t *got;
    size_t len, room, wanted;
    bool eof;
};

static void client_open(struct client *c)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };

    *c = (struct client){ .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0) };
    strcpy(addr.sun_path, path);
    assert_int_equal(connect(c->fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
}

static void client_close(struct client *c)
{
    if (c->fd >= 0) {
        close(c->fd);
    }
    free(c->got);
    *c = (struct client){ .fd = -1 };
}

static bool has_enough(void *arg)
{
    struct client *c = arg;
    ssize_t n;

    while (c->len < c->wanted && !c->eof) {
        if (c->room < c->wanted) {
            c->room = c->wanted;
            c->got = mem_realloc(c->got, c->room);
        }
        n = recv(c->fd, c->got + c->len, c->wanted - c->len, MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) {
            return false;
        }
        c->eof = n <= 0;
        c->len += n > 0 ? n : 0;
    }
    return true;
}

/* Exactly `len` more bytes; they are good until the next call. */
static const uint8_t *expect(struct client *c, size_t len)
{
    c->len = 0;
    c->wanted = len;
    loop_run_until(has_enough, c);
    assert_int_equal(c->len, len);
    return c->got;
}

/* The session ends; what it says before does not matter. */
static void expect_end(struct client *c)
{
    while (!c->eof) {
        c->len = 0;
        c->wanted = 4096;
        loop_run_until(has_enough, c);
    }
    client_close(c);
}

static void say(struct client *c, const void *data, size_t len)
{
    assert_int_equal(send(c->fd, data, len, MSG_NOSIGNAL), len);
}

static void say_option(struct client *c, uint32_t option, const void *data, uint32_t len)
{
    uint8_t raw[NBD_OPTION_BYTES];

    store_be64(raw, NBD_OPTION_MAGIC);
    store_be32(raw + 8, option);
    store_be32(raw + 12, len);
    say(c, raw, sizeof(raw));
    say(c, data, len);
}

/* The next reply to an option has this type; its data is passed over. */
static void expect_reply(struct client *c, uint32_t type)
{
    const uint8_t *head = expect(c, NBD_OPTION_REPLY_BYTES);

    assert_true(load_be64(head) == NBD_OPTION_REPLY_MAGIC);
    assert_int_equal(load_be32(head + 12), type);
    expect(c, load_be32(head + 16));
}

static void greet(struct client *c)
{
    client_open(c);
    expect(c, NBD_GREETING_BYTES);
    say(c, "\0\0\0\3", 4);
}

#define GO_DISK "\0\0\0\4disk\0\0"

static void go(struct client *c, bool structured)
{
    greet(c);
    if (structured) {
        say_option(c, NBD_OPT_STRUCTURED_REPLY, "", 0);
        expect_reply(c, NBD_REP_ACK);
        say_option(c, NBD_OPT_SET_META_CONTEXT, "\0\0\0\4disk\0\0\0\1\0\0\0\17base:allocation", 31);
        expect_reply(c, NBD_REP_META_CONTEXT);
        expect_reply(c, NBD_REP_ACK);
    }
    say_option(c, NBD_OPT_GO, GO_DISK, 10);
    expect_reply(c, NBD_REP_INFO);
    expect_reply(c, NBD_REP_ACK);
}

static void put_request(uint8_t *raw, uint16_t type, uint16_t flags, uint64_t offset, uint32_t len)
{
    store_be32(raw, NBD_REQUEST_MAGIC);
    store_be16(raw + 4, flags);
    store_be16(raw + 6, type);
    store_be64(raw + 8, offset * 3 + type); /* the handle */
    store_be64(raw + 16, offset);
    store_be32(raw + 24, len);
}

static void request(struct client *c, uint16_t type, uint16_t flags, uint64_t offset, uint32_t len)
{
    uint8_t raw[NBD_REQUEST_BYTES];

    put_request(raw, type, flags, offset, len);
    say(c, raw, sizeof(raw));
}

static void expect_simple(struct client *c, uint32_t error)
{
    const uint8_t *reply = expect(c, NBD_SIMPLE_BYTES);

    assert_int_equal(load_be32(reply), NBD_SIMPLE_MAGIC);
    assert_int_equal(load_be32(reply + 4), error);
}

static void expect_content(struct client *c, uint64_t offset, size_t len)
{
    const uint8_t *data = expect(c, len);

    for (size_t i = 0; i < len; i++) {
        if (data[i] != content(offset + i)) {
            fail_msg("byte %zu of %zu at %llu", i, len, (unsigned long long)offset);
        }
    }
}

/* Whatever happened to others: a new client is served. */
static void assert_alive(void)
{
    struct client c;

    go(&c, false);
    request(&c, NBD_CMD_READ, 0, 4096, 4096);
    expect_simple(&c, 0);
    expect_content(&c, 4096, 4096);
    client_close(&c);
}

static bool nobody_is_left(void *arg)
{
    return LIST_EMPTY(&nbd_sessions);
}

/* --- Negotiation --------------------------------------------------------------------------------------------------------------- */

static void strange_flags_end_the_session(void **state)
{
    struct client c;

    client_open(&c);
    say(&c, "\200\0\0\3", 4);
    expect_end(&c);
    assert_alive();
}

static void a_wrong_magic_ends_the_session(void **state)
{
    struct client c;

    greet(&c);
    say(&c, "IHAVEOPt\0\0\0\7\0\0\0\0", 16);
    expect_end(&c);
    go(&c, true);
    say(&c, "\x25\x60\x95\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\2\0", 28);
    expect_end(&c);
    assert_alive();
}

static void options_that_are_wrong_are_answered_and_the_next_one_is_heard(void **state)
{
    static const struct {
        uint32_t option;
        const char *data;
        uint32_t len, reply;
    } cases[] = {
        { 4, "", 0, NBD_REP_ERR_UNSUP },
        { NBD_OPT_STARTTLS, "", 0, NBD_REP_ERR_UNSUP },
        { 0xffffffff, "xyz", 3, NBD_REP_ERR_UNSUP },
        { NBD_OPT_LIST, "x", 1, NBD_REP_ERR_INVALID },
        { NBD_OPT_STRUCTURED_REPLY, "x", 1, NBD_REP_ERR_INVALID },
        { NBD_OPT_GO, "", 0, NBD_REP_ERR_INVALID },
        { NBD_OPT_GO, "\377\377\377\377disk\0\0", 10, NBD_REP_ERR_INVALID },
        { NBD_OPT_GO, "\0\0\0\4disk\377\377", 10, NBD_REP_ERR_INVALID },
        { NBD_OPT_GO, "\0\0\0\4disc\0\0", 10, NBD_REP_ERR_UNKNOWN },
        { NBD_OPT_INFO, "\0\0\0\0\0\0", 6, NBD_REP_ERR_UNKNOWN },
        { NBD_OPT_SET_META_CONTEXT, "\0\0\0\4disk\0\0\0\0", 12, NBD_REP_ERR_INVALID },
    };
    struct client c;

    greet(&c);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        say_option(&c, cases[i].option, cases[i].data, cases[i].len);
        expect_reply(&c, cases[i].reply);
    }
    say_option(&c, NBD_OPT_LIST, "", 0);
    expect_reply(&c, NBD_REP_SERVER);
    expect_reply(&c, NBD_REP_ACK);
    say_option(&c, NBD_OPT_ABORT, "", 0);
    expect_reply(&c, NBD_REP_ACK);
    expect_end(&c);
}

static void an_option_that_is_too_long_ends_the_session(void **state)
{
    struct client c;

    greet(&c);
    say(&c, "IHAVEOPT\0\0\0\7\377\377\377\377", 16);
    expect_reply(&c, NBD_REP_ERR_TOO_BIG);
    expect_end(&c);
    assert_alive();
}

static void an_unknown_export_name_ends_the_session(void **state)
{
    struct client c;

    greet(&c);
    say_option(&c, NBD_OPT_EXPORT_NAME, "disc", 4);
    expect_end(&c);
    greet(&c);
    say_option(&c, NBD_OPT_EXPORT_NAME, "disk", 4);
    assert_int_equal(load_be64(expect(&c, 10)), SIZE);
    request(&c, NBD_CMD_READ, 0, 0, 512);
    expect_simple(&c, 0);
    expect_content(&c, 0, 512);
    client_close(&c);
}

/* --- Transmission --------------------------------------------------------------------------------------------------------------- */

static void bad_requests_get_errors_and_the_session_goes_on(void **state)
{
    struct client c;

    go(&c, false);
    request(&c, NBD_CMD_READ, 0, SIZE, 512);
    expect_simple(&c, 22);
    request(&c, NBD_CMD_READ, 0, UINT64_MAX, UINT32_MAX);
    expect_simple(&c, 22);
    request(&c, NBD_CMD_BLOCK_STATUS, 0, 0, 512);
    expect_simple(&c, 22);
    request(&c, NBD_CMD_WRITE_ZEROES, NBD_CMD_FAST_ZERO, 0, 512);
    expect_simple(&c, 95);
    request(&c, NBD_CMD_TRIM, 0, SIZE, 512);
    expect_simple(&c, 22);
    request(&c, 99, 0, 0, 0);
    expect_simple(&c, 22);
    request(&c, NBD_CMD_WRITE, 0, SIZE, 4); /* its data is taken nevertheless */
    say(&c, "data", 4);
    expect_simple(&c, 28);
    request(&c, NBD_CMD_READ, 0, 1, 3);
    expect_simple(&c, 0);
    expect_content(&c, 1, 3);
    client_close(&c);
}

static void more_data_than_allowed_ends_the_session(void **state)
{
    struct client c;

    go(&c, true);
    request(&c, NBD_CMD_WRITE, 0, 0, NBD_PAYLOAD_MAX + 1);
    expect_end(&c);
    assert_alive();
}

static void a_client_that_goes_in_the_midst_of_its_data_changes_nothing(void **state)
{
    static const uint32_t lengths[] = { 4096, 65536, 1u << 20, 4u << 20 };
    uint8_t byte;

    for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
        struct client c;

        go(&c, true);
        request(&c, NBD_CMD_WRITE, 0, 0, lengths[i]);
        say(&c, "half", 4);
        client_close(&c);
        loop_run_until(nobody_is_left, NULL);
        assert_int_equal(io_sim_read("disk", 0, &byte, 1), 0);
        assert_int_equal(byte, content(0));
    }
    assert_alive();
}

static void errors_of_the_medium_reach_the_client_that_met_them(void **state)
{
    struct io_sim_fault read = { .kind = IO_SIM_FAULT_ERROR, .ops = IO_SIM_READ, .offset = 3u << 20, .len = 512 };
    struct io_sim_fault full = { .kind = IO_SIM_FAULT_ERROR, .ops = IO_SIM_WRITE, .error = ENOSPC };
    struct client c;
    const uint8_t *head;

    io_sim_fault(&read);
    io_sim_fault(&full);
    go(&c, true);
    request(&c, NBD_CMD_READ, 0, 3u << 20, 4096);
    head = expect(&c, NBD_CHUNK_BYTES + 6);
    assert_int_equal(load_be32(head), NBD_CHUNK_MAGIC);
    assert_int_equal(load_be16(head + 4), NBD_CHUNK_DONE);
    assert_int_equal(load_be16(head + 6), NBD_CHUNK_ERROR);
    assert_int_equal(load_be32(head + NBD_CHUNK_BYTES), 5);
    request(&c, NBD_CMD_WRITE, 0, 0, 4);
    say(&c, "data", 4);
    expect_simple(&c, 28);
    client_close(&c);
    /* Without structured replies: in the first piece an error is told, in a later one it ends the session. */
    go(&c, false);
    request(&c, NBD_CMD_READ, 0, 3u << 20, 2u << 20);
    expect_simple(&c, 5);
    request(&c, NBD_CMD_READ, 0, 1u << 20, 4u << 20);
    expect_simple(&c, 0);
    expect_end(&c);
    assert_false(disk->io_status_failed);
    assert_int_equal(disk->stats.failed[DISK_READ] + disk->stats.failed[DISK_WRITE], 0);
    assert_alive();
}

/* Sends as much of `data` as goes; the rest later. */
struct pusher {
    struct client *c;
    const uint8_t *data;
    size_t at, len;
};

static bool pushed(void *arg)
{
    struct pusher *p = arg;
    ssize_t n = send(p->c->fd, p->data + p->at, p->len - p->at, MSG_DONTWAIT | MSG_NOSIGNAL);

    p->at += n > 0 ? n : 0;
    return p->at == p->len;
}

static void long_writes_and_reads_go_in_pieces(void **state)
{
    size_t len = 5u << 20;
    AUTOFREE uint8_t *bytes = mem_alloc(len);
    struct client c;
    struct pusher push = { .c = &c, .data = bytes, .len = len };

    for (size_t i = 0; i < len; i++) {
        bytes[i] = content(i + 12345);
    }
    go(&c, false);
    request(&c, NBD_CMD_WRITE, NBD_CMD_FUA, 12345, len);
    loop_run_until(pushed, &push);
    expect_simple(&c, 0);
    /* Two long ones and a short one: no answer is torn apart by another. */
    request(&c, NBD_CMD_READ, 0, 0, len);
    request(&c, NBD_CMD_READ, 0, 4096, 512);
    request(&c, NBD_CMD_READ, 0, 65536, len);
    for (int i = 0; i < 3; i++) {
        uint64_t handle = load_be64(expect(&c, NBD_SIMPLE_BYTES) + 8);

        expect_content(&c, handle / 3, handle / 3 == 4096 ? 512 : len);
    }
    client_close(&c);
}

static bool time_is_over(void *arg)
{
    return loop_now() >= *(uint64_t *)arg;
}

static void tick(void *arg)
{
}

/* Let the loop run for so long. */
static void pass(uint64_t ns)
{
    uint64_t end = loop_now() + ns;
    struct loop_timer timer;

    loop_timer_init(&timer, tick, NULL);
    loop_timer_arm(&timer, end);
    loop_run_until(time_is_over, &end);
    loop_timer_cancel(&timer);
}

static void a_client_that_does_not_read_holds_little_memory(void **state)
{
    enum { COUNT = 300 };
    uint8_t raw[COUNT][NBD_REQUEST_BYTES];
    struct client c;

    go(&c, false);
    for (size_t i = 0; i < COUNT; i++) {
        put_request(raw[i], NBD_CMD_READ, 0, i * 512, 2u << 20);
    }
    say(&c, raw, sizeof(raw));
    pass(NS_PER_S);
    struct nbd_session *s = LIST_FIRST(&nbd_sessions);

    assert_true(s->works > 0 && s->works <= 256);
    assert_true(s->held_bytes > 0 && s->held_bytes <= 8u << 20);
    assert_alive(); /* others do not suffer */
    for (size_t i = 0; i < COUNT; i++) {
        uint64_t handle = load_be64(expect(&c, NBD_SIMPLE_BYTES) + 8);

        expect_content(&c, handle / 3, 2u << 20);
    }
    client_close(&c);
}

static CO_ENTRY void remove_hard(void *arg)
{
    struct error err = ERROR_INIT;

    assert_int_equal(co_nbd_export_remove(nbd_export_find("disk"), false, &err), -EBUSY);
    assert_string_equal(err.text, "export 'disk' still in use");
    error_clear(&err);
    assert_int_equal(co_nbd_export_remove(nbd_export_find("disk"), true, &err), 0);
}

static void removing_an_export_cuts_off_whoever_does_not_read(void **state)
{
    struct client c, late;

    greet(&late);
    go(&c, true);
    for (int i = 0; i < 20; i++) {
        request(&c, NBD_CMD_READ, 0, 0, 4u << 20);
    }
    pass(NS_PER_MS);
    loop_run_co(remove_hard, NULL);
    expect_end(&c);
    say_option(&late, NBD_OPT_GO, GO_DISK, 10);
    expect_reply(&late, NBD_REP_ERR_UNKNOWN);
    client_close(&late);
}

/* Valid streams with a few wrong bytes: nothing may hang, break or stay behind. */
static void bytes_changed_at_random_do_no_harm(void **state)
{
    uint8_t stream[4096];

    for (int round = 0; round < 3000; round++) {
        size_t len = 4;
        struct client c;

        memcpy(stream, "\0\0\0\3", 4);
        memcpy(stream + len, "IHAVEOPT\0\0\0\10\0\0\0\0", 16);
        len += 16;
        memcpy(stream + len, "IHAVEOPT\0\0\0\12\0\0\0\37\0\0\0\4disk\0\0\0\1\0\0\0\17base:allocation", 16 + 31);
        len += 16 + 31;
        memcpy(stream + len, "IHAVEOPT\0\0\0\7\0\0\0\12" GO_DISK, 16 + 10);
        len += 16 + 10;
        for (int i = 0; i < 20; i++) {
            uint16_t type = loop_random_below(9);
            uint32_t bytes = loop_random_below(1024);

            put_request(stream + len, type == NBD_CMD_DISC ? 0 : type, loop_random_below(4) ? 0 : loop_random_below(32),
                        loop_random_below(SIZE), bytes);
            len += NBD_REQUEST_BYTES; /* a write takes the requests behind it for its data */
        }
        for (uint64_t n = loop_random_below(6); n; n--) {
            stream[loop_random_below(len)] = loop_random();
        }
        client_open(&c);
        say(&c, stream, loop_random_below(4) ? len : loop_random_below(len));
        pass(loop_random_below(2 * NS_PER_MS));
        client_close(&c);
    }
    loop_run_until(nobody_is_left, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(strange_flags_end_the_session),
        TEST(a_wrong_magic_ends_the_session),
        TEST(options_that_are_wrong_are_answered_and_the_next_one_is_heard),
        TEST(an_option_that_is_too_long_ends_the_session),
        TEST(an_unknown_export_name_ends_the_session),
        TEST(bad_requests_get_errors_and_the_session_goes_on),
        TEST(more_data_than_allowed_ends_the_session),
        TEST(a_client_that_goes_in_the_midst_of_its_data_changes_nothing),
        TEST(errors_of_the_medium_reach_the_client_that_met_them),
        TEST(long_writes_and_reads_go_in_pieces),
        TEST(a_client_that_does_not_read_holds_little_memory),
        TEST(removing_an_export_cuts_off_whoever_does_not_read),
        TEST(bytes_changed_at_random_do_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
