/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QEMU's options for what is not here: taken, noted for `info ignored`, and looked at as far as a mistake in
 * them would stop QEMU early. A start line that QEMU refuses is not taken for good here. What makes up the machine
 * itself is judged in take-hardware.c and take-processors.c.
 */
#include <errno.h>
#include <string.h>

#include "core/keyval.h"
#include "core/stream.h"
#include "hw/ignored.h"
#include "monitor/monitor.h"
#include "start/option-rows.h"
#include "start/places.h"
#include "monitor/words.h"

#define VALUE "VALUE"
#define IGNORED(name, value) { name, value, NULL, NULL, false, take_ignored }
#define REFUSED(name, value) { name, value, NULL, NULL, false, take_refused }
#define ELSEWHERE(name, value) { name, value, NULL, NULL, false, take_elsewhere }

static take_fn take_ignored, take_refused, take_elsewhere;

static const struct option ignored[] = {
    IGNORED("m", VALUE), IGNORED("smp", VALUE), IGNORED("cpu", VALUE), IGNORED("machine", VALUE),
    IGNORED("M", VALUE), IGNORED("accel", VALUE), IGNORED("enable-kvm", NULL), IGNORED("numa", VALUE),
    IGNORED("global", VALUE), IGNORED("boot", VALUE), IGNORED("mem-path", VALUE),
    IGNORED("mem-prealloc", NULL), IGNORED("k", VALUE), IGNORED("audio", VALUE), IGNORED("audiodev", VALUE),
    IGNORED("usb", NULL), IGNORED("usbdevice", VALUE), IGNORED("display", VALUE), IGNORED("nographic", NULL),
    IGNORED("spice", VALUE), IGNORED("portrait", NULL), IGNORED("rotate", VALUE), IGNORED("vga", VALUE),
    IGNORED("full-screen", NULL), IGNORED("vnc", VALUE), IGNORED("win2k-hack", NULL),
    IGNORED("no-fd-bootchk", NULL), IGNORED("no-acpi", NULL), IGNORED("no-hpet", NULL),
    IGNORED("acpitable", VALUE), IGNORED("smbios", VALUE), IGNORED("netdev", VALUE), IGNORED("nic", VALUE),
    IGNORED("net", VALUE), IGNORED("tpmdev", VALUE), IGNORED("bios", VALUE), IGNORED("pflash", VALUE),
    IGNORED("kernel", VALUE), IGNORED("append", VALUE), IGNORED("initrd", VALUE), IGNORED("dtb", VALUE),
    IGNORED("fw_cfg", VALUE), IGNORED("serial", VALUE), IGNORED("parallel", VALUE),
    IGNORED("debugcon", VALUE), IGNORED("fda", VALUE), IGNORED("fdb", VALUE), IGNORED("singlestep", NULL),
    IGNORED("overcommit", VALUE), IGNORED("gdb", VALUE), IGNORED("s", NULL), IGNORED("d", VALUE),
    IGNORED("dfilter", VALUE), IGNORED("L", VALUE), IGNORED("no-reboot", NULL), IGNORED("no-shutdown", NULL),
    IGNORED("action", VALUE), IGNORED("watchdog-action", VALUE), IGNORED("option-rom", VALUE),
    IGNORED("rtc", VALUE), IGNORED("icount", VALUE), IGNORED("echr", VALUE), IGNORED("only-migratable", NULL),
    IGNORED("nodefaults", NULL), IGNORED("no-user-config", NULL), IGNORED("fsdev", VALUE),
    IGNORED("virtfs", VALUE), IGNORED("compat", VALUE), IGNORED("async-teardown", NULL),
    IGNORED("enable-sync-profile", NULL), IGNORED("trace", VALUE),
    /* These would change what the guest finds, or what the program may do. */
    REFUSED("loadvm", VALUE), REFUSED("incoming", VALUE), REFUSED("chroot", VALUE), REFUSED("runas", VALUE),
    REFUSED("add-fd", VALUE), REFUSED("set", VALUE), REFUSED("plugin", VALUE), REFUSED("preconfig", NULL),
    REFUSED("mtdblock", VALUE), REFUSED("sd", VALUE), REFUSED("dump-vmstate", VALUE), REFUSED("iscsi", VALUE),
    /* QEMU for other processors has these. */
    ELSEWHERE("g", VALUE), ELSEWHERE("xen-domid", VALUE), ELSEWHERE("xen-attach", NULL),
    ELSEWHERE("xen-domid-restrict", NULL), ELSEWHERE("prom-env", VALUE), ELSEWHERE("semihosting", NULL),
    ELSEWHERE("semihosting-config", VALUE), ELSEWHERE("old-param", NULL),
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

static int take_refused(struct options *o, const struct given *g, struct error *err)
{
    error_set(err, "is not supported by merganser");
    return -ENOTSUP;
}

static int take_elsewhere(struct options *o, const struct given *g, struct error *err)
{
    error_set(err, "Option not supported for this target");
    return -ENOTSUP;
}

/* --- First words --------------------------------------------------------------------------------------- */

/* Words that may stand first in the value, up to a comma. */
static const struct {
    const char *option, *key;
    const char *words; /* separated by blanks; a word that ends in '-' begins many */
    const char *wrong; /* with the word */
} first_words[] = {
    { "vga", NULL, " none std cirrus vmware qxl virtio xenfb tcx cg3 ", "unknown vga type: %s" },
    { "display", "type", " none gtk sdl egl-headless curses cocoa spice-app dbus vnc default help ",
      "Parameter 'type' does not accept value '%s'" },
    { "net", "type", " none nic user tap socket stream dgram vde bridge hubport l2tpv3 vhost-user vhost-vdpa ",
      "Parameter 'type' does not accept value '%s'" },
    { "nic", "type", " none user tap socket stream dgram vde bridge hubport l2tpv3 vhost-user vhost-vdpa model ",
      "Parameter 'type' does not accept value '%s'" },
    { "netdev", "type", " user tap l2tpv3 socket stream dgram vde bridge hubport vhost-user vhost-vdpa help ",
      "Parameter 'type' does not accept value '%s'" },
    { "numa", "type", " node dist cpu hmat-lb hmat-cache ", "Parameter 'type' does not accept value '%s'" },
    { "audiodev", "driver", " none alsa coreaudio dbus dsound jack oss pa sdl sndio spice wav help ",
      "Parameter 'driver' does not accept value '%s'" },
    { "watchdog-action", NULL, " reset shutdown poweroff pause debug none inject-nmi ",
      "Parameter 'watchdog' does not accept value '%s'" },
};

static int check_first_word(struct options *o, const struct given *g, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(first_words) && g->value[0] != '{'; i++) {
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

/* --- Keys and their values ----------------------------------------------------------------------------- */

int refuse_unknown_keys(json_t *keys, const char *const *known, struct error *err)
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

/* Keys of options that are sets of them, and their values: NULL: any; "": a switch; else these words. */
static const struct option_keys {
    const char *option, *implied;
    struct {
        const char *name, *values;
    } keys[8];
} option_keys[] = {
    { "action", NULL, { { "reboot", "reset shutdown" }, { "shutdown", "poweroff pause" },
                        { "panic", "pause shutdown exit-failure none" },
                        { "watchdog", "reset shutdown poweroff pause debug none inject-nmi" } } },
    { "overcommit", NULL, { { "mem-lock", "" }, { "cpu-pm", "" } } },
    { "icount", "shift", { { "shift", NULL }, { "align", "" }, { "sleep", "" }, { "rr", NULL }, { "rrfile", NULL },
                           { "rrsnapshot", NULL } } },
    { "rtc", NULL, { { "base", NULL }, { "clock", "host rt vm" }, { "driftfix", "slew none" } } },
    { "compat", NULL, { { "deprecated-input", "accept reject crash" }, { "deprecated-output", "accept hide" },
                        { "unstable-input", "accept reject crash" }, { "unstable-output", "accept hide" } } },
};

static bool among(const char *words, const char *word)
{
    AUTOFREE char *all = mem_printf(" %s ", words), *one = mem_printf(" %s ", word);

    return strstr(all, one);
}

static int check_key(struct options *o, const struct option_keys *row, const char *key, const char *value, struct error *err)
{
    bool strict = !strcmp(row->option, "compat"), clock = !strcmp(row->option, "rtc"), on;

    for (size_t i = 0; i < ARRAY_SIZE(row->keys) && row->keys[i].name; i++) {
        const char *values = row->keys[i].values;

        if (strcmp(row->keys[i].name, key)) {
            continue;
        }
        if (values && !*values && keyval_switch(value, &on) < 0) {
            error_set(err, "Parameter '%s' expects 'on' or 'off'", key);
        } else if (values && *values && !among(values, value) && clock) {
            o->bare = true;
            error_set(err, "invalid option value '%s'", value);
        } else if (values && *values && !among(values, value)) {
            error_set(err, "Parameter '%s' does not accept value '%s'", key, value);
        }
        return error_is_set(err) ? -EINVAL : 0;
    }
    error_set(err, strict ? "Parameter '%s' is unexpected" : "Invalid parameter '%s'", key);
    return -EINVAL;
}

static int check_keys(struct options *o, const struct given *g, struct error *err)
{
    const struct option_keys *row = option_keys;
    bool strict = !strcmp(g->row->name, "compat");
    const char *key;
    json_t *keys, *value;

    while (row < option_keys + ARRAY_SIZE(option_keys) && strcmp(row->option, g->row->name)) {
        row++;
    }
    if (row == option_keys + ARRAY_SIZE(option_keys)) {
        return 0;
    }
    keys = strict ? keyval_tree(g->value, NULL, err) : keyval_parse(g->value, row->implied, err);
    if (!keys) {
        return -EINVAL;
    }
    if (!strict) {
        warn_of_flags(g, row->implied);
    }
    json_object_foreach(keys, key, value) {
        if (check_key(o, row, key, json_string_value(value), err) < 0) {
            break;
        }
    }
    json_decref(keys);
    return error_is_set(err) ? -EINVAL : 0;
}

/* --- Options with a grammar of their own ------------------------------------------------------------------- */

static int check_place(struct options *o, const struct given *g, struct error *err)
{
    struct chardev_spec spec;
    const char *word = !strncmp(g->value, "mon:", 4) ? g->value + 4 : g->value;
    struct error why = ERROR_INIT;
    bool none = !strcmp(word, "none") && strcmp(g->row->name, "debugcon"); /* which must have a place, as -qmp must */
    int ret = none || !strcmp(word, "pty") || !strncmp(word, "/dev/", 5) || !strncmp(word, "chardev:", 8)
                  ? (spec = (struct chardev_spec){ .kind = CHARDEV_NONE }, 0)
                  : place_from_word(word, g->shown, &spec, &why);

    if (ret < 0) {
        error_set(err, "%s", why.text);
        if (!strcmp(g->row->name, "debugcon")) {
            error_hint(err, "merganser: %s: invalid character backend '%s'", g->shown, g->value);
        } else if (strcmp(g->row->name, "gdb")) {
            error_hint(err, "merganser: %s: could not connect %s device to character backend '%s'", g->shown,
                       g->row->name, g->value);
        }
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

static int check_audiodev(struct options *o, const struct given *g, struct error *err)
{
    bool from_words;
    json_t *keys = words_tree(g->value, "driver", &from_words, err);

    if (keys && !json_object_get(keys, "id")) {
        error_set(err, "Parameter 'id' is missing");
    } else if (keys && !json_object_get(keys, "driver")) {
        error_set(err, "Parameter 'driver' is missing");
    }
    monitor_free_json(keys);
    return error_is_set(err) ? -EINVAL : 0;
}

/* DRIVER.PROPERTY=VALUE, or the three by name. */
static int check_global(struct options *o, const struct given *g, struct error *err)
{
    static const char *const known[] = { "driver", "property", "value", NULL };
    size_t dot = strcspn(g->value, ".=");
    json_t *keys;

    if (g->value[dot] == '.' && dot && strchr(g->value, '=')) {
        return 0;
    }
    keys = keyval_parse(g->value, NULL, err);
    if (!keys) {
        return -EINVAL;
    }
    warn_of_flags(g, false);
    if (refuse_unknown_keys(keys, known, err) == 0 && json_object_size(keys) < 3) {
        error_set(err, "options 'driver', 'property', and 'value' are required");
    }
    json_decref(keys);
    return error_is_set(err) ? -EINVAL : 0;
}

static int check_fw_cfg(struct options *o, const struct given *g, struct error *err)
{
    json_t *keys = keyval_parse(g->value, "name", err);
    int sources = !!json_object_get(keys, "file") + !!json_object_get(keys, "string") + !!json_object_get(keys, "gen_id");

    if (keys && (sources != 1 || !json_object_get(keys, "name"))) {
        error_set(err, "name, plus exactly one of file, string and gen_id, are needed");
    }
    json_decref(keys);
    return error_is_set(err) ? -EINVAL : 0;
}

/* A disk that is not made, but would have to be there. */
static int check_file(struct options *o, const struct given *g, struct error *err)
{
    int fd = *g->value ? stream_open(g->value) : 0;

    if (fd < 0) {
        error_set_errno(err, fd, "Could not open '%s'", g->value);
        return -EINVAL;
    }
    if (*g->value) {
        stream_close(fd);
    }
    return 0;
}

/* YYYY-MM-DD, perhaps with Thh:mm:ss. */
static bool is_date(const char *text)
{
    static const char form[] = "dddd-dd-ddTdd:dd:dd";
    size_t len = strlen(text);

    for (size_t i = 0; i < len && i < sizeof(form) - 1; i++) {
        if (form[i] == 'd' ? text[i] < '0' || text[i] > '9' : text[i] != form[i]) {
            return false;
        }
    }
    return len == 10 || len == sizeof(form) - 1;
}

static int check_rtc(struct options *o, const struct given *g, struct error *err)
{
    json_t *keys = keyval_parse(g->value, NULL, NULL);
    const char *base = json_string_value(json_object_get(keys, "base"));

    if (base && !among("utc localtime", base) && !is_date(base)) {
        o->bare = true;
        error_set(err, "invalid datetime format");
        error_hint(err, "valid formats: '2006-06-17T16:01:21' or '2006-06-17'");
    }
    json_decref(keys);
    return error_is_set(err) ? -EINVAL : 0;
}

/* There is one thing that comes by itself here: the demonstration. */
static int take_no_defaults(struct options *o, const struct given *g, struct error *err)
{
    o->no_defaults = true;
    return 0;
}

static int take_ignored(struct options *o, const struct given *g, struct error *err)
{
    static const struct {
        const char *name;
        take_fn *check;
    } checks[] = {
        { "m", take_memory },        { "smp", take_processors },   { "cpu", take_cpu },        { "machine", take_machine },
        { "M", take_machine },       { "accel", take_accel },      { "enable-kvm", take_kvm }, { "boot", take_boot },
        { "kernel", take_kernel },   { "append", take_kernel },    { "initrd", take_kernel },  { "serial", check_place },
        { "parallel", check_place }, { "debugcon", check_place },  { "gdb", check_place },     { "netdev", check_netdev },
        { "tpmdev", check_netdev },  { "audiodev", check_audiodev }, { "global", check_global }, { "fw_cfg", check_fw_cfg },
        { "fda", check_file },       { "fdb", check_file },        { "pflash", check_file },   { "rtc", check_rtc },
        { "nodefaults", take_no_defaults },
    };
    int ret = g->value ? check_keys(o, g, err) : 0;

    for (size_t i = 0; i < ARRAY_SIZE(checks) && !ret; i++) {
        ret = strcmp(checks[i].name, g->row->name) ? 0 : checks[i].check(o, g, err);
    }
    if (!ret && g->value) {
        ret = check_first_word(o, g, err);
    }
    if (!ret) {
        ignored_note(g->shown);
    }
    return ret;
}
