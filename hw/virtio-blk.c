/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The virtio block device (virtio 1.2, section 5.2): requests from the queues, answers from a disk.
 *
 *     notify -> virtio_pop() -> blk_request (from a free list) -> coroutine -> co_disk_*()
 *            -> status byte -> used ring -> one interrupt per turn
 *
 * A request is one coroutine, and its data is never copied: the I/O engine reads and writes guest
 * memory where the descriptors point.
 *
 * What a bad request gets: VIRTIO_BLK_S_IOERR when it is malformed, out of range or forbidden,
 * VIRTIO_BLK_S_UNSUPP when we do not know it or it was not negotiated, DEVICE_NEEDS_RESET when
 * there is not even a byte to put a status in.
 */
#include "hw/virtio-blk.h"

#include <assert.h>
#include <errno.h>

#include "block/disk.h"
#include "core/bytes.h"
#include "core/mem.h"
#include "hw/machine.h"
#include "hw/virtio-mmio.h"

/* Limits that drivers are told.  SIZE_MAX * SEG_MAX stays within one request of the block layer. */
#define SIZE_MAX_BYTES (1u << 20)
#define SEG_MAX_LIMIT (NODE_REQUEST_MAX / SIZE_MAX_BYTES - 2)
#define RANGE_MAX_SECTORS (NODE_REQUEST_MAX / VIRTIO_BLK_SECTOR)
#define RANGE_SEGMENTS 16u

/* Descriptors that one notification may cost before the rest waits for the next turn of the
 * loop. */
#define STEPS_PER_NOTIFY 4096u

#define FEATURES                                                                                \
    (VIRTIO_BLK_F_SIZE_MAX | VIRTIO_BLK_F_SEG_MAX | VIRTIO_BLK_F_BLK_SIZE | VIRTIO_BLK_F_FLUSH | \
     VIRTIO_BLK_F_TOPOLOGY | VIRTIO_BLK_F_CONFIG_WCE | VIRTIO_BLK_F_MQ)
#define FEATURES_WRITABLE (VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES)

struct blk_request {
    SLIST_ENTRY(blk_request) link; /* in the free list */
    struct virtio_blk *blk;
    unsigned queue;
    struct virtqueue_chain chain;
    /* Filled by the coroutine: the data part, cut out of chain.iov in place. */
    struct iovec *data;
    int n;
    uint64_t len; /* bytes of it */
    uint64_t sector;
};

struct virtio_blk {
    struct machine_device dev;
    struct virtio_mmio mmio;
    struct irq_line irq;
    struct disk *disk;
    uint8_t config[VIRTIO_BLK_CONFIG_LEN];
    bool writeback;         /* a volatile cache: writes are stable after FLUSH only */
    bool writeback_default; /* what it is after a reset */
    SLIST_HEAD(, blk_request) free_requests;
};

/* --- The parts of a request ------------------------------------------------------------------- */

/* The header leaves the front of the readable part, the status byte the end of the writable one.
 * They may share descriptors with the data (section 2.7.4: the layout means nothing).  What is
 * left must be one of the two; false when both hold data. */
static bool request_cut(struct blk_request *req)
{
    struct virtqueue_chain *chain = &req->chain;
    struct iovec *out = chain->iov, *in = chain->iov + chain->out;
    int out_n = chain->out, in_n = chain->in;
    size_t header = VIRTIO_BLK_HEADER;

    while (header) {
        size_t part = MIN(header, out->iov_len);

        out->iov_base = (char *)out->iov_base + part;
        out->iov_len -= part;
        header -= part;
        if (!out->iov_len) {
            out++;
            out_n--;
        }
    }
    if (!--in[in_n - 1].iov_len) {
        in_n--;
    }
    req->data = in_n ? in : out;
    req->n = in_n ? in_n : out_n;
    req->len = in_n ? chain->in_bytes - 1 : chain->out_bytes - VIRTIO_BLK_HEADER;
    return !in_n || !out_n;
}

/* Is the data of this request whole sectors within the disk? */
static bool request_fits(const struct blk_request *req)
{
    uint64_t sectors = disk_size(req->blk->disk) / VIRTIO_BLK_SECTOR;
    uint64_t wanted = req->len / VIRTIO_BLK_SECTOR;

    return req->len % VIRTIO_BLK_SECTOR == 0 && req->len <= NODE_REQUEST_MAX && wanted <= sectors &&
           req->sector <= sectors - wanted;
}

static uint8_t refuse(struct blk_request *req, enum disk_op op)
{
    disk_account_invalid(req->blk->disk, op);
    return VIRTIO_BLK_S_IOERR;
}

static uint8_t status_of(int ret)
{
    return ret >= 0 ? VIRTIO_BLK_S_OK : ret == -ENOTSUP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
}

static bool read_only(const struct virtio_blk *blk)
{
    return (blk->mmio.device_features & VIRTIO_BLK_F_RO) || blk->disk->read_only;
}

static bool negotiated(const struct virtio_blk *blk, uint64_t feature)
{
    return blk->mmio.driver_features & feature;
}

/* --- Requests --------------------------------------------------------------------------------- */

static uint8_t co_blk_read(struct blk_request *req)
{
    if (req->chain.out_bytes != VIRTIO_BLK_HEADER || !request_fits(req)) {
        return refuse(req, DISK_READ);
    }
    if (!req->len) {
        return VIRTIO_BLK_S_OK;
    }
    return status_of(
        co_disk_read(req->blk->disk, req->sector * VIRTIO_BLK_SECTOR, req->data, req->n));
}

/* Without a volatile cache a write is complete when it is stable (section 5.2.6.2). */
static uint8_t co_blk_written(struct virtio_blk *blk, int ret)
{
    if (!ret && !blk->writeback) {
        ret = co_disk_flush(blk->disk);
    }
    return status_of(ret);
}

static uint8_t co_blk_write(struct blk_request *req)
{
    struct virtio_blk *blk = req->blk;

    if (req->chain.in_bytes != 1 || !request_fits(req) || read_only(blk)) {
        return refuse(req, DISK_WRITE);
    }
    if (!req->len) {
        return VIRTIO_BLK_S_OK;
    }
    int ret = co_disk_write(blk->disk, req->sector * VIRTIO_BLK_SECTOR, req->data, req->n);

    return co_blk_written(blk, ret);
}

static uint8_t co_blk_flush(struct blk_request *req)
{
    if (req->len) {
        return refuse(req, DISK_FLUSH);
    }
    return status_of(co_disk_flush(req->blk->disk));
}

static uint8_t blk_get_id(struct blk_request *req)
{
    const struct machine_device *dev = &req->blk->dev;
    const char *serial = dev->identity.serial ? dev->identity.serial : dev->disk->label;
    char id[VIRTIO_BLK_ID_BYTES] = { 0 };

    if (req->chain.out_bytes != VIRTIO_BLK_HEADER || req->len != sizeof(id)) {
        return VIRTIO_BLK_S_IOERR;
    }
    memcpy(id, serial, strnlen(serial, sizeof(id)));
    iov_from_buf(req->data, req->n, 0, id, sizeof(id));
    return VIRTIO_BLK_S_OK;
}

struct segment {
    uint64_t sector;
    uint32_t sectors, flags;
};

/* Take the segments of a DISCARD or WRITE_ZEROES over and check all before anything is done. */
static uint8_t segments_parse(struct blk_request *req, struct segment *out, uint32_t allowed_flags)
{
    uint64_t end = disk_size(req->blk->disk) / VIRTIO_BLK_SECTOR;

    if (req->chain.in_bytes != 1 || !req->len || req->len % VIRTIO_BLK_SEGMENT ||
        req->len > RANGE_SEGMENTS * VIRTIO_BLK_SEGMENT || read_only(req->blk)) {
        return VIRTIO_BLK_S_IOERR;
    }
    for (size_t at = 0; at < req->len; at += VIRTIO_BLK_SEGMENT, out++) {
        uint8_t raw[VIRTIO_BLK_SEGMENT];

        iov_to_buf(req->data, req->n, at, raw, sizeof(raw));
        *out = (struct segment){ load_le64(raw), load_le32(raw + 8), load_le32(raw + 12) };
        if (out->flags & ~allowed_flags) {
            return VIRTIO_BLK_S_UNSUPP;
        }
        if (out->sectors > RANGE_MAX_SECTORS || out->sectors > end ||
            out->sector > end - out->sectors) {
            return VIRTIO_BLK_S_IOERR;
        }
    }
    return VIRTIO_BLK_S_OK;
}

static uint8_t co_blk_ranges(struct blk_request *req, bool discard)
{
    struct virtio_blk *blk = req->blk;
    struct segment segments[RANGE_SEGMENTS];
    uint8_t status = segments_parse(req, segments, discard ? 0 : VIRTIO_BLK_SEGMENT_UNMAP);
    int ret = 0;

    if (status == VIRTIO_BLK_S_IOERR) {
        return refuse(req, discard ? DISK_UNMAP : DISK_WRITE);
    }
    if (status) {
        return status;
    }
    for (size_t i = 0; !ret && i < req->len / VIRTIO_BLK_SEGMENT; i++) {
        uint64_t offset = segments[i].sector * VIRTIO_BLK_SECTOR;
        uint64_t len = (uint64_t)segments[i].sectors * VIRTIO_BLK_SECTOR;

        if (!len) {
            continue;
        }
        ret = discard ? co_disk_discard(blk->disk, offset, len)
                      : co_disk_zero(blk->disk, offset, len, segments[i].flags);
    }
    return discard ? status_of(ret) : co_blk_written(blk, ret);
}

static uint8_t co_blk_carry_out(struct blk_request *req)
{
    uint8_t header[VIRTIO_BLK_HEADER];

    iov_to_buf(req->chain.iov, req->chain.out, 0, header, sizeof(header));
    req->sector = load_le64(header + 8);
    if (!request_cut(req)) {
        return VIRTIO_BLK_S_IOERR;
    }
    switch (load_le32(header)) {
    case VIRTIO_BLK_T_IN:
        return co_blk_read(req);
    case VIRTIO_BLK_T_OUT:
        return co_blk_write(req);
    case VIRTIO_BLK_T_FLUSH:
        return co_blk_flush(req);
    case VIRTIO_BLK_T_GET_ID:
        return blk_get_id(req);
    case VIRTIO_BLK_T_DISCARD:
        return negotiated(req->blk, VIRTIO_BLK_F_DISCARD) ? co_blk_ranges(req, true)
                                                          : VIRTIO_BLK_S_UNSUPP;
    case VIRTIO_BLK_T_WRITE_ZEROES:
        return negotiated(req->blk, VIRTIO_BLK_F_WRITE_ZEROES) ? co_blk_ranges(req, false)
                                                               : VIRTIO_BLK_S_UNSUPP;
    default:
        return VIRTIO_BLK_S_UNSUPP;
    }
}

static void request_finish(struct blk_request *req, uint8_t status)
{
    struct virtio_blk *blk = req->blk;
    struct virtqueue_chain *chain = &req->chain;
    /* "Bytes written from the start": of a failed read nothing is promised before the status. */
    uint32_t written = status == VIRTIO_BLK_S_OK || chain->in_bytes == 1 ? chain->in_bytes : 0;

    if (virtio_wanted(&blk->mmio)) {
        *chain->last = status;
    }
    SLIST_INSERT_HEAD(&blk->free_requests, req, link);
    virtio_done(&blk->mmio, req->queue, chain->head, written);
}

static CO_ENTRY void request_entry(void *arg)
{
    struct blk_request *req = arg;

    request_finish(req, co_blk_carry_out(req));
}

/* A chain has come.  Whatever it holds, it is answered, or the device says that it cannot. */
static void request_start(struct blk_request *req)
{
    struct virtqueue_chain *chain = &req->chain;

    if (!chain->last) {
        chain->in_bytes = 0;
        virtio_fail(&req->blk->mmio);
        SLIST_INSERT_HEAD(&req->blk->free_requests, req, link);
        virtio_done(&req->blk->mmio, req->queue, chain->head, 0);
    } else if (chain->fault || chain->out_bytes < VIRTIO_BLK_HEADER) {
        request_finish(req, VIRTIO_BLK_S_IOERR);
    } else {
        co_start(request_entry, req);
    }
}

static struct blk_request *request_get(struct virtio_blk *blk)
{
    struct blk_request *req = SLIST_FIRST(&blk->free_requests);

    if (req) {
        SLIST_REMOVE_HEAD(&blk->free_requests, link);
        return req;
    }
    req = mem_zalloc(sizeof(*req));
    req->blk = blk;
    return req;
}

/* --- What the transport asks ------------------------------------------------------------------ */

static struct virtio_blk *blk_of(struct virtio_mmio *v)
{
    return CONTAINER_OF(v, struct virtio_blk, mmio);
}

static void blk_notify(struct virtio_mmio *v, unsigned queue)
{
    struct virtio_blk *blk = blk_of(v);
    unsigned steps = 0;

    do {
        for (;;) {
            if (steps >= STEPS_PER_NOTIFY) {
                virtio_again(v, queue);
                return;
            }
            struct blk_request *req = request_get(blk);

            if (!virtio_pop(v, queue, &req->chain)) {
                SLIST_INSERT_HEAD(&blk->free_requests, req, link);
                break;
            }
            steps += req->chain.steps;
            req->queue = queue;
            request_start(req);
        }
    } while (virtio_rearm(v, queue));
}

static void blk_set_writeback(struct virtio_blk *blk, bool on)
{
    blk->writeback = on;
    blk->config[VIRTIO_BLK_WRITEBACK] = on;
}

/* The cache mode when the driver cannot choose: a driver that never flushes must not need to. */
static void blk_negotiated(struct virtio_mmio *v)
{
    struct virtio_blk *blk = blk_of(v);

    if (!negotiated(blk, VIRTIO_BLK_F_CONFIG_WCE)) {
        blk_set_writeback(blk, negotiated(blk, VIRTIO_BLK_F_FLUSH));
    }
}

static void blk_config_write(struct virtio_mmio *v, unsigned offset, const uint8_t *bytes,
                             unsigned len)
{
    struct virtio_blk *blk = blk_of(v);

    if (negotiated(blk, VIRTIO_BLK_F_CONFIG_WCE) && offset <= VIRTIO_BLK_WRITEBACK &&
        VIRTIO_BLK_WRITEBACK < offset + len) {
        blk_set_writeback(blk, bytes[VIRTIO_BLK_WRITEBACK - offset]);
    }
}

static void blk_reset_begin(struct virtio_mmio *v)
{
    disk_cancel(blk_of(v)->disk, true);
}

static void blk_reset_end(struct virtio_mmio *v)
{
    struct virtio_blk *blk = blk_of(v);

    disk_cancel(blk->disk, false);
    blk_set_writeback(blk, blk->writeback_default);
}

static const struct virtio_ops blk_ops = {
    .device_id = VIRTIO_ID_BLOCK,
    .negotiated = blk_negotiated,
    .notify = blk_notify,
    .config_write = blk_config_write,
    .reset_begin = blk_reset_begin,
    .reset_end = blk_reset_end,
};

/* --- Life ------------------------------------------------------------------------------------- */

static void blk_set_capacity(struct virtio_blk *blk)
{
    store_le64(blk->config + VIRTIO_BLK_CAPACITY, disk_size(blk->disk) / VIRTIO_BLK_SECTOR);
}

static void blk_fill_config(struct virtio_blk *blk, unsigned queues, unsigned queue_size)
{
    const struct node *root = blk->disk->root;
    uint32_t cluster = root ? root->cluster_size / VIRTIO_BLK_SECTOR : 0;
    uint8_t *c = blk->config;

    blk_set_capacity(blk);
    store_le32(c + VIRTIO_BLK_SIZE_MAX, SIZE_MAX_BYTES);
    store_le32(c + VIRTIO_BLK_SEG_MAX, MIN(queue_size - 2, SEG_MAX_LIMIT));
    store_le32(c + VIRTIO_BLK_BLK_SIZE, VIRTIO_BLK_SECTOR);
    store_le16(c + VIRTIO_BLK_MIN_IO, 1);
    store_le32(c + VIRTIO_BLK_OPT_IO, cluster > 1 ? cluster : 0);
    store_le16(c + VIRTIO_BLK_NUM_QUEUES, queues);
    store_le32(c + VIRTIO_BLK_MAX_DISCARD, RANGE_MAX_SECTORS);
    store_le32(c + VIRTIO_BLK_MAX_DISCARD_SEG, RANGE_SEGMENTS);
    store_le32(c + VIRTIO_BLK_DISCARD_ALIGNMENT, MAX(cluster, 1u));
    store_le32(c + VIRTIO_BLK_MAX_ZEROES, RANGE_MAX_SECTORS);
    store_le32(c + VIRTIO_BLK_MAX_ZEROES_SEG, RANGE_SEGMENTS);
    c[VIRTIO_BLK_ZEROES_MAY_UNMAP] = 1;
    blk->writeback_default = !root || !root->writethrough;
    blk_set_writeback(blk, blk->writeback_default);
}

static void blk_resized(struct disk *disk, void *arg)
{
    struct virtio_blk *blk = arg;

    blk_set_capacity(blk);
    virtio_config_changed(&blk->mmio);
}

static void co_blk_reset(struct machine_device *dev)
{
    co_virtio_reset(&CONTAINER_OF(dev, struct virtio_blk, dev)->mmio);
}

static void co_blk_remove(struct machine_device *dev)
{
    struct virtio_blk *blk = CONTAINER_OF(dev, struct virtio_blk, dev);
    struct blk_request *req;

    co_virtio_mmio_fini(&blk->mmio);
    blk->disk->on_resize = NULL;
    blk->disk->dev_arg = NULL;
    machine_remove_device(dev);
    while ((req = SLIST_FIRST(&blk->free_requests))) {
        SLIST_REMOVE_HEAD(&blk->free_requests, link);
        free(req->chain.iov);
        free(req);
    }
    free(blk);
}

static const struct device_kind blk_kind = {
    .name = "virtio-blk-device",
    .co_reset = co_blk_reset,
    .co_remove = co_blk_remove,
};

/* The first register block that no device has. */
static uint64_t free_mmio_base(void)
{
    uint64_t base = MACHINE_MMIO_BASE;
    struct machine_device *dev = TAILQ_FIRST(&machine_devices);

    while (dev) {
        if (dev->mmio_base == base) {
            base += MACHINE_MMIO_STRIDE;
            dev = TAILQ_FIRST(&machine_devices);
        } else {
            dev = TAILQ_NEXT(dev, link);
        }
    }
    return base;
}

void virtio_blk_identify(struct machine_device *dev, const struct device_identity *identity)
{
    struct virtio_blk *blk = CONTAINER_OF(dev, struct virtio_blk, dev);
    uint64_t missing = (identity->no_discard ? VIRTIO_BLK_F_DISCARD : 0) |
                       (identity->no_write_zeroes ? VIRTIO_BLK_F_WRITE_ZEROES : 0) |
                       (identity->no_config_wce ? VIRTIO_BLK_F_CONFIG_WCE : 0);
    uint32_t logical = identity->logical_block ? identity->logical_block : VIRTIO_BLK_SECTOR;
    uint32_t physical = MAX(identity->physical_block, logical);
    uint8_t *c = blk->config;

    dev->identity = *identity;
    blk->mmio.device_features &= ~missing;
    store_le32(c + VIRTIO_BLK_BLK_SIZE, logical);
    c[VIRTIO_BLK_PHYSICAL_EXP] = __builtin_ctz(physical / logical);
    if (identity->min_io) {
        store_le16(c + VIRTIO_BLK_MIN_IO, MIN(identity->min_io / logical, (uint64_t)UINT16_MAX));
    }
    if (identity->opt_io) {
        store_le32(c + VIRTIO_BLK_OPT_IO, MIN(identity->opt_io / logical, (uint64_t)UINT32_MAX));
    }
}

struct machine_device *virtio_blk_new(struct disk *disk, unsigned queues, unsigned queue_size)
{
    struct virtio_blk *blk = mem_zalloc(sizeof(*blk));
    uint64_t features = FEATURES | (disk->read_only ? VIRTIO_BLK_F_RO : FEATURES_WRITABLE);

    /* The smallest request has three descriptors. */
    assert(queues && queues <= UINT16_MAX && queue_size >= 4);
    SLIST_INIT(&blk->free_requests);
    blk->disk = disk;
    blk->dev = (struct machine_device){
        .kind = &blk_kind,
        .disk = disk,
        .irq = &blk->irq,
        .mmio_base = free_mmio_base(),
    };
    blk_fill_config(blk, queues, queue_size);
    virtio_mmio_init(&blk->mmio, &blk_ops, blk->dev.mmio_base, &blk->irq, features, queues,
                     queue_size, blk->config, sizeof(blk->config));
    disk->on_resize = blk_resized;
    disk->dev_arg = blk;
    machine_add_device(&blk->dev);
    return &blk->dev;
}
