/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Values that several commands take: sizes, cache modes, the form of output.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/keyval.h"
#include "core/mem.h"
#include "core/size.h"
#include "img/command.h"

#define SPARSE_MAX (16u << 20)
#define WORKERS_MAX 16

int img_take_size(const char *what, const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    int ret = size_parse(text, 1, out, NULL);

    if (ret == -EINVAL) {
        img_complain("Invalid %s specified. You may use k, M, G, T, P or E suffixes for", what);
        img_complain("kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
        return -1;
    }
    if (ret || *out < min || *out > max) {
        img_complain("Invalid %s specified. Must be between %llu and %llu.", what, (unsigned long long)min,
                     (unsigned long long)max);
        return -1;
    }
    return 0;
}

int img_take_output(const struct img_args *args, bool *json)
{
    const char *word = img_value(args, "output");

    *json = word && !strcmp(word, "json");
    return word && img_check_form(word) ? -1 : 0;
}

static const struct cache_mode {
    const char *name;
    bool direct, no_flush;
} cache_modes[] = {
    { "none", true, false },       { "off", true, false },           { "directsync", true, false },
    { "writeback", false, false }, { "writethrough", false, false }, { "unsafe", false, true },
};

static const struct cache_mode *find_mode(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(cache_modes); i++) {
        if (!strcmp(name, cache_modes[i].name)) {
            return &cache_modes[i];
        }
    }
    return NULL;
}

int img_check_cache(const char *mode, const char *what)
{
    if (mode && !find_mode(mode)) {
        img_complain("%s: %s", what, mode);
        return -1;
    }
    return 0;
}

json_t *img_cache_options(const char *mode)
{
    const struct cache_mode *m = find_mode(mode);

    return json_pack("{s:b, s:b}", "direct", m->direct, "no-flush", m->no_flush);
}

/* --- convert ------------------------------------------------------------------------------------------------------ */

int img_take_sparse(const char *text, uint64_t *out)
{
    if (!text) {
        return 0;
    }
    if (img_take_size("buffer size for sparse output", text, 0, INT64_MAX, out) < 0) {
        return -1;
    }
    if (*out % NODE_SECTOR || *out > SPARSE_MAX) {
        img_complain("Invalid buffer size for sparse output specified. Valid sizes are multiples of %u up to %u. "
                     "Select 0 to disable sparse detection (fully allocates output).", NODE_SECTOR, SPARSE_MAX);
        return -1;
    }
    return 0;
}

int img_take_workers(const char *text, unsigned *out)
{
    char *end = NULL;
    long n = text ? strtol(text, &end, 0) : 1;

    if (text && (end == text || *end || n < 1 || n > WORKERS_MAX)) {
        img_complain("Invalid number of coroutines. Allowed number of coroutines is between 1 and %d", WORKERS_MAX);
        return -1;
    }
    *out = text ? n : *out;
    return 0;
}

int img_take_rate(const char *text, uint64_t *out)
{
    return text ? img_take_size("rate limit", text, 0, INT64_MAX, out) : 0;
}

/* --- As the rows of options want them --------------------------------------------------------------------------- */

int img_check_sparse(const char *text)
{
    uint64_t unused;

    return img_take_sparse(text, &unused) < 0;
}

int img_check_workers(const char *text)
{
    unsigned unused = 0;

    return img_take_workers(text, &unused) < 0;
}

int img_check_rate(const char *text)
{
    uint64_t unused;

    return img_take_rate(text, &unused) < 0;
}

int img_check_start(const char *text)
{
    uint64_t unused;

    return img_take_size("start offset", text, 0, INT64_MAX, &unused) < 0;
}

int img_check_length(const char *text)
{
    uint64_t unused;

    return img_take_size("max length", text, 0, INT64_MAX, &unused) < 0;
}

int img_check_image_size(const char *text)
{
    uint64_t unused;

    return img_take_size("image size", text, 0, INT64_MAX, &unused) < 0;
}

int img_check_form(const char *text)
{
    if (strcmp(text, "json") && strcmp(text, "human")) {
        img_complain("--output must be used with human or json as argument.");
        return 1;
    }
    return 0;
}

int img_check_repair(const char *text)
{
    if (strcmp(text, "leaks") && strcmp(text, "all")) {
        return img_complain_usage("Unknown option value for -r (expecting 'leaks' or 'all'): %s", text);
    }
    return 0;
}
