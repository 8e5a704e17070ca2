/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A raw disk on the simulated disk, for targets that stand above it.
 */
#ifndef TESTS_FUZZ_LIB_RAW_DISK_H
#define TESTS_FUZZ_LIB_RAW_DISK_H

#include "block/disk.h"
#include "core/co.h"
#include "core/io-sim.h"
#include "tests/fuzz/lib/fuzz.h"

#define RAW_DISK "/disk"

/* For set_up: the file, which is there again after each input. */
static inline void raw_disk_make(uint32_t bytes)
{
    AUTOFREE uint8_t *content = mem_alloc(bytes);

    for (uint32_t i = 0; i < bytes; i += 4) {
        store_le32(content + i, (i / 512) * 2654435761u + i);
    }
    io_sim_create(RAW_DISK, bytes);
    io_sim_write(RAW_DISK, 0, content, bytes);
    fuzz_keep_disk();
}

static inline struct disk *co_raw_disk_open(const char *id)
{
    json_t *options = json_pack("{s:s, s:b}", "driver", "raw", "read-only", 0);
    struct error err = ERROR_INIT;
    struct node *node = co_node_open(RAW_DISK, options, &err);

    FUZZ_CHECK(node, "%s", err.text);
    json_decref(options);
    return disk_new(id, node);
}

#endif
