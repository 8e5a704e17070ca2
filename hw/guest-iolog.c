/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The parser of fio's iologs: see guest-iolog.h.
 *
 * A line is words: [time] file action [offset length].  The offset of `wait` is its duration.
 */
#include "hw/guest-iolog.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/io.h"
#include "core/mem.h"

#define uthash_fatal(msg) abort()
#include <uthash.h>

#define SECTOR 512u
#define WORDS_MAX 6u /* one more than any line has */

/* Waits below this are not worth a timer; fio discards them too. */
#define SHORTEST_WAIT_US 100u

/* A file that the log speaks of. */
struct file {
    char *name;
    bool open;
    UT_hash_handle hh;
};

struct parser {
    const char *name; /* of the log */
    unsigned line;
    unsigned version;
    uint64_t now_us;
    struct file *files; /* uthash */
    struct guest_iolog *log;
    size_t room;
    struct error *err;
};

static int __attribute__((format(printf, 2, 3))) complain(struct parser *p, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    AUTOFREE char *what = mem_vprintf(fmt, ap);
    va_end(ap);
    error_set(p->err, "Iolog '%s', line %u: %s", p->name, p->line, what);
    return -EINVAL;
}

/* --- Words ------------------------------------------------------------------------------------ */

/* Split a line in place; more than WORDS_MAX words count as WORDS_MAX. */
static unsigned split(char *line, char *words[WORDS_MAX])
{
    unsigned n = 0;
    char *rest = line, *word;

    while (n < WORDS_MAX && (word = strtok_r(n ? NULL : line, " \t\r", &rest))) {
        words[n++] = word;
    }
    return n;
}

static bool parse_number(const char *text, uint64_t *out)
{
    if (!*text || text[strspn(text, "0123456789")]) {
        return false;
    }
    errno = 0;
    *out = strtoull(text, NULL, 10);
    return !errno;
}

/* --- Lines ------------------------------------------------------------------------------------ */

static int file_action(struct parser *p, const char *name, const char *action)
{
    struct file *file;

    HASH_FIND_STR(p->files, name, file);
    if (strcmp(action, "add") == 0) {
        if (!file) {
            file = mem_zalloc(sizeof(*file));
            file->name = mem_strdup(name);
            HASH_ADD_KEYPTR(hh, p->files, file->name, strlen(file->name), file);
        }
        return 0;
    }
    if (!file) {
        return complain(p, "'%s' was not added before", name);
    }
    bool opens = strcmp(action, "open") == 0;

    if (!opens && !file->open) {
        return complain(p, "'%s' is not open", name);
    }
    file->open = opens;
    return 0;
}

static void append(struct parser *p, const struct guest_iolog_entry *entry)
{
    struct guest_iolog *log = p->log;

    if (log->count == p->room) {
        p->room = p->room ? p->room * 2 : 256;
        log->entries = mem_reallocarray(log->entries, p->room, sizeof(*log->entries));
    }
    log->entries[log->count++] = *entry;
    if (entry->offset + entry->len > log->end) {
        log->end = entry->offset + entry->len;
        log->end_line = entry->line;
    }
}

static int wait_action(struct parser *p, uint64_t us)
{
    if (p->version >= 3) {
        return complain(p, "there is no 'wait' in version 3");
    }
    if (us >= SHORTEST_WAIT_US && __builtin_add_overflow(p->now_us, us, &p->now_us)) {
        return complain(p, "the waits add up to too long a time");
    }
    return 0;
}

/* Which action, or -1. */
static int action_of(const char *word)
{
    static const struct {
        const char *name;
        enum guest_iolog_action action;
    } actions[] = {
        { "read", IOLOG_READ }, { "write", IOLOG_WRITE },   { "trim", IOLOG_TRIM },
        { "sync", IOLOG_SYNC }, { "datasync", IOLOG_SYNC },
    };

    for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
        if (strcmp(actions[i].name, word) == 0) {
            return actions[i].action;
        }
    }
    return -1;
}

static int io_action(struct parser *p, char **words, unsigned n)
{
    struct guest_iolog_entry entry = { .line = p->line, .at_us = p->now_us };
    int action = action_of(words[1]);
    uint64_t offset = 0, len = 0, end;
    struct file *file;

    HASH_FIND_STR(p->files, words[0], file);
    if (!file || !file->open) {
        return complain(p, "'%s' is not open", words[0]);
    }
    if (n > 4 || (n > 2 && !parse_number(words[2], &offset)) ||
        (n > 3 && !parse_number(words[3], &len))) {
        return complain(p, "'%s' takes an offset and a length in bytes", words[1]);
    }
    if (strcmp(words[1], "wait") == 0) {
        return n > 2 ? wait_action(p, offset) : complain(p, "'wait' takes a time in microseconds");
    }
    if (action < 0) {
        return complain(p, "unknown action '%s'", words[1]);
    }
    entry.action = action;
    if (entry.action != IOLOG_SYNC) {
        if (n != 4 || !len) {
            return complain(p, "'%s' takes an offset and a length in bytes", words[1]);
        }
        if (__builtin_add_overflow(offset, len, &end) || end > INT64_MAX - SECTOR) {
            return complain(p, "offset and length are too large");
        }
        entry.offset = ROUND_DOWN(offset, SECTOR);
        entry.len = ROUND_UP(end, SECTOR) - entry.offset;
    }
    append(p, &entry);
    return 0;
}

static int parse_line(struct parser *p, char *line)
{
    char *words[WORDS_MAX], **rest = words;
    unsigned n = split(line, words);

    if (!n) {
        return 0;
    }
    if (p->version >= 3) {
        uint64_t at;

        if (!parse_number(words[0], &at)) {
            return complain(p, "'%s' is not a time in microseconds", words[0]);
        }
        p->now_us = at > p->now_us
                        ? at
                        : p->now_us; /* lines of several threads may be a little out of order */
        rest++;
        n--;
    }
    if (n < 2) {
        return complain(p, "a line is: file, action, and mostly offset and length");
    }
    if (strcmp(rest[1], "add") == 0 || strcmp(rest[1], "open") == 0 ||
        strcmp(rest[1], "close") == 0) {
        return n == 2 ? file_action(p, rest[0], rest[1])
                      : complain(p, "'%s' takes nothing more", rest[1]);
    }
    return io_action(p, rest, n);
}

static int parse_lines(struct parser *p, char *text, size_t len)
{
    char *end = text + len;

    for (char *next; text < end; text = next) {
        char *newline = memchr(text, '\n', end - text);

        next = newline ? newline + 1 : end;
        *(newline ? newline : end) = '\0';
        p->line++;
        if (memchr(text, '\0', (newline ? newline : end) - text)) {
            return complain(p, "not a line of text");
        }
        if (p->line == 1) {
            text[strcspn(text, "\r")] = '\0';
            p->version = strcmp(text, "fio version 2 iolog") == 0   ? 2
                         : strcmp(text, "fio version 3 iolog") == 0 ? 3
                                                                    : 0;
            if (!p->version) {
                break;
            }
        } else if (parse_line(p, text)) {
            return -EINVAL;
        }
    }
    if (!p->version) {
        error_set(p->err,
                  "'%s' is not an iolog of fio: it does not begin with 'fio version 2 iolog'",
                  p->name);
        return -EINVAL;
    }
    return 0;
}

int guest_iolog_parse(struct guest_iolog **out, const char *name, char *text, size_t len,
                      struct error *err)
{
    struct parser p = { .name = name, .log = mem_zalloc(sizeof(*p.log)), .err = err };
    int ret = parse_lines(&p, text, len);
    struct file *file, *next;

    HASH_ITER(hh, p.files, file, next) {
        HASH_DEL(p.files, file);
        free(file->name);
        free(file);
    }
    if (ret) {
        guest_iolog_free(p.log);
        return ret;
    }
    *out = p.log;
    return 0;
}

int co_guest_iolog_load(struct guest_iolog **out, const char *path, struct error *err)
{
    char *text;
    size_t len;
    int ret = co_io_load(path, &text, &len);

    if (ret) {
        error_set_errno(err, ret, "Could not open '%s'", path);
        return ret;
    }
    ret = guest_iolog_parse(out, path, text, len, err);
    free(text);
    return ret;
}

void guest_iolog_free(struct guest_iolog *log)
{
    if (log) {
        free(log->entries);
        free(log);
    }
}
