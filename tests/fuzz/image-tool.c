/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The image tool's command lines: options, -o lists, sizes, names that are options.
 *
 * The commands are carried out on images on the simulated disk.  An input is up to four commands, a word a line, with a
 * semicolon between two of them.  There are a raw disk, an image on top of it, and one on top of that with an internal
 * snapshot (set_up()).  The disk has room for two megabytes, so that preallocation ends.
 *
 * Demanded besides F1 to F4:
 *
 *     I1  the exit code is one of qemu-img's, and a command that fails has said why
 *     I2  what is printed holds no control characters, but for the echo of `create` and progress
 *     I3  an image that only `info`, `map`, `measure`, `compare` and `check` without -r saw is what it was
 *
 * What the program prints goes through a stream of ours.  Not here: null-co, a disk whose size is as large as one likes and
 * costs as much time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/file.h"
#include "block/filter.h"
#include "block/qcow2.h"
#include "core/co.h"
#include "img/command.h"
#include "tests/fuzz/lib/raw-disk.h"

#define WORDS_MAX 24
#define COMMANDS_MAX 4u
#define DISK (256u << 10)
#define ROOM (2u << 20) /* a block of it may cost us 64 KiB, twice */

static const char *const images[] = { RAW_DISK, "/a.qcow2", "/b.qcow2" };

/* --- What is printed ------------------------------------------------------------------------------------------------ */

static struct {
    FILE *out, *err;       /* ours */
    FILE *real_out, *real_err;
    size_t printed, complained; /* bytes by the command that runs */
    bool echoes;           /* it repeats its own words */
    bool aloud;            /* MERGANSER_FUZZ_SAY=1 in the environment: for whoever looks at a finding */
} say;

static ssize_t take_text(void *cookie, const char *text, size_t len)
{
    size_t *count = cookie;

    *count += len;
    if (say.aloud || (count == &say.complained && memmem(text, len, "Assertion", 9))) {
        fwrite(text, 1, len, say.real_err);
    }
    for (size_t i = 0; i < len && !(say.echoes && count == &say.printed); i++) {
        uint8_t c = text[i];

        FUZZ_CHECK((c >= ' ' && c != 0x7f) || c == '\n' || c == '\t' || c == '\r', "byte %02x is printed as it is", c);
    }
    return len;
}

/* stdio's own names for the streams: the commands use them. */
static void listen_begin(const char *command)
{
    say.printed = say.complained = 0;
    say.echoes = strcmp(command, "create") == 0;
    say.real_out = stdout;
    say.real_err = stderr;
    stdout = say.out;
    stderr = say.err;
}

static void listen_end(void)
{
    fflush(say.out);
    stdout = say.real_out;
    stderr = say.real_err;
}

static FILE *make_stream(size_t *count)
{
    FILE *stream = fopencookie(count, "w", (cookie_io_functions_t){ .write = take_text });

    FUZZ_CHECK(stream, "no stream");
    return stream;
}

/* --- Commands ------------------------------------------------------------------------------------------------------ */

struct work {
    const struct img_args *args;
    int code;
};

static CO_ENTRY void co_work(void *arg)
{
    struct work *work = arg;

    work->code = work->args->command->co_run(work->args);
}

/* argv[argc] is NULL. */
static int run_command(int argc, char **argv)
{
    const struct img_command *command = img_command_find(argv[0]);
    struct img_args args;
    struct work work = { &args, 0 };

    if (!command) {
        return 0;
    }
    listen_begin(command->name);
    if (img_args_parse(&args, command, argc, argv, &work.code) == 0) {
        loop_run_co(co_work, &work);
    }
    img_args_free(&args);
    listen_end();
    return work.code;
}

/* I1: 1 means "no" for compare, 2 and 3 are what check found; with -q that is all. */
static void check_code(const char *command, int code)
{
    bool answer = (strcmp(command, "compare") == 0 && code == 1) || (strcmp(command, "check") == 0 && code != 1);

    FUZZ_CHECK(code >= 0 && code <= 63, "%s ends with %d", command, code);
    FUZZ_CHECK(!code || answer || say.complained || say.printed, "%s ends with %d and not a word", command, code);
}

static bool only_looks(int argc, char **argv)
{
    static const char *const words[] = { "info", "map", "measure", "compare", "check" };

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "-r", 2) == 0 || strncmp(argv[i], "--r", 3) == 0) {
            return false;
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        if (strcmp(argv[0], words[i]) == 0) {
            return true;
        }
    }
    return false;
}

static void check_command(int argc, char **argv)
{
    uint64_t before[ARRAY_SIZE(images)];
    AUTOFREE char *name = mem_strdup(argv[0]); /* getopt_long() sorts the words */
    bool looks = only_looks(argc, argv);

    for (size_t i = 0; i < ARRAY_SIZE(images); i++) {
        before[i] = io_sim_hash(images[i]);
    }
    check_code(name, run_command(argc, argv));
    for (size_t i = 0; looks && i < ARRAY_SIZE(images); i++) {
        FUZZ_CHECK(io_sim_hash(images[i]) == before[i], "%s changed %s", name, images[i]);
    }
}

static void run(struct fuzz_input *in)
{
    for (unsigned n = 0; n < COMMANDS_MAX && fuzz_more(in); n++) {
        char *words[WORDS_MAX + 1] = { NULL }, *begin[WORDS_MAX + 1];
        int argc = 0;

        while (argc < WORDS_MAX && fuzz_more(in)) {
            char *word = fuzz_text(in, 1024, '\n');

            words[argc++] = word;
            if (strcmp(word, ";") == 0) {
                break;
            }
        }
        memcpy(begin, words, sizeof(begin));
        int n_words = argc - (strcmp(words[argc - 1], ";") == 0);

        words[n_words] = NULL;
        if (n_words) {
            check_command(n_words, words);
        }
        while (argc > 0) {
            free(begin[--argc]);
        }
    }
}

/* --- The images ---------------------------------------------------------------------------------------------------- */

static void make(const char *words)
{
    AUTOFREE char *text = mem_strdup(words);
    char *argv[WORDS_MAX + 1] = { NULL }, *at = text;
    int argc = 0;

    while (at) {
        argv[argc++] = strsep(&at, " ");
    }
    FUZZ_CHECK(run_command(argc, argv) == 0, "no images: %s", words);
}

static void set_up(void)
{
    static const struct driver *const drivers[] = { &driver_qcow2, &driver_raw, &driver_file, &driver_blkdebug,
                                                    &driver_copy_on_read, &driver_throttle, NULL };

    node_set_drivers(drivers);
    say.aloud = getenv("MERGANSER_FUZZ_SAY");
    say.out = make_stream(&say.printed);
    say.err = make_stream(&say.complained);
    setvbuf(say.err, NULL, _IONBF, 0);
    raw_disk_make(DISK);
    make("create -q -f qcow2 -F raw -b /disk -o cluster_size=4k /a.qcow2");
    make("convert -O qcow2 -o cluster_size=4k /disk /b.qcow2");
    make("snapshot -c one /b.qcow2");
    make("rebase -u -F qcow2 -b /a.qcow2 /b.qcow2");
    io_sim_set_quota(ROOM);
    fuzz_keep_disk();
}

const struct fuzz_target fuzz_target = {
    .name = "image-tool",
    .set_up = set_up,
    .run = run,
    .max_len = 1024,
};
