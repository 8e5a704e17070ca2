/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `measure`: how large would the file of a new image be, now and at most?
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "block/qcow2-layout.h"
#include "block/qcow2.h"
#include "core/mem.h"
#include "core/size.h"
#include "img/command.h"
#include "img/status.h"

struct measure {
    bool json;
    const char *out_format;
    const struct driver *driver;
    json_t *options;
    struct node *node;  /* NULL: only a size */
    uint64_t size;
    uint64_t required, full;
    bool has_bitmaps;   /* the new image could take those of the old one; there are none */
};

static const char *option_of(const struct measure *m, const char *name)
{
    return json_string_value(json_object_get(m->options, name));
}

static bool is_power_of_two(uint64_t n)
{
    return n && !(n & (n - 1));
}

static int take_layout(const struct measure *m, struct qcow2_layout *l)
{
    const char *cluster = option_of(m, "cluster_size"), *bits = option_of(m, "refcount_bits");
    const char *extended = option_of(m, "extended_l2");
    uint64_t cluster_size = 65536, refcount_bits = bits ? strtoull(bits, NULL, 0) : 16;

    if (cluster) {
        size_parse(cluster, 1, &cluster_size, NULL);
    }
    if (!is_power_of_two(cluster_size) || cluster_size < 1u << QCOW2_MIN_CLUSTER_BITS ||
        cluster_size > 1u << QCOW2_MAX_CLUSTER_BITS) {
        img_complain("Cluster size must be a power of two between %u and %uk", 1u << QCOW2_MIN_CLUSTER_BITS,
                     1u << (QCOW2_MAX_CLUSTER_BITS - 10));
        return -1;
    }
    if (!is_power_of_two(refcount_bits) || refcount_bits > 64) {
        img_complain("Refcount width must be a power of two and may not exceed 64 bits");
        return -1;
    }
    l->cluster_bits = __builtin_ctzll(cluster_size);
    l->refcount_order = __builtin_ctzll(refcount_bits);
    l->extended = extended && strchr("oyt", extended[0]) && strcmp(extended, "off");
    return 0;
}

/* Bytes of whole clusters that hold data today. */
static int co_count_data(const struct measure *m, uint64_t cluster, uint64_t *data)
{
    struct img_chain chain;
    struct img_status s;
    int ret = 0;

    *data = 0;
    img_chain_init(&chain, m->node, NULL);
    for (uint64_t at = 0; ret == 0 && at < m->size; at += s.len) {
        ret = co_img_status(&chain, at, m->size - at, &s);
        if (ret == 0 && s.data && !s.zero) {
            s.len = ROUND_UP(at + s.len, cluster) - at;
            *data += at % cluster + s.len;
        }
    }
    img_chain_free(&chain);
    if (ret < 0) {
        img_complain("Unable to get block status: %s", strerror(-ret));
    }
    return ret;
}

/* What would be refused when the image is made. */
static int check_qcow2_options(const struct measure *m)
{
    const char *how = option_of(m, "preallocation"), *encryption = option_of(m, "encryption"), *name;
    bool encrypted = encryption && strcmp(encryption, "off");
    json_t *unused;

    if (how && strcmp(how, "off") && strcmp(how, "metadata") && strcmp(how, "falloc") && strcmp(how, "full")) {
        img_complain("invalid parameter value: %s", how);
        return -1;
    }
    json_object_foreach(m->options, name, unused) {
        encrypted = encrypted || !strncmp(name, "encrypt.", strlen("encrypt."));
    }
    if (encrypted) {
        img_complain("Encrypted images are not supported");
    }
    return encrypted ? -1 : 0;
}

static int co_measure_qcow2(struct measure *m)
{
    struct qcow2_layout l = { 0 };
    const char *how = option_of(m, "preallocation"), *compat = option_of(m, "compat");
    bool all = how && (!strcmp(how, "full") || !strcmp(how, "falloc"));
    uint64_t data = 0;

    if (check_qcow2_options(m) < 0 || take_layout(m, &l) < 0) {
        return -1;
    }
    uint64_t cluster = 1ull << l.cluster_bits, size = ROUND_UP(m->size, cluster);

    if (qcow2_layout_plan(&l, size, true) < 0) {
        img_complain("The image size is too large (try using a larger cluster size)");
        return -1;
    }
    if (m->node && co_count_data(m, cluster, &data) < 0) {
        return -1;
    }
    if (all || (m->node && option_of(m, "backing_file"))) {
        data = size; /* nobody knows what a backing file saves */
    }
    m->full = l.total << l.cluster_bits;
    m->required = m->full - size + data;
    m->has_bitmaps = m->node && m->node->driver == &driver_qcow2 && (!compat || !strcmp(compat, "1.1") ||
                     !strcmp(compat, "v3")) && ((struct qcow2 *)m->node->state)->h.version >= 3;
    return 0;
}

static void print(const struct measure *m)
{
    if (!m->json) {
        printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n", m->required, m->full);
        if (m->has_bitmaps) {
            printf("bitmaps size: 0\n");
        }
        return;
    }
    json_t *tree = json_pack("{s:I, s:I}", "required", (json_int_t)m->required, "fully-allocated", (json_int_t)m->full);

    if (m->has_bitmaps) {
        json_object_set_new(tree, "bitmaps", json_integer(0));
    }
    img_print_json(tree);
    json_decref(tree);
}

static int take_options(const struct img_args *args, struct measure *m)
{
    struct error err = ERROR_INIT;
    AUTOFREE char *list = img_creation_list(args);

    m->options = json_object();
    m->out_format = img_has(args, "O") ? img_value(args, "O") : "raw";
    m->driver = driver_find(m->out_format);
    if (!m->driver) {
        img_complain("Unknown file format '%s'", m->out_format);
        return -1;
    }
    if (!m->driver->co_create) {
        img_complain("Format driver '%s' does not support image creation", m->out_format);
        return -1;
    }
    if (list && img_creation_parse(m->driver, list, m->options, &err) < 0) {
        img_complain_error(&err);
        img_complain("Invalid options for file format '%s'", m->out_format);
        return -1;
    }
    return 0;
}

static int co_measure(const struct img_args *args, struct measure *m, const struct img_open *o)
{
    const char *param = img_value(args, "l");
    int ret = 0;

    if (o->filename) {
        m->node = co_img_open(o);
        if (!m->node) {
            return -1;
        }
        if (param && co_img_show_snapshot(m->node, param) < 0) {
            return -1;
        }
        m->size = m->node->size;
    }
    if (take_options(args, m) < 0) {
        return -1;
    }
    if (m->driver == &driver_qcow2) {
        ret = co_measure_qcow2(m);
    } else {
        m->required = m->full = ROUND_UP(m->size, (uint64_t)NODE_SECTOR);
    }
    if (ret == 0) {
        print(m);
    }
    return ret;
}

int co_img_measure(const struct img_args *args)
{
    struct measure m = { 0 };
    struct img_open o = { .filename = args->n_operands ? args->operands[0] : NULL };
    const char *size = img_value(args, "size");

    img_take_output(args, &m.json);
    if (size) {
        img_take_size("image size", size, 0, INT64_MAX, &m.size);
    }
    if (args->n_operands > 1) {
        img_complain("At most one filename argument is allowed.");
        return 1;
    }
    if (!o.filename && (img_has(args, "image-opts") || img_has(args, "f") || img_has(args, "l"))) {
        img_complain("--image-opts, -f, and -l require a filename argument.");
        return 1;
    }
    if (!o.filename && !size) {
        img_complain("Either --size N or one filename must be specified.");
        return 1;
    }
    if (o.filename && size) {
        img_complain("--size N cannot be used together with a filename.");
        return 1;
    }
    if (img_open_args(args, &o) < 0) {
        return 1;
    }
    int ret = co_measure(args, &m, &o);

    co_node_unref(m.node);
    json_decref(m.options);
    return ret ? 1 : 0;
}
