/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How a device (device.c) gets its properties; reading them is in device.h. */
#ifndef HW_DEVICE_VALUES_H
#define HW_DEVICE_VALUES_H

#include "hw/device.h"

/* NULL: the model has none of that name. */
const struct device_property *device_property_find(const struct device_model *model, const char *name);
/* Give `dev` a property; the value is borrowed.  With `from_words` it is a string in any case, else JSON's type must be right.
 * 0 or -errno with QEMU's words. */
int device_set(struct device *dev, const struct device_property *row, json_t *value, bool from_words, struct error *err);

#endif
