/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Messages: see message.h.
 */
#include "core/message.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "core/loop.h"
#include "core/mem.h"

static bool show_time;
static const char *name;

void message_show_time(bool on)
{
    show_time = on;
}

void message_show_name(const char *text)
{
    name = text;
}

/* As QEMU has it: 2026-11-22T03:25:57.871480Z */
static void print_time(void)
{
    uint64_t us = loop_wall_us();
    time_t seconds = us / 1000000;
    char text[64];
    struct tm tm;

    gmtime_r(&seconds, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    fprintf(stderr, "%s.%06uZ ", text, (unsigned)(us % 1000000));
}

void message_begin(const char *text)
{
    if (show_time) {
        print_time();
    }
    if (name) {
        fprintf(stderr, "%s ", name);
    }
    fprintf(stderr, "merganser%s", *text == ':' ? "" : ": ");
}

void message(const char *fmt, ...)
{
    AUTOFREE char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    text = mem_vprintf(fmt, ap);
    va_end(ap);
    message_begin(text);
    fprintf(stderr, "%s\n", text);
}
