/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Compressed clusters: where they lie, and what is in them.  They are read; a write puts a plain
 * cluster in their place.
 *
 * The L2 entry (without the two flags on top) is cut at x = 62 - (cluster_bits - 8):
 *
 *     61 ............ x   x-1 .................. 0
 *     | more sectors   |  host offset, any byte  |
 *
 * The data begins at that byte and ends somewhere in the last of (1 + more) 512-byte sectors;
 * several compressed clusters may share a host cluster, even a sector.  Its end is not recorded:
 * the decompressor stops when it has made a whole cluster, and what follows is not its business.
 *
 * Decompression runs on a worker thread that sees nothing but its input and output.
 * Specification: docs/interop/qcow2.txt of QEMU, "Compressed Clusters Descriptor".
 */
#include "block/qcow2.h"

#include <assert.h>
#include <errno.h>
#include <libdeflate.h>
#include <stdatomic.h>
#include <zlib.h>
#include <zstd.h>

#include "core/bytes.h"
#include "core/mem.h"

#define DEFLATE_WINDOW (-12) /* raw deflate, 4 KiB */
/* 8 MiB: what every decoder should accept; more would be memory at an image's command. */
#define ZSTD_WINDOW_LOG 23
#define ENTRY_BITS 62        /* what is left without COPIED and COMPRESSED */

void qcow2_compressed_extent(const struct qcow2 *q, uint64_t l2_entry, uint64_t *offset,
                             uint64_t *len)
{
    unsigned x = ENTRY_BITS - (q->h.cluster_bits - 8);
    uint64_t sectors = 1 + ((l2_entry & ((1ull << ENTRY_BITS) - 1)) >> x);

    *offset = l2_entry & ((1ull << x) - 1);
    *len = sectors * NODE_SECTOR - *offset % NODE_SECTOR;
}

struct decompression {
    const uint8_t *in;
    size_t in_len;
    uint8_t *out;
    size_t out_len;
};

/* The usual stream ends with the cluster; libdeflate is two to three times as fast as zlib on those. */
static bool inflate_at_once(const struct decompression *d)
{
    struct libdeflate_decompressor *decompressor = libdeflate_alloc_decompressor();
    size_t got = 0;
    bool ok = decompressor && !libdeflate_deflate_decompress_ex(decompressor, d->in, d->in_len, d->out, d->out_len,
                                                                NULL, &got);
    libdeflate_free_decompressor(decompressor);
    return ok && got == d->out_len;
}

/* Also streams that go on, or lack their end mark, when the cluster is full. */
static int inflate_cluster(const struct decompression *d)
{
    z_stream strm = {
        .next_in = (uint8_t *)d->in,
        .avail_in = d->in_len,
        .next_out = d->out,
        .avail_out = d->out_len,
    };

    if (inflateInit2(&strm, DEFLATE_WINDOW) != Z_OK) {
        return -ENOMEM;
    }
    int ret = inflate(&strm, Z_FINISH);

    inflateEnd(&strm);
    /* Z_BUF_ERROR with a full buffer: the stream's end mark was not reached, but nothing is
     * missing. */
    return (ret == Z_STREAM_END || ret == Z_BUF_ERROR) && strm.avail_out == 0 ? 0 : -EIO;
}

/* Contexts at rest: a new one costs as much as a cluster.  As many as there are workers for such work. */
static ZSTD_DCtx *_Atomic spare_contexts[4];

static ZSTD_DCtx *take_context(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(spare_contexts); i++) {
        ZSTD_DCtx *context = atomic_exchange(spare_contexts + i, NULL);

        if (context) {
            return context;
        }
    }
    return ZSTD_createDCtx();
}

static void put_context(ZSTD_DCtx *context)
{
    for (size_t i = 0; i < ARRAY_SIZE(spare_contexts); i++) {
        ZSTD_DCtx *none = NULL;

        if (atomic_compare_exchange_strong(spare_contexts + i, &none, context)) {
            return;
        }
    }
    ZSTD_freeDCtx(context);
}

/* The usual stream is one frame that holds the cluster. */
static bool zstd_at_once(ZSTD_DCtx *context, const struct decompression *d)
{
    size_t len = ZSTD_findFrameCompressedSize(d->in, d->in_len);

    return !ZSTD_isError(len) &&
           ZSTD_decompressDCtx(context, d->out, d->out_len, d->in, len) == d->out_len;
}

static int zstd_stream(ZSTD_DCtx *context, const struct decompression *d)
{
    ZSTD_inBuffer in = { d->in, d->in_len, 0 };
    ZSTD_outBuffer out = { d->out, d->out_len, 0 };
    size_t more = 1;

    ZSTD_DCtx_reset(context, ZSTD_reset_session_only);
    ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
    /* Several frames may make up a cluster.  `more` is 0 at the end of a frame; a frame that has
     * given all its bytes may still hold a checksum, which the last round verifies. */
    while (out.pos < out.size || more) {
        size_t in_before = in.pos, out_before = out.pos;

        more = ZSTD_decompressStream(context, &out, &in);
        if (ZSTD_isError(more) || (in.pos == in_before && out.pos == out_before)) {
            break;
        }
    }
    /* A frame that would go on holds more than a cluster, or is cut: as for QEMU, that is none. */
    return more == 0 && out.pos == out.size ? 0 : -EIO;
}

static int decompress_deflate(const struct decompression *d)
{
    return inflate_at_once(d) ? 0 : inflate_cluster(d);
}

static int decompress_zstd(const struct decompression *d)
{
    ZSTD_DCtx *context = take_context();
    int ret = 0;

    if (!context) {
        return -ENOMEM;
    }
    if (!zstd_at_once(context, d)) {
        ret = zstd_stream(context, d);
        ZSTD_freeDCtx(context); /* it holds a window of up to 8 MiB */
        return ret;
    }
    put_context(context);
    return ret;
}

/* Clusters whose compressed bytes were read together. */
struct run {
    struct decompression d[QCOW2_COMPRESSED_RUN_MAX];
    int n;
    bool zstd;
    int ret;
};

static void run_decompression(void *arg)
{
    struct run *run = arg;

    run->ret = 0;
    for (int i = 0; i < run->n && run->ret == 0; i++) {
        run->ret = run->zstd ? decompress_zstd(&run->d[i]) : decompress_deflate(&run->d[i]);
    }
}

bool qcow2_compressed_follows(const struct qcow2 *q, uint64_t before, uint64_t entry)
{
    uint64_t offset, len, next, next_len;

    qcow2_compressed_extent(q, before, &offset, &len);
    qcow2_compressed_extent(q, entry, &next, &next_len);
    return next > offset && next <= offset + len;
}

int co_qcow2_read_compressed(struct qcow2 *q, const uint64_t *l2_entries, int n, uint8_t *out)
{
    struct run run = { .n = n, .zstd = q->h.compression_type };
    uint64_t start, offset, len;
    int ret;

    assert(n > 0 && n <= QCOW2_COMPRESSED_RUN_MAX);
    qcow2_compressed_extent(q, l2_entries[0], &start, &len);
    qcow2_compressed_extent(q, l2_entries[n - 1], &offset, &len);
    if (start < q->cluster_size) {
        return -EIO; /* in the header */
    }
    AUTOFREE uint8_t *in = mem_try_alloc(offset + len - start); /* at most two clusters each */

    if (!in) {
        return -ENOMEM;
    }
    for (int i = 0; i < n; i++) {
        qcow2_compressed_extent(q, l2_entries[i], &offset, &len);
        run.d[i] = (struct decompression){
            .in = in + (offset - start),
            .in_len = len,
            .out = out + (size_t)i * q->cluster_size,
            .out_len = q->cluster_size,
        };
        node_debug_event(q->node, EVENT_READ_COMPRESSED);
    }
    /* The last sector may stick out of the file.  A descriptor that points beyond its end gets
     * zeroes, and neither format has a stream that begins with those. */
    ret = co_io_read(q->file, start, in, offset + len - start);
    if (ret == 0) {
        co_io_work(run_decompression, &run);
        ret = run.ret;
    }
    return ret;
}
