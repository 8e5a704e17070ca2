/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Values that several commands take: sizes, cache modes, the form of output.
 */
#include <errno.h>
#include <string.h>

#include "core/mem.h"
#include "core/size.h"
#include "img/command.h"

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
    if (word && !*json && strcmp(word, "human")) {
        img_complain("--output must be used with human or json as argument.");
        return -1;
    }
    return 0;
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
