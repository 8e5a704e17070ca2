/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP's commands about devices: device_add, device_del, system_powerdown.
 */
#include <errno.h>
#include <string.h>

#include "core/mem.h"
#include "hw/device.h"
#include "hw/machine.h"
#include "monitor/events.h"
#include "monitor/handlers.h"
#include "monitor/members.h"
#include "monitor/qmp-text.h"

/* QEMU takes these arguments as words, whatever their JSON type, and in the order of its hash. */
static json_t *words_of(const json_t *args)
{
    AUTOFREE const char **names = qmp_member_order(args);
    json_t *words = json_object();

    for (size_t i = 0; names[i]; i++) {
        json_t *value = json_object_get(args, names[i]);
        AUTOFREE char *number = NULL;

        switch (json_typeof(value)) {
        case JSON_TRUE:
        case JSON_FALSE:
            member_set_text(words, names[i], value == json_true() ? "on" : "off");
            break;
        case JSON_INTEGER:
        case JSON_REAL:
            number = qmp_print(value);
            member_set_text(words, names[i], number);
            break;
        case JSON_STRING:
            json_object_set(words, names[i], value);
            break;
        default: /* no word */
            break;
        }
    }
    return words;
}

static int co_device_add_command(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    json_t *words = words_of(args);
    int ret = co_device_plug(words, err);

    json_decref(words);
    return ret;
}

int co_device_del(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    const char *id = member_text(args, "id");
    struct device *dev = device_find_any(id);

    if (!dev) {
        error_set_class(err, ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", id);
        return -ENODEV;
    }
    return device_unplug(dev, err);
}

/* The simulated guests have no power button; all that happens is that listeners hear of it. */
int co_system_powerdown(struct monitor *mon, json_t *args, json_t **result, struct error *err)
{
    events_powerdown();
    return 0;
}

const struct command device_qmp_commands[] = {
    { .name = "device_add",
      .args = {
          { "driver", ARG_STRING },
          { "bus", ARG_STRING, .optional = true },
          { "id", ARG_STRING, .optional = true },
      },
      .co_run = co_device_add_command, .flags = COMMAND_FREE },
    { .name = "device_del", .args = { { "id", ARG_STRING } }, .co_run = co_device_del },
    { .name = "system_powerdown", .co_run = co_system_powerdown },
    { 0 },
};
