/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory for the data of requests: sizes are powers of two, and what is given back is kept, up to a limit for all sessions
 * together, most recently used first, so that it is still in the processor's cache.  The memory itself holds the list.
 */
#include <string.h>

#include "core/mem.h"
#include "export/nbd-session.h"

#define SMALLEST 4096u
#define CLASSES 9 /* 4 KiB ... 1 MiB */
#define KEEP_MAX (4u << 20)

static uint8_t *kept[CLASSES];
static size_t kept_bytes;

static unsigned class_of(size_t len)
{
    unsigned class = 0;

    while (((size_t)SMALLEST << class) < len) {
        class++;
    }
    return class;
}

uint8_t *nbd_buf_get(size_t len)
{
    unsigned class = class_of(len);
    uint8_t *buf = kept[class];

    if (!buf) {
        return mem_align(SMALLEST, (size_t)SMALLEST << class);
    }
    memcpy(&kept[class], buf, sizeof(buf));
    kept_bytes -= (size_t)SMALLEST << class;
    return buf;
}

void nbd_buf_put(uint8_t *buf, size_t len)
{
    unsigned class = class_of(len);
    size_t size = (size_t)SMALLEST << class;

    if (!buf) {
        return;
    }
    if (kept_bytes + size > KEEP_MAX) {
        free(buf);
        return;
    }
    memcpy(buf, &kept[class], sizeof(buf));
    kept[class] = buf;
    kept_bytes += size;
}

void nbd_buf_drain(void)
{
    for (unsigned class = 0; class < CLASSES; class++) {
        while (kept[class]) {
            uint8_t *buf = kept[class];

            memcpy(&kept[class], buf, sizeof(buf));
            free(buf);
        }
    }
    kept_bytes = 0;
}
