/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sizes and times as text: see size.h.
 *
 * Fractions are kept as integers (18 decimal digits, the rest is cut off), so "1.1g" is the same
 * number everywhere and no rounding of floating point decides about a byte.
 */
#include "core/size.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "core/mem.h"

#define FRACTION_UNIT 1000000000000000000ULL /* 10^18; times 2^60 still fits 128 bits */

/* A number as written: `whole` and `fraction` / FRACTION_UNIT. */
struct number {
    uint64_t whole;
    uint64_t fraction;
    bool hex;
};

static int hex_digit(char c)
{
    return isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

static int parse_whole(const char **at, unsigned base, uint64_t *out)
{
    *out = 0;
    while (base == 16 ? isxdigit((unsigned char)**at) : isdigit((unsigned char)**at)) {
        if (__builtin_mul_overflow(*out, base, out) ||
            __builtin_add_overflow(*out, hex_digit(**at), out)) {
            return -ERANGE;
        }
        (*at)++;
    }
    return 0;
}

/* A plus sign, then decimal with an optional fraction (which may be empty; what is before the point not), or 0x hex. */
static int parse_number(const char **at, struct number *number)
{
    const char *p = *at;
    int ret;

    *number = (struct number){ 0 };
    while (isspace((unsigned char)*p)) {
        p++;
    }
    p += *p == '+';
    if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X') && isxdigit((unsigned char)p[2])) {
        p += 2;
        number->hex = true;
        ret = parse_whole(&p, 16, &number->whole);
        *at = p;
        return ret;
    }

    const char *start = p;

    ret = parse_whole(&p, 10, &number->whole);
    if (ret) {
        return ret;
    }
    if (p == start) {
        return -EINVAL;
    }
    if (*p == '.') {
        p++;
        for (uint64_t unit = FRACTION_UNIT / 10; isdigit((unsigned char)*p); p++) {
            number->fraction += unit * (*p - '0');
            unit /= 10;
        }
    }
    *at = p;
    return 0;
}

/* number * factor, rounded to the nearest unit as QEMU does. */
static int scale(const struct number *number, uint64_t factor, uint64_t *out)
{
    unsigned __int128 part = ((unsigned __int128)number->fraction * factor + FRACTION_UNIT / 2) / FRACTION_UNIT;
    uint64_t whole;

    if (__builtin_mul_overflow(number->whole, factor, &whole) ||
        __builtin_add_overflow(whole, (uint64_t)part, out)) {
        return -ERANGE;
    }
    return 0;
}

int size_parse(const char *text, uint64_t unit, uint64_t *out, const char **end)
{
    static const char suffixes[] = "bkmgtpe";
    struct number number;
    const char *p = text;
    uint64_t factor = unit;
    uint64_t value;
    int ret = parse_number(&p, &number);

    if (ret) {
        return ret;
    }
    /* A letter behind hex digits is no suffix: 0x1b is 27, so 0x20M would be a trap. */
    const char *suffix = *p && !number.hex ? strchr(suffixes, tolower((unsigned char)*p)) : NULL;

    if (suffix) {
        factor = 1ULL << (10 * (suffix - suffixes));
        p++;
        if (isdigit((unsigned char)*p)) {
            return -EINVAL; /* 1e3 is not understood as an exponent, nor as 1 EiB and a 3 */
        }
    }
    if (number.fraction && factor == 1) {
        return -EINVAL; /* there are no parts of a byte */
    }
    if (!end && *p) {
        return -EINVAL;
    }
    ret = scale(&number, factor, &value);
    if (ret) {
        return ret;
    }
    *out = value;
    if (end) {
        *end = p;
    }
    return 0;
}

int time_parse(const char *text, uint64_t *out_ns)
{
    static const struct {
        const char *suffix;
        uint64_t ns;
    } units[] = {
        { "", 1000000000 },  { "ns", 1 },          { "us", 1000 },
        { "ms", 1000000 },   { "s", 1000000000 },  { "m", 60000000000 },
        { "h", 3600000000000 },
    };
    struct number number;
    const char *p = text;
    int ret = parse_number(&p, &number);

    if (ret) {
        return ret;
    }
    if (number.hex) {
        return -EINVAL;
    }
    for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
        if (!strcmp(p, units[i].suffix)) {
            uint64_t ns;

            ret = scale(&number, units[i].ns, &ns);
            if (!ret) {
                *out_ns = ns;
            }
            return ret;
        }
    }
    return -EINVAL;
}

/* The next unit from `most` on. */
static char *format_below(uint64_t bytes, double most, char *buf)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    double value = bytes;
    unsigned unit = 0;

    while (value >= most && unit + 1 < ARRAY_SIZE(units)) {
        value /= 1024;
        unit++;
    }
    sprintf(buf, "%.3g %s", value, units[unit]);
    return buf;
}

char *size_format(uint64_t bytes, char *buf)
{
    return format_below(bytes, 1000, buf); /* not 1024: three digits are enough then */
}

char *size_format_plain(uint64_t bytes, char *buf)
{
    return format_below(bytes, 999.5, buf);
}

char *time_format(uint64_t ns, char *buf)
{
    static const char *const units[] = { "ns", "us", "ms", "s" };
    double value = ns;
    unsigned unit = 0;

    if (ns >= 60000000000ULL) {
        uint64_t s = ns / 1000000000;

        if (s < 3600) {
            sprintf(buf, "%um%02us", (unsigned)(s / 60), (unsigned)(s % 60));
        } else {
            sprintf(buf, "%lluh%02um%02us", (unsigned long long)(s / 3600),
                    (unsigned)(s / 60 % 60), (unsigned)(s % 60));
        }
        return buf;
    }
    /* 999.5 would round to four digits. */
    while (value >= 999.5 && unit + 1 < ARRAY_SIZE(units)) {
        value /= 1000;
        unit++;
    }
    sprintf(buf, "%.3g %s", value, units[unit]);
    return buf;
}
