/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD protocol's words: numbers, and the building and taking apart of messages.  Fixed newstyle, as
 * https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md has it.
 *
 *     server                                      client
 *       NBDMAGIC IHAVEOPT flags ------------------>
 *                    <------------------------------ flags
 *                    <------------------------------ IHAVEOPT option length data     } as often as
 *       option reply -------------------------------> (one or more)                   } the client likes
 *                        ... until GO or EXPORT_NAME succeeds ...
 *                    <------------------------------ request (+ data of a write)
 *       simple reply (+ data), or structured chunks ->
 *
 * Nothing here does I/O, keeps state or allocates: bytes in, values out, and back.  What comes from the other side is
 * believed in nothing; every function that takes it apart says what it refuses.
 */
#ifndef EXPORT_NBD_PROTOCOL_H
#define EXPORT_NBD_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NBD_MAGIC 0x4e42444d41474943ull        /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC 0x49484156454f5054ull /* "IHAVEOPT" */
#define NBD_OPTION_REPLY_MAGIC 0x0003e889045565a9ull
#define NBD_REQUEST_MAGIC 0x25609513u
#define NBD_SIMPLE_MAGIC 0x67446698u
#define NBD_CHUNK_MAGIC 0x668e33efu

/* Sizes of messages, bytes. */
#define NBD_GREETING_BYTES 18
#define NBD_OPTION_BYTES 16
#define NBD_OPTION_REPLY_BYTES 20
#define NBD_REQUEST_BYTES 28
#define NBD_SIMPLE_BYTES 16
#define NBD_CHUNK_BYTES 20
#define NBD_EXPORT_NAME_BYTES 134 /* the answer to EXPORT_NAME, zeroes included */
#define NBD_EXTENT_BYTES 8

#define NBD_STRING_MAX 4096u          /* names, descriptions */
#define NBD_OPTION_MAX (64u << 10)    /* data of one option */
#define NBD_PAYLOAD_MAX (32u << 20)   /* data of one read or write */

enum nbd_global_flags { NBD_FIXED_NEWSTYLE = 1, NBD_NO_ZEROES = 2 };

enum nbd_option {
    NBD_OPT_EXPORT_NAME = 1,
    NBD_OPT_ABORT = 2,
    NBD_OPT_LIST = 3,
    NBD_OPT_STARTTLS = 5,
    NBD_OPT_INFO = 6,
    NBD_OPT_GO = 7,
    NBD_OPT_STRUCTURED_REPLY = 8,
    NBD_OPT_LIST_META_CONTEXT = 9,
    NBD_OPT_SET_META_CONTEXT = 10,
};

#define NBD_REP_ERROR (1u << 31)
enum nbd_option_reply {
    NBD_REP_ACK = 1,
    NBD_REP_SERVER = 2,
    NBD_REP_INFO = 3,
    NBD_REP_META_CONTEXT = 4,
};
#define NBD_REP_ERR_UNSUP (NBD_REP_ERROR | 1)
#define NBD_REP_ERR_INVALID (NBD_REP_ERROR | 3)
#define NBD_REP_ERR_UNKNOWN (NBD_REP_ERROR | 6)
#define NBD_REP_ERR_TOO_BIG (NBD_REP_ERROR | 9)

enum nbd_info { NBD_INFO_EXPORT = 0, NBD_INFO_NAME = 1, NBD_INFO_DESCRIPTION = 2, NBD_INFO_BLOCK_SIZE = 3 };

enum nbd_export_flags {
    NBD_HAS_FLAGS = 1 << 0,
    NBD_READ_ONLY = 1 << 1,
    NBD_SEND_FLUSH = 1 << 2,
    NBD_SEND_FUA = 1 << 3,
    NBD_SEND_TRIM = 1 << 5,
    NBD_SEND_WRITE_ZEROES = 1 << 6,
    NBD_SEND_DF = 1 << 7,
    NBD_CAN_MULTI_CONN = 1 << 8,
    NBD_SEND_CACHE = 1 << 10,
    NBD_SEND_FAST_ZERO = 1 << 11,
};

enum nbd_command {
    NBD_CMD_READ = 0,
    NBD_CMD_WRITE = 1,
    NBD_CMD_DISC = 2,
    NBD_CMD_FLUSH = 3,
    NBD_CMD_TRIM = 4,
    NBD_CMD_CACHE = 5,
    NBD_CMD_WRITE_ZEROES = 6,
    NBD_CMD_BLOCK_STATUS = 7,
};

enum nbd_command_flags {
    NBD_CMD_FUA = 1 << 0,
    NBD_CMD_NO_HOLE = 1 << 1,
    NBD_CMD_DF = 1 << 2,
    NBD_CMD_REQ_ONE = 1 << 3,
    NBD_CMD_FAST_ZERO = 1 << 4,
};

#define NBD_CHUNK_DONE 1u /* flag: the last chunk of a reply */
enum nbd_chunk {
    NBD_CHUNK_NONE = 0,
    NBD_CHUNK_DATA = 1,   /* offset, bytes */
    NBD_CHUNK_HOLE = 2,   /* offset, length */
    NBD_CHUNK_STATUS = 5, /* context, then extents */
    NBD_CHUNK_ERROR = 0x8001,
};

enum nbd_state { NBD_STATE_HOLE = 1, NBD_STATE_ZERO = 2 };

/* The one metadata context that there is, and the number by which replies name it. */
#define NBD_BASE_ALLOCATION "base:allocation"
#define NBD_BASE_ALLOCATION_ID 1u

/* --- Negotiation ------------------------------------------------------------------------------------------------------ */

/* Fill NBD_GREETING_BYTES. */
void nbd_greeting(uint8_t *out);

struct nbd_option_head {
    uint32_t option;
    uint32_t len; /* of the data that follows; not checked */
};
/* False: the magic is wrong, nothing that follows can be understood. */
bool nbd_option_parse(const uint8_t *raw, struct nbd_option_head *out);
/* Fill NBD_OPTION_REPLY_BYTES; `len` bytes of data follow it. */
void nbd_option_reply(uint8_t *out, uint32_t option, uint32_t reply, uint32_t len);
/* Fill NBD_EXPORT_NAME_BYTES; returns how many of them are to be sent. */
size_t nbd_export_name_reply(uint8_t *out, uint64_t size, uint16_t flags, bool no_zeroes);

/* A counted string within somebody's buffer; not terminated. */
struct nbd_string {
    const char *text;
    size_t len;
};
bool nbd_string_is(const struct nbd_string *s, const char *text);

/* INFO and GO: the name, and which informations are wanted (bit n for number n; numbers we do not know are dropped).
 * False: lengths do not fit together. */
bool nbd_info_parse(const uint8_t *data, size_t len, struct nbd_string *name, unsigned *wanted);

/* SET_META_CONTEXT and LIST_META_CONTEXT: the name, and whether base:allocation is meant by one of the queries.  A
 * LIST without queries, and a LIST for "base:", mean it too.  False: lengths do not fit together. */
bool nbd_meta_parse(const uint8_t *data, size_t len, bool is_list, struct nbd_string *name, bool *base_allocation);

/* --- Transmission ------------------------------------------------------------------------------------------------------ */

struct nbd_request {
    uint16_t flags, type;
    uint64_t handle; /* as it came, byte for byte */
    uint64_t offset;
    uint32_t len;
};
/* False: the magic is wrong. */
bool nbd_request_parse(const uint8_t *raw, struct nbd_request *out);

/* What was agreed on, as far as it decides which requests are right. */
struct nbd_terms {
    uint64_t size;     /* of the export, bytes */
    bool read_only, structured, base_allocation;
};
/* 0, or the negative errno that the request is to be answered with before anything is done: unknown commands and
 * flags, ranges outside of the export, changes of what is read-only. */
int nbd_request_check(const struct nbd_request *req, const struct nbd_terms *terms);
/* Bytes that follow a request on the wire. */
uint32_t nbd_request_payload(const struct nbd_request *req);

/* The protocol's error number for a negative errno (0 for 0). */
uint32_t nbd_error(int ret);

/* Fill NBD_SIMPLE_BYTES; `error` as nbd_error() gives it. */
void nbd_simple_reply(uint8_t *out, uint64_t handle, uint32_t error);
/* Fill NBD_CHUNK_BYTES; `len` bytes of payload follow it. */
void nbd_chunk(uint8_t *out, uint64_t handle, uint16_t type, bool done, uint32_t len);
/* Fill NBD_EXTENT_BYTES. */
void nbd_extent(uint8_t *out, uint32_t len, uint32_t state);

#endif
