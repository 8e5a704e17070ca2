/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The machine that is not here: -machine, -accel, -m, -boot, -kernel and what belongs to it.
 *
 * Nothing is made of them, but a start line that QEMU's x86 binary refuses is refused with its sentence: types of machines and
 * names of processors, properties and their types, counts and sizes that fit each other. All options of a name are one
 * set of keys, and one may be about another, so they are judged when all are read (hardware_check()). Not judged:
 * what lies in files.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/keyval.h"
#include "core/message.h"
#include "core/size.h"
#include "core/stream.h"
#include "start/hardware.h"

/* --- Keys, as they come ------------------------------------------------------------------------------- */

json_t *hardware_all(struct options *o)
{
    o->hardware = o->hardware ? o->hardware : json_object();
    return o->hardware;
}

json_t *hardware_group(struct options *o, const char *name)
{
    json_t *keys = json_object_get(hardware_all(o), name);

    if (!keys) {
        keys = json_object();
        json_object_set_new(hardware_all(o), name, keys);
    }
    return keys;
}

const char *hardware_word(const struct options *o, const char *group, const char *key)
{
    return json_string_value(json_object_get(json_object_get(o->hardware, group), key));
}

int hardware_add(struct options *o, const char *name, json_t *keys)
{
    if (!keys) {
        return -EINVAL;
    }
    json_object_update_recursive(hardware_group(o, name), keys);
    json_decref(keys);
    return 0;
}

/* --- Machines ------------------------------------------------------------------------------------------- */

enum { ALL = 1, X86 = 2, PC = 4, MICROVM = 8, REMOTE = 16 };

static const struct machine_type {
    const char *name;
    const char *versions; /* "name-VERSION" are types as well, the first one is what the name means; NULL: none */
    const char *title;
    unsigned properties;
    int processors;
    bool dies;
} machine_types[] = {
    { "microvm", NULL, "microvm (i386)", ALL | X86 | MICROVM, 288, true },
    { "pc", "7.2 7.1 7.0 6.2 6.1 6.0 5.2 5.1 5.0 4.2 4.1 4.0 3.1 3.0 2.9 2.8 2.7 2.6 2.5 2.4 2.3 2.2 2.12 2.11 2.10 2.1 2.0 "
            "1.7 1.6 1.5 1.4",
      "Standard PC (i440FX + PIIX, 1996)", ALL | X86 | PC, 255, true },
    { "q35", "7.2 7.1 7.0 6.2 6.1 6.0 5.2 5.1 5.0 4.2 4.1 4.0.1 4.0 3.1 3.0 2.9 2.8 2.7 2.6 2.5 2.4 2.12 2.11 2.10",
      "Standard PC (Q35 + ICH9, 2009)", ALL | X86 | PC, 288, true },
    { "isapc", NULL, "ISA-only PC", ALL | X86 | PC, 1, true },
    { "none", NULL, "empty machine", ALL, 1, false },
    { "x-remote", NULL, "Experimental remote machine", ALL | REMOTE, 1, false },
};

static const char *family(const struct machine_type *type)
{
    return !strcmp(type->name, "pc") ? "pc-i440fx" : !strcmp(type->name, "q35") ? "pc-q35" : type->name;
}

bool hardware_listed(const char *words, const char *name, size_t len)
{
    for (const char *at = words; at && *at; at += strspn(at, " ")) {
        size_t n = strcspn(at, " ");

        if (n == len && !strncmp(at, name, n)) {
            return true;
        }
        at += n;
    }
    return false;
}

/* *full: the type's whole name, malloc'ed.  NULL: there is none such. */
static const struct machine_type *machine_find(const char *name, char **full)
{
    for (size_t i = 0; i < ARRAY_SIZE(machine_types); i++) {
        const struct machine_type *type = &machine_types[i];
        size_t len = strlen(family(type));

        if (!strcmp(name, type->name)) {
            *full = type->versions ? mem_printf("%s-%.*s", family(type), (int)strcspn(type->versions, " "), type->versions)
                                   : mem_strdup(name);
            return type;
        }
        if (type->versions && !strncmp(name, family(type), len) && name[len] == '-' &&
            hardware_listed(type->versions, name + len + 1, strlen(name + len + 1))) {
            *full = mem_strdup(name);
            return type;
        }
    }
    return NULL;
}

static void print_machine(const struct machine_type *type, const char *version, size_t len)
{
    AUTOFREE char *name = mem_printf("%s-%.*s", family(type), (int)len, version);
    bool usual = !strcmp(type->name, "pc") && version == type->versions;

    printf("%-20s %s%s\n", name, type->title, usual ? " (default)" : version[0] == '1' ? " (deprecated)" : "");
}

static void print_machines(void)
{
    puts("Supported machines are:");
    for (size_t i = 0; i < ARRAY_SIZE(machine_types); i++) {
        const struct machine_type *type = &machine_types[i];

        if (!type->versions) {
            printf("%-20s %s\n", type->name, type->title);
            continue;
        }
        printf("%-20s %s (alias of %s-%.*s)\n", type->name, type->title, family(type), (int)strcspn(type->versions, " "),
               type->versions);
        for (const char *at = type->versions; *at; at += strspn(at, " ")) {
            print_machine(type, at, strcspn(at, " "));
            at += strcspn(at, " ");
        }
    }
}

enum kind { TEXT, BOOL, SWITCH, INT, SIZE, WORDS };

/* Properties of machines; kinds as QEMU's messages tell them. */
static const struct property {
    const char *name;
    unsigned where;
    enum kind kind;
    const char *words; /* of WORDS */
} machine_properties[] = {
    { "append", ALL, TEXT, NULL }, { "confidential-guest-support", ALL, TEXT, NULL }, { "dt-compatible", ALL, TEXT, NULL },
    { "dtb", ALL, TEXT, NULL }, { "dump-guest-core", ALL, BOOL, NULL }, { "dumpdtb", ALL, TEXT, NULL },
    { "firmware", ALL, TEXT, NULL }, { "graphics", ALL, BOOL, NULL }, { "initrd", ALL, TEXT, NULL },
    { "kernel", ALL, TEXT, NULL }, { "mem-merge", ALL, BOOL, NULL }, { "memory-backend", ALL, TEXT, NULL },
    { "memory-encryption", ALL, TEXT, NULL }, { "phandle-start", ALL, INT, NULL }, { "suppress-vmdesc", ALL, BOOL, NULL },
    { "usb", ALL, BOOL, NULL },
    { "acpi", X86, SWITCH, NULL }, { "bus-lock-ratelimit", X86, TEXT, NULL }, { "pic", X86, SWITCH, NULL },
    { "pit", X86, SWITCH, NULL }, { "smm", X86, SWITCH, NULL }, { "x-oem-id", X86, TEXT, NULL },
    { "x-oem-table-id", X86, TEXT, NULL },
    { "default-bus-bypass-iommu", PC, BOOL, NULL }, { "hpet", PC, BOOL, NULL }, { "i8042", PC, BOOL, NULL },
    { "max-fw-size", PC, SIZE, NULL }, { "max-ram-below-4g", PC, SIZE, NULL }, { "sata", PC, BOOL, NULL },
    { "smbios-entry-point-type", PC, WORDS, "32 64" }, { "smbus", PC, BOOL, NULL }, { "vmport", PC, SWITCH, NULL },
    { "nvdimm", PC, BOOL, NULL }, { "hmat", PC, BOOL, NULL },
    { "auto-kernel-cmdline", MICROVM, BOOL, NULL }, { "ioapic2", MICROVM, SWITCH, NULL }, { "isa-serial", MICROVM, BOOL, NULL },
    { "option-roms", MICROVM, BOOL, NULL }, { "pcie", MICROVM, SWITCH, NULL }, { "rtc", MICROVM, SWITCH, NULL },
    { "x-option-roms", MICROVM, BOOL, NULL }, { "auto-shutdown", REMOTE, BOOL, NULL },
    /* Other options' business, understood here as well. */
    { "type", ALL, TEXT, NULL }, { "accel", ALL, TEXT, NULL }, { "kernel-irqchip", ALL, TEXT, NULL },
    { "kvm-shadow-mem", ALL, TEXT, NULL }, { "igd-passthru", ALL, TEXT, NULL }, { "pflash0", PC, TEXT, NULL },
    { "pflash1", PC, TEXT, NULL }, { "boot", ALL, TEXT, NULL }, { "smp", ALL, TEXT, NULL }, { "memory", ALL, TEXT, NULL },
    { "sgx-epc", X86, TEXT, NULL }, { "vfio-user", REMOTE, TEXT, NULL },
};

bool hardware_number(const char *text)
{
    char *end;

    strtoll(text, &end, 0);
    return *text && !*end;
}

/* `value` is NULL where there is no text, but keys below this one. */
static int check_kind(const char *name, const char *value, enum kind kind, const char *words, struct error *err)
{
    uint64_t bytes;
    bool on;

    if (!value) {
        error_set(err, "Parameters '%s.*' are unexpected", name);
    } else if (kind == BOOL && keyval_switch(value, &on) < 0) {
        error_set(err, "Parameter '%s' expects 'on' or 'off'", name);
    } else if ((kind == SWITCH || kind == WORDS) && !hardware_listed(kind == SWITCH ? "on off auto" : words, value, strlen(value))) {
        error_set(err, "Parameter '%s' does not accept value '%s'", name, value);
    } else if (kind == INT && !hardware_number(value)) {
        error_set(err, "Parameter '%s' expects integer", name);
    } else if (kind == SIZE && size_parse(value, 1, &bytes, NULL) < 0) {
        error_set(err, "Parameter '%s' expects size", name);
    }
    return error_is_set(err) ? -EINVAL : 0;
}

static int check_machine_property(const struct machine_type *type, const char *full, const char *name, const char *value,
                                  struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(machine_properties); i++) {
        const struct property *p = &machine_properties[i];

        if (!strcmp(p->name, name) && (p->where & type->properties)) {
            return value || p->kind != TEXT ? check_kind(name, value, p->kind, p->words, err) : 0;
        }
    }
    error_set(err, "Property '%s-machine.%s' not found", full, name);
    return -EINVAL;
}

static void print_properties(const char *name)
{
    static const char *const kinds[] = { "string", "bool", "OnOffAuto", "int", "size", "str" };
    AUTOFREE char *full = NULL;
    const struct machine_type *type = machine_find(name, &full);

    printf("%s-machine options:\n", full);
    for (size_t i = 0; i < ARRAY_SIZE(machine_properties); i++) {
        const struct property *p = &machine_properties[i];

        if (p->where & type->properties && strcmp(p->name, "type")) {
            printf("  %s=<%s>\n", p->name, kinds[p->kind]);
        }
    }
}

static void hint_machines(struct error *err)
{
    error_hint(err, "Use -machine help to list supported machines");
}

/* -machine TYPE,help */
static bool asks_for_properties(struct options *o, const char *value, struct error *err)
{
    size_t len = strcspn(value, ",");
    AUTOFREE char *name = NULL, *full = NULL;

    if (strcmp(value + len, ",help")) {
        return false;
    }
    name = mem_printf("%.*s", (int)len, value);
    if (!machine_find(name, &full)) {
        o->bare = true;
        error_set(err, "unsupported machine type");
        hint_machines(err);
    } else {
        print_properties(name);
        o->done = true;
    }
    return true;
}

int take_machine(struct options *o, const struct given *g, struct error *err)
{
    if (!strcmp(g->value, "help") || !strcmp(g->value, "?")) {
        print_machines();
        o->done = true;
        return 0;
    }
    if (asks_for_properties(o, g->value, err)) {
        return error_is_set(err) ? -EINVAL : 0;
    }
    return hardware_add(o, "machine", keyval_tree(g->value, "type", err));
}

/* --- Accelerators ------------------------------------------------------------------------------------------ */

static const struct {
    const char *accel, *name;
    enum kind kind;
    const char *words;   /* of WORDS */
    const char *number;  /* of INT: what QEMU calls it */
} accel_properties[] = {
    { "tcg", "thread", TEXT, NULL, NULL }, { "tcg", "tb-size", INT, NULL, "uint64" }, { "tcg", "split-wx", BOOL, NULL, NULL },
    { "kvm", "kernel-irqchip", WORDS, "on off split", NULL }, { "kvm", "kvm-shadow-mem", INT, NULL, "int64" },
    { "kvm", "dirty-ring-size", INT, NULL, "uint64" }, { "kvm", "notify-vmexit", WORDS, "run internal-error disable", NULL },
    { "kvm", "notify-window", INT, NULL, "uint64" },
};

static int check_accel_property(const char *accel, const char *name, const char *value, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(accel_properties); i++) {
        if (strcmp(accel_properties[i].accel, accel) || strcmp(accel_properties[i].name, name)) {
            continue;
        }
        if (accel_properties[i].kind == INT) {
            if (!hardware_number(value)) {
                error_set(err, "Parameter '%s' expects %s", name, accel_properties[i].number);
            }
        } else if (!strcmp(name, "thread") && !hardware_listed("single multi", value, strlen(value))) {
            error_set(err, "Invalid 'thread' setting %s", value);
        } else {
            check_kind(name, value, accel_properties[i].kind, accel_properties[i].words, err);
        }
        return error_is_set(err) ? -EINVAL : 0;
    }
    error_set(err, "Property '%s-accel.%s' not found", accel, name);
    return -EINVAL;
}

int take_accel(struct options *o, const struct given *g, struct error *err)
{
    json_t *keys, *value;
    const char *accel, *key;

    keys = keyval_parse(g->value, "accel", err);
    if (!keys) {
        return -EINVAL;
    }
    warn_of_flags(g, true);
    accel = json_string_value(json_object_get(keys, "accel"));
    if (!accel || !strcmp(accel, "help") || !strcmp(accel, "?")) {
        puts("Accelerators supported in QEMU binary:\ntcg\nkvm");
        o->done = true;
    } else if (strcmp(accel, "tcg") && strcmp(accel, "kvm")) {
        error_set(err, "invalid accelerator %s", accel);
    } else {
        json_object_foreach(keys, key, value) {
            if (strcmp(key, "accel") && check_accel_property(accel, key, json_string_value(value), err) < 0) {
                break;
            }
        }
        json_object_set(hardware_group(o, "accel"), accel, json_true());
    }
    json_decref(keys);
    return error_is_set(err) ? -EINVAL : 0;
}

int take_kvm(struct options *o, const struct given *g, struct error *err)
{
    json_object_set_new(hardware_group(o, "machine"), "accel", json_string("kvm")); /* as QEMU does */
    return 0;
}

/* -machine accel=A:B: the first one that there is. */
static int check_accel_list(struct options *o, struct error *err)
{
    const char *list = hardware_word(o, "machine", "accel"), *good = NULL;

    if (list && json_object_size(hardware_group(o, "accel"))) {
        error_set(err, "The -accel and \"-machine accel=\" options are incompatible");
        return -EINVAL;
    }
    for (const char *at = list; at && *at; at += strspn(at, ":")) {
        size_t len = strcspn(at, ":");

        if (hardware_listed("tcg kvm", at, len)) {
            good = good ? good : at;
            json_object_set(hardware_group(o, "accel"), *at == 't' ? "tcg" : "kvm", json_true());
        } else if (error_is_set(err)) {
            error_hint(err, "merganser: invalid accelerator %.*s", (int)len, at);
        } else {
            error_set(err, "invalid accelerator %.*s", (int)len, at);
        }
        at += len;
    }
    if (list && !*list) {
        error_set(err, "no accelerator found");
    } else if (good && error_is_set(err)) {
        message("%s", err->text);
        message("falling back to %.3s", good);
        error_clear(err);
    }
    return error_is_set(err) ? -EINVAL : 0;
}

/* --- Memory ---------------------------------------------------------------------------------------------------- */

static int check_size(const char *key, const char *text, struct error *err)
{
    uint64_t bytes;
    int ret = text ? size_parse(text, 1, &bytes, NULL) : 0;

    if (ret == -ERANGE) {
        error_set(err, "Value '%s' is out of range for parameter '%s'", text, key);
    } else if (ret < 0) {
        error_set(err, "Parameter '%s' expects a non-negative number below 2^64", key);
        error_hint(err, "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-");
        error_hint(err, "and exabytes, respectively.");
    }
    return ret;
}

int take_memory(struct options *o, const struct given *g, struct error *err)
{
    json_t *keys = keyval_parse(g->value, "size", err), *value;
    const char *size, *key;

    if (!keys) {
        return -EINVAL;
    }
    warn_of_flags(g, true);
    size = json_string_value(json_object_get(keys, "size"));
    json_object_foreach(keys, key, value) {
        const char *text = json_string_value(value);

        if (!strcmp(key, "slots")) {
            if (!hardware_number(text)) {
                error_set(err, "Parameter 'slots' expects a number");
            }
        } else if (strcmp(key, "size") && strcmp(key, "maxmem")) {
            error_set(err, "Invalid parameter '%s'", key);
        } else if (text != size || *size || json_object_size(keys) > 1) { /* -m '' is the usual size */
            check_size(key, text, err);
        }
    }
    if (error_is_set(err)) {
        json_decref(keys);
        return -EINVAL;
    }
    return hardware_add(o, "memory", keys);
}

static int check_memory(struct options *o, struct error *err)
{
    const char *size = hardware_word(o, "memory", "size"), *maxmem = hardware_word(o, "memory", "maxmem");
    const char *slots = hardware_word(o, "memory", "slots");
    uint64_t bytes = 128 << 20, max = 0, count = slots ? strtoull(slots, NULL, 0) : 0;

    if (size && *size && size_parse(size, 1 << 20, &bytes, NULL) < 0) {
        error_set(err, "ram size too large");
        return -EINVAL;
    }
    bytes = bytes ? bytes : 128 << 20;
    if (maxmem) {
        size_parse(maxmem, 1, &max, NULL);
        if (max < bytes) {
            error_set(err, "invalid value of maxmem: maximum memory size (0x%" PRIx64 ") must be at least the initial memory size "
                      "(0x%" PRIx64 ")", max, bytes);
        } else if (count && max == bytes) {
            error_set(err, "invalid value of maxmem: memory slots were specified but maximum memory size (0x%" PRIx64
                      ") is equal to the initial memory size (0x%" PRIx64 ")", max, bytes);
        } else if (count > 256) {
            error_set(err, "unsupported amount of memory slots: %" PRIu64, count);
        }
    } else if (count) {
        error_set(err, "slots specified but no max-size");
    }
    return error_is_set(err) ? -EINVAL : 0;
}

/* --- Boot and kernel ------------------------------------------------------------------------------------------- */

int take_boot(struct options *o, const struct given *g, struct error *err)
{
    if (!strcmp(g->value, "help") || !strcmp(g->value, "?")) {
        puts("boot-opts options:\n  menu=<bool (on/off)>\n  once=<str>\n  order=<str>\n  reboot-timeout=<num>\n"
             "  splash-time=<num>\n  splash=<str>\n  strict=<bool (on/off)>");
        o->done = true;
        return 0;
    }
    return hardware_add(o, "boot", keyval_tree(g->value, "order", err));
}

/* a and b are floppy disks, c a hard disk, d a CD, n the network. */
static int check_boot_order(const char *order, struct error *err)
{
    for (const char *c = order; c && *c; c++) {
        if (*c < 'a' || *c > 'p') {
            error_set(err, "Invalid boot device '%c'", *c);
        } else if (strchr(order, *c) != c) {
            error_set(err, "Boot device '%c' was given twice", *c);
        }
    }
    for (const char *c = order; c && *c; c++) {
        if (!strchr("abcdn", *c)) {
            error_set(err, "Invalid boot device for PC: '%c'", *c);
        }
    }
    return error_is_set(err) ? -EINVAL : 0;
}

static int check_boot(struct options *o, struct error *err)
{
    static const struct {
        const char *name;
        enum kind kind;
    } known[] = {
        { "order", TEXT }, { "once", TEXT }, { "menu", BOOL }, { "splash", TEXT }, { "splash-time", INT },
        { "reboot-timeout", INT }, { "strict", BOOL },
    };
    const char *key, *time = hardware_word(o, "boot", "splash-time"), *timeout = hardware_word(o, "boot", "reboot-timeout");
    json_t *value;

    json_object_foreach(hardware_group(o, "boot"), key, value) {
        AUTOFREE char *full = mem_printf("boot.%s", key);
        size_t i = 0;

        while (i < ARRAY_SIZE(known) && strcmp(known[i].name, key)) {
            i++;
        }
        if (i == ARRAY_SIZE(known)) {
            error_set(err, "Parameter '%s' is unexpected", full);
        } else {
            check_kind(full, json_string_value(value), known[i].kind, NULL, err);
        }
    }
    if (error_is_set(err) || check_boot_order(hardware_word(o, "boot", "order"), err) < 0 ||
        check_boot_order(hardware_word(o, "boot", "once"), err) < 0) {
        return -EINVAL;
    }
    if (time && (strtoll(time, NULL, 0) < 0 || strtoll(time, NULL, 0) > 65535)) {
        error_set(err, "splash-time is invalid,it should be a value between 0 and 65535");
    } else if (timeout && (strtoll(timeout, NULL, 0) < -1 || strtoll(timeout, NULL, 0) > 65535)) {
        error_set(err, "reboot timeout is invalid,it should be a value between -1 and 65535");
    }
    return error_is_set(err) ? -EINVAL : 0;
}

/* -kernel, -initrd, -append, -dtb: the last one of each. */
int take_kernel(struct options *o, const struct given *g, struct error *err)
{
    json_object_set_new(hardware_all(o), g->row->name, json_stringn_nocheck(g->value, strlen(g->value)));
    return 0;
}

static int check_kernel(struct options *o, struct error *err)
{
    const char *kernel = json_string_value(json_object_get(o->hardware, "kernel"));
    int fd;

    if (kernel) {
        fd = stream_open(kernel);
        if (fd < 0) {
            error_set_errno(err, fd, "could not open kernel file '%s'", kernel);
            return -EINVAL;
        }
        stream_close(fd);
    } else if (json_object_get(o->hardware, "append")) {
        error_set(err, "-append only allowed with -kernel option");
    } else if (json_object_get(o->hardware, "initrd")) {
        error_set(err, "-initrd only allowed with -kernel option");
    }
    return error_is_set(err) ? -EINVAL : 0;
}

/* --- All together ------------------------------------------------------------------------------------------------ */

/* -machine smp.cpus=4 is -smp 4. */
static int share_groups(struct options *o, struct error *err)
{
    static const char *const groups[] = { "smp", "boot", "memory" };

    for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
        json_t *keys = json_object_get(hardware_group(o, "machine"), groups[i]);

        if (json_is_string(keys)) {
            error_set(err, "Invalid parameter type for '%s', expected: object", groups[i]);
            return -EINVAL;
        }
        if (keys) {
            json_object_update(hardware_group(o, groups[i]), keys);
        }
    }
    return 0;
}

int hardware_check(struct options *o, struct error *err)
{
    const char *name = hardware_word(o, "machine", "type"), *key;
    AUTOFREE char *full = NULL;
    const struct machine_type *type = machine_find(name ? name : "pc", &full);
    json_t *value;

    if (!type) {
        error_set(err, "unsupported machine type");
        hint_machines(err);
        return -EINVAL;
    }
    if (share_groups(o, err) < 0) {
        return -EINVAL;
    }
    json_object_foreach(hardware_group(o, "machine"), key, value) {
        if (check_machine_property(type, full, key, json_string_value(value), err) < 0) {
            return -EINVAL;
        }
    }
    return check_topology(o, full, type->processors, type->dies, err) < 0 || check_memory(o, err) < 0 || check_boot(o, err) < 0 ||
                   check_accel_list(o, err) < 0 || check_cpu(o, err) < 0 || check_kernel(o, err) < 0
               ? -EINVAL
               : 0;
}
