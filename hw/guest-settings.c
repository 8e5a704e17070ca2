/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest's settings: the table of words, their values, and which of them go together.
 *
 * Names and values are fio's, the refusals are worded like QEMU's for its options.
 */
#include "hw/guest-settings.h"

#include <errno.h>
#include <string.h>

#include "core/mem.h"
#include "core/size.h"
#include "hw/guest.h"

#define SECTOR 512u

/* Each operation in flight is a coroutine with a stack of its own, and the host counts
 * mappings.  No disk is asked for more at once. */
#define IODEPTH_MAX 4096u

/* --- Values ----------------------------------------------------------------------------------- */

struct named {
    const char *name;
    unsigned value;
};

static const struct named profiles[] = {
    { "preserve", PROFILE_PRESERVE },
    { "stamp", PROFILE_STAMP },
    { "replay", PROFILE_REPLAY },
    { "none", PROFILE_NONE },
    { NULL, 0 },
};

/* The first of several names for one value is the one that is shown. */
static const struct named rw_names[] = {
    { "read", RW_READ },
    { "write", RW_WRITE },
    { "trim", RW_TRIM },
    { "rw", RW_READ | RW_WRITE },
    { "readwrite", RW_READ | RW_WRITE },
    { "trimwrite", RW_TRIM | RW_WRITE },
    { "randread", RW_RANDOM | RW_READ },
    { "randwrite", RW_RANDOM | RW_WRITE },
    { "randtrim", RW_RANDOM | RW_TRIM },
    { "randrw", RW_RANDOM | RW_READ | RW_WRITE },
    { "randtrimwrite", RW_RANDOM | RW_TRIM | RW_WRITE },
    { NULL, 0 },
};

static const char *name_of(const struct named *names, unsigned value)
{
    while (names->value != value) {
        names++;
    }
    return names->name;
}

const char *guest_profile_name(enum guest_profile profile)
{
    return name_of(profiles, profile);
}

/* "list, word"; takes `list` over. */
static char *join(char *list, const char *word)
{
    char *longer = mem_printf("%s%s%s", list, *list ? ", " : "", word);

    free(list);
    return longer;
}

static int set_named(const struct named *names, const char *key, const char *text, unsigned *out,
                     struct error *err)
{
    for (const struct named *n = names; n->name; n++) {
        if (strcmp(n->name, text) == 0) {
            *out = n->value;
            return 0;
        }
    }
    error_set(err, "Parameter '%s' does not accept value '%s'", key, text);

    char *list = mem_strdup("");

    for (const struct named *n = names; n->name; n++) {
        list = join(list, n->name);
    }
    error_hint(err, "It takes %s.", list);
    free(list);
    return -EINVAL;
}

/* A plain number, decimal or 0x hex, without a suffix. */
static bool parse_number(const char *text, uint64_t *out)
{
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    const char *digits = hex ? text + 2 : text;

    if (!*digits || digits[strspn(digits, hex ? "0123456789abcdefABCDEF" : "0123456789")]) {
        return false;
    }
    errno = 0;
    *out = strtoull(digits, NULL, hex ? 16 : 10);
    return !errno;
}

static int set_number(const char *key, const char *text, uint64_t min, uint64_t max, uint64_t *out,
                      struct error *err)
{
    uint64_t value;

    if (!parse_number(text, &value)) {
        error_set(err, "Parameter '%s' expects a number", key);
        return -EINVAL;
    }
    if (value < min || value > max) {
        error_set(err, "Parameter '%s' expects a number from %llu to %llu", key,
                  (unsigned long long)min, (unsigned long long)max);
        return -EINVAL;
    }
    *out = value;
    return 0;
}

static int set_bytes(const char *key, const char *text, uint64_t *out, struct error *err)
{
    uint64_t value;

    if (text[0] == '-' || size_parse(text, 1, &value, NULL)) {
        error_set(err, "Parameter '%s' expects a size", key);
        error_hint(err, "A number of bytes; k, m, g or t behind it multiply by powers of 1024.");
        return -EINVAL;
    }
    if (value % SECTOR) {
        error_set(err, "Parameter '%s' expects a multiple of %u bytes", key, SECTOR);
        return -EINVAL;
    }
    *out = value;
    return 0;
}

/* --- Words ------------------------------------------------------------------------------------ */

static int set_profile(struct guest_settings *s, const char *key, const char *text,
                       struct error *err)
{
    unsigned value = s->profile;
    int ret = set_named(profiles, key, text, &value, err);

    s->profile = value;
    return ret;
}

static int set_rw(struct guest_settings *s, const char *key, const char *text, struct error *err)
{
    return set_named(rw_names, key, text, &s->rw, err);
}

static int set_rwmixread(struct guest_settings *s, const char *key, const char *text,
                         struct error *err)
{
    uint64_t value = s->rwmixread;
    int ret = set_number(key, text, 0, 100, &value, err);

    s->rwmixread = value;
    return ret;
}

/* "4k", or "4k-64k": sizes in multiples of the first. */
static int set_bs(struct guest_settings *s, const char *key, const char *text, struct error *err)
{
    const char *dash = strchr(text, '-');
    AUTOFREE char *low = mem_strndup(text, dash ? (size_t)(dash - text) : strlen(text));
    uint64_t min, max;

    if (set_bytes(key, low, &min, err) || set_bytes(key, dash ? dash + 1 : low, &max, err)) {
        return -EINVAL;
    }
    if (!min || min > max || max > GUEST_BUFFERS_MAX) {
        error_set(err,
                  "Parameter '%s' expects a size from %u bytes to 64 MiB, or two of them (4k-64k), "
                  "the smaller first",
                  key, SECTOR);
        return -EINVAL;
    }
    s->bs_min = min;
    s->bs_max = max;
    return 0;
}

static int set_iodepth(struct guest_settings *s, const char *key, const char *text,
                       struct error *err)
{
    uint64_t value = s->iodepth;
    int ret = set_number(key, text, 1, IODEPTH_MAX, &value, err);

    s->iodepth = value;
    return ret;
}

static int set_rate_iops(struct guest_settings *s, const char *key, const char *text,
                         struct error *err)
{
    return set_number(key, text, 0, 1000000000, &s->rate_iops, err);
}

/* Bytes, or "40%" of the disk as in fio. */
static int set_size(struct guest_settings *s, const char *key, const char *text, struct error *err)
{
    size_t len = strlen(text);
    uint64_t value;

    if (len && text[len - 1] == '%') {
        AUTOFREE char *number = mem_strndup(text, len - 1);

        if (set_number(key, number, 1, 100, &value, err)) {
            return -EINVAL;
        }
        s->size_percent = value;
    } else {
        if (set_bytes(key, text, &value, err)) {
            return -EINVAL;
        }
        if (!value) {
            error_set(err, "Parameter '%s' expects more than 0 bytes", key);
            return -EINVAL;
        }
        s->size = value;
        s->size_percent = 0;
    }
    s->spread = false;
    return 0;
}

static int set_offset(struct guest_settings *s, const char *key, const char *text,
                      struct error *err)
{
    int ret = set_bytes(key, text, &s->offset, err);

    s->spread = ret ? s->spread : false;
    return ret;
}

static int set_flush_every(struct guest_settings *s, const char *key, const char *text,
                           struct error *err)
{
    return set_number(key, text, 0, UINT64_MAX, &s->flush_every, err);
}

static int set_seed(struct guest_settings *s, const char *key, const char *text, struct error *err)
{
    int ret = set_number(key, text, 0, UINT64_MAX, &s->seed, err);

    s->seed_given = ret ? s->seed_given : true;
    return ret;
}

static int set_iolog(struct guest_settings *s, const char *key, const char *text, struct error *err)
{
    if (!*text) {
        error_set(err, "Parameter '%s' expects a file name", key);
        return -EINVAL;
    }
    free(s->iolog);
    s->iolog = mem_strdup(text);
    return 0;
}

static const struct word {
    const char *name;
    int (*set)(struct guest_settings *s, const char *key, const char *text, struct error *err);
} words_table[] = {
    { "profile", set_profile },
    { "rw", set_rw },
    { "rwmixread", set_rwmixread },
    { "bs", set_bs },
    { "iodepth", set_iodepth },
    { "rate_iops", set_rate_iops },
    { "size", set_size },
    { "offset", set_offset },
    { "flush_every", set_flush_every },
    { "seed", set_seed },
    { "iolog", set_iolog },
    /* fio's other names for the same */
    { "readwrite", set_rw },
    { "blocksize", set_bs },
    { "bsrange", set_bs },
    { "fsync", set_flush_every },
};

const char *const guest_setting_names[] = {
    "profile", "rw",     "rwmixread",   "bs",   "iodepth", "rate_iops",
    "size",    "offset", "flush_every", "seed", "iolog",   NULL,
};

static const struct word *find_word(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(words_table); i++) {
        if (strcmp(words_table[i].name, name) == 0) {
            return &words_table[i];
        }
    }
    return NULL;
}

static int apply_word(struct guest_settings *s, const char *key, json_t *value, struct error *err)
{
    const struct word *word = find_word(key);

    if (!word) {
        char *list = mem_strdup("");

        for (const char *const *name = guest_setting_names; *name; name++) {
            list = join(list, *name);
        }
        error_set(err, "Invalid parameter '%s'", key);
        error_hint(err, "A guest takes %s.", list);
        free(list);
        return -EINVAL;
    }
    if (!json_is_string(value) && !json_is_integer(value)) {
        error_set(err, "Invalid parameter type for '%s', expected: string", key);
        return -EINVAL;
    }
    AUTOFREE char *text = json_is_string(value) ? mem_strdup(json_string_value(value))
                                                : mem_printf("%lld", json_integer_value(value));

    return word->set(s, key, text, err);
}

int guest_settings_apply(struct guest_settings *s, json_t *words, struct error *err)
{
    struct guest_settings changed;
    const char *key;
    json_t *value;

    guest_settings_copy(&changed, s);
    json_object_foreach(words, key, value) {
        if (apply_word(&changed, key, value, err)) {
            guest_settings_fini(&changed);
            return -EINVAL;
        }
    }
    guest_settings_fini(s);
    *s = changed;
    return 0;
}

int guest_settings_check(const struct guest_settings *s, struct error *err)
{
    if (s->profile == PROFILE_PRESERVE && (s->rw & RW_TRIM)) {
        error_set(err, "Profile 'preserve' cannot trim: that would change what is on the disk");
        error_hint(err, "profile=stamp may, on a disk whose content is not needed.");
        return -EINVAL;
    }
    if (s->profile == PROFILE_REPLAY && !s->iolog) {
        error_set(err, "Profile 'replay' needs iolog=FILE");
        return -EINVAL;
    }
    if ((uint64_t)s->bs_max * s->iodepth > GUEST_BUFFERS_MAX) {
        error_set(err,
                  "A guest's requests in flight may have 64 MiB together; "
                  "iodepth=%u times bs=%u is more",
                  s->iodepth, s->bs_max);
        return -EINVAL;
    }
    if (!s->size_percent && s->size < s->bs_max) {
        error_set(err, "Parameter 'size' (%llu) is smaller than one block (%u)",
                  (unsigned long long)s->size, s->bs_max);
        return -EINVAL;
    }
    return 0;
}

/* --- Life ------------------------------------------------------------------------------------- */

void guest_settings_init(struct guest_settings *s)
{
    *s = (struct guest_settings){
        .profile = PROFILE_PRESERVE,
        .rw = RW_RANDOM | RW_READ | RW_WRITE,
        .rwmixread = 50,
        .bs_min = 4096,
        .bs_max = 4096,
        .iodepth = 1,
        .rate_iops = 200,
        .size = GUEST_DEFAULT_SIZE,
        .spread = true,
    };
}

void guest_settings_copy(struct guest_settings *dst, const struct guest_settings *src)
{
    *dst = *src;
    dst->iolog = mem_strdup(src->iolog);
}

void guest_settings_fini(struct guest_settings *s)
{
    free(s->iolog);
    s->iolog = NULL;
}

void guest_settings_describe(const struct guest_settings *s, json_t *object)
{
    json_object_set_new(object, "rw", json_string(name_of(rw_names, s->rw)));
    json_object_set_new(object, "rwmixread", json_integer(s->rwmixread));
    json_object_set_new(object, "bs", json_integer(s->bs_min));
    if (s->bs_max != s->bs_min) {
        json_object_set_new(object, "bs_max", json_integer(s->bs_max));
    }
    json_object_set_new(object, "iodepth", json_integer(s->iodepth));
    json_object_set_new(object, "rate_iops", json_integer(s->rate_iops));
    if (s->size_percent) {
        json_object_set_new(object, "size_percent", json_integer(s->size_percent));
    } else {
        json_object_set_new(object, "size", json_integer(s->size));
    }
    json_object_set_new(object, "offset", json_integer(s->offset));
    json_object_set_new(object, "flush_every", json_integer(s->flush_every));
    /* As text: a seed uses all 64 bits, JSON's integers here have a sign. */
    json_object_set_new(object, "seed", json_sprintf("%llu", (unsigned long long)s->seed));
    if (s->iolog) {
        json_object_set_new(object, "iolog", json_string(s->iolog));
    }
}
