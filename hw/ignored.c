/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The list of what was ignored: see ignored.h.
 */
#include "hw/ignored.h"

#include <string.h>

static json_t *list;

void ignored_note(const char *text)
{
    list = list ? list : json_array();
    json_array_append_new(list, json_stringn_nocheck(text, strlen(text)));
}

const json_t *ignored_list(void)
{
    list = list ? list : json_array();
    return list;
}

void ignored_forget(void)
{
    json_decref(list);
    list = NULL;
}
