/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Compressed clusters: what qemu-img has compressed reads back, whatever the cluster size and the
 * method; hostile descriptors and streams are an input/output error and nothing else.
 */
#include "tests/unit/qcow2-rig.h"

#include <zlib.h>
#include <zstd.h>

#define DISK (5u << 20)

struct content {
    uint8_t *data;
    size_t len;
    uint64_t offset;
    int ret;
};

static void CO_ENTRY read_entry(void *arg)
{
    struct content *c = arg;
    struct node *node = co_rig_open("/x.img", false);

    c->ret = co_node_read_buf(node, c->offset, c->data, c->len);
    co_node_unref(node);
}

static void compressed_images_of_qemu_read_back(void **state)
{
    static const char *const options[] = {
        "cluster_size=512", "cluster_size=4k", "cluster_size=64k", "cluster_size=2M",
        "compression_type=zstd,cluster_size=512", "compression_type=zstd,cluster_size=64k",
        "compression_type=zstd,cluster_size=2M", "cluster_size=64k,extended_l2=on", "compat=0.10",
    };
    uint8_t *want = mem_alloc(DISK);
    struct content c = { .data = mem_alloc(DISK), .len = DISK };

    rig_need_qemu_img();
    for (uint32_t i = 0; i < DISK; i++) { /* some of it cannot be compressed */
        want[i] = i / 70000 % 3 ? i / 1000 : (i * 2654435761u) >> 24;
    }
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        AUTOFREE char *raw = mem_printf("%s/raw", rig_dir);
        FILE *file = fopen(raw, "wb");
        int status;

        assert_non_null(file);
        assert_int_equal(fwrite(want, 1, DISK, file), DISK);
        assert_int_equal(fclose(file), 0);
        AUTOFREE char *out = rig_shell(&status, "qemu-img convert -c -f raw -O qcow2 -o %s %s %s; rm %s",
                                       options[i], raw, rig_file, raw);

        assert_string_equal(out, "");
        io_sim_reset();
        assert_int_equal(io_sim_import("/x.img", rig_file), 0);
        loop_run_co(read_entry, &c);
        assert_int_equal(c.ret, 0);
        assert_memory_equal(c.data, want, DISK);
    }
    free(c.data);
    free(want);
    io_sim_reset();
}

/* --- By hand ---------------------------------------------------------------------------------- */

#define CLUSTER 65536u
#define STREAM_AT 0x50123u /* any byte */

static void CO_ENTRY make_entry(void *arg)
{
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s, s:s}", "size", "1M", "compression_type", arg);

    assert_int_equal(co_qcow2_create("/x.img", options, &err), 0);
    json_decref(options);
}

/* An image whose first cluster is compressed: the stream's bytes are at STREAM_AT. */
static void make(const char *method, uint64_t entry, const uint8_t *stream, size_t len)
{
    uint8_t bytes[8];

    io_sim_reset();
    loop_run_co(make_entry, (void *)method);
    store_be64(bytes, 0x40000 | QCOW2_COPIED);
    io_sim_write("/x.img", 0x30000, bytes, 8);
    store_be64(bytes, entry);
    io_sim_write("/x.img", 0x40000, bytes, 8);
    store_be64(bytes, 0);
    io_sim_write("/x.img", 0x4fff8, bytes, 8);
    io_sim_write("/x.img", STREAM_AT, stream, len);
}

static uint64_t descriptor(uint64_t offset, uint64_t more_sectors)
{
    return QCOW2_COMPRESSED | more_sectors << (62 - 8) | offset;
}

static int read_cluster(uint8_t *data)
{
    struct content c = { .data = data, .len = CLUSTER };

    loop_run_co(read_entry, &c);
    return c.ret;
}

static size_t deflate_raw(const uint8_t *in, size_t in_len, uint8_t *out, size_t room)
{
    z_stream strm = { .next_in = (uint8_t *)in, .avail_in = in_len, .next_out = out, .avail_out = room };

    assert_int_equal(deflateInit2(&strm, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&strm, Z_FINISH), Z_STREAM_END);
    deflateEnd(&strm);
    return strm.total_out;
}

static void descriptors_say_where(void **state)
{
    struct qcow2 q = { .h.cluster_bits = 9 };
    uint64_t offset, len;

    qcow2_compressed_extent(&q, QCOW2_COMPRESSED | 1ull << 61 | 0x1fffffffffffffff, &offset, &len);
    assert_int_equal(offset, 0x1fffffffffffffff);
    assert_int_equal(len, 1024 - 511);
    q.h.cluster_bits = 16;
    qcow2_compressed_extent(&q, descriptor(0x12345, 7), &offset, &len);
    assert_int_equal(offset, 0x12345);
    assert_int_equal(len, 8 * 512 - 0x145);
    q.h.cluster_bits = 21;
    qcow2_compressed_extent(&q, QCOW2_COMPRESSED | QCOW2_COPIED | 0x1fffull << 49 | 512, &offset, &len);
    assert_int_equal(offset, 512);
    assert_int_equal(len, 8192 * 512);
}

static void streams_are_followed_to_the_last_byte(void **state)
{
    uint8_t *plain = mem_alloc(CLUSTER), *stream = mem_alloc(2 * CLUSTER), *read = mem_alloc(CLUSTER);

    for (uint32_t i = 0; i < CLUSTER; i++) {
        plain[i] = i / 97 + i % 13;
    }
    size_t len = deflate_raw(plain, CLUSTER, stream, CLUSTER);
    uint64_t more = (STREAM_AT % 512 + len - 1) / 512;

    make("zlib", descriptor(STREAM_AT, more), stream, len);
    assert_int_equal(read_cluster(read), 0);
    assert_memory_equal(read, plain, CLUSTER);
    /* A sector too few: the rest is not there. */
    make("zlib", descriptor(STREAM_AT, more - 1), stream, len);
    assert_int_equal(read_cluster(read), -EIO);
    /* A stream that makes less than a cluster. */
    len = deflate_raw(plain, CLUSTER - 1, stream, CLUSTER);
    make("zlib", descriptor(STREAM_AT, more), stream, len);
    assert_int_equal(read_cluster(read), -EIO);
    /* zstd: two frames, one with a checksum. */
    ZSTD_CCtx *cctx = ZSTD_createCCtx();

    len = ZSTD_compress(stream, CLUSTER, plain, CLUSTER / 2, 3);
    ZSTD_CCtx_setParameter(cctx, ZSTD_c_checksumFlag, 1);
    len += ZSTD_compress2(cctx, stream + len, CLUSTER, plain + CLUSTER / 2, CLUSTER / 2);
    ZSTD_freeCCtx(cctx);
    more = (STREAM_AT % 512 + len - 1) / 512;
    make("zstd", descriptor(STREAM_AT, more), stream, len);
    assert_int_equal(read_cluster(read), 0);
    assert_memory_equal(read, plain, CLUSTER);
    stream[len - 1] ^= 1; /* the checksum */
    make("zstd", descriptor(STREAM_AT, more), stream, len);
    assert_int_equal(read_cluster(read), -EIO);
    free(plain);
    free(stream);
    free(read);
    io_sim_reset();
}

static void wrong_streams_are_errors(void **state)
{
    static const char *const methods[] = { "zlib", "zstd" };
    static uint8_t junk[4096], read[CLUSTER];
    struct random rnd;

    random_seed(&rnd, 5);
    for (unsigned i = 0; i < 40; i++) {
        const char *method = methods[i % 2];

        for (size_t k = 0; k < sizeof(junk); k++) {
            junk[k] = i < 2 ? 0 : random_next(&rnd);
        }
        make(method, descriptor(STREAM_AT, 5), junk, sizeof(junk));
        assert_int_equal(read_cluster(read), -EIO);
    }
    /* Beyond the end of the file, in the header. */
    make("zlib", descriptor(1ull << 40, 5), junk, 1);
    assert_int_equal(read_cluster(read), -EIO);
    make("zlib", descriptor(0x123, 200), junk, 1);
    assert_int_equal(read_cluster(read), -EIO);
    /* A sound stream behind the header's fields. */
    uint8_t *plain = mem_zalloc(CLUSTER), *stream = mem_alloc(CLUSTER);
    size_t len = deflate_raw(plain, CLUSTER, stream, CLUSTER);

    make("zlib", descriptor(0x1000, len / 512 + 1), junk, 1);
    io_sim_write("/x.img", 0x1000, stream, len);
    assert_int_equal(read_cluster(read), -EIO);
    free(plain);
    free(stream);
    io_sim_reset();
}

/* 16 MiB of zeroes in a few KiB: what goes beyond the cluster is never made. */
static void a_bomb_fills_one_cluster(void **state)
{
    size_t plain_len = 16 << 20, guard = 4096;
    uint8_t *plain = mem_zalloc(plain_len), *stream = mem_alloc(CLUSTER), *read = mem_alloc(CLUSTER + guard);
    size_t len = deflate_raw(plain, plain_len, stream, CLUSTER);

    memset(read, 0x5a, CLUSTER + guard);
    make("zlib", descriptor(STREAM_AT, len / 512 + 1), stream, len);
    assert_int_equal(read_cluster(read), 0); /* as for QEMU: a full cluster is enough */
    assert_true(bytes_are_zero(read, CLUSTER));
    len = ZSTD_compress(stream, CLUSTER, plain, plain_len, 3);
    assert_false(ZSTD_isError(len));
    make("zstd", descriptor(STREAM_AT, len / 512 + 1), stream, len);
    assert_int_equal(read_cluster(read), -EIO);
    for (size_t i = 0; i < guard; i++) {
        assert_int_equal(read[CLUSTER + i], 0x5a);
    }
    free(plain);
    free(stream);
    free(read);
    io_sim_reset();
}

/* Two frames of half a cluster each, which want a window of 2^window_log bytes for it. */
static int read_frames_with_window(int window_log)
{
    uint8_t *plain = mem_zalloc(CLUSTER), *stream = mem_alloc(CLUSTER);
    ZSTD_CCtx *cctx = ZSTD_createCCtx();
    ZSTD_outBuffer out = { stream, CLUSTER, 0 };

    ZSTD_CCtx_setParameter(cctx, ZSTD_c_windowLog, window_log);
    for (unsigned i = 0; i < 2; i++) {
        ZSTD_inBuffer in = { plain, CLUSTER / 2, 0 };

        assert_false(ZSTD_isError(ZSTD_compressStream2(cctx, &out, &in, ZSTD_e_flush))); /* a size that is not known */
        assert_int_equal(ZSTD_compressStream2(cctx, &out, &in, ZSTD_e_end), 0);
    }
    ZSTD_freeCCtx(cctx);
    make("zstd", descriptor(STREAM_AT, out.pos / 512 + 1), stream, out.pos);
    int ret = read_cluster(plain);

    free(plain);
    free(stream);
    io_sim_reset();
    return ret;
}

static void a_frame_cannot_ask_for_much_memory(void **state)
{
    assert_int_equal(read_frames_with_window(20), 0);
    assert_int_equal(read_frames_with_window(23), 0);
    assert_int_equal(read_frames_with_window(24), -EIO);
    assert_int_equal(read_frames_with_window(27), -EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bomb_fills_one_cluster),
        cmocka_unit_test(a_frame_cannot_ask_for_much_memory),
        cmocka_unit_test(descriptors_say_where),
        cmocka_unit_test(compressed_images_of_qemu_read_back),
        cmocka_unit_test(streams_are_followed_to_the_last_byte),
        cmocka_unit_test(wrong_streams_are_errors),
    };

    return cmocka_run_group_tests_name("qcow2-compress", tests, rig_setup, rig_teardown);
}
