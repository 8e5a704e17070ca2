/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * -cpu and -smp: names of processors that QEMU 7.2 knows, and how many there may be of what. Flags of processors are not
 * judged: there are hundreds, and nothing here runs on them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/keyval.h"
#include "core/message.h"
#include "start/hardware.h"

/* --- Names ---------------------------------------------------------------------------------------------- */

/* Each with the number of its versions, and the other names of these. */
static const struct {
    const char *name;
    int versions;
    const char *also; /* behind the name */
} processors[] = {
    { "486", 1, NULL }, { "Broadwell", 4, "-IBRS -noTSX -noTSX-IBRS" }, { "Cascadelake-Server", 5, "-noTSX" },
    { "Conroe", 1, NULL }, { "Cooperlake", 2, NULL }, { "Denverton", 3, NULL }, { "Dhyana", 2, NULL },
    { "EPYC", 3, "-IBPB" }, { "EPYC-Milan", 1, NULL }, { "EPYC-Rome", 2, NULL },
    { "Haswell", 4, "-IBRS -noTSX -noTSX-IBRS" }, { "Icelake-Server", 6, "-noTSX" }, { "IvyBridge", 2, "-IBRS" },
    { "KnightsMill", 1, NULL }, { "Nehalem", 2, "-IBRS" }, { "Opteron_G1", 1, NULL }, { "Opteron_G2", 1, NULL },
    { "Opteron_G3", 1, NULL }, { "Opteron_G4", 1, NULL }, { "Opteron_G5", 1, NULL }, { "Penryn", 1, NULL },
    { "SandyBridge", 2, "-IBRS" }, { "Skylake-Client", 4, "-IBRS -noTSX-IBRS" },
    { "Skylake-Server", 5, "-IBRS -noTSX-IBRS" }, { "Snowridge", 4, NULL }, { "Westmere", 2, "-IBRS" },
    { "athlon", 1, NULL }, { "core2duo", 1, NULL }, { "coreduo", 1, NULL }, { "kvm32", 1, NULL }, { "kvm64", 1, NULL },
    { "n270", 1, NULL }, { "pentium", 1, NULL }, { "pentium2", 1, NULL }, { "pentium3", 1, NULL }, { "phenom", 1, NULL },
    { "qemu32", 1, NULL }, { "qemu64", 1, NULL }, { "base", 0, NULL }, { "host", 0, NULL }, { "max", 0, NULL },
};

static bool processor_known(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(processors); i++) {
        size_t len = strlen(processors[i].name);
        const char *rest = name + len;

        if (!strncmp(name, processors[i].name, len) &&
            (!*rest || hardware_listed(processors[i].also, rest, strlen(rest)) ||
             (!strncmp(rest, "-v", 2) && rest[2] >= '1' && rest[2] <= '0' + processors[i].versions && !rest[3]))) {
            return true;
        }
    }
    return false;
}

static void print_processors(void)
{
    puts("Available CPUs:");
    for (size_t i = 0; i < ARRAY_SIZE(processors); i++) {
        printf("x86 %s\n", processors[i].name);
        for (const char *at = processors[i].also; at && *at; at += strspn(at, " ")) {
            printf("x86 %s%.*s\n", processors[i].name, (int)strcspn(at, " "), at);
            at += strcspn(at, " ");
        }
        for (int v = 1; v <= processors[i].versions; v++) {
            printf("x86 %s-v%d\n", processors[i].name, v);
        }
    }
}

int take_cpu(struct options *o, const struct given *g, struct error *err)
{
    if (!strcmp(g->value, "help") || !strcmp(g->value, "?")) {
        print_processors();
        o->done = true;
        return 0;
    }
    json_object_set_new(hardware_all(o), "cpu", json_stringn_nocheck(g->value, strlen(g->value)));
    return 0;
}

int check_cpu(struct options *o, struct error *err)
{
    const char *value = json_string_value(json_object_get(o->hardware, "cpu"));
    AUTOFREE char *name = value ? mem_printf("%.*s", (int)strcspn(value, ","), value) : NULL;

    if (value && !*value) {
        error_set(err, "-cpu option cannot be empty");
    } else if (name && !processor_known(name)) {
        error_set(err, "unable to find CPU model '%s'", name);
    } else if (name && !strcmp(name, "host") && !json_object_get(hardware_group(o, "accel"), "kvm")) {
        error_set(err, "CPU model 'host' requires KVM or HVF");
    }
    return error_is_set(err) ? -EINVAL : 0;
}

/* --- Topology ------------------------------------------------------------------------------------------- */

int take_processors(struct options *o, const struct given *g, struct error *err)
{
    if (!strcmp(g->value, "help") || !strcmp(g->value, "?")) {
        puts("smp-opts options:\n  clusters=<num>\n  cores=<num>\n  cpus=<num>\n  dies=<num>\n  maxcpus=<num>\n"
             "  sockets=<num>\n  threads=<num>");
        o->done = true;
        return 0;
    }
    return hardware_add(o, "smp", keyval_tree(g->value, "cpus", err));
}

/* How many of each; 0: not said. */
struct topology {
    unsigned cpus, maxcpus, sockets, dies, clusters, cores, threads;
};

static int read_topology(struct options *o, struct topology *t, struct error *err)
{
    const struct {
        const char *name;
        unsigned *count;
    } known[] = {
        { "cpus", &t->cpus },   { "maxcpus", &t->maxcpus }, { "sockets", &t->sockets }, { "dies", &t->dies },
        { "clusters", &t->clusters }, { "cores", &t->cores }, { "threads", &t->threads },
    };
    bool zero = false;
    const char *key;
    json_t *value;

    *t = (struct topology){ .cpus = 0 };
    json_object_foreach(hardware_group(o, "smp"), key, value) {
        const char *text = json_string_value(value);
        size_t i = 0;

        while (i < ARRAY_SIZE(known) && strcmp(known[i].name, key)) {
            i++;
        }
        if (i == ARRAY_SIZE(known)) {
            error_set(err, "Parameter 'smp.%s' is unexpected", key);
            return -EINVAL;
        }
        if (!text) {
            error_set(err, "Parameters 'smp.%s.*' are unexpected", key);
            return -EINVAL;
        }
        if (!hardware_number(text)) {
            error_set(err, "Parameter 'smp.%s' expects integer", key);
            return -EINVAL;
        }
        *known[i].count = strtoll(text, NULL, 0);
        zero = zero || !*known[i].count;
    }
    if (zero) {
        message("warning: Deprecated CPU topology (considered invalid): CPU topology parameters must be greater than zero");
    }
    return 0;
}

static unsigned ratio(unsigned all, unsigned part)
{
    return part ? all / part : 0;
}

/* What was not said follows from what was; cores before sockets. */
static void complete_topology(struct topology *t)
{
    t->dies = t->dies ? t->dies : 1;
    t->clusters = t->clusters ? t->clusters : 1;
    if (!t->cpus && !t->maxcpus) {
        t->sockets = t->sockets ? t->sockets : 1;
        t->cores = t->cores ? t->cores : 1;
        t->threads = t->threads ? t->threads : 1;
    } else {
        unsigned per = t->dies * t->clusters;

        t->maxcpus = t->maxcpus ? t->maxcpus : t->cpus;
        if (!t->cores) {
            t->sockets = t->sockets ? t->sockets : 1;
            t->threads = t->threads ? t->threads : 1;
            t->cores = ratio(t->maxcpus, t->sockets * per * t->threads);
        } else if (!t->sockets) {
            t->threads = t->threads ? t->threads : 1;
            t->sockets = ratio(t->maxcpus, per * t->cores * t->threads);
        }
        if (!t->threads) {
            t->threads = ratio(t->maxcpus, t->sockets * per * t->cores);
        }
    }
    t->maxcpus = t->maxcpus ? t->maxcpus : t->sockets * t->dies * t->clusters * t->cores * t->threads;
    t->cpus = t->cpus ? t->cpus : t->maxcpus;
}

int check_topology(struct options *o, const char *machine, int most, bool has_dies, struct error *err)
{
    AUTOFREE char *dies = NULL, *product = NULL;
    struct topology t;

    if (read_topology(o, &t, err) < 0) {
        return -EINVAL;
    }
    if (!has_dies && t.dies > 1) {
        error_set(err, "dies not supported by this machine's CPU topology");
    } else if (t.clusters > 1) {
        error_set(err, "clusters not supported by this machine's CPU topology");
    }
    complete_topology(&t);
    dies = has_dies ? mem_printf(" * dies (%u)", t.dies) : mem_strdup("");
    product = mem_printf("sockets (%u)%s * cores (%u) * threads (%u)", t.sockets, dies, t.cores, t.threads);
    if (t.sockets * t.dies * t.cores * t.threads != t.maxcpus) {
        error_set(err, "Invalid CPU topology: product of the hierarchy must match maxcpus: %s != maxcpus (%u)", product,
                  t.maxcpus);
    } else if (t.maxcpus < t.cpus) {
        error_set(err, "Invalid CPU topology: maxcpus must be equal to or greater than smp: %s == maxcpus (%u) < smp_cpus (%u)",
                  product, t.maxcpus, t.cpus);
    } else if (t.maxcpus > (unsigned)most) {
        error_set(err, "Invalid SMP CPUs %d. The max CPUs supported by machine '%s' is %d", (int)t.maxcpus, machine,
                  most);
    }
    return error_is_set(err) ? -EINVAL : 0;
}
