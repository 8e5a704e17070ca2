/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The first half of a session: options, until the client has an export or goes away.  One option at a time, each answered
 * before the next one is read, so this half needs no queues; the session's deadline bounds how long it lasts.
 */
#include <stdio.h>
#include <string.h>

#include "core/bytes.h"
#include "core/mem.h"
#include "export/nbd-session.h"

enum next { NEXT_OPTION, NEXT_TRANSMISSION, NEXT_END };

static bool co_reply(struct nbd_session *s, uint32_t option, uint32_t reply, const void *data, size_t len)
{
    uint8_t head[NBD_OPTION_REPLY_BYTES];

    nbd_option_reply(head, option, reply, len);
    return co_nbd_send(s, head, sizeof(head)) && (!len || co_nbd_send(s, data, len));
}

/* Answered with an error, the client may go on with another option. */
static enum next co_refuse(struct nbd_session *s, uint32_t option, uint32_t reply, const char *why)
{
    return co_reply(s, option, reply, why, strlen(why)) ? NEXT_OPTION : NEXT_END;
}

static enum next co_acknowledge(struct nbd_session *s, uint32_t option)
{
    return co_reply(s, option, NBD_REP_ACK, NULL, 0) ? NEXT_OPTION : NEXT_END;
}

static struct nbd_export *find_name(const struct nbd_string *name)
{
    struct nbd_export *e;

    TAILQ_FOREACH(e, &nbd_exports, link) {
        if (!e->closing && nbd_string_is(name, e->name)) {
            return e;
        }
    }
    return NULL;
}

/* From here on the export knows that it is in use.  False: it was removed while we talked about it. */
static bool choose(struct nbd_session *s, const struct nbd_string *name)
{
    struct nbd_export *e = find_name(name);

    if (!e || s->dead) {
        return false;
    }
    s->export = e;
    e->sessions++;
    s->terms.size = nbd_export_size(e);
    s->terms.read_only = !e->writable;
    /* What was agreed on for another export does not count. */
    s->terms.base_allocation = s->context_of && nbd_string_is(name, s->context_of);
    return true;
}

static enum next co_export_name(struct nbd_session *s, const uint8_t *data, size_t len)
{
    struct nbd_string name = { .text = (const char *)data, .len = len };
    uint8_t out[NBD_EXPORT_NAME_BYTES];
    size_t out_len;

    if (!choose(s, &name)) {
        return NEXT_END; /* this option knows no other way to say no */
    }
    out_len = nbd_export_name_reply(out, s->terms.size, nbd_export_flags(s->export, s->terms.structured), s->no_zeroes);
    return co_nbd_send(s, out, out_len) ? NEXT_TRANSMISSION : NEXT_END;
}

/* The newest last, as they were made. */
static enum next co_list(struct nbd_session *s, size_t len)
{
    size_t room = 0, used = 0;
    uint8_t *out = NULL;
    struct nbd_export *e;

    if (len) {
        return co_refuse(s, NBD_OPT_LIST, NBD_REP_ERR_INVALID, "LIST has no data");
    }
    /* All at once: the list may change while we wait for the client. */
    TAILQ_FOREACH_REVERSE(e, &nbd_exports, nbd_export_list, link) {
        size_t name = strlen(e->name), description = e->description ? strlen(e->description) : 0;
        size_t size = NBD_OPTION_REPLY_BYTES + 4 + name + description;

        if (used + size > room) {
            room = (used + size) * 2;
            out = mem_realloc(out, room);
        }
        nbd_option_reply(out + used, NBD_OPT_LIST, NBD_REP_SERVER, 4 + name + description);
        store_be32(out + used + NBD_OPTION_REPLY_BYTES, name);
        memcpy(out + used + NBD_OPTION_REPLY_BYTES + 4, e->name, name);
        if (description) {
            memcpy(out + used + NBD_OPTION_REPLY_BYTES + 4 + name, e->description, description);
        }
        used += size;
    }
    bool good = !used || co_nbd_send(s, out, used);

    free(out);
    return good ? co_acknowledge(s, NBD_OPT_LIST) : NEXT_END;
}

static bool co_send_infos(struct nbd_session *s, uint32_t option, struct nbd_export *e, unsigned wanted)
{
    uint8_t out[4 * NBD_OPTION_REPLY_BYTES + 12 + 14 + 2 * (2 + NBD_STRING_MAX)], *at = out;
    const char *strings[] = { [NBD_INFO_NAME] = e->name, [NBD_INFO_DESCRIPTION] = e->description };

    for (unsigned info = NBD_INFO_NAME; info <= NBD_INFO_DESCRIPTION; info++) {
        size_t len = strings[info] ? strlen(strings[info]) : 0;

        if (wanted & 1u << info && strings[info]) {
            nbd_option_reply(at, option, NBD_REP_INFO, 2 + len);
            store_be16(at + NBD_OPTION_REPLY_BYTES, info);
            memcpy(at + NBD_OPTION_REPLY_BYTES + 2, strings[info], len);
            at += NBD_OPTION_REPLY_BYTES + 2 + len;
        }
    }
    if (wanted & 1u << NBD_INFO_BLOCK_SIZE) {
        nbd_option_reply(at, option, NBD_REP_INFO, 14);
        at += NBD_OPTION_REPLY_BYTES;
        store_be16(at, NBD_INFO_BLOCK_SIZE);
        store_be32(at + 2, 1); /* bytes: smallest, best, largest */
        store_be32(at + 6, 4096);
        store_be32(at + 10, NBD_PAYLOAD_MAX);
        at += 14;
    }
    nbd_option_reply(at, option, NBD_REP_INFO, 12);
    at += NBD_OPTION_REPLY_BYTES;
    store_be16(at, NBD_INFO_EXPORT);
    store_be64(at + 2, nbd_export_size(e));
    store_be16(at + 10, nbd_export_flags(e, s->terms.structured));
    at += 12;
    return co_nbd_send(s, out, at - out);
}

static enum next co_info(struct nbd_session *s, uint32_t option, const uint8_t *data, size_t len)
{
    struct nbd_string name;
    struct nbd_export *e;
    unsigned wanted;

    if (!nbd_info_parse(data, len, &name, &wanted)) {
        return co_refuse(s, option, NBD_REP_ERR_INVALID, "lengths do not fit");
    }
    e = find_name(&name);
    if (!e) {
        return co_refuse(s, option, NBD_REP_ERR_UNKNOWN, "no export of that name");
    }
    if (!co_send_infos(s, option, e, wanted)) {
        return NEXT_END;
    }
    if (option == NBD_OPT_GO && !choose(s, &name)) {
        return co_refuse(s, option, NBD_REP_ERR_UNKNOWN, "no export of that name any more");
    }
    enum next next = co_acknowledge(s, option);

    return next == NEXT_OPTION && option == NBD_OPT_GO ? NEXT_TRANSMISSION : next;
}

static enum next co_structured(struct nbd_session *s, size_t len)
{
    if (len) {
        return co_refuse(s, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_INVALID, "STRUCTURED_REPLY has no data");
    }
    s->terms.structured = true;
    return co_acknowledge(s, NBD_OPT_STRUCTURED_REPLY);
}

static enum next co_meta_context(struct nbd_session *s, uint32_t option, const uint8_t *data, size_t len)
{
    uint8_t context[4 + sizeof(NBD_BASE_ALLOCATION) - 1];
    bool is_list = option == NBD_OPT_LIST_META_CONTEXT, base_allocation;
    struct nbd_string name;

    if (!s->terms.structured) {
        return co_refuse(s, option, NBD_REP_ERR_INVALID, "structured replies come first");
    }
    if (!nbd_meta_parse(data, len, is_list, &name, &base_allocation)) {
        return co_refuse(s, option, NBD_REP_ERR_INVALID, "lengths do not fit");
    }
    if (!is_list) {
        free(s->context_of);
        s->context_of = NULL;
    }
    if (!find_name(&name)) {
        return co_refuse(s, option, NBD_REP_ERR_UNKNOWN, "no export of that name");
    }
    if (base_allocation) {
        store_be32(context, is_list ? 0 : NBD_BASE_ALLOCATION_ID);
        memcpy(context + 4, NBD_BASE_ALLOCATION, sizeof(context) - 4);
        if (!is_list) {
            s->context_of = mem_strndup(name.text, name.len);
        }
        if (!co_reply(s, option, NBD_REP_META_CONTEXT, context, sizeof(context))) {
            return NEXT_END;
        }
    }
    return co_acknowledge(s, option);
}

static enum next co_option(struct nbd_session *s, uint32_t option, const uint8_t *data, size_t len)
{
    switch (option) {
    case NBD_OPT_EXPORT_NAME:
        return co_export_name(s, data, len);
    case NBD_OPT_ABORT:
        co_acknowledge(s, option);
        return NEXT_END;
    case NBD_OPT_LIST:
        return co_list(s, len);
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        return co_info(s, option, data, len);
    case NBD_OPT_STRUCTURED_REPLY:
        return co_structured(s, len);
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        return co_meta_context(s, option, data, len);
    default: /* STARTTLS among them */
        return co_refuse(s, option, NBD_REP_ERR_UNSUP, "option not supported");
    }
}

static enum next co_next_option(struct nbd_session *s)
{
    uint8_t raw[NBD_OPTION_BYTES];
    struct nbd_option_head head;

    if (!co_nbd_receive(s, raw, sizeof(raw)) || !nbd_option_parse(raw, &head)) {
        return NEXT_END;
    }
    if (head.len > NBD_OPTION_MAX) {
        co_refuse(s, head.option, NBD_REP_ERR_TOO_BIG, "too much data");
        return NEXT_END;
    }
    AUTOFREE uint8_t *data = mem_alloc(head.len + 1);

    if (!co_nbd_receive(s, data, head.len)) {
        return NEXT_END;
    }
    return co_option(s, head.option, data, head.len);
}

bool co_nbd_negotiate(struct nbd_session *s)
{
    uint8_t greeting[NBD_GREETING_BYTES], raw[4];
    enum next next = NEXT_OPTION;
    uint32_t flags;

    nbd_greeting(greeting);
    if (!co_nbd_send(s, greeting, sizeof(greeting)) || !co_nbd_receive(s, raw, sizeof(raw))) {
        return false;
    }
    flags = load_be32(raw);
    if (flags & ~(uint32_t)(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES)) {
        return false;
    }
    s->no_zeroes = flags & NBD_NO_ZEROES;
    while (next == NEXT_OPTION) {
        next = co_next_option(s);
    }
    return next == NEXT_TRANSMISSION && !s->dead;
}
