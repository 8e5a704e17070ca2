/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rows for faults-memory.c: {file, function or NULL, why no scenario asks for memory there}.
 *
 * Whoever is named here asks by the same calls as everybody else: what does not say mem_try_*
 * never sees a failure (tests/unit/mem.c), whoever calls.
 */
#define NEVER "asks as all do; no scenario has "
{ "core/io-host", NULL, NEVER "real files" },
{ "core/io-direct.c", NULL, NEVER "cache=none, which the simulated disk can but images here do not ask for" },
{ "core/io.c", "co_copy_through_us", NEVER "a host that cannot copy" },
{ "core/io.c", "io_engine_register", "before there is anything to lose" },
{ "core/keyval.c", NULL, "before there is anything to lose: options" },
{ "core/loop.c", NULL, NEVER "so many timers, nor descriptors" },
{ "core/error.c", NULL, NEVER "an error as well" },
{ "core/sandbox", NULL, "before there is anything to lose" },
{ "core/message.c", NULL, NEVER "a complaint of the program's start" },
{ "core/process.c", NULL, "before there is anything to lose" },
{ "core/socket.c", NULL, NEVER "sockets" },
{ "core/stream.c", NULL, NEVER "terminals" },
{ "block/blockdev.c", NULL, "before there is anything to lose: options" },
{ "block/chain-map-fill.c", NULL, NEVER "so many holes in one slice" },
{ "block/copier.c", NULL, NEVER "so many pieces in one window" },
{ "block/disk.c", NULL, NEVER "labels" },
{ "block/open", NULL, NEVER "such options" },
{ "block/path.c", NULL, NEVER "such names" },
{ "block/qcow2-check.c", NULL, NEVER "bitmaps, nor checks snapshots" },
{ "block/qcow2-header-write.c", NULL, NEVER "corruption" },
{ "block/qcow2-header.c", NULL, NEVER "unknown features" },
{ "block/qcow2-write.c", NULL, NEVER "lists that long" },
{ "export/", NULL, NEVER "clients" },
{ "hw/", NULL, NEVER "a machine: guests are those of faults-scenarios.h" },
{ "jobs/", NULL, NEVER "such options" },
{ "monitor/", NULL, NEVER "this command or option" },
{ "img/", NULL, NEVER "this option" },
{ "start/", NULL, "before there is anything to lose: options" },
{ "labs/", NULL, NEVER "that" },
{ "main.c", NULL, "before there is anything to lose" },
#undef NEVER
