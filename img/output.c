/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the tool prints: complaints, JSON over several lines, progress.
 */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/text.h"
#include "img/command.h"
#include "monitor/qmp-text.h"

/* --- Complaints --------------------------------------------------------------------------------------------------- */

static const char *program = "merganser-img";

void img_set_program(const char *argv0)
{
    const char *slash = strrchr(argv0, '/');

    program = slash ? slash + 1 : argv0;
}

const char *img_program(void)
{
    return program;
}

static void __attribute__((format(printf, 1, 0))) complain(const char *fmt, va_list ap)
{
    AUTOFREE char *text = mem_vprintf(fmt, ap), *shown = text_shown(text);

    fflush(stdout);
    fprintf(stderr, "%s: %s\n", program, shown);
}

void img_complain(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    complain(fmt, ap);
    va_end(ap);
}

int img_complain_usage(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    complain(fmt, ap);
    va_end(ap);
    fprintf(stderr, "Try '%s --help' for more information\n", program);
    return 1;
}

void img_complain_error(struct error *err)
{
    img_complain("%s", err->text);
    if (err->hint) {
        AUTOFREE char *hint = text_shown(err->hint);
        fprintf(stderr, "%s\n", hint);
    }
    error_clear(err);
}

void img_print(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    AUTOFREE char *text = mem_vprintf(fmt, ap), *shown = text_shown(text);
    va_end(ap);
    fputs(shown, stdout);
}

/* --- JSON --------------------------------------------------------------------------------------------------------- */

static void indent(int depth)
{
    printf("\n%*s", 4 * depth, "");
}

/* Our own trees: a few levels deep. */
static void print_value(const json_t *value, int depth)
{
    const char *comma = "";

    if (json_is_object(value)) {
        AUTOFREE const char **names = qmp_member_order(value);

        putchar('{');
        for (size_t i = 0; names[i]; i++, comma = ",") {
            printf("%s", comma);
            indent(depth + 1);
            printf("\"%s\": ", names[i]);
            print_value(json_object_get(value, names[i]), depth + 1);
        }
        indent(depth);
        putchar('}');
    } else if (json_is_array(value)) {
        putchar('[');
        for (size_t i = 0; i < json_array_size(value); i++, comma = ",") {
            printf("%s", comma);
            indent(depth + 1);
            print_value(json_array_get(value, i), depth + 1);
        }
        indent(depth);
        putchar(']');
    } else {
        AUTOFREE char *text = qmp_print(value);

        printf("%s", text);
    }
}

void img_print_json(const json_t *value)
{
    print_value(value, 0);
    putchar('\n');
}

/* --- Progress ----------------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t asked;

static void ask(int signal)
{
    asked = 1;
}

void img_progress_listen(void)
{
    struct sigaction action = { .sa_handler = ask, .sa_flags = SA_RESTART };

    sigaction(SIGUSR1, &action, NULL);
}

static void print_progress(struct img_progress *p)
{
    printf("    (%3.2f/100%%)\r", p->current);
    fflush(stdout);
    p->printed = p->current;
}

void img_progress_begin(struct img_progress *p, bool on, float step)
{
    *p = (struct img_progress){ .on = on, .step = step };
    if (on) {
        print_progress(p);
    }
}

void img_progress_set(struct img_progress *p, uint64_t done, uint64_t total)
{
    float now = total ? 100.0f * done / total : 100.0f;

    p->current = now > 100 ? 100 : now;
    if (!p->on && asked) {
        asked = 0;
        fprintf(stderr, "    (%3.2f/100%%)\n", p->current);
    }
    if (!p->on) {
        return;
    }
    if (p->current > p->printed + p->step || p->current == 100) {
        print_progress(p);
    }
}

void img_progress_end(struct img_progress *p)
{
    if (p->on) {
        putchar('\n');
    }
}
