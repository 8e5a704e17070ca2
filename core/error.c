/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Errors as sentences: see error.h.  The one idea: the first error wins, so that clean-up code may
 * report what it likes without hiding the cause.
 */
#include "core/error.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

static bool wanted(const struct error *err)
{
    return err && !err->text;
}

void error_set(struct error *err, const char *fmt, ...)
{
    va_list ap;

    if (!wanted(err)) {
        return;
    }
    va_start(ap, fmt);
    err->class = ERROR_GENERIC;
    err->text = mem_vprintf(fmt, ap);
    va_end(ap);
}

void error_set_class(struct error *err, enum error_class class, const char *fmt, ...)
{
    va_list ap;

    if (!wanted(err)) {
        return;
    }
    va_start(ap, fmt);
    err->class = class;
    err->text = mem_vprintf(fmt, ap);
    va_end(ap);
}

void error_set_errno(struct error *err, int errnum, const char *fmt, ...)
{
    va_list ap;

    if (!wanted(err)) {
        return;
    }
    va_start(ap, fmt);
    AUTOFREE char *what = mem_vprintf(fmt, ap);
    va_end(ap);
    err->class = ERROR_GENERIC;
    err->text = mem_printf("%s: %s", what, strerror(abs(errnum)));
}

void error_hint(struct error *err, const char *fmt, ...)
{
    va_list ap;

    if (!err) {
        return;
    }
    assert(err->text);
    va_start(ap, fmt);
    char *line = mem_vprintf(fmt, ap);
    va_end(ap);
    if (err->hint) {
        char *both = mem_printf("%s\n%s", err->hint, line);

        free(line);
        free(err->hint);
        line = both;
    }
    err->hint = line;
}

void error_prepend(struct error *err, const char *fmt, ...)
{
    va_list ap;

    if (!err) {
        return;
    }
    assert(err->text);
    va_start(ap, fmt);
    AUTOFREE char *front = mem_vprintf(fmt, ap);
    va_end(ap);
    char *whole = mem_printf("%s%s", front, err->text);

    free(err->text);
    err->text = whole;
}

bool error_is_set(const struct error *err)
{
    return err && err->text;
}

void error_move(struct error *dst, struct error *src)
{
    if (wanted(dst) && src->text) {
        *dst = *src;
        *src = ERROR_INIT;
    } else {
        error_clear(src);
    }
}

void error_clear(struct error *err)
{
    free(err->text);
    free(err->hint);
    *err = ERROR_INIT;
}

const char *error_class_name(enum error_class class)
{
    static const char *const names[] = {
        [ERROR_GENERIC] = "GenericError",
        [ERROR_COMMAND_NOT_FOUND] = "CommandNotFound",
        [ERROR_DEVICE_NOT_ACTIVE] = "DeviceNotActive",
        [ERROR_DEVICE_NOT_FOUND] = "DeviceNotFound",
        [ERROR_KVM_MISSING_CAP] = "KVMMissingCap",
    };

    assert(class < ARRAY_SIZE(names));
    return names[class];
}

char *error_in_short(const char *text)
{
    static const char words[] = "Could not open backing file: ";
    const char *at = strstr(text, words), *rest = at;
    unsigned times = 0;

    while (rest && !strncmp(rest, words, sizeof(words) - 1)) {
        rest += sizeof(words) - 1;
        times++;
    }
    return times > 3 ? mem_printf("%.*sCould not open backing file (%u images down): %s", (int)(at - text), text, times, rest)
                     : mem_strdup(text);
}
