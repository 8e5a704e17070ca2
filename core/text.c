/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * UTF-8, and text made harmless: see text.h.
 */
#include "core/text.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "core/mem.h"

#define SHOWN_BYTE 4 /* \x1b */

/* How many bytes follow the first one of a code point; 4 when none begins so. */
static unsigned continuations(unsigned char first)
{
    if (first < 0x80) {
        return 0;
    }
    if ((first & 0xe0) == 0xc0) {
        return 1;
    }
    if ((first & 0xf0) == 0xe0) {
        return 2;
    }
    return (first & 0xf8) == 0xf0 ? 3 : 4;
}

int32_t text_utf8_take(const char **p, const char *end)
{
    static const int32_t smallest[] = { 0, 0x80, 0x800, 0x10000 };
    unsigned char first = *(*p)++;
    unsigned more = continuations(first);
    int32_t cp = more ? first & (0x3f >> more) : first;

    if (more > 3) {
        return -1;
    }
    for (unsigned i = 0; i < more; i++, (*p)++) {
        if (*p == end || (**p & 0xc0) != 0x80) {
            return -1;
        }
        cp = cp << 6 | (**p & 0x3f);
    }
    if (!cp && more == 1) {
        return 0;
    }
    return cp < smallest[more] || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff) ? -1 : cp;
}

static bool is_harmless(int32_t cp)
{
    return cp == '\n' || cp == '\t' || (cp >= ' ' && cp < 0x7f) || cp >= 0xa0;
}

char *text_shown(const char *text)
{
    size_t len = strlen(text);
    const char *end = text + len;
    char *shown = mem_alloc(SHOWN_BYTE * len + 1), *to = shown;

    for (const char *p = text, *next = text; p < end; p = next) {
        if (is_harmless(text_utf8_take(&next, end))) {
            memcpy(to, p, next - p);
            to += next - p;
            continue;
        }
        for (; p < next; p++) {
            to += sprintf(to, "\\x%02x", (unsigned char)*p);
        }
    }
    *to = '\0';
    return shown;
}
