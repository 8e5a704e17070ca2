/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Values that several commands take: sizes, cache modes, the form of output.
 */
#include <errno.h>
#include <string.h>

#include "core/keyval.h"
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

/* "secret,id=...": the types that qemu-img knows.  What they are for (keys, TLS, limits) is not here. */
int img_check_object(const char *text)
{
    static const char *const types[] = {
        "authz-list", "authz-list-file", "authz-simple", "main-loop", "pr-manager-helper", "secret", "secret_keyring",
        "thread-context", "throttle-group", "tls-cipher-suites", "tls-creds-anon", "tls-creds-psk", "tls-creds-x509",
    };
    struct error err = ERROR_INIT;
    json_t *tree = keyval_tree(text, "qom-type", &err);
    const char *type = json_string_value(json_object_get(tree, "qom-type"));
    bool known = false;

    for (size_t i = 0; type && i < ARRAY_SIZE(types); i++) {
        known = known || !strcmp(type, types[i]);
    }
    if (tree && !type) {
        error_set(&err, "Parameter 'qom-type' is missing");
    } else if (tree && !known) {
        error_set(&err, "Parameter 'qom-type' does not accept value '%s'", type);
    } else if (tree && !json_object_get(tree, "id")) {
        error_set(&err, "Parameter 'id' is missing");
    }
    json_decref(tree);
    if (error_is_set(&err)) {
        img_complain_error(&err);
        return -1;
    }
    return 0;
}
