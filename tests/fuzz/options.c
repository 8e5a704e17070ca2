/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command line: words taken apart, the disks that it names made and ended.
 *
 * Disks come from -drive, -blockdev, -device, json: and plain images, all on the simulated disk.
 *
 * An input is the words, a line each.  Kept from it: temporary overlays, which are files of the host.
 */
#include <string.h>

#include "block/qcow2.h"
#include "hw/machine.h"
#include "start/drive.h"
#include "start/options.h"
#include "tests/fuzz/lib/raw-disk.h"

#define WORDS_MAX 24u

static CO_ENTRY void co_life(void *arg)
{
    const struct options *o = arg;
    const char *failed = NULL;
    struct error err = ERROR_INIT;
    int ret = co_drives_start(&o->disks, &failed, &err);

    FUZZ_CHECK(!ret == !err.text, "%s", ret ? "refused without a word" : err.text);
    error_clear(&err);
    (void)co_drives_end(&err);
    error_clear(&err);
}

static void run(struct fuzz_input *in)
{
    char *words[WORDS_MAX + 2] = { "merganser" }, *shown = NULL;
    bool temporary = memmem(in->data, in->len, "snapshot", 8);
    struct error err = ERROR_INIT;
    struct options o;
    int n = 1;

    while (n <= (int)WORDS_MAX && fuzz_more(in)) {
        words[n++] = fuzz_text(in, 1024, '\n');
    }
    int ret = options_parse(&o, n, words, &shown, &err);

    FUZZ_CHECK(!ret || err.text, "refused without a word");
    if (!ret && !temporary) {
        loop_run_co(co_life, &o);
    }
    options_free(&o);
    error_clear(&err);
    free(shown);
    while (n > 1) {
        free(words[--n]);
    }
}

static CO_ENTRY void co_image(void *arg)
{
    json_t *options = json_pack("{s:i, s:s, s:s}", "size", 1 << 20, "backing_file", RAW_DISK, "backing_fmt", "raw");

    FUZZ_CHECK(driver_qcow2.co_create("/C.img", options, NULL) == 0, "no image");
    json_decref(options);
}

static void set_up(void)
{
    machine_init(16 << 20);
    raw_disk_make(1 << 20);
    loop_run_co(co_image, NULL);
    fuzz_keep_disk();
}

const struct fuzz_target fuzz_target = {
    .name = "options",
    .set_up = set_up,
    .run = run,
    .max_len = 1024,
};
