/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The world of a test that works on images: the virtual clock, the simulated disk (empty), and the drivers of real images.
 */
#ifndef TESTS_UNIT_SIM_WORLD_H
#define TESTS_UNIT_SIM_WORLD_H

#include "block/file.h"
#include "block/node.h"
#include "block/qcow2.h"
#include "core/io-sim.h"
#include "core/loop.h"

/* `seed` decides which of two requests comes first. */
static inline void sim_begin(uint64_t seed)
{
    static const struct driver *const drivers[] = { &driver_file, &driver_raw, &driver_qcow2, NULL };

    loop_init(LOOP_CLOCK_VIRTUAL, seed);
    io_init();
    io_sim_init();
    io_engine_set_default(io_engine_find("sim"));
    node_set_drivers(drivers);
}

static inline void sim_end(void)
{
    io_sim_fini();
    io_fini();
    loop_fini();
}

#endif
