/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The values of properties: from words or from JSON, checked by their rows' kinds, with QEMU's words for what is wrong.
 */
#include "hw/device-values.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/keyval.h"
#include "core/mem.h"
#include "core/size.h"
#include "hw/object.h"

#define BLOCK_SIZE_MIN 512u
#define BLOCK_SIZE_MAX (2u << 20)

static const char *const kind_names[] = {
    [PROPERTY_STR] = "str",
    [PROPERTY_DRIVE] = "str",
    [PROPERTY_BOOL] = "bool",
    [PROPERTY_ON_OFF_AUTO] = "OnOffAuto",
    [PROPERTY_POLICY] = "BlockdevOnError",
    [PROPERTY_UINT16] = "uint16",
    [PROPERTY_UINT32] = "uint32",
    [PROPERTY_INT32] = "int32",
    [PROPERTY_UINT64] = "uint64",
    [PROPERTY_SIZE] = "size",
    [PROPERTY_BLOCK_SIZE] = "size",
    [PROPERTY_PCI_ADDRESS] = "int32",
    [PROPERTY_IOTHREAD] = "link<iothread>",
};

const char *property_kind_name(enum property_kind kind)
{
    return kind_names[kind];
}

const struct device_property *device_property_find(const struct device_model *model, const char *name)
{
    for (const struct device_property *p = model->properties; p->name; p++) {
        if (!strcmp(p->name, name)) {
            return p;
        }
    }
    return NULL;
}

const char *device_text(const struct device *dev, const char *property)
{
    return json_string_value(json_object_get(dev->properties, property));
}

uint64_t device_number(const struct device *dev, const char *property)
{
    json_t *value = json_object_get(dev->properties, property);
    const struct device_property *row = device_property_find(dev->model, property);

    if (value) {
        return json_integer_value(value);
    }
    return row && row->fallback ? strtoull(row->fallback, NULL, 0) : 0;
}

bool device_flag(const struct device *dev, const char *property)
{
    json_t *value = json_object_get(dev->properties, property);
    const struct device_property *row = device_property_find(dev->model, property);

    if (value) {
        return json_is_true(value);
    }
    return row && !strcmp(row->fallback, "true"); /* each switch has one */
}

static bool is_iothread(const char *id)
{
    const struct object *object = object_find(id);

    return object && !strcmp(object->type->name, "iothread");
}

/* A property on its way into a device. */
struct setting {
    struct device *dev;
    const struct device_property *row;
    json_t *value;
    bool from_words;
    struct error *err;
};

static int set_bool(struct setting *s)
{
    const char *text = json_string_value(s->value);
    bool on;

    if (!s->from_words && !json_is_boolean(s->value)) {
        error_set(s->err, "Invalid parameter type for '%s', expected: boolean", s->row->name);
        return -EINVAL;
    }
    on = json_is_true(s->value);
    if (s->from_words && (!text || keyval_switch(text, &on) < 0)) {
        error_set(s->err, "Parameter '%s' expects 'on' or 'off'", s->row->name);
        return -EINVAL;
    }
    return json_object_set_new(s->dev->properties, s->row->name, json_boolean(on));
}

static int set_number(struct setting *s)
{
    static const struct {
        enum property_kind kind;
        const char *name;
        long long min, max;
    } ranges[] = {
        { PROPERTY_UINT16, "uint16_t", 0, UINT16_MAX },
        { PROPERTY_UINT32, "uint32_t", 0, UINT32_MAX },
        { PROPERTY_INT32, "int32_t", INT32_MIN, INT32_MAX },
    };
    const char *text = json_string_value(s->value), *name = s->row->name;
    long long number = json_integer_value(s->value);
    char *end;

    if (!s->from_words && !json_is_integer(s->value)) {
        error_set(s->err, "Parameter '%s' expects uint64", name);
        return -EINVAL;
    }
    if (s->from_words) {
        errno = 0;
        number = text ? strtoll(text, &end, 0) : 0;
        if (!text || !*text || *end || (errno && s->row->kind == PROPERTY_UINT64)) {
            error_set(s->err, "Parameter '%s' expects integer", name);
            return -EINVAL;
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
        if (ranges[i].kind == s->row->kind && (number < ranges[i].min || number > ranges[i].max)) {
            error_set(s->err, "Parameter '%s' expects %s", name, ranges[i].name);
            return -EINVAL;
        }
    }
    return json_object_set_new(s->dev->properties, name, json_integer(number));
}

static int set_size(struct setting *s)
{
    const char *text = json_string_value(s->value), *name = s->row->name;
    uint64_t size = json_integer_value(s->value);

    if (s->from_words ? !text || size_parse(text, 1, &size, NULL) < 0 : !json_is_integer(s->value)) {
        error_set(s->err, "Parameter '%s' expects size", name);
        return -EINVAL;
    }
    if (s->row->kind == PROPERTY_BLOCK_SIZE && size) {
        if (size < BLOCK_SIZE_MIN || size > BLOCK_SIZE_MAX) {
            error_set(s->err, "Property .%s doesn't take value %llu (minimum: %u, maximum: %u)", name,
                      (unsigned long long)size, BLOCK_SIZE_MIN, BLOCK_SIZE_MAX);
            return -EINVAL;
        }
        if (size & (size - 1)) {
            error_set(s->err, "Property .%s doesn't take value '%llu', it's not a power of 2", name,
                      (unsigned long long)size);
            return -EINVAL;
        }
    }
    return json_object_set_new(s->dev->properties, name, json_integer(size));
}

/* SLOT[.FUNCTION], hexadecimal; a number in JSON. */
static bool is_pci_address(const char *text)
{
    char *end;
    unsigned long slot = strtoul(text, &end, 16), function = 0;

    if (end == text) {
        return false;
    }
    if (*end == '.') {
        const char *from = end + 1;

        function = strtoul(from, &end, 16);
        if (end == from) {
            return false;
        }
    }
    return !*end && slot < 32 && function < 8;
}

static int set_word(struct setting *s)
{
    static const char *const switches[] = { "on", "off", "auto", NULL };
    static const char *const policies[] = { "report", "ignore", "enospc", "stop", "auto", NULL };
    const char *text = json_string_value(s->value), *name = s->row->name;
    const char *const *words = s->row->kind == PROPERTY_ON_OFF_AUTO ? switches
                               : s->row->kind == PROPERTY_POLICY    ? policies
                                                                    : NULL;

    if (!text && !(s->row->kind == PROPERTY_PCI_ADDRESS && json_is_integer(s->value))) {
        error_set(s->err, "Invalid parameter type for '%s', expected: string", name);
        return -EINVAL;
    }
    if (s->row->kind == PROPERTY_IOTHREAD && *text && !is_iothread(text)) {
        error_set_class(s->err, ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", text);
        return -ENOENT;
    }
    if (s->row->kind == PROPERTY_PCI_ADDRESS && text && !is_pci_address(text)) {
        error_set(s->err, "Property '%s.%s' doesn't take value '%s'", s->dev->model->name, name, text);
        return -EINVAL;
    }
    for (size_t i = 0; words && (!words[i] || strcmp(text, words[i])); i++) {
        if (!words[i]) {
            error_set(s->err, "Parameter '%s' does not accept value '%s'", name, text);
            return -EINVAL;
        }
    }
    return json_object_set(s->dev->properties, name, s->value);
}

int device_set(struct device *dev, const struct device_property *row, json_t *value, bool from_words, struct error *err)
{
    struct setting s = { dev, row, value, from_words, err };

    switch (row->kind) {
    case PROPERTY_BOOL:
        return set_bool(&s);
    case PROPERTY_UINT16:
    case PROPERTY_UINT32:
    case PROPERTY_INT32:
    case PROPERTY_UINT64:
        return set_number(&s);
    case PROPERTY_SIZE:
    case PROPERTY_BLOCK_SIZE:
        return set_size(&s);
    default:
        return set_word(&s);
    }
}
