/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Members of JSON objects: see members.h.
 */
#include "monitor/members.h"

#include <string.h>

const char *member_text(const json_t *tree, const char *key)
{
    return json_string_value(json_object_get(tree, key));
}

json_int_t member_int(const json_t *tree, const char *key)
{
    return json_integer_value(json_object_get(tree, key));
}

bool member_true(const json_t *tree, const char *key)
{
    return json_object_get(tree, key) == json_true();
}

void member_set_text(json_t *tree, const char *key, const char *text)
{
    json_object_set_new_nocheck(tree, key, json_stringn_nocheck(text, strlen(text)));
}
