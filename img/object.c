/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * --object: nothing here needs one, but qemu-img's command lines have them.  They are judged as qemu-img judges them, and
 * forgotten.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "block/blockdev.h"
#include "core/mem.h"
#include "img/command.h"
#include "monitor/words.h"

static const char *const types[] = {
    "authz-list", "authz-list-file", "authz-simple", "main-loop", "pr-manager-helper", "secret", "secret_keyring",
    "thread-context", "throttle-group", "tls-cipher-suites", "tls-creds-anon", "tls-creds-psk", "tls-creds-x509",
};
/* Those that only QEMU itself has. */
static const char *const other_types[] = {
    "can-bus", "colo-compare", "cryptodev-backend", "cryptodev-backend-builtin", "cryptodev-vhost-user", "dbus-vmstate",
    "filter-buffer", "filter-dump", "filter-mirror", "filter-redirector", "filter-replay", "filter-rewriter", "input-barrier",
    "input-linux", "iothread", "memory-backend-epc", "memory-backend-file", "memory-backend-memfd", "memory-backend-ram",
    "qtest", "rng-builtin", "rng-egd", "rng-random", "sev-guest", "x-remote-object",
};

/* What the common ones may say; whoever is not in `variants` may say anything. */
static const char *const secret_formats[] = { "raw", "base64", NULL };

#define STRING(key, needed) { .name = key, .kind = KEY_STRING, .required = needed }
#define NUMBER(key, needed) { .name = key, .kind = KEY_INT, .required = needed }
#define SECRET STRING("keyid", false), STRING("iv", false), { .name = "format", .kind = KEY_ENUM, .choices = secret_formats }

static const struct block_key secret_keys[] = { SECRET, STRING("data", false), STRING("file", false), { 0 } };
static const struct block_key secret_keyring_keys[] = { SECRET, NUMBER("serial", true), { 0 } };
static const struct block_key authz_simple_keys[] = { STRING("identity", true), { 0 } };
static const struct block_key pr_manager_keys[] = { STRING("path", true), { 0 } };
static const struct block_key main_loop_keys[] = {
    NUMBER("aio-max-batch", false), NUMBER("thread-pool-min", false), NUMBER("thread-pool-max", false), { 0 },
};
static const struct block_variant variants[] = {
    { "secret", secret_keys }, { "secret_keyring", secret_keyring_keys }, { "authz-simple", authz_simple_keys },
    { "pr-manager-helper", pr_manager_keys }, { "main-loop", main_loop_keys }, { 0 },
};
static const struct block_key members[] = { STRING("qom-type", true), STRING("id", true), { 0 } };
static const struct block_key object_tree = {
    .kind = KEY_OBJECT, .members = members, .tag = "qom-type", .variants = variants,
};

static bool is_in(const char *const *list, size_t n, const char *word)
{
    for (size_t i = 0; i < n; i++) {
        if (!strcmp(list[i], word)) {
            return true;
        }
    }
    return false;
}

static bool has_keys(const char *type)
{
    for (const struct block_variant *v = variants; v->value; v++) {
        if (!strcmp(v->value, type)) {
            return true;
        }
    }
    return false;
}

static void check_secret(const json_t *tree, struct error *err)
{
    const json_t *file = json_object_get(tree, "file"), *data = json_object_get(tree, "data");

    if (file && data) {
        error_set(err, "'file' and 'data' are mutually exclusive");
    } else if (!file && !data) {
        error_set(err, "Either 'file' or 'data' must be provided");
    }
}

static void check_tree(json_t *tree, bool from_words, struct error *err)
{
    json_t *type_value = json_object_get(tree, "qom-type"), *id_value = json_object_get(tree, "id");
    const char *type = json_string_value(type_value), *id = json_string_value(id_value);

    if (type && is_in(other_types, ARRAY_SIZE(other_types), type)) {
        error_set(err, "invalid object type: %s", type);
    } else if (type && !is_in(types, ARRAY_SIZE(types), type)) {
        error_set(err, "Parameter 'qom-type' does not accept value '%s'", type);
    } else if (!type_value || !id_value) {
        error_set(err, "Parameter '%s' is missing", type_value ? "id" : "qom-type");
    } else if (!type || !id) {
        error_set(err, "Invalid parameter type for '%s', expected: string", type ? "id" : "qom-type");
    } else if (!has_keys(type) || blockdev_check_object(tree, from_words, &object_tree, err) == 0) {
        if (!strcmp(type, "secret")) {
            check_secret(tree, err);
        }
        if (!error_is_set(err) && !id_wellformed(id)) {
            error_set(err, "Parameter 'id' expects an identifier");
            error_hint(err, "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.");
        }
    }
}

int img_check_object(const char *text)
{
    struct error err = ERROR_INIT;
    bool from_words;
    json_t *tree;

    if (!strcmp(text, "help") || !strcmp(text, "?")) {
        puts("List of user creatable objects:");
        for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
            printf("  %s\n", types[i]);
        }
        return IMG_DONE;
    }
    tree = words_tree(text, "qom-type", &from_words, &err);
    if (tree) {
        check_tree(tree, from_words, &err);
    }
    json_decref(tree);
    if (error_is_set(&err)) {
        img_complain_error(&err);
        return 1;
    }
    return 0;
}
