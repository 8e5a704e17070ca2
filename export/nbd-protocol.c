/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * NBD's messages: see nbd-protocol.h.  All integers on the wire are big-endian; handles are not integers but eight bytes that
 * go back as they came.
 */
#include "export/nbd-protocol.h"

#include <errno.h>
#include <string.h>

#include "core/bytes.h"

/* The protocol's error numbers: Linux's, but no promise of ours that they stay the same. */
enum { WIRE_EPERM = 1, WIRE_EIO = 5, WIRE_ENOMEM = 12, WIRE_EINVAL = 22, WIRE_ENOSPC = 28, WIRE_EOVERFLOW = 75,
       WIRE_ENOTSUP = 95, WIRE_ESHUTDOWN = 108 };

/* --- Negotiation ------------------------------------------------------------------------------------------------------ */

void nbd_greeting(uint8_t *out)
{
    store_be64(out, NBD_MAGIC);
    store_be64(out + 8, NBD_OPTION_MAGIC);
    store_be16(out + 16, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
}

bool nbd_option_parse(const uint8_t *raw, struct nbd_option_head *out)
{
    *out = (struct nbd_option_head){ .option = load_be32(raw + 8), .len = load_be32(raw + 12) };
    return load_be64(raw) == NBD_OPTION_MAGIC;
}

void nbd_option_reply(uint8_t *out, uint32_t option, uint32_t reply, uint32_t len)
{
    store_be64(out, NBD_OPTION_REPLY_MAGIC);
    store_be32(out + 8, option);
    store_be32(out + 12, reply);
    store_be32(out + 16, len);
}

size_t nbd_export_name_reply(uint8_t *out, uint64_t size, uint16_t flags, bool no_zeroes)
{
    memset(out, 0, NBD_EXPORT_NAME_BYTES);
    store_be64(out, size);
    store_be16(out + 8, flags);
    return no_zeroes ? 10 : NBD_EXPORT_NAME_BYTES;
}

/* What has not been read yet of somebody's bytes. */
struct cursor {
    const uint8_t *at;
    size_t left;
};

static bool take16(struct cursor *c, uint16_t *out)
{
    if (c->left < 2) {
        return false;
    }
    *out = load_be16(c->at);
    c->at += 2;
    c->left -= 2;
    return true;
}

static bool take32(struct cursor *c, uint32_t *out)
{
    if (c->left < 4) {
        return false;
    }
    *out = load_be32(c->at);
    c->at += 4;
    c->left -= 4;
    return true;
}

static bool take_string(struct cursor *c, struct nbd_string *out)
{
    uint32_t len;

    if (!take32(c, &len) || len > c->left || len > NBD_STRING_MAX) {
        return false;
    }
    *out = (struct nbd_string){ .text = (const char *)c->at, .len = len };
    c->at += len;
    c->left -= len;
    return true;
}

bool nbd_string_is(const struct nbd_string *s, const char *text)
{
    return s->len == strlen(text) && !memcmp(s->text, text, s->len);
}

bool nbd_info_parse(const uint8_t *data, size_t len, struct nbd_string *name, unsigned *wanted)
{
    struct cursor c = { .at = data, .left = len };
    uint16_t count, info;

    *wanted = 0;
    if (!take_string(&c, name) || !take16(&c, &count)) {
        return false;
    }
    for (; count; count--) {
        if (!take16(&c, &info)) {
            return false;
        }
        if (info <= NBD_INFO_BLOCK_SIZE) {
            *wanted |= 1u << info;
        }
    }
    return !c.left;
}

bool nbd_meta_parse(const uint8_t *data, size_t len, bool is_list, struct nbd_string *name, bool *base_allocation)
{
    struct cursor c = { .at = data, .left = len };
    struct nbd_string query;
    uint32_t count;

    if (!take_string(&c, name) || !take32(&c, &count)) {
        return false;
    }
    *base_allocation = is_list && !count;
    for (; count; count--) {
        if (!take_string(&c, &query)) {
            return false;
        }
        if (nbd_string_is(&query, NBD_BASE_ALLOCATION) || (is_list && nbd_string_is(&query, "base:"))) {
            *base_allocation = true;
        }
    }
    return !c.left;
}

/* --- Transmission ------------------------------------------------------------------------------------------------------ */

bool nbd_request_parse(const uint8_t *raw, struct nbd_request *out)
{
    *out = (struct nbd_request){
        .flags = load_be16(raw + 4),
        .type = load_be16(raw + 6),
        .offset = load_be64(raw + 16),
        .len = load_be32(raw + 24),
    };
    memcpy(&out->handle, raw + 8, sizeof(out->handle));
    return load_be32(raw) == NBD_REQUEST_MAGIC;
}

uint32_t nbd_request_payload(const struct nbd_request *req)
{
    return req->type == NBD_CMD_WRITE ? req->len : 0;
}

/* The flags that a command may carry; all ones for a command that we do not know. */
static uint16_t allowed_flags(uint16_t type, const struct nbd_terms *terms)
{
    switch (type) {
    case NBD_CMD_READ:
        return NBD_CMD_FUA | (terms->structured ? NBD_CMD_DF : 0);
    case NBD_CMD_WRITE_ZEROES:
        return NBD_CMD_FUA | NBD_CMD_NO_HOLE | NBD_CMD_FAST_ZERO;
    case NBD_CMD_BLOCK_STATUS:
        return NBD_CMD_FUA | NBD_CMD_REQ_ONE;
    default: /* FUA means nothing to some, and "is accepted" with all */
        return NBD_CMD_FUA;
    }
}

static bool is_change(uint16_t type)
{
    return type == NBD_CMD_WRITE || type == NBD_CMD_TRIM || type == NBD_CMD_WRITE_ZEROES;
}

int nbd_request_check(const struct nbd_request *req, const struct nbd_terms *terms)
{
    bool known = req->type <= NBD_CMD_BLOCK_STATUS && req->type != NBD_CMD_DISC;

    if (!known || (req->flags & ~allowed_flags(req->type, terms))) {
        return -EINVAL;
    }
    if (is_change(req->type) && terms->read_only) {
        return -EPERM;
    }
    if (req->type == NBD_CMD_FLUSH) {
        return req->offset || req->len ? -EINVAL : 0;
    }
    if (req->offset > terms->size || req->len > terms->size - req->offset) {
        return req->type == NBD_CMD_WRITE || req->type == NBD_CMD_WRITE_ZEROES ? -ENOSPC : -EINVAL;
    }
    if (req->type == NBD_CMD_READ && req->len > NBD_PAYLOAD_MAX) {
        return -EINVAL;
    }
    if (req->type == NBD_CMD_BLOCK_STATUS && (!terms->base_allocation || !req->len)) {
        return -EINVAL;
    }
    return 0;
}

uint32_t nbd_error(int ret)
{
    switch (-ret) {
    case 0:
        return 0;
    case EPERM:
    case EROFS:
    case EACCES:
        return WIRE_EPERM;
    case ENOMEM:
        return WIRE_ENOMEM;
    case EINVAL:
        return WIRE_EINVAL;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return WIRE_ENOSPC;
    case EOVERFLOW:
        return WIRE_EOVERFLOW;
    case ENOTSUP:
        return WIRE_ENOTSUP;
    case ESHUTDOWN:
        return WIRE_ESHUTDOWN;
    default:
        return WIRE_EIO;
    }
}

void nbd_simple_reply(uint8_t *out, uint64_t handle, uint32_t error)
{
    store_be32(out, NBD_SIMPLE_MAGIC);
    store_be32(out + 4, error);
    memcpy(out + 8, &handle, sizeof(handle));
}

void nbd_chunk(uint8_t *out, uint64_t handle, uint16_t type, bool done, uint32_t len)
{
    store_be32(out, NBD_CHUNK_MAGIC);
    store_be16(out + 4, done ? NBD_CHUNK_DONE : 0);
    store_be16(out + 6, type);
    memcpy(out + 8, &handle, sizeof(handle));
    store_be32(out + 16, len);
}

void nbd_extent(uint8_t *out, uint32_t len, uint32_t state)
{
    store_be32(out, len);
    store_be32(out + 4, state);
}
