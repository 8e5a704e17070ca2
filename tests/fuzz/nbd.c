/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An NBD client that says anything, to the server of a raw disk.
 *
 * An input is what the client sends, behind one byte that says in what pieces it comes and how long the client listens.
 *
 * Demanded besides F1 to F4: when the client has gone, so has its session, and all its memory.
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "export/nbd-session.h"
#include "tests/fuzz/lib/raw-disk.h"

#define DISK (128u << 10)
#define INPUT_MAX 4096u

static struct disk *disk;

static void session_ended(void)
{
}

static CO_ENTRY void co_begin(void *arg)
{
    struct error err = ERROR_INIT;

    disk = co_raw_disk_open("disk");
    struct nbd_export_spec spec = { .name = "d", .description = "the only one", .disk = disk, .writable = true };

    FUZZ_CHECK(nbd_export_add(&spec, &err) == 0, "%s", err.text);
}

static CO_ENTRY void co_end(void *arg)
{
    FUZZ_CHECK(co_nbd_export_remove(nbd_export_find("d"), true, NULL) == 0, "the export cannot be removed");
    co_disk_free(disk);
}

static void listen_a_while(int fd)
{
    static uint8_t buf[64 << 10];

    do {
        fuzz_settle();
    } while (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0);
}

static void run(struct fuzz_input *in)
{
    uint8_t how = fuzz_u8(in);
    size_t piece = how & 0xf ? (size_t)(how & 0xf) * 16 : INPUT_MAX;
    int ends[2];

    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0, "no sockets");
    loop_run_co(co_begin, NULL);
    nbd_session_start(ends[1], session_ended);
    while (fuzz_more(in)) {
        uint8_t bytes[INPUT_MAX];
        size_t n = MIN(MIN(piece, in->len), sizeof(bytes));

        fuzz_take(in, bytes, n);
        if (send(ends[0], bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
            break;
        }
        if (how & 0x80) {
            fuzz_settle(); /* a client that does not read */
        } else {
            listen_a_while(ends[0]);
        }
    }
    if (how & 0x40) {
        shutdown(ends[0], SHUT_WR);
        listen_a_while(ends[0]);
    }
    close(ends[0]);
    fuzz_settle();
    FUZZ_CHECK(LIST_EMPTY(&nbd_sessions), "a session outlives its client");
    loop_run_co(co_end, NULL);
}

static void set_up(void)
{
    char dir[] = "/tmp/merganser-fuzz.XXXXXX";
    struct error err = ERROR_INIT;

    raw_disk_make(DISK);
    FUZZ_CHECK(mkdtemp(dir), "no directory");
    AUTOFREE char *path = mem_printf("%s/s", dir);

    /* Exports need a server; nobody comes to its socket. */
    FUZZ_CHECK(nbd_server_start(path, 0, &err) == 0, "%s", err.text);
    unlink(path);
    rmdir(dir);
}

/* --- The mutator: whole messages ------------------------------------------------------------------------ */

static size_t make_option(uint8_t *p, struct random *rnd)
{
    static const char go[] = "\0\0\0\1d\0\1\0\3", meta[] = "\0\0\0\1d\0\0\0\1\0\0\0\17base:allocation", name[] = "d";
    static const struct {
        uint32_t option;
        const char *data;
        uint32_t len;
    } options[] = {
        { NBD_OPT_GO, go, sizeof(go) - 1 },
        { NBD_OPT_GO, go, sizeof(go) - 1 },
        { NBD_OPT_INFO, go, sizeof(go) - 1 },
        { NBD_OPT_LIST, "", 0 },
        { NBD_OPT_STRUCTURED_REPLY, "", 0 },
        { NBD_OPT_SET_META_CONTEXT, meta, sizeof(meta) - 1 },
        { NBD_OPT_LIST_META_CONTEXT, meta, sizeof(meta) - 1 },
        { NBD_OPT_EXPORT_NAME, name, 1 },
        { NBD_OPT_ABORT, "", 0 },
    };
    unsigned i = random_below(rnd, ARRAY_SIZE(options));
    uint32_t len = options[i].len;

    store_be64(p, NBD_OPTION_MAGIC);
    store_be32(p + 8, random_below(rnd, 32) ? options[i].option : fuzz_boundary(rnd));
    store_be32(p + 12, random_below(rnd, 16) ? len : fuzz_boundary(rnd));
    memcpy(p + 16, options[i].data, len);
    if (len && random_below(rnd, 4) == 0) {
        p[16 + random_below(rnd, len)] = fuzz_boundary(rnd);
    }
    return 16 + len;
}

static size_t make_request(uint8_t *p, struct random *rnd)
{
    uint64_t offset = random_below(rnd, 8) ? random_below(rnd, DISK) & ~511ull : fuzz_boundary(rnd);
    uint32_t len = random_below(rnd, 8) ? 1u << random_below(rnd, 16) : fuzz_boundary(rnd);
    uint16_t type = random_below(rnd, 16) ? random_below(rnd, 9) : random_next(rnd);
    size_t data = type == NBD_CMD_WRITE ? MIN(len, 64u) : 0;

    store_be32(p, NBD_REQUEST_MAGIC);
    store_be16(p + 4, random_below(rnd, 4) ? 0 : 1u << random_below(rnd, 16));
    store_be16(p + 6, type);
    store_be64(p + 8, random_next(rnd));
    store_be64(p + 16, offset);
    store_be32(p + 24, type == NBD_CMD_WRITE && random_below(rnd, 4) ? data : len);
    memset(p + 28, 'w', data);
    return 28 + data;
}

/* From the handshake on, as a client talks. */
static size_t make_talk(uint8_t *data, struct random *rnd)
{
    size_t len = 5;

    data[0] = random_below(rnd, 4) ? 0x40 : random_next(rnd);
    store_be32(data + 1, random_below(rnd, 4));
    for (uint64_t n = random_below(rnd, 5); n-- > 0;) {
        len += make_option(data + len, rnd);
    }
    for (uint64_t n = random_below(rnd, 8); n-- > 0;) {
        len += make_request(data + len, rnd);
    }
    return len;
}

static size_t mutate(uint8_t *data, size_t len, size_t max, struct random *rnd)
{
    uint8_t message[128];

    if (max >= 1024 && (len < 5 || random_below(rnd, 8) == 0)) {
        return make_talk(data, rnd);
    }
    if (random_below(rnd, 2)) {
        return fuzz_mutate_bytes(data, len, max, rnd);
    }
    size_t n = random_below(rnd, 2) ? make_option(message, rnd) : make_request(message, rnd);

    n = MIN(n, max - len);
    memcpy(data + len, message, n);
    return len + n;
}

const struct fuzz_target fuzz_target = {
    .name = "nbd",
    .set_up = set_up,
    .run = run,
    .mutate = mutate,
    .max_len = INPUT_MAX,
};
