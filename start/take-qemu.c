/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Options of QEMU's that are about what is not here, and those that only say how others are given.
 *
 * What is ignored is looked at as far as a mistake in it would stop QEMU early: a start line that QEMU
 * refuses is not taken for good here.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/node.h"
#include "core/keyval.h"
#include "core/message.h"
#include "core/size.h"
#include "core/stream.h"
#include "hw/device.h"
#include "hw/ignored.h"
#include "hw/object.h"
#include "start/option-rows.h"
#include "start/places.h"
#include "start/words.h"

/* --- What is ignored ------------------------------------------------------------------------------ */

#define VALUE "VALUE"
#define IGNORED(name, value) { name, value, NULL, NULL, false, take_ignored }
#define REFUSED(name, value) { name, value, NULL, NULL, false, take_refused }

static const struct option ignored[] = {
    IGNORED("m", VALUE), IGNORED("smp", VALUE), IGNORED("cpu", VALUE), IGNORED("machine", VALUE),
    IGNORED("M", VALUE), IGNORED("accel", VALUE), IGNORED("enable-kvm", NULL), IGNORED("numa", VALUE),
    IGNORED("global", VALUE), IGNORED("boot", VALUE), IGNORED("mem-path", VALUE), IGNORED("mem-prealloc", NULL),
    IGNORED("k", VALUE), IGNORED("audio", VALUE), IGNORED("audiodev", VALUE), IGNORED("soundhw", VALUE),
    IGNORED("usb", NULL), IGNORED("usbdevice", VALUE), IGNORED("display", VALUE), IGNORED("nographic", NULL),
    IGNORED("spice", VALUE), IGNORED("portrait", NULL), IGNORED("rotate", VALUE), IGNORED("vga", VALUE),
    IGNORED("full-screen", NULL), IGNORED("g", VALUE), IGNORED("vnc", VALUE), IGNORED("win2k-hack", NULL),
    IGNORED("no-fd-bootchk", NULL), IGNORED("no-acpi", NULL), IGNORED("no-hpet", NULL), IGNORED("acpitable", VALUE),
    IGNORED("smbios", VALUE), IGNORED("netdev", VALUE), IGNORED("nic", VALUE), IGNORED("net", VALUE),
    IGNORED("tpmdev", VALUE), IGNORED("bios", VALUE), IGNORED("pflash", VALUE), IGNORED("kernel", VALUE),
    IGNORED("append", VALUE), IGNORED("initrd", VALUE), IGNORED("dtb", VALUE), IGNORED("fw_cfg", VALUE),
    IGNORED("serial", VALUE), IGNORED("parallel", VALUE), IGNORED("debugcon", VALUE), IGNORED("fda", VALUE),
    IGNORED("fdb", VALUE), IGNORED("singlestep", NULL), IGNORED("overcommit", VALUE), IGNORED("gdb", VALUE),
    IGNORED("s", NULL), IGNORED("d", VALUE), IGNORED("dfilter", VALUE), IGNORED("L", VALUE),
    IGNORED("no-reboot", NULL), IGNORED("no-shutdown", NULL), IGNORED("action", VALUE), IGNORED("watchdog", VALUE),
    IGNORED("watchdog-action", VALUE), IGNORED("option-rom", VALUE), IGNORED("rtc", VALUE), IGNORED("icount", VALUE),
    IGNORED("echr", VALUE), IGNORED("only-migratable", NULL), IGNORED("nodefaults", NULL),
    IGNORED("no-user-config", NULL), IGNORED("fsdev", VALUE), IGNORED("virtfs", VALUE), IGNORED("compat", VALUE),
    IGNORED("async-teardown", NULL), IGNORED("enable-sync-profile", NULL), IGNORED("trace", VALUE),
    IGNORED("xen-domid", VALUE), IGNORED("xen-attach", NULL), IGNORED("xen-domid-restrict", NULL),
    /* These would change what the guest finds, or what the program may do. */
    REFUSED("loadvm", VALUE), REFUSED("incoming", VALUE), REFUSED("chroot", VALUE), REFUSED("runas", VALUE),
    REFUSED("add-fd", VALUE), REFUSED("set", VALUE), REFUSED("plugin", VALUE), REFUSED("preconfig", NULL),
    REFUSED("mtdblock", VALUE), REFUSED("sd", VALUE), REFUSED("dump-vmstate", VALUE), REFUSED("iscsi", VALUE),
};

const struct option *ignored_option_find(const char *name, size_t len)
{
    for (size_t i = 0; i < ARRAY_SIZE(ignored); i++) {
        if (strlen(ignored[i].name) == len && !strncmp(ignored[i].name, name, len)) {
            return &ignored[i];
        }
    }
    return NULL;
}

const char *ignored_option_name(size_t i)
{
    for (size_t n = 0; n < ARRAY_SIZE(ignored); n++) {
        if (ignored[n].take == take_ignored && i-- == 0) {
            return ignored[n].name;
        }
    }
    return NULL;
}

int take_refused(struct options *o, const struct given *g, struct error *err)
{
    error_set(err, "is not supported by merganser");
    return -ENOTSUP;
}

/* Words that may stand first in the value, up to a comma. */
static const struct {
    const char *option, *key;
    const char *words; /* separated by blanks; a word that ends in '-' begins many */
    const char *wrong; /* with the word */
} first_words[] = {
    { "vga", NULL, " none std cirrus vmware qxl virtio xenfb tcx cg3 ", "unknown vga type: %s" },
    { "accel", "accel", " tcg kvm xen hax hvf nvmm whpx qtest help ", "invalid accelerator %s" },
    { "display", "type", " none gtk sdl egl-headless curses cocoa spice-app dbus vnc default help ",
      "Parameter 'type' does not accept value '%s'" },
    { "net", "type", " none nic user tap socket stream dgram vde bridge hubport l2tpv3 vhost-user vhost-vdpa ",
      "Parameter 'type' does not accept value '%s'" },
    { "nic", "type", " none user tap socket stream dgram vde bridge hubport l2tpv3 vhost-user vhost-vdpa model ",
      "Parameter 'type' does not accept value '%s'" },
    { "watchdog-action", NULL, " reset shutdown poweroff pause debug none inject-nmi ",
      "Parameter 'watchdog' does not accept value '%s'" },
};

static int check_first_word(struct options *o, const struct given *g, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(first_words); i++) {
        AUTOFREE char *word = mem_strdup(g->value), *padded = NULL;
        size_t key = first_words[i].key ? strlen(first_words[i].key) : 0;

        if (strcmp(g->row->name, first_words[i].option)) {
            continue;
        }
        word[strcspn(word, ",")] = '\0';
        if (key && !strncmp(word, first_words[i].key, key) && word[key] == '=') {
            memmove(word, word + key + 1, strlen(word + key + 1) + 1);
        }
        padded = mem_printf(" %s ", word);
        if (!strchr(word, '=') && !strstr(first_words[i].words, padded)) {
            error_set(err, first_words[i].wrong, word);
            o->bare = !strcmp(g->row->name, "vga");
            return -EINVAL;
        }
    }
    return 0;
}

static int refuse_unknown(json_t *keys, const char *const *known, struct error *err)
{
    const char *key;
    json_t *value;

    json_object_foreach(keys, key, value) {
        bool found = false;

        for (const char *const *k = known; *k; k++) {
            found = found || !strcmp(*k, key);
        }
        if (!found) {
            error_set(err, "Invalid parameter '%s'", key);
            return -EINVAL;
        }
    }
    return 0;
}

static int check_memory(struct options *o, const struct given *g, struct error *err)
{
    static const char *const known[] = { "size", "slots", "maxmem", NULL };
    static const char *const sizes[] = { "size", "maxmem" };
    json_t *keys = keyval_parse(g->value, "size", err);
    int ret = keys ? refuse_unknown(keys, known, err) : -EINVAL;

    for (size_t i = 0; i < ARRAY_SIZE(sizes) && !ret; i++) {
        const char *text = json_string_value(json_object_get(keys, sizes[i]));
        uint64_t bytes;

        if (text && size_parse(text, 1 << 20, &bytes, NULL) < 0) {
            error_set(err, "Parameter '%s' expects a non-negative number below 2^64", sizes[i]);
            error_hint(err, "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-");
            error_hint(err, "and exabytes, respectively.");
            ret = -EINVAL;
        }
    }
    json_decref(keys);
    return ret;
}

static int check_place(struct options *o, const struct given *g, struct error *err)
{
    struct chardev_spec spec;
    const char *word = !strncmp(g->value, "mon:", 4) ? g->value + 4 : g->value;
    struct error why = ERROR_INIT;
    int ret = !strcmp(word, "pty") || !strncmp(word, "/dev/", 5) || !strncmp(word, "chardev:", 8)
                  ? (spec = (struct chardev_spec){ .kind = CHARDEV_NONE }, 0)
                  : place_from_word(word, g->shown, &spec, &why);

    if (ret < 0) {
        error_set(err, "%s", why.text);
        error_hint(err, "merganser: %s: could not connect %s device to character backend '%s'", g->shown,
                   g->row->name, g->value);
    }
    error_clear(&why);
    chardev_spec_free(&spec);
    return ret;
}

static int check_netdev(struct options *o, const struct given *g, struct error *err)
{
    json_t *keys = keyval_parse(g->value, "type", err);
    int ret = keys ? 0 : -EINVAL;

    if (keys && g->value[0] != '{' && !json_object_get(keys, "id")) {
        error_set(err, "Parameter 'id' is missing");
        ret = -EINVAL;
    }
    json_decref(keys);
    return ret;
}

static int check_processors(struct options *o, const struct given *g, struct error *err)
{
    static const char *const known[] = { "cpus", "maxcpus", "sockets", "dies", "clusters", "cores", "threads", NULL };
    json_t *keys = keyval_parse(g->value, "cpus", err), *value;
    const char *key;

    o->bare = true; /* QEMU's words name no option */
    json_object_foreach(keys, key, value) {
        const char *const *k = known;
        char *end;

        while (*k && strcmp(*k, key)) {
            k++;
        }
        if (!*k) {
            error_set(err, "Parameter 'smp.%s' is unexpected", key);
        } else if (strtoull(json_string_value(value), &end, 0), end == json_string_value(value) || *end) {
            error_set(err, "Parameter 'smp.%s' expects integer", key);
        }
    }
    json_decref(keys);
    return error_is_set(err) ? -EINVAL : 0;
}

static int check_known(const struct given *g, const char *const *known, struct error *err)
{
    json_t *keys = keyval_parse(g->value, NULL, err);
    int ret = keys ? refuse_unknown(keys, known, err) : -EINVAL;

    json_decref(keys);
    return ret;
}

static int check_action(struct options *o, const struct given *g, struct error *err)
{
    static const char *const known[] = { "reboot", "shutdown", "panic", "watchdog", NULL };

    return check_known(g, known, err);
}

static int check_overcommit(struct options *o, const struct given *g, struct error *err)
{
    static const char *const known[] = { "mem-lock", "cpu-pm", NULL };

    return check_known(g, known, err);
}

int take_ignored(struct options *o, const struct given *g, struct error *err)
{
    static const struct {
        const char *name;
        take_fn *check;
    } checks[] = {
        { "m", check_memory },      { "serial", check_place },   { "parallel", check_place }, { "netdev", check_netdev },
        { "tpmdev", check_netdev }, { "smp", check_processors }, { "action", check_action },  { "overcommit", check_overcommit },
    };
    int ret = g->value ? check_first_word(o, g, err) : 0;

    for (size_t i = 0; i < ARRAY_SIZE(checks) && !ret; i++) {
        ret = strcmp(checks[i].name, g->row->name) ? 0 : checks[i].check(o, g, err);
    }
    if (!ret) {
        ignored_note(g->shown);
    }
    return ret;
}

/* --- Objects -------------------------------------------------------------------------------------- */

static const char *const object_types[] = {
    "authz-list", "authz-list-file", "authz-simple", "can-bus", "colo-compare", "cryptodev-backend",
    "cryptodev-backend-builtin", "cryptodev-vhost-user", "dbus-vmstate", "filter-buffer", "filter-dump",
    "filter-mirror", "filter-redirector", "filter-replay", "filter-rewriter", "input-barrier", "input-linux",
    "iothread", "memory-backend-epc", "memory-backend-file", "memory-backend-memfd", "memory-backend-ram",
    "pr-manager-helper", "qtest", "rng-builtin", "rng-egd", "rng-random", "secret", "secret_keyring", "sev-guest",
    "thread-context", "throttle-group", "tls-cipher-suites", "tls-creds-anon", "tls-creds-psk", "tls-creds-x509",
    "x-remote-object", NULL,
};

static bool object_exists(const struct options *o, const char *id)
{
    for (size_t i = 0; i < o->object_count; i++) {
        if (!strcmp(json_string_value(json_object_get(o->objects[i].tree, "id")), id)) {
            return true;
        }
    }
    return false;
}

static int check_object(const struct options *o, json_t *tree, struct error *err)
{
    const char *type = json_string_value(json_object_get(tree, "qom-type"));
    const char *id = json_string_value(json_object_get(tree, "id"));
    bool known = false;

    for (const char *const *name = object_types; type && *name; name++) {
        known = known || !strcmp(*name, type);
    }
    if (!type) {
        error_set(err, "Parameter 'qom-type' is missing");
    } else if (!known) {
        error_set(err, "Parameter 'qom-type' does not accept value '%s'", type);
    } else if (!id) {
        error_set(err, "Parameter 'id' is missing");
    } else if (check_id(id, err) == 0 && object_exists(o, id)) {
        error_set(err, "Duplicate ID '%s' for object", id);
    }
    return error_is_set(err) ? -EINVAL : 0;
}

/* Those that are more here than a name. */
static int make_object(json_t *tree, bool from_words, struct error *err)
{
    const char *type = json_string_value(json_object_get(tree, "qom-type")), *names[64] = { "qom-type", "id" };
    const struct object_type *kind = object_kinds;
    size_t n = 2;

    while (kind->name && strcmp(kind->name, type)) {
        kind++;
    }
    if (!kind->name) {
        return 0;
    }
    for (const struct block_key *key = kind->keys; key->name && n < ARRAY_SIZE(names) - 1; key++) {
        names[n++] = key->name;
    }
    if (from_words && refuse_unknown(tree, names, err) < 0) {
        return -EINVAL;
    }
    return blockdev_check_object(tree, from_words, &object_tree, err) < 0 ? -EINVAL : object_add(tree, err);
}

int take_object(struct options *o, const struct given *g, struct error *err)
{
    const char *type;
    bool from_words;
    json_t *tree;

    if (!strcmp(g->value, "help") || !strcmp(g->value, "?")) {
        puts("List of user creatable objects:");
        for (const char *const *name = object_types; *name; name++) {
            printf("  %s\n", *name);
        }
        o->done = true;
        return 0;
    }
    tree = words_tree(g->value, "qom-type", &from_words, err);
    if (!tree || check_object(o, tree, err) < 0) {
        json_decref(tree);
        return -EINVAL;
    }
    type = json_string_value(json_object_get(tree, "qom-type"));
    if (strcmp(type, "throttle-group")) {
        ignored_note(g->shown);
    }
    if (make_object(tree, from_words, err) < 0) {
        json_decref(tree);
        return -EINVAL;
    }
    *GROW(o->objects, o->object_count) = (struct option_tree){ mem_strdup(g->shown), tree, from_words };
    return 0;
}

/* --- Messages --------------------------------------------------------------------------------------- */

int take_msg(struct options *o, const struct given *g, struct error *err)
{
    static const char *const known[] = { "timestamp", "guest-name", NULL };
    json_t *keys = keyval_parse(g->value, NULL, err);
    bool timestamp = false, guest_name = false;
    int ret = keys ? 0 : -EINVAL;

    warn_of_flags(g, false);
    if (keys) {
        ret = refuse_unknown(keys, known, err);
    }
    if (!ret && (take_switch(keys, "timestamp", false, &timestamp, err) < 0 ||
                 take_switch(keys, "guest-name", false, &guest_name, err) < 0)) {
        ret = -EINVAL;
    }
    json_decref(keys);
    o->timestamp = timestamp;
    o->guest_name = guest_name;
    message_show_time(timestamp);
    return ret;
}

void warn_of_flags(const struct given *g, bool implied)
{
    const char *item = g->value;

    for (bool first = true; *item; first = false) {
        size_t len = 0;

        while (item[len] && (item[len] != ',' || item[len + 1] == ',')) {
            len += item[len] == ',' ? 2 : 1;
        }
        if (!memchr(item, '=', len) && len && !(first && implied)) {
            bool off = len > 2 && !strncmp(item, "no", 2);
            AUTOFREE char *flag = mem_printf("%.*s", (int)len, item);

            message("%s: warning: short-form boolean option '%s' deprecated", g->shown, flag);
            fprintf(stderr, "Please use %s=%s instead\n", off ? flag + 2 : flag, off ? "off" : "on");
        }
        item += len + (item[len] == ',');
    }
}

/* --- Options from a file ------------------------------------------------------------------------------ */

#define CONFIG_MAX (1u << 20)

static char *read_whole(const char *path, struct error *err)
{
    char *text = NULL;
    size_t len = 0;
    ssize_t n;
    int fd = stream_open(path);

    if (fd < 0) {
        error_set_errno(err, fd, "Could not open '%s'", path);
        return NULL;
    }
    do {
        text = mem_realloc(text, len + 4096 + 1);
        n = stream_read(fd, text + len, 4096);
        len += n > 0 ? n : 0;
    } while (n > 0 && len < CONFIG_MAX);
    stream_close(fd);
    text[len] = '\0';
    if (n < 0) {
        error_set_errno(err, n, "Could not read '%s'", path);
        free(text);
        return NULL;
    }
    return text;
}

/* A group that is being read. */
struct group {
    char *name, *words; /* words: "id=x,file=y", with commas doubled */
    char *shown;        /* ":FILE:LINE", as QEMU shows where */
};

static void group_add(struct group *group, const char *key, const char *value, size_t len)
{
    char *more = mem_alloc(2 * len + 1), *words;
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        if (value[i] == ',') {
            more[n++] = ',';
        }
        more[n++] = value[i];
    }
    words = mem_printf("%s%s%s=%.*s", group->words, *group->words ? "," : "", key, (int)n, more);
    free(more);
    free(group->words);
    group->words = words;
}

static int group_apply(struct options *o, struct group *group, struct error *err)
{
    return group->name && option_in_file(group->name) ? option_apply(o, group->name, group->words, group->shown, err) : 0;
}

static void group_clear(struct group *group)
{
    free(group->name);
    free(group->words);
    *group = (struct group){ .shown = group->shown };
}

/* [name] or [name "id"] */
static int group_begin(struct group *group, const char *line, struct error *err)
{
    size_t len = strcspn(line + 1, " \t]");
    const char *id = strchr(line, '"'), *end = id ? strchr(id + 1, '"') : NULL;

    if (!strchr(line, ']') || (id && !end)) {
        error_set(err, "parse error");
        return -EINVAL;
    }
    group->name = mem_printf("%.*s", (int)len, line + 1);
    group->words = mem_strdup("");
    if (id) {
        group_add(group, "id", id + 1, end - id - 1);
    }
    return 0;
}

/* key = "value" */
static int group_line(struct group *group, char *line, struct error *err)
{
    size_t len = strcspn(line, " \t=");
    char *value = strchr(line, '"'), *end = value ? strrchr(value, '"') : NULL;

    if (!group->name) {
        error_set(err, "no group defined");
        return -EINVAL;
    }
    if (!option_in_file(group->name)) {
        error_set(err, "There is no option group '%s'", group->name);
        return -EINVAL;
    }
    if (!value || end == value || line[len + strspn(line + len, " \t")] != '=') {
        error_set(err, "parse error");
        return -EINVAL;
    }
    line[len] = '\0';
    group_add(group, line, value + 1, end - value - 1);
    return 0;
}

static int config_line(struct options *o, struct group *group, char *line, struct error *err)
{
    line += strspn(line, " \t");
    if (!*line || *line == '#') {
        return 0;
    }
    if (*line == '[') {
        int ret = group_apply(o, group, err);

        group_clear(group);
        return ret ? ret : group_begin(group, line, err);
    }
    return group_line(group, line, err);
}

int take_readconfig(struct options *o, const struct given *g, struct error *err)
{
    AUTOFREE char *text = read_whole(g->value, err);
    struct group group = { .name = NULL };
    unsigned number = 0;
    int ret = text ? 0 : -EINVAL;

    for (char *line = text, *next; line && *line && ret == 0; line = next) {
        size_t len = strcspn(line, "\n");

        next = line + len + (line[len] == '\n');
        line[len] = '\0';
        if (line[strspn(line, " \t")] != '[' || !group.shown) { /* a group's option is where its last line is */
            free(group.shown);
            group.shown = mem_printf(":%s:%u", g->value, number + 1);
        }
        number++;
        ret = config_line(o, &group, line, err);
    }
    if (ret == 0 && text) {
        ret = group_apply(o, &group, err);
    }
    if (ret < 0 && group.shown) {
        free(o->where);
        o->where = mem_strdup(group.shown);
    }
    group_clear(&group);
    free(group.shown);
    return ret;
}
