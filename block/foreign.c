/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Foreign formats (see foreign.h): their marks, as their specifications give them.
 */
#include "block/foreign.h"

#include <stddef.h>
#include <string.h>

#include "core/mem.h"

struct mark {
    unsigned at, len;
    const char *bytes;
};

static const struct mark marks[] = {
    { 0, 4, "QFI\xfb" },                 /* qcow of any version */
    { 0, 4, "QED\0" },                   /* qed */
    { 0, 4, "KDMV" },                    /* vmdk */
    { 0, 4, "COWD" },                    /* vmdk of version 3 */
    { 0x40, 4, "\x7f\x10\xda\xbe" },     /* vdi */
    { 0, 8, "vhdxfile" },                /* vhdx */
    { 0, 8, "conectix" },                /* vpc */
    { 0, 16, "WithoutFreeSpace" },       /* parallels */
    { 0, 16, "WithouFreSpacExt" },       /* parallels */
    { 0, 22, "Bochs Virtual HD Image" }, /* bochs */
    { 0, 6, "LUKS\xba\xbe" },            /* luks */
    { 0, 23, "#!/bin/sh\n#V2.0 Format" }, /* cloop */
};

/* The text form of vmdk: after comments and empty lines the word "version=". */
static bool is_vmdk_text(const uint8_t *head)
{
    static const char word[] = "version=";
    const uint8_t *p = head, *end = head + FOREIGN_HEAD;

    while (p < end && (*p == '#' || *p == ' ' || *p == '\r' || *p == '\n')) {
        const uint8_t *newline = memchr(p, '\n', end - p);

        if (*p == '#') {
            p = newline ? newline : end - 1;
        }
        p++;
    }
    return (size_t)(end - p) >= sizeof(word) - 1 && memcmp(p, word, sizeof(word) - 1) == 0;
}

bool foreign_probe(const uint8_t head[FOREIGN_HEAD])
{
    for (size_t i = 0; i < ARRAY_SIZE(marks); i++) {
        if (memcmp(head + marks[i].at, marks[i].bytes, marks[i].len) == 0) {
            return true;
        }
    }
    return is_vmdk_text(head);
}
