/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Room behind the end of a file, for a guest's writes while the file is written out.
 *
 * A write into the page cache that needs new blocks takes the lock of the file's tree of extents (ext4's i_data_sem, XFS has one
 * like it), and so does whoever writes the file's pages back, for each run that it finds blocks for and again when the disk has it.
 * That may take milliseconds: a bitmap of free blocks comes from a disk that is busy with these very pages, or a thread of the
 * kernel waits for a processor.  Where blocks are there already (even if nothing was ever written to them) a write does not
 * ask for the lock.  A guest of 600 writes a second, 400 snapshots of its disk: some 10 of its writes waited for 2 to 16 ms, with
 * room none for 1.5.
 *
 * The file's size stays what it is, so nobody who reads the image sees a difference; what was not used goes back.  After a kill
 * it is left behind the end, where the next one who makes the file longer uses it.
 */
#include "core/io-engine.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/io-host.h"

#define XFS_MAGIC 0x58465342

/* Room is a luxury: there must be so many times as much free. */
#define PLENTY 64

/*
 * For a file that grows by copies on write: so much at a time, which takes 5 us, and never more than twice what it has grown by.  A
 * cluster of 64 KiB takes 1 us less of 15: in a hole each of its 16 blocks is reserved by itself.  What is left sparse on purpose
 * does not count as growth.
 */
#define AHEAD (16ull << 20)

/* Where it helps, and where it can be given back (tmpfs does not). */
static bool is_worth_it(int fd, uint64_t bytes)
{
    struct statfs fs;

    return !fstatfs(fd, &fs) && (fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == XFS_MAGIC) &&
           (uint64_t)fs.f_bavail * fs.f_bsize / PLENTY > bytes;
}

void io_room_make_run(void *arg)
{
    struct io_room_request *r = arg;
    struct io_room *room = r->room;
    struct stat st;
    uint64_t from, to;

    if (fstat(r->fd, &st) || !S_ISREG(st.st_mode)) {
        return;
    }
    to = st.st_size + r->bytes;
    from = MAX((uint64_t)st.st_size, room->to);
    if (from + r->bytes / 2 > to || !is_worth_it(r->fd, r->bytes)) {
        return;
    }
    if (!room->to) {
        room->fd = fcntl(r->fd, F_DUPFD_CLOEXEC, 0);
    }
    if (room->fd >= 0 && !fallocate(room->fd, FALLOC_FL_KEEP_SIZE, from, to - from)) {
        room->to = to;
    } else if (!room->to && room->fd >= 0) {
        close(room->fd);
    }
}

void io_room_ask(struct io_room *room, int fd, uint64_t end, struct io_room_request *r)
{
    if (!room->changing && room->grown >= AHEAD / 2 && end + AHEAD / 2 > room->to) {
        *r = (struct io_room_request){ .room = room, .fd = fd, .bytes = AHEAD };
        room->grown = 0;
        room->changing = true;
    }
}

void io_room_answered(struct io_room *room, struct io_room_request *r, uint64_t grown)
{
    room->grown += grown;
    if (r->room) {
        room->changing = false;
    }
}

/* The size is the old one: no byte is cut off.  An error changes nothing for anybody. */
static void give_back_run(void *arg)
{
    struct io_room *room = ((struct io_room_request *)arg)->room;
    struct stat st;

    if (!fstat(room->fd, &st) && room->to > (uint64_t)st.st_size) {
        (void)!ftruncate(room->fd, st.st_size); /* what stays is only room, and used again */
    }
    close(room->fd);
    room->to = 0;
}

static void co_run(const struct io_engine *engine, void (*fn)(void *), struct io_room_request *r)
{
    struct io_call call = { .op = IO_CALL_FN, .fn = fn, .arg = r, .bulk = true };

    r->room->changing = true;
    engine->co_carry(&call);
    r->room->changing = false;
}

void co_io_room_make(const struct io_engine *engine, struct io_room *room, int fd, uint64_t bytes)
{
    struct io_room_request r = { .room = room, .fd = fd, .bytes = bytes };

    if (!room->changing) {
        co_run(engine, io_room_make_run, &r);
    }
}

void co_io_room_give_back(const struct io_engine *engine, struct io_room *room)
{
    struct io_room_request r = { .room = room };

    if (room->to && !room->changing) {
        co_run(engine, give_back_run, &r);
    }
}

uint64_t io_room_unused(const struct io_room *room, uint64_t size, unsigned block)
{
    uint64_t used = ROUND_UP(size, (uint64_t)block), all = ROUND_UP(room->to, (uint64_t)block);

    return all > used ? all - used : 0;
}
