/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The world of simulated files: names, copies of all that for snapshots, and cuts.
 *
 * Names are two maps in one (now, durable) and a list of changes between them.  A journal keeps the
 * order of such changes, so a cut keeps a first part of the list, never a subset with holes.
 */
#include "core/io-sim-disk.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct sim_world *sim_world;
uint64_t sim_generation;

static uint64_t last_id;

/* --- Files and names -------------------------------------------------------------------------- */

static struct sim_file *file_new(struct sim_world *world, const char *path)
{
    struct sim_file *file = mem_zalloc(sizeof(*file));

    file->id = ++last_id;
    file->path = mem_strdup(path);
    file->now.pages = sim_pages_new();
    file->durable.pages = sim_pages_new();
    LIST_INIT(&file->handles);
    LIST_INSERT_HEAD(&world->files, file, link);
    file->listed = true;
    return file;
}

static void file_unlist(struct sim_file *file)
{
    if (file->listed) {
        LIST_REMOVE(file, link);
        file->listed = false;
    }
}

static struct sim_file *file_ref(struct sim_file *file)
{
    if (file) {
        file->refs++;
    }
    return file;
}

void sim_file_unref(struct sim_file *file)
{
    if (!file || --file->refs) {
        return;
    }
    assert(LIST_EMPTY(&file->handles));
    file_unlist(file);
    sim_op_list_free(&file->cached);
    sim_op_list_free(&file->flying);
    sim_pages_unref(file->now.pages);
    sim_pages_unref(file->durable.pages);
    free(file->path);
    free(file);
}

static void point(struct sim_file **where, struct sim_file *file)
{
    struct sim_file *old = *where;

    *where = file_ref(file);
    sim_file_unref(old);
}

char *sim_path(const char *path)
{
    char *out = mem_alloc(strlen(path) + 2);
    size_t len = 0;

    while (*path) {
        size_t part = strcspn(path, "/");

        if (part == 2 && !strncmp(path, "..", 2)) {
            while (len && out[--len] != '/') {
            }
        } else if (part && !(part == 1 && *path == '.')) {
            out[len++] = '/';
            memcpy(out + len, path, part);
            len += part;
        }
        path += part;
        path += *path == '/';
    }
    if (!len) {
        out[len++] = '/';
    }
    out[len] = '\0';
    return out;
}

static struct sim_name *name_find(struct sim_world *world, const char *path)
{
    struct sim_name *name;

    HASH_FIND_STR(world->names, path, name);
    return name;
}

static struct sim_name *name_make(struct sim_world *world, const char *path)
{
    struct sim_name *name = name_find(world, path);

    if (!name) {
        name = mem_zalloc(sizeof(*name) + strlen(path) + 1);
        strcpy(name->path, path);
        HASH_ADD_STR(world->names, path, name);
    }
    return name;
}

static void name_free(struct sim_world *world, struct sim_name *name)
{
    HASH_DEL(world->names, name);
    point(&name->now, NULL);
    point(&name->durable, NULL);
    free(name);
}

struct sim_file *sim_find(struct sim_world *world, const char *path)
{
    struct sim_name *name = name_find(world, path);

    return name ? name->now : NULL;
}

struct sim_file *sim_find_durable(struct sim_world *world, const char *path)
{
    struct sim_name *name = name_find(world, path);

    return name ? name->durable : NULL;
}

static void dirop_add(struct sim_world *world, struct sim_file *file, const char *path,
                      const char *from)
{
    struct sim_dirop *dirop = mem_zalloc(sizeof(*dirop));

    dirop->order = world->dirops_issued++;
    dirop->file = file_ref(file);
    dirop->path = mem_strdup(path);
    dirop->from = mem_strdup(from);
    TAILQ_INSERT_TAIL(&world->dirops, dirop, link);
}

static void dirop_free(struct sim_world *world, struct sim_dirop *dirop)
{
    TAILQ_REMOVE(&world->dirops, dirop, link);
    sim_file_unref(dirop->file);
    free(dirop->path);
    free(dirop->from);
    free(dirop);
}

/* Make a change of names durable, and forget it. */
static void dirop_commit(struct sim_world *world, struct sim_dirop *dirop)
{
    if (dirop->from) {
        struct sim_name *from = name_make(world, dirop->from);

        if (from->durable == dirop->file) {
            point(&from->durable, NULL);
        }
    }
    point(&name_make(world, dirop->path)->durable, dirop->file);
    dirop_free(world, dirop);
}

struct sim_file *sim_create(struct sim_world *world, const char *path, bool durable)
{
    struct sim_name *name = name_make(world, path);
    struct sim_file *file = file_new(world, path);

    point(&name->now, file);
    if (durable) {
        point(&name->durable, file);
    } else {
        dirop_add(world, file, path, NULL);
    }
    return file;
}

void sim_unlink(struct sim_world *world, const char *path, bool durable)
{
    struct sim_name *name = name_find(world, path);

    point(&name->now, NULL);
    if (durable) {
        point(&name->durable, NULL);
    } else {
        dirop_add(world, NULL, path, NULL);
    }
}

void sim_rename(struct sim_world *world, const char *from, const char *to)
{
    struct sim_name *source = name_find(world, from);
    struct sim_file *file = source->now;

    if (!strcmp(from, to)) {
        return;
    }
    point(&name_make(world, to)->now, file);
    point(&source->now, NULL);
    free(file->path);
    file->path = mem_strdup(to);
    dirop_add(world, file, to, from);
}

static bool same_directory(const char *a, const char *b)
{
    size_t len = strrchr(a, '/') - a;

    return len == (size_t)(strrchr(b, '/') - b) && !memcmp(a, b, len);
}

void sim_sync_dir(struct sim_world *world, const char *path, uint64_t order)
{
    struct sim_dirop *next;

    for (struct sim_dirop *d = TAILQ_FIRST(&world->dirops); d && d->order < order; d = next) {
        next = TAILQ_NEXT(d, link);
        if (same_directory(d->path, path) || (d->from && same_directory(d->from, path))) {
            dirop_commit(world, d);
        }
    }
}

/* --- Worlds ----------------------------------------------------------------------------------- */

struct sim_world *sim_world_new(void)
{
    struct sim_world *world = mem_zalloc(sizeof(*world));

    LIST_INIT(&world->files);
    TAILQ_INIT(&world->dirops);
    return world;
}

void sim_world_free(struct sim_world *world)
{
    struct sim_name *name, *next_name;

    while (!TAILQ_EMPTY(&world->dirops)) {
        dirop_free(world, TAILQ_FIRST(&world->dirops));
    }
    HASH_ITER(hh, world->names, name, next_name) {
        name_free(world, name);
    }
    /* What is left belongs to handles of processes that are no more. */
    while (!LIST_EMPTY(&world->files)) {
        file_unlist(LIST_FIRST(&world->files));
    }
    free(world);
}

static void file_copy(struct sim_world *world, struct sim_file *from)
{
    struct sim_file *file = mem_zalloc(sizeof(*file));

    file->id = from->id;
    file->path = mem_strdup(from->path);
    file->now = sim_content_copy(&from->now);
    file->durable = sim_content_copy(&from->durable);
    file->cached = sim_op_list_copy(&from->cached);
    file->cached_before = from->cached_before;
    file->cached_bytes = from->cached_bytes;
    file->flying = sim_op_list_copy(&from->flying);
    LIST_INIT(&file->handles);
    LIST_INSERT_HEAD(&world->files, file, link);
    file->listed = true;
    file->refs = 1; /* for the length of the copy */
    from->twin = file;
}

struct sim_world *sim_world_copy(const struct sim_world *from)
{
    struct sim_world *world = sim_world_new();
    struct sim_file *file;
    struct sim_dirop *dirop;

    LIST_FOREACH(file, &from->files, link) {
        file_copy(world, file);
    }
    for (const struct sim_name *name = from->names; name; name = name->hh.next) {
        struct sim_name *copy = name_make(world, name->path);

        copy->now = file_ref(name->now ? name->now->twin : NULL);
        copy->durable = file_ref(name->durable ? name->durable->twin : NULL);
    }
    TAILQ_FOREACH(dirop, &from->dirops, link) {
        world->dirops_issued = dirop->order;
        dirop_add(world, dirop->file ? dirop->file->twin : NULL, dirop->path, dirop->from);
    }
    world->dirops_issued = from->dirops_issued;
    LIST_FOREACH(file, &from->files, link) {
        sim_file_unref(file->twin); /* unlinked ones, held open by a handle, end here */
    }
    return world;
}

uint64_t sim_world_held(const struct sim_world *world)
{
    const struct sim_file *file;
    uint64_t held = 0;

    LIST_FOREACH(file, &world->files, link) {
        held += sim_pages_held(file->now.pages);
    }
    return held;
}

/* --- Cuts ------------------------------------------------------------------------------------- */

/* Names are as they are durable: forget the rest. */
static void drop_names(struct sim_world *world)
{
    struct sim_name *name, *next_name;
    struct sim_file *file, *next_file;
    struct sim_dirop *dirop;

    while ((dirop = TAILQ_FIRST(&world->dirops))) {
        dirop_free(world, dirop);
    }
    LIST_FOREACH(file, &world->files, link) {
        file->twin = NULL;
    }
    HASH_ITER(hh, world->names, name, next_name) {
        point(&name->now, name->durable);
        if (name->now) {
            name->now->twin = name->now;
        } else {
            name_free(world, name);
        }
    }
    /* Files without a name live on as ghosts of stale handles only. */
    for (file = LIST_FIRST(&world->files); file; file = next_file) {
        next_file = LIST_NEXT(file, link);
        if (!file->twin) {
            file_unlist(file);
        }
    }
}

static void cut_names(struct sim_cut *cut, struct sim_world *world)
{
    unsigned goes_on = cut->keep;
    struct sim_dirop *dirop;

    while ((dirop = TAILQ_FIRST(&world->dirops)) && sim_cut_chance(cut, goes_on)) {
        dirop_commit(world, dirop);
    }
    drop_names(world);
}

void sim_world_cut(struct sim_world *world, enum io_sim_cut mode, uint64_t seed)
{
    struct sim_cut cut;
    struct sim_file *file;

    random_seed(&cut.random, seed);
    cut.keep = random_below(&cut.random, SIM_EIGHTHS + 1);
    cut.tear = random_below(&cut.random, 3) * (SIM_EIGHTHS / 2);
    cut.grain = random_below(&cut.random, 2) ? 512 : 4096;
    if (mode == IO_SIM_CUT_POWER_LOSE) {
        cut.keep = cut.tear = 0;
    } else if (mode == IO_SIM_CUT_POWER_KEEP) {
        cut.keep = SIM_EIGHTHS;
    }
    if (mode != IO_SIM_CUT_KILL) {
        cut_names(&cut, world);
    }
    LIST_FOREACH(file, &world->files, link) {
        if (mode == IO_SIM_CUT_KILL) {
            sim_file_kill(&cut, file);
        } else {
            sim_file_cut(&cut, file);
        }
    }
}

static int by_age(const void *a, const void *b)
{
    const struct sim_file *const *x = a, *const *y = b;

    return (*x)->id < (*y)->id ? -1 : (*x)->id > (*y)->id;
}

size_t sim_world_files(const struct sim_world *world, struct sim_file ***list)
{
    struct sim_file *file;
    size_t n = 0;

    LIST_FOREACH(file, &world->files, link) {
        n++;
    }
    *list = mem_calloc(n + 1, sizeof(**list));
    n = 0;
    LIST_FOREACH(file, &world->files, link) {
        (*list)[n++] = file;
    }
    qsort(*list, n, sizeof(**list), by_age);
    for (size_t i = 0; i < n; i++) {
        (*list)[i]->place = i;
    }
    return n;
}

void sim_world_cut_exact(struct sim_world *world, bool kill, const char *fates)
{
    AUTOFREE struct sim_file **list = NULL;
    struct sim_dirop *dirop, *next;
    bool kept = !kill;
    size_t n = sim_world_files(world, &list);

    for (size_t i = 0; i < n; i++) {
        list[i]->refs++; /* a name that moves may be the last that held a file */
    }
    for (dirop = TAILQ_FIRST(&world->dirops); dirop; dirop = next, fates++) {
        next = TAILQ_NEXT(dirop, link);
        kept = kept && *fates == '1';
        if (kept) {
            dirop_commit(world, dirop);
        }
    }
    for (size_t i = 0; i < n; i++) {
        size_t pending = list[i]->cached.n + list[i]->flying.n;

        if (kill) {
            sim_file_kill_exact(list[i], fates);
        } else {
            sim_file_cut_exact(list[i], fates);
        }
        fates += pending;
    }
    if (!kill) {
        drop_names(world);
    }
    for (size_t i = 0; i < n; i++) {
        sim_file_unref(list[i]);
    }
}
