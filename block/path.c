/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names of backing files (see path.h).  Purely lexical, but for the working directory.
 */
#include "block/path.h"

#include <string.h>

#include "core/io.h"
#include "core/mem.h"

size_t path_protocol_length(const char *name)
{
    size_t len = strcspn(name, ":/");
    return name[len] == ':' ? len : 0;
}

char *path_combine(const char *overlay_path, const char *name)
{
    const char *slash = strrchr(overlay_path, '/');

    if (name[0] == '/' || path_protocol_length(name) > 0 || !slash) {
        return mem_strdup(name);
    }
    return mem_printf("%.*s%s", (int)(slash - overlay_path + 1), overlay_path, name);
}

static const char *skip_dot(const char *path)
{
    while (path[0] == '.' && path[1] == '/') {
        path += 2;
        while (*path == '/') {
            path++;
        }
    }
    return path;
}

static char *absolute(const char *path)
{
    AUTOFREE char *cwd = NULL;

    if (path[0] == '/') {
        return mem_strdup(path);
    }
    cwd = io_working_dir();
    return mem_printf("%s/%s", cwd && strcmp(cwd, "/") != 0 ? cwd : "", skip_dot(path));
}

bool path_same(const char *a, const char *b)
{
    AUTOFREE char *x = absolute(a);
    AUTOFREE char *y = absolute(b);
    return strcmp(x, y) == 0;
}

char *path_to_record(const char *overlay_path, const char *target_path)
{
    AUTOFREE char *overlay = absolute(overlay_path);
    AUTOFREE char *target = absolute(target_path);
    size_t dir = strrchr(overlay, '/') - overlay + 1;

    /* ".." behind the common directory would make the lexical answer wrong */
    if (strncmp(overlay, target, dir) == 0 && !strstr(target + dir, "..") && !path_protocol_length(target + dir)) {
        return mem_strdup(target + dir);
    }
    return mem_strdup(target);
}

char *path_to_record_layer(const struct node *overlay, const struct node *layer)
{
    for (const struct node *n = overlay; n->backing; n = n->backing) {
        if (n->backing == layer && n->backing_name) {
            AUTOFREE char *from_here = path_combine(overlay->filename, n->backing_name);
            AUTOFREE char *from_there = path_combine(n->filename, n->backing_name);
            if (path_same(from_here, from_there)) {
                return mem_strdup(n->backing_name);
            }
        }
    }
    return path_to_record(overlay->filename, layer->filename);
}
