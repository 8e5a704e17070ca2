/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * In front of every file that scripts/coverage compiles: what jansson has as macros are functions here.
 * json_is_object(x) is x && json_typeof(x) == JSON_OBJECT there, and json_boolean(x) chooses as well, so
 * each use would count as ways of ours, half of which nobody can go.
 */
#ifndef COVERAGE_H
#define COVERAGE_H

#include <jansson.h>

#define COUNTED_AS_ONE(name, kind) \
    static inline int counted_##name(const json_t *value) \
    { \
        return value && json_typeof(value) == (kind); \
    }
COUNTED_AS_ONE(object, JSON_OBJECT)
COUNTED_AS_ONE(array, JSON_ARRAY)
COUNTED_AS_ONE(string, JSON_STRING)
COUNTED_AS_ONE(integer, JSON_INTEGER)
COUNTED_AS_ONE(true, JSON_TRUE)
COUNTED_AS_ONE(false, JSON_FALSE)
COUNTED_AS_ONE(null, JSON_NULL)
#undef COUNTED_AS_ONE

static inline int counted_boolean(const json_t *value)
{
    return counted_true(value) || counted_false(value);
}

static inline json_t *counted_boolean_of(int value)
{
    return value ? json_true() : json_false();
}

#undef json_is_object
#undef json_is_array
#undef json_is_string
#undef json_is_integer
#undef json_is_true
#undef json_is_false
#undef json_is_null
#undef json_is_boolean
#undef json_boolean
#define json_is_object counted_object
#define json_is_array counted_array
#define json_is_string counted_string
#define json_is_integer counted_integer
#define json_is_true counted_true
#define json_is_false counted_false
#define json_is_null counted_null
#define json_is_boolean counted_boolean
#define json_boolean counted_boolean_of

#endif
