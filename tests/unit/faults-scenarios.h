/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The acceptance scenarios that are run while the host fails, and the images that they begin with:
 *
 *   /A <- /B <- /C <- /D   clusters of 4 KiB; /C is node "mid"      /T on the raw /R
 *   /V version 2, 64 KiB   /E extended L2 entries on /A             /F dirty, wrong counts
 *   /W wrong counts        /G compressed, an internal snapshot (only where qemu-img is)
 *   /U on /P, clusters of 64 KiB, a big extension, the name at the end of the first cluster;
 *   /H on /I the same without the extension
 *   /K wrong flags         /S clusters of 512 bytes, a disk of 4 MiB
 *
 * All are made once; each run begins with a snapshot of that disk.
 */
#ifndef TESTS_UNIT_FAULTS_SCENARIOS_H
#define TESTS_UNIT_FAULTS_SCENARIOS_H

#include "block/chain-map.h"
#include "img/command.h"
#include "monitor/events.h"
#include "monitor/monitor.h"
#include "monitor/outcome.h"
#include "monitor/script.h"
#include "tests/unit/faults-rig.h"

#define PRESENT 11u
#define EXTENSION_BYTES 6000u
#define GROWN_BYTES (4u << 20)
#define CLUSTER 4096u

/* --- What there is at first ------------------------------------------------------------------- */

static struct io_sim_snapshot *first_disk;
static struct {
    const char *top;
    struct cell cell[CELLS];
} first[PRESENT];
static unsigned n_first;
static bool have_qemu_img;

static inline void co_make_image(const char *path, const char *more, const char *backing,
                                 const char *format)
{
    struct error err = ERROR_INIT;
    json_error_t bad;
    json_t *options = json_loads(more, 0, &bad);
    int ret;

    assert_non_null(options);
    if (!json_object_get(options, "size")) {
        json_object_set_new(options, "size", json_integer(DISK_BYTES));
    }
    if (backing) {
        json_object_set_new(options, "backing_file", json_string(backing));
        json_object_set_new(options, "backing_fmt", json_string(format));
    }
    ret = driver_qcow2.co_create(path, options, &err);
    if (ret) {
        print_message("%s: %s\n", path, err.text);
    }
    assert_int_equal(ret, 0);
    json_decref(options);
}

/* Every eighth or so sector run gets content, another part for each layer. */
static inline void co_fill_image(struct run *run, const char *path, unsigned salt)
{
    struct random rnd;

    random_seed(&rnd, salt);
    assert_true(co_run_open(run, path, path[1] == 'R' ? "raw" : "qcow2"));
    for (unsigned i = 0; i < 6; i++) {
        uint64_t at = random_below(&rnd, CELLS - 32) * SECTOR;
        uint64_t len = (1 + random_below(&rnd, 24)) * SECTOR;

        assert_int_equal(co_guest_write(run, at, len), 0);
    }
    co_guest_clear(run, random_below(&rnd, 32) * CLUSTER, 2 * CLUSTER, false);
    co_run_close(run);
}

static inline void keep_first(const struct run *run, const char *top)
{
    assert_true(n_first < PRESENT);
    first[n_first].top = top;
    for (uint32_t i = 0; i < CELLS; i++) {
        const struct cell *cell = &run->cell[i];

        first[n_first].cell[i] = (struct cell){ .n = 1, .value = { cell->value[cell->n - 1] } };
    }
    n_first++;
}

static inline void clear_cells(struct run *run)
{
    for (uint32_t i = 0; i < CELLS; i++) {
        run->cell[i] = (struct cell){ .n = 1 };
    }
}

/* One layer on top of what the model holds. */
static inline void co_make_layer(struct run *run, const char *path, const char *options,
                                 const char *backing, const char *format)
{
    if (!backing) {
        clear_cells(run);
    }
    if (path[1] == 'R') {
        io_sim_create(path, DISK_BYTES);
    } else {
        co_make_image(path, options, backing, format);
    }
    co_fill_image(run, path, path[1]);
}

/* All reference counts of data become `byte` twice; the dirty bit if asked for. */
static inline void spoil_counts(const char *path, uint8_t byte, bool dirty)
{
    uint8_t head[104], junk[CLUSTER], entry[8];
    uint64_t table;

    assert_int_equal(io_sim_read(path, 0, head, sizeof(head)), 0);
    table = load_be64(head + 48);
    assert_int_equal(io_sim_read(path, table, entry, sizeof(entry)), 0);
    memset(junk, byte, sizeof(junk));
    io_sim_write(path, load_be64(entry), junk, sizeof(junk));
    head[79] |= dirty ? QCOW2_INCOMPAT_DIRTY : 0;
    io_sim_write(path, 72, head + 72, 8);
}

/* No cluster is said to be ours alone. */
static inline void spoil_flags(const char *path)
{
    uint8_t head[104], table[CLUSTER];
    uint64_t l1, l2;

    assert_int_equal(io_sim_read(path, 0, head, sizeof(head)), 0);
    l1 = load_be64(head + 40);
    assert_int_equal(io_sim_read(path, l1, table, 8), 0);
    table[0] &= 0x7f;
    io_sim_write(path, l1, table, 8);
    l2 = load_be64(table);
    assert_int_equal(io_sim_read(path, l2, table, sizeof(table)), 0);
    for (unsigned i = 0; i < sizeof(table); i += 8) {
        table[i] &= 0x7f;
    }
    io_sim_write(path, l2, table, sizeof(table));
}

/* A big extension that nobody knows, and the name at the end of the first cluster. */
static inline void spread_header(const char *path, uint32_t cluster, uint32_t extension)
{
    AUTOFREE uint8_t *head = mem_zalloc(cluster);
    uint32_t name_len, at;
    uint64_t name;

    assert_int_equal(io_sim_read(path, 0, head, cluster), 0);
    name = load_be64(head + 8);
    name_len = load_be32(head + 16);
    memcpy(head + cluster - 64, head + name, name_len);
    memset(head + name, 0, name_len);
    store_be64(head + 8, cluster - 64);
    for (at = load_be32(head + 100); load_be32(head + at);) {
        at += 8 + ROUND_UP(load_be32(head + at + 4), 8);
    }
    if (extension) {
        store_be32(head + at, 0x53545247);
        store_be32(head + at + 4, extension);
        memset(head + at + 8, 7, extension);
        memset(head + at + 8 + extension, 0, 8);
    }
    io_sim_write(path, 0, head, cluster);
}

/* /G: what /D shows, compressed, with a snapshot inside. */
static inline void co_make_compressed(struct run *run)
{
    int status;

    free(rig_shell(&status, "qemu-img --version"));
    have_qemu_img = status == 0;
    if (!have_qemu_img) {
        return;
    }
    for (const char *name = "ABCD"; *name; name++) {
        AUTOFREE char *from = mem_printf("/%c", *name), *to = mem_printf("%s.%c", rig_file, *name);

        assert_int_equal(io_sim_export(from, to), 0);
        if (*name > 'A') {
            free(rig_shell(&status, "qemu-img rebase -u -F qcow2 -b %s.%c %s", rig_file, *name - 1,
                           to));
            assert_int_equal(status, 0);
        }
    }
    free(rig_shell(&status,
                   "qemu-img convert -c -O qcow2 -o cluster_size=4096 %s.D %s && "
                   "qemu-img snapshot -c one %s && qemu-img bitmap --add %s marks && rm %s.?",
                   rig_file, rig_file, rig_file, rig_file, rig_file));
    assert_int_equal(status, 0);
    assert_int_equal(io_sim_import("/G", rig_file), 0);
    keep_first(run, "/G");
}

static CO_ENTRY inline void co_make_first(void *arg)
{
    static const char *const plain = "{\"cluster_size\": 4096}";
    struct run *run = arg;

    co_make_layer(run, "/Q", plain, NULL, NULL);
    co_make_layer(run, "/E", "{\"cluster_size\": 16384, \"extended_l2\": true}", "Q", "qcow2");
    keep_first(run, "/E");
    co_make_layer(run, "/A", plain, NULL, NULL);
    co_make_layer(run, "/B", plain, "A", "qcow2");
    co_make_layer(run, "/C", plain, "B", "qcow2");
    co_make_layer(run, "/D", plain, "C", "qcow2");
    keep_first(run, "/D");
    co_make_compressed(run);
    co_make_layer(run, "/R", NULL, NULL, NULL);
    keep_first(run, "/R");
    co_make_layer(run, "/T", plain, "R", "raw");
    keep_first(run, "/T");
    co_make_layer(run, "/V", "{\"compat\": \"0.10\"}", NULL, NULL);
    keep_first(run, "/V");
    co_make_layer(run, "/F", plain, NULL, NULL);
    keep_first(run, "/F");
    co_make_layer(run, "/W", plain, NULL, NULL);
    keep_first(run, "/W");
    co_make_layer(run, "/K", plain, NULL, NULL);
    co_make_layer(run, "/S", "{\"cluster_size\": 512, \"refcount_bits\": 64, \"size\": 4194304}", NULL,
                  NULL);
    keep_first(run, "/S");
    co_make_layer(run, "/P", plain, NULL, NULL);
    co_make_layer(run, "/U", "{\"cluster_size\": 65536}", "P", "qcow2");
    keep_first(run, "/U");
    spread_header("/U", 65536, EXTENSION_BYTES);
    co_make_layer(run, "/I", plain, NULL, NULL);
    co_make_layer(run, "/H", "{\"cluster_size\": 65536}", "I", "qcow2");
    keep_first(run, "/H");
    spread_header("/H", 65536, 0);
    spoil_flags("/K");
    spoil_counts("/F", 0, true);
    spoil_counts("/W", 1, false);
    io_sim_cut(IO_SIM_CUT_POWER_KEEP, 0);
    first_disk = io_sim_snapshot();
}

/* --- Guests ----------------------------------------------------------------------------------- */

static inline void co_some_requests(struct run *run)
{
    co_guest_write(run, 3 * CLUSTER + SECTOR, SECTOR);
    co_guest_write(run, 20 * CLUSTER, 2 * CLUSTER);
    co_guest_read(run, 0, DISK_BYTES / 2);
    co_guest_flush(run);
    co_guest_write(run, 21 * CLUSTER - SECTOR, CLUSTER);
    co_guest_clear(run, 20 * CLUSTER, CLUSTER, true);
    co_guest_clear(run, 30 * CLUSTER, 4 * CLUSTER, false);
    co_guest_clear(run, 36 * CLUSTER + SECTOR, SECTOR, false);
    co_guest_write(run, 31 * CLUSTER, CLUSTER);
    co_guest_flush(run);
    co_guest_write(run, 40 * CLUSTER + SECTOR, 3 * CLUSTER);
    co_guest_read(run, 0, DISK_BYTES);
}

/* As the monitor asks for it, without a format. */
static inline void co_guest_of_a_file(struct run *run)
{
    if (co_run_open(run, run->top, "file")) {
        co_some_requests(run);
        co_run_close(run);
    }
}

/* A host on which the file cannot be written, then. */
static inline void co_guest_of_a_read_only_file(struct run *run)
{
    const struct io_sim_fault refusal = { .kind = IO_SIM_FAULT_ERROR, .path = "/D",
                                          .ops = IO_SIM_OPEN, .error = EACCES, .times = 1 };
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s, s:b}", "driver", "qcow2", "auto-read-only", 1);
    AUTOFREE uint8_t *buf = mem_alloc(DISK_BYTES);

    io_sim_fault(&refusal);
    struct node *node = co_node_open(run->top, options, &err);

    json_decref(options);
    if (went_well(run, node ? 0 : -1, &err, "open")) {
        if (co_node_read_buf(node, 0, buf, DISK_BYTES) == 0 && !run->damage_allowed) {
            check_bytes(run, 0, DISK_BYTES, buf, false, "a read");
        } else {
            run->refused += !run->damage_allowed;
        }
        co_node_unref(node);
    }
}

/* So much that the tables for it have to grow. */
static inline void co_growth(struct run *run)
{
    AUTOFREE uint8_t *buf = mem_zalloc(DISK_BYTES);
    struct iovec iov = { .iov_base = buf, .iov_len = DISK_BYTES };
    struct error err = ERROR_INIT;

    memset(buf, 7, DISK_BYTES);
    if (co_run_open(run, run->top, "qcow2")) {
        for (uint64_t at = DISK_BYTES; at < GROWN_BYTES; at += DISK_BYTES) {
            run->refused += co_disk_write(run->disk, at, &iov, 1) < 0;
            if (at == DISK_BYTES) {
                co_guest_flush(run); /* within the table that there is */
            }
        }
        co_some_requests(run);
        if (went_well(run, co_node_truncate(run->disk->root, 2 * GROWN_BYTES, &err), &err,
                      "resize")) {
            for (uint64_t at = GROWN_BYTES; at < 2 * GROWN_BYTES; at += DISK_BYTES) {
                run->refused += co_disk_write(run->disk, at, &iov, 1) < 0;
            }
        }
        co_run_close(run);
    }
}

static inline void co_guest_of_whatever(struct run *run)
{
    if (co_run_open(run, run->top, NULL)) {
        co_some_requests(run);
        co_run_close(run);
    }
}

static inline void co_guest(struct run *run)
{
    if (co_run_open(run, run->top, run->top[1] == 'R' ? "raw" : "qcow2")) {
        co_some_requests(run);
        co_run_close(run);
    }
}

/* Everything at once, as devices do. */
struct crowd {
    struct run *run;
    struct co_group group;
    unsigned next;
};

static CO_ENTRY inline void co_one_of_a_crowd(void *arg)
{
    struct crowd *crowd = arg;
    unsigned me = crowd->next++;

    for (unsigned i = 0; i < 4; i++) {
        co_guest_write(crowd->run, (4 * me + i) * CLUSTER * 2 + SECTOR, CLUSTER);
    }
    co_guest_read(crowd->run, 8 * me * CLUSTER, CLUSTER);
    co_group_done(&crowd->group, 0);
}

static inline void co_crowd(struct run *run)
{
    struct crowd crowd = { .run = run };

    if (!co_run_open(run, run->top, "qcow2")) {
        return;
    }
    co_group_init(&crowd.group);
    for (unsigned i = 0; i < 6; i++) {
        co_group_add(&crowd.group);
        co_start(co_one_of_a_crowd, &crowd);
    }
    co_guest_flush(run);
    co_group_wait(&crowd.group);
    co_guest_flush(run);
    co_run_close(run);
}

/* --- Merges and snapshots --------------------------------------------------------------------- */

static inline void co_snapshot_to(struct run *run, const char *path, const char *below)
{
    struct snapshot_args args = { .device = "virtio0", .file = path };
    struct error err = ERROR_INIT;

    if (went_well(run, co_snapshot_sync(&args, &err), &err, "snapshot")) {
        run->top = path;
        promise(run, path, DISK_BYTES, below);
    }
}

static inline void co_snapshots(struct run *run)
{
    if (co_run_open(run, run->top, "qcow2")) {
        co_guest_write(run, 5 * CLUSTER, SECTOR);
        co_snapshot_to(run, "/N", "D");
        co_guest_write(run, 5 * CLUSTER + SECTOR, SECTOR);
        co_guest_flush(run);
        io_sim_create("/O", 0); /* is there, but empty */
        co_snapshot_to(run, "O", NULL);
        co_guest_write(run, 6 * CLUSTER, SECTOR);
        co_guest_read(run, 0, DISK_BYTES);
        co_run_close(run);
    }
}

static inline void co_stream_all(struct run *run)
{
    if (co_run_open(run, run->top, "qcow2")) {
        co_run_stream(run, "virtio0", NULL, 0, co_some_requests);
        co_guest_write(run, 7 * CLUSTER, CLUSTER);
        co_guest_flush(run);
        co_run_close(run);
    }
}

static inline void co_stream_base(struct run *run)
{
    if (co_run_open(run, run->top, "qcow2")) {
        co_run_stream(run, "virtio0", "/A", 0, NULL);
        co_guest_read(run, 0, DISK_BYTES);
        co_run_close(run);
    }
}

static inline void co_stream_mid(struct run *run)
{
    if (co_run_open(run, run->top, "qcow2")) {
        co_run_stream(run, "mid", "/A", 0, co_some_requests);
        co_run_close(run);
    }
}

static inline void co_stream_cancelled(struct run *run)
{
    if (co_run_open(run, run->top, "qcow2")) {
        co_run_stream(run, "virtio0", NULL, 500 * NS_PER_US, NULL);
        co_guest_write(run, 7 * CLUSTER, CLUSTER);
        co_run_close(run);
    }
}

static inline void co_set_backing(struct run *run)
{
    struct error err = ERROR_INIT;
    struct node *root;

    if (co_run_open(run, run->top, "qcow2")) {
        root = run->disk->root;
        co_guest_write(run, 9 * CLUSTER, SECTOR);
        AUTOFREE char *name = mem_printf("././%s", root->backing->filename + 1);

        if (went_well(run, root->driver->co_set_backing(root, name, "qcow2", &err), &err,
                      "another backing file")) {
            promise(run, run->top, 0, strcmp(run->top, "/U") ? "C" : "P");
        }
        co_run_close(run);
    }
}

/* A name that does not lie in the header's first sector. */
static inline void co_set_backing_long(struct run *run)
{
    AUTOFREE char *name = mem_zalloc(1001);
    struct error err = ERROR_INIT;
    struct node *root;

    for (unsigned i = 0; i < 498; i++) {
        strcat(name, "./");
    }
    strcat(name, "C");
    if (co_run_open(run, run->top, "qcow2")) {
        root = run->disk->root;
        if (went_well(run, root->driver->co_set_backing(root, name, "qcow2", &err), &err,
                      "a long name")) {
            promise(run, run->top, 0, "C");
        }
        co_run_close(run);
    }
    co_guest(run); /* reads that header */
}

/* A header as others make it: an extension and a name far away. */
static inline void co_set_backing_far(struct run *run)
{
    co_guest(run);
    co_set_backing(run);
}

/* What is merged already is merged again: nothing to do, but the answer is a promise. */
static inline void co_stream_nothing(struct run *run)
{
    if (co_run_open(run, run->top, "qcow2")) {
        co_run_stream(run, "mid", "/B", 0, NULL);
        co_run_close(run);
    }
}

/* --- Images ----------------------------------------------------------------------------------- */

static inline void co_create(struct run *run)
{
    static const char *const preallocations[] = { "off", "metadata", "falloc", "full" };
    struct error err = ERROR_INIT;

    for (unsigned i = 0; i < 8; i++) {
        static const char *const paths[] = { "/X0", "/X1", "/X2", "/X3", "/R0", "/R1", "/R2", "/R3" };
        const struct driver *driver = i < 4 ? &driver_qcow2 : &driver_raw;
        json_t *options = json_pack("{s:I, s:s}", "size", (json_int_t)DISK_BYTES, "preallocation",
                                    i == 5 ? "off" : preallocations[i % 4]);

        if (went_well(run, driver->co_create(paths[i], options, &err), &err, "create")) {
            promise(run, paths[i], DISK_BYTES, NULL);
        }
        json_decref(options);
    }
}

/* A block device: it cannot be cut, and space cannot be asked for. */
static inline void co_create_on_a_device(struct run *run)
{
    static const char *const preallocations[] = { "metadata", "falloc" };
    const struct io_sim_fault uncut = { .kind = IO_SIM_FAULT_ERROR, .ops = IO_SIM_TRUNCATE,
                                        .error = EINVAL };
    const struct io_sim_fault unasked = { .kind = IO_SIM_FAULT_ERROR, .ops = IO_SIM_ALLOCATE,
                                          .error = EOPNOTSUPP };
    struct error err = ERROR_INIT;

    for (unsigned i = 0; i < 2; i++) {
        json_t *options = json_pack("{s:I, s:s}", "size", (json_int_t)DISK_BYTES, "preallocation",
                                    preallocations[i]);

        io_sim_create("/device", 4 * DISK_BYTES);
        io_sim_write("/device", 0, "something", 9);
        io_sim_fault(&uncut);
        io_sim_fault(&unasked);
        run->n_promises = 0;
        if (went_well(run, driver_qcow2.co_create("/device", options, &err), &err, "create")) {
            promise(run, "/device", DISK_BYTES, NULL);
        }
        json_decref(options);
    }
}

/* A command of merganser-img; its exit code. */
static inline int co_img(struct run *run, const char *line)
{
    AUTOFREE char *copy = mem_strdup(line);
    struct img_args args;
    char *argv[16], *rest = copy;
    int argc = 0, code;

    while ((argv[argc] = strsep(&rest, " "))) {
        argc++;
    }
    assert_int_equal(img_args_parse(&args, img_command_find(argv[0]), argc, argv, &code), 0);
    code = args.command->co_run(&args);
    img_args_free(&args);
    run->steps++;
    run->refused += code != 0;
    return code;
}

static inline void co_img_reads(struct run *run)
{
    co_img(run, "info --backing-chain D");
    co_img(run, "map D");
    co_img(run, "map T");
    co_img(run, "measure -O qcow2 D");
    co_img(run, "compare D T"); /* 1: they differ */
    co_img(run, "check D");
    if (have_qemu_img) {
        co_img(run, "info G");
        co_img(run, "snapshot -l G");
        co_img(run, "compare D G");
        co_img(run, "check G");
    }
}

static inline void co_img_convert_it(struct run *run)
{
    if (co_img(run, "convert -O qcow2 D X") == 0) {
        promise(run, "/X", DISK_BYTES, "");
        run->top = "/X";
    }
    co_img(run, "convert -c -O qcow2 D Z");
    if (co_img(run, "convert -O raw D R9") == 0) {
        promise(run, "/R9", DISK_BYTES, NULL);
    }
}

static inline void co_img_rebase_it(struct run *run)
{
    if (co_img(run, "rebase -F qcow2 -b A D") == 0) {
        promise(run, "/D", DISK_BYTES, "A");
    }
}

static inline void co_img_rebase_unsafe(struct run *run)
{
    if (co_img(run, "rebase -u -F qcow2 -b ./C D") == 0) {
        promise(run, "/D", DISK_BYTES, "C");
    }
}

static inline void co_img_resize_it(struct run *run)
{
    bool good = co_img(run, "resize D +128K") == 0;

    promise(run, "/D", good ? DISK_BYTES + 128 * KIB : 0, "C");
    good = co_img(run, "resize -f raw R +64K") == 0;
    promise(run, "/R", good ? DISK_BYTES + 64 * KIB : 0, NULL);
    good = co_img(run, "resize --shrink V 128K") == 0;
    promise(run, "/V", good ? 128 * KIB : 0, NULL);
}

static inline void co_img_resize_held(struct run *run)
{
    bool good = co_img(run, "resize --preallocation=falloc D +128K") == 0;

    promise(run, "/D", good ? DISK_BYTES + 128 * KIB : 0, "C");
    good = co_img(run, "resize --preallocation=full V +128K") == 0;
    promise(run, "/V", good ? DISK_BYTES + 128 * KIB : 0, NULL);
    co_img(run, "resize -f raw --preallocation=full R 384K");
    good = co_img(run, "resize -f raw --preallocation=falloc R 448K") == 0;
    promise(run, "/R", good ? 448 * KIB : 0, NULL);
}

static inline void co_img_repair(struct run *run)
{
    if (co_img(run, "check -r all W") == 0) {
        promise(run, "/W", DISK_BYTES, "");
    }
    co_img(run, "check W");
    if (co_img(run, "check -r all K") == 0) { /* its flags only */
        promise(run, "/K", DISK_BYTES, "");
    }
}

/* Internal snapshots: what was there before is there again in the end. */
static inline void co_img_snapshots(struct run *run)
{
    bool made = co_img(run, "snapshot -c one D") == 0;
    const struct cell *then = NULL;

    for (unsigned i = 0; i < n_first; i++) {
        then = strcmp(first[i].top, run->top) == 0 ? first[i].cell : then;
    }
    co_guest(run);
    for (uint32_t i = 0; made && i < CELLS; i++) { /* from now on it may be that again */
        cell_add(&run->cell[i], then[i].value[0]);
    }
    if (made && co_img(run, "snapshot -a one D") == 0) {
        memcpy(run->cell, then, sizeof(run->cell));
        run->unsaved = false;
    }
    co_img(run, "convert -l one -O qcow2 D Z");
    co_img(run, "snapshot -d one D");
    promise(run, "/D", DISK_BYTES, "C");
}

static inline void co_img_create_it(struct run *run)
{
    if (co_img(run, "create -q -f qcow2 -b C -F qcow2 X") == 0) {
        promise(run, "/X", DISK_BYTES, "C");
    }
    if (co_img(run, "create -q -f qcow2 -o preallocation=metadata Y 256K") == 0) {
        promise(run, "/Y", DISK_BYTES, "");
        co_img(run, "map Y");
    }
    if (co_img(run, "create -q -f raw R8 1M") == 0) {
        promise(run, "/R8", 1024 * KIB, NULL);
    }
}

/* --- The monitor ------------------------------------------------------------------------------ */

static inline void monitor_swallow(struct monitor *mon, const char *text, size_t len)
{
    fwrite(text, 1, len, stdout);
}

static inline void co_monitor(struct run *run)
{
    struct monitor mon = { .name = "script", .write = monitor_swallow };

    if (!co_run_open(run, run->top, "qcow2")) {
        return;
    }
    run->top = NULL; /* qemu-io writes what it likes */
    outcome_init();
    events_init();
    monitor_init(&mon);
    io_sim_create("/script", 0);
    io_sim_write("/script", 0, "info block -v\n", 14);
    co_script_text(&mon, "-c",
                   "info block-jobs\ninfo blockstats\ninfo block -v\ninfo chain\n"
                   "qemu-io virtio0 \"write -P 1 0 0\"\nqemu-io virtio0 \"read 0 64k\"\n"
                   "qemu-io virtio0 \"alloc 0\"\nqemu-io virtio0 map\nqemu-io virtio0 flush\n"
                   "qemu-io virtio0 \"write -s /script 0 512\"\n-json info block\n"
                   "source /script\nhelp\ninfo jobs\nchange-backing-file virtio0 D ./C\n",
                   false);
    monitor_fini(&mon);
    events_fini();
    outcome_fini();
    co_run_close(run);

}

/* --- The table -------------------------------------------------------------------------------- */

static const struct scenario scenarios[] = {
    { "guest", co_guest, "/D" },
    { "guest-raw", co_guest, "/R" },
    { "guest-on-raw", co_guest, "/T" },
    { "guest-version-2", co_guest, "/V" },
    { "guest-extended-l2", co_guest, "/E" },
    { "guest-compressed", co_guest, "/G" },
    { "guest-dirty", co_guest, "/F" },
    { "guest-far-name", co_guest, "/H" },
    { "guest-of-whatever", co_guest_of_whatever, "/T" },
    { "guest-of-a-file", co_guest_of_a_file, "/R" },
    { "guest-of-a-read-only-file", co_guest_of_a_read_only_file, "/D" },
    { "growth", co_growth, "/S" },
    { "crowd", co_crowd, "/D" },
    { "snapshots", co_snapshots, "/D" },
    { "stream", co_stream_all, "/D" },
    { "stream-raw", co_stream_all, "/T" },
    { "stream-extended-l2", co_stream_all, "/E" },
    { "stream-far", co_stream_all, "/U" },
    { "stream-base", co_stream_base, "/D" },
    { "stream-mid", co_stream_mid, "/D" },
    { "stream-cancelled", co_stream_cancelled, "/D" },
    { "stream-nothing", co_stream_nothing, "/D" },
    { "set-backing", co_set_backing, "/D" },
    { "set-backing-long", co_set_backing_long, "/D" },
    { "set-backing-far", co_set_backing_far, "/U" },
    { "create", co_create, NULL },
    { "create-on-a-device", co_create_on_a_device, NULL },
    { "img-reads", co_img_reads, "/D" },
    { "img-convert", co_img_convert_it, "/D" },
    { "img-rebase", co_img_rebase_it, "/D" },
    { "img-rebase-unsafe", co_img_rebase_unsafe, "/D" },
    { "img-resize", co_img_resize_it, "/D" },
    { "img-resize-held", co_img_resize_held, "/D" },
    { "img-repair", co_img_repair, NULL },
    { "img-snapshots", co_img_snapshots, "/D" },
    { "img-create", co_img_create_it, "/D" },
    { "monitor", co_monitor, "/D" },
};

static inline bool scenario_possible(const struct scenario *s)
{
    return have_qemu_img || !s->top || strcmp(s->top, "/G");
}

/* --- A run ------------------------------------------------------------------------------------ */

static bool under_way; /* the scenario itself, not what comes before and after */

struct whole_run {
    struct run *run;
    void (*arm)(void *arg); /* plans the faults */
    void *arg;
};

static inline void run_reset(struct run *run, const struct scenario *s)
{
    *run = (struct run){ .scenario = s, .top = s->top, .next_value = 1000 };
    clear_cells(run);
    for (unsigned i = 0; i < n_first; i++) {
        if (s->top && strcmp(first[i].top, s->top) == 0) {
            memcpy(run->cell, first[i].cell, sizeof(run->cell));
        }
    }
}

static CO_ENTRY inline void co_whole_run(void *arg)
{
    struct whole_run *w = arg;
    struct run *run = w->run;
    uint64_t began = loop_now(), ops = io_sim_ops();

    io_sim_restore(first_disk);
    io_sim_cut(IO_SIM_CUT_POWER_KEEP, 0);
    if (w->arm) {
        w->arm(w->arg);
    }
    under_way = true;
    run->scenario->co_run(run);
    under_way = false;
    io_sim_faults_clear();
    io_sim_set_quota(0);
    co_sleep_ns(NS_PER_S); /* what works on by itself comes to its end */
    rig_check_counters(run, began, ops);

    struct io_sim_snapshot *end = io_sim_snapshot();

    co_rig_judge(run, false);
    io_sim_restore(end);
    io_sim_cut(IO_SIM_CUT_POWER_LOSE, 0);
    co_rig_judge(run, true);
    io_sim_snapshot_free(end);
}

#endif
