/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What stays in reach of a program in the sandbox (see sandbox.h):
 *
 *   an image that was named, by -drive, a plain word or -blockdev   itself and its directory, for
 *                                                snapshots
 *   a temporary overlay (-snapshot)              itself; its name is taken away now
 *   what it stands on (backing files, files that hold its data)     itself
 *   scripts, guests' iologs, and what readline reads     to be read
 *   the terminal's history, the demonstration    their directories
 *
 * Sockets are bound already.  Their names stay when the program ends, unless they lie in a directory
 * of the above: who could take one away could take away others' files.
 */
#include "start/sandbox.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/file.h"
#include "block/node.h"
#include "core/io.h"
#include "core/mem.h"
#include "core/sandbox.h"
#include "monitor/terminal.h"
#include "start/drive.h"

static void allow(struct sandbox *s, const char *path, enum sandbox_use use)
{
    AUTOFREE char *here = path[0] == '/' ? NULL : io_working_dir();
    AUTOFREE char *whole = here ? mem_printf("%s/%s", here, path) : mem_strdup(path);

    sandbox_allow(s, whole, use);
}

static void allow_in(struct sandbox *s, const char *variable, const char *name)
{
    const char *dir = getenv(variable);

    if (dir && *dir) {
        AUTOFREE char *path = mem_printf("%s%s", dir, name);

        allow(s, path, SANDBOX_READ);
    }
}

/* Does it hold up something that was named, and was not named itself? */
static bool is_below(const struct node *node)
{
    const struct node *n;

    TAILQ_FOREACH(n, &all_nodes, link) {
        if (n->backing == node) {
            return true;
        }
        if (n->file == node) {
            return is_below(n);
        }
    }
    return false;
}

static void allow_images(struct sandbox *s)
{
    const struct node *n;

    TAILQ_FOREACH(n, &all_nodes, link) {
        if (n->driver == &driver_file) {
            allow(s, n->filename, SANDBOX_IMAGE);
            if (!is_below(n) && !n->temporary) {
                allow(s, n->filename, SANDBOX_NEIGHBOURS);
            }
        }
    }
}

static void allow_terminal(struct sandbox *s)
{
    static const char *const read[] = {
        "/etc/inputrc", "/etc/terminfo", "/lib/terminfo", "/usr/lib/terminfo", "/usr/share/terminfo",
    };
    AUTOFREE char *history = terminal_history();

    for (size_t i = 0; i < ARRAY_SIZE(read); i++) {
        allow(s, read[i], SANDBOX_READ);
    }
    allow_in(s, "INPUTRC", "");
    allow_in(s, "TERMINFO", "");
    allow_in(s, "HOME", "/.inputrc");
    allow_in(s, "HOME", "/.terminfo");
    if (history && io_make_private_file(history) == 0) {
        allow(s, history, SANDBOX_NEIGHBOURS);
    }
}

/* They are read when a guest boots, and so is that of a disk which is plugged in later. */
static void allow_iologs(struct sandbox *s, const struct options *o)
{
    for (size_t i = 0; i < o->guest_count; i++) {
        const char *iolog = json_string_value(json_object_get(o->guests[i].words, "iolog"));

        if (iolog) {
            allow(s, iolog, SANDBOX_READ);
        }
    }
}

static void allow_demo(struct sandbox *s, const char *dir)
{
    AUTOFREE char *parent = mem_printf("%s/..", dir);

    allow(s, parent, SANDBOX_REMOVE_DIR);
}

int program_sandbox(const struct options *o, const char *demo_dir, struct error *err)
{
    bool landlock = sandbox_has_landlock();
    struct sandbox *s;

    if (!landlock && !o->landlock_optional) {
        error_set(err, "This kernel cannot guard files: it has no Landlock, or it is switched off");
        error_hint(err, "--sandbox on,landlock=optional goes on without that.");
        return -ENOTSUP;
    }
    if (!landlock) {
        fprintf(stderr, "merganser: warning: --sandbox on: this kernel has no Landlock, "
                        "all files stay in reach\n");
    }
    s = sandbox_new();
    allow_images(s);
    for (size_t i = 0; i < o->script_count; i++) {
        if (o->scripts[i].is_file) {
            allow(s, o->scripts[i].text, SANDBOX_READ);
        }
    }
    allow_iologs(s, o);
    if (o->human_stdio && terminal_possible()) {
        allow_terminal(s);
    }
    if (demo_dir) {
        allow_demo(s, demo_dir);
    }
    drives_remove_temporaries(); /* their names: they are open, and could not be removed later */
    io_threads_end();
    return sandbox_enter(s, landlock, err);
}
