/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The simulated disk from outside, for tests and tools: making, reading and writing files behind
 * the program's back, copies from and to the host, cuts, snapshots.  Nothing here takes time,
 * counts as an operation or meets a fault.
 *
 * The host's files are read and written by plain system calls: this belongs to the engine and waits
 * for nobody.
 */
#include "core/io-sim.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "core/io-sim-disk.h"

#define WRITEBACK_BYTES (64 * 1024 * 1024)
#define CHUNK 65536u

void io_sim_reset(void)
{
    sim_world_free(sim_world);
    sim_world = sim_world_new();
    sim_generation++;
    sim_writeback = WRITEBACK_BYTES;
    sim_plan_reset();
}

/* --- Cuts and snapshots ----------------------------------------------------------------------- */

void io_sim_cut(enum io_sim_cut mode, uint64_t seed)
{
    sim_world_cut(sim_world, mode, seed);
    sim_generation++;
}

static uint64_t hash_of(const uint64_t *numbers, size_t n)
{
    return XXH3_64bits(numbers, n * sizeof(*numbers));
}

static uint64_t text_hash(const char *text)
{
    return text ? XXH3_64bits(text, strlen(text)) : 0;
}

/* Which of a world's files it is: equal in worlds that have been made in the same way. */
static uint64_t file_hash(const struct sim_file *file)
{
    return hash_of((uint64_t[]){ file->place, text_hash(file->path) }, 2);
}

static void describe_name(const struct sim_dirop *d, struct io_sim_pending *out)
{
    uint64_t numbers[] = { d->file ? file_hash(d->file) : 0, text_hash(d->path),
                           text_hash(d->from) };

    *out = (struct io_sim_pending){
        .id = ~d->order, /* from the other end than those of contents */
        .hash = hash_of(numbers, ARRAY_SIZE(numbers)),
        .op = !d->file ? IO_SIM_UNLINK : d->from ? IO_SIM_RENAME : IO_SIM_OPEN,
        .is_name = true,
        .path = d->path,
    };
}

static void describe_op(const struct sim_file *file, struct sim_op *op, bool in_flight,
                        struct io_sim_pending *out)
{
    *out = (struct io_sim_pending){ .id = op->id, .op = op->kind, .in_flight = in_flight,
                                    .hash = sim_op_hash(op) ^ file_hash(file),
                                    .path = file->path, .offset = op->offset, .len = op->len };
}

size_t io_sim_pending(struct io_sim_pending **list)
{
    AUTOFREE struct sim_file **files = NULL;
    size_t n_files = sim_world_files(sim_world, &files), n = 0, room = 1;
    const struct sim_dirop *d;

    TAILQ_FOREACH(d, &sim_world->dirops, link) {
        room++;
    }
    for (size_t i = 0; i < n_files; i++) {
        room += files[i]->cached.n + files[i]->flying.n;
    }
    *list = mem_calloc(room, sizeof(**list));
    TAILQ_FOREACH(d, &sim_world->dirops, link) {
        describe_name(d, &(*list)[n++]);
    }
    for (size_t i = 0; i < n_files; i++) {
        const struct sim_file *file = files[i];

        for (size_t k = 0; k < file->cached.n; k++) {
            describe_op(file, file->cached.op[k], false, &(*list)[n++]);
        }
        for (size_t k = 0; k < file->flying.n; k++) {
            describe_op(file, file->flying.op[k], true, &(*list)[n++]);
        }
    }
    return n;
}

void io_sim_cut_exact(bool kill, const char *fates)
{
    sim_world_cut_exact(sim_world, kill, fates);
    sim_generation++;
}

static uint64_t content_hash(const struct sim_content *content)
{
    return sim_pages_hash(content->pages) + (content->size + 1) * 0x9e3779b97f4a7c15u;
}

/* Names that are kept are plain, so one that is found as it was given is. */
static struct sim_file *lookup(const char *path, bool durable)
{
    struct sim_file *(*find)(struct sim_world *world, const char *path) = durable ? sim_find_durable : sim_find;
    struct sim_file *file = find(sim_world, path);
    AUTOFREE char *name = file ? NULL : sim_path(path);

    return file ? file : find(sim_world, name);
}

uint64_t io_sim_hash(const char *path)
{
    const struct sim_file *file = lookup(path, false);

    return file ? content_hash(&file->now) : 0;
}

size_t io_sim_handles(void)
{
    const struct sim_file *file;
    const struct sim_handle *handle;
    size_t n = 0;

    LIST_FOREACH(file, &sim_world->files, link) {
        LIST_FOREACH(handle, &file->handles, link) {
            n++;
        }
    }
    return n;
}

uint64_t io_sim_hash_all(void)
{
    const struct sim_name *name;
    uint64_t sum = 0;

    for (name = sim_world->names; name; name = name->hh.next) {
        if (name->now) {
            sum += content_hash(&name->now->now) *
                   ((uint64_t)name->hh.hashv * 2 + 1 + ((uint64_t)name->hh.keylen << 40));
        }
    }
    return sum;
}

uint64_t io_sim_hash_durable(void)
{
    AUTOFREE struct sim_file **list = NULL;
    size_t n = sim_world_files(sim_world, &list);
    uint64_t sum = 0;

    for (size_t i = 0; i < n; i++) {
        uint64_t numbers[] = { file_hash(list[i]), content_hash(&list[i]->durable) };

        sum += hash_of(numbers, ARRAY_SIZE(numbers));
    }
    for (const struct sim_name *name = sim_world->names; name; name = name->hh.next) {
        if (name->durable) {
            uint64_t numbers[] = { file_hash(name->durable), text_hash(name->path), 0 };

            sum += hash_of(numbers, ARRAY_SIZE(numbers));
        }
    }
    return sum;
}

struct io_sim_snapshot {
    struct sim_world *world;
};

struct io_sim_snapshot *io_sim_snapshot(void)
{
    struct io_sim_snapshot *snapshot = mem_alloc(sizeof(*snapshot));

    snapshot->world = sim_world_copy(sim_world);
    return snapshot;
}

void io_sim_restore(const struct io_sim_snapshot *snapshot)
{
    sim_world_free(sim_world);
    sim_world = sim_world_copy(snapshot->world);
    sim_generation++;
}

void io_sim_snapshot_free(struct io_sim_snapshot *snapshot)
{
    if (snapshot) {
        sim_world_free(snapshot->world);
        free(snapshot);
    }
}

size_t io_sim_look_at(const struct io_sim_snapshot *snapshot, struct io_sim_pending **list, uint64_t *durable,
                      uint64_t *shown)
{
    struct sim_world *present = sim_world;
    size_t n;

    sim_world = snapshot->world;
    n = io_sim_pending(list);
    *durable = io_sim_hash_durable();
    *shown = io_sim_hash_all();
    sim_world = present;
    return n;
}

/* --- Files ------------------------------------------------------------------------------------ */

static struct sim_file *create(const char *path)
{
    AUTOFREE char *name = sim_path(path);

    if (sim_find(sim_world, name)) {
        sim_unlink(sim_world, name, true);
    }
    return sim_create(sim_world, name, true);
}

/* Change both contents, so that neither cuts nor flushes make a difference. */
static void change(struct sim_file *file, const struct sim_op *op)
{
    sim_op_apply(&file->now, op);
    sim_op_apply(&file->durable, op);
}

static void resize(struct sim_file *file, uint64_t size)
{
    struct sim_op *op = sim_op_new(IO_SIM_TRUNCATE, size, 0, false);

    change(file, op);
    sim_op_unref(op);
}

static void write_chunk(struct sim_file *file, uint64_t offset, const void *buf, size_t len)
{
    struct sim_op *op = sim_op_new(IO_SIM_WRITE, offset, len, true);

    memcpy(op->data, buf, len);
    change(file, op);
    sim_op_unref(op);
}

void io_sim_create(const char *path, uint64_t size)
{
    resize(create(path), size);
}

int io_sim_write(const char *path, uint64_t offset, const void *buf, size_t len)
{
    struct sim_file *file = lookup(path, false);

    if (!file) {
        return -ENOENT;
    }
    if (len) {
        write_chunk(file, offset, buf, len);
    }
    return 0;
}

static int read_file(const char *path, bool durable, uint64_t offset, void *buf, size_t len)
{
    const struct sim_file *file = lookup(path, durable);

    if (!file) {
        return -ENOENT;
    }
    sim_pages_read(durable ? file->durable.pages : file->now.pages, offset, buf, len);
    return 0;
}

int io_sim_read(const char *path, uint64_t offset, void *buf, size_t len)
{
    return read_file(path, false, offset, buf, len);
}

int io_sim_read_durable(const char *path, uint64_t offset, void *buf, size_t len)
{
    return read_file(path, true, offset, buf, len);
}

static int size_of(const char *path, bool durable, uint64_t *size)
{
    const struct sim_file *file = lookup(path, durable);

    if (!file) {
        return -ENOENT;
    }
    *size = durable ? file->durable.size : file->now.size;
    return 0;
}

int io_sim_size(const char *path, uint64_t *size)
{
    return size_of(path, false, size);
}

int io_sim_size_durable(const char *path, uint64_t *size)
{
    return size_of(path, true, size);
}

/* --- The host's files ------------------------------------------------------------------------- */

/* Read the data at [offset, end) of a host file into a simulated one. */
static int import_extent(struct sim_file *file, int fd, off_t offset, off_t end)
{
    char buf[CHUNK];

    while (offset < end) {
        ssize_t got = pread(fd, buf, MIN((off_t)sizeof(buf), end - offset), offset);

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got ? -errno : 0;
        }
        write_chunk(file, offset, buf, got);
        offset += got;
    }
    return 0;
}

static int import_all(struct sim_file *file, int fd)
{
    struct stat st;
    off_t data = 0;
    int ret = 0;

    if (fstat(fd, &st)) {
        return -errno;
    }
    resize(file, st.st_size);
    while (!ret && data < st.st_size) {
        data = lseek(fd, data, SEEK_DATA);
        if (data < 0) {
            return errno == ENXIO ? 0 : -errno; /* only a hole is left */
        }
        off_t hole = lseek(fd, data, SEEK_HOLE);

        ret = hole < 0 ? -errno : import_extent(file, fd, data, hole);
        data = hole;
    }
    return ret;
}

int io_sim_import(const char *path, const char *host_path)
{
    int fd = open(host_path, O_RDONLY | O_CLOEXEC);
    int ret;

    if (fd < 0) {
        return -errno;
    }
    ret = import_all(create(path), fd);
    close(fd);
    return ret;
}

static int export_extent(const struct sim_pages *pages, int fd, uint64_t offset, uint64_t end)
{
    char buf[CHUNK];

    while (offset < end) {
        size_t len = MIN(sizeof(buf), end - offset);

        sim_pages_read(pages, offset, buf, len);

        ssize_t put = pwrite(fd, buf, len, offset);

        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put <= 0) {
            return put ? -errno : -EIO;
        }
        offset += put;
    }
    return 0;
}

int io_sim_export(const char *path, const char *host_path)
{
    const struct sim_file *file = lookup(path, false);
    uint64_t offset = 0;
    int fd, ret;

    if (!file) {
        return -ENOENT;
    }
    fd = open(host_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        return -errno;
    }
    ret = ftruncate(fd, file->now.size) ? -errno : 0;
    while (!ret && offset < file->now.size) {
        uint64_t len = file->now.size - offset;

        if (sim_pages_map(file->now.pages, offset, &len)) {
            ret = export_extent(file->now.pages, fd, offset, offset + len);
        }
        offset += len;
    }
    if (close(fd) && !ret) {
        ret = -errno;
    }
    return ret;
}
