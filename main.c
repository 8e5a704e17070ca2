/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The program: its table of drivers, its life from the command line to the exit code, and signals.
 *
 *   options -> loop, engine -> sockets bound -> disks, guests -> clients let in -> machine runs
 *       -> scripts -> the human monitor, or whoever else gives commands -> quit
 *       -> SHUTDOWN -> jobs cancelled -> machine stopped -> disks closed -> monitors end
 *
 * All of that is one coroutine, so that every step may wait while the loop turns.  Sockets are
 * bound first: who starts the program and then looks for the socket finds it soon, and is let in
 * when there is something to talk about.
 */
#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "block/chain-map.h"
#include "block/disk.h"
#include "block/file.h"
#include "block/filter.h"
#include "block/node.h"
#include "block/qcow2.h"
#include "core/co.h"
#include "core/io.h"
#include "core/loop.h"
#include "core/mem.h"
#include "core/message.h"
#include "core/precedence.h"
#include "core/process.h"
#include "core/stream.h"
#include "core/text.h"
#include "explore/sim.h"
#include "export/nbd-server.h"
#include "hw/guest.h"
#include "hw/ignored.h"
#include "hw/object.h"
#include "hw/machine.h"
#include "jobs/job.h"
#include "monitor/chardev.h"
#include "monitor/events.h"
#include "monitor/guards.h"
#include "monitor/handlers.h"
#include "monitor/hmp-session.h"
#include "monitor/outcome.h"
#include "monitor/qmp.h"
#include "monitor/script.h"
#include "monitor/terminal.h"
#include "start/demo.h"
#include "start/drive.h"
#include "start/options.h"
#include "start/tables.h"
#include "start/sandbox.h"

static const struct driver *const drivers[] = { &driver_qcow2, &driver_raw, &driver_file, &driver_blkdebug,
                                                &driver_copy_on_read, &driver_null_aio, &driver_null_co, &driver_throttle,
                                                NULL };

/* How long commands may take to come back once the program is to end. */
#define COMMANDS_END_NS (10 * NS_PER_S)

/* Somebody who sends that many signals does not want to wait.  Two are not many: timeout(1) sends
 * each one twice, to its child and to its process group. */
#define SIGNALS_PATIENCE 3

struct program {
    struct options options;
    char *demo_dir; /* NULL: the user's own images */
    int signal;     /* that ends the program; 0: none has come */
    unsigned signals;
    int signal_fd;
    struct loop_watch *signal_watch;
    bool working; /* co_work() runs */
    bool stuck;   /* a command does not come back: leave without giving back what it uses */
    int exit_code;
};

static bool compat; /* --qemu-compat, for what is said on standard error */

/* "merganser: -drive file=x: Could not open 'x'..." and hints below; clears the error. */
static void complain(const char *shown, struct error *err)
{
    AUTOFREE char *in_short = compat ? mem_strdup(err->text) : error_in_short(err->text);
    AUTOFREE char *what = text_shown(shown ? shown : ""), *text = text_shown(in_short);
    AUTOFREE char *hint = text_shown(err->hint ? err->hint : "");

    fflush(stdout);
    message_begin(shown ? shown : "");
    fprintf(stderr, "%s%s%s\n%s%s", what, shown ? ": " : "", text, hint, *hint ? "\n" : "");
    error_clear(err);
}

/* --- Signals ---------------------------------------------------------------------------------- */

/* Leave now, with nothing left behind but what memory held.  Images are whole at every moment. */
static void __attribute__((noreturn)) leave(struct program *p, int exit_code)
{
    fflush(stdout);
    terminal_stop();
    chardevs_remove_sockets();
    drives_remove_temporaries();
    process_remove_pid();
    if (p->demo_dir) {
        demo_remove(p->demo_dir);
    }
    _exit(exit_code);
}

static void no_memory(void *arg)
{
    leave(arg, MEM_EXIT);
}

static void signal_came(void *arg, unsigned events)
{
    struct program *p = arg;
    struct signalfd_siginfo info;

    if (stream_read(p->signal_fd, &info, sizeof(info)) != sizeof(info)) {
        return;
    }
    if (info.ssi_signo == SIGINT && !monitor_quit_requested() && terminal_interrupt()) {
        return;
    }
    p->signals++;
    if (p->signals == SIGNALS_PATIENCE) {
        leave(p, OUTCOME_SIGNAL + info.ssi_signo);
    }
    if (p->signal) {
        return;
    }
    p->signal = info.ssi_signo;
    message("terminating on signal %u from pid %u", info.ssi_signo, info.ssi_pid);
    monitor_quit_request(OUTCOME_SIGNAL + info.ssi_signo);
}

/* Before any thread is there: threads inherit the mask, and so signals come here only. */
static void signals_start(struct program *p)
{
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit on the size of files is an error like others */
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    p->signal_fd = stream_of_signals(&set);
}

/* --- The beginning ---------------------------------------------------------------------------- */

/* 0, or -1 after the complaint. */
static int set_guest_defaults(struct program *p)
{
    struct error err = ERROR_INIT;

    for (size_t i = 0; i < p->options.guest_count; i++) {
        struct option_guest *guest = &p->options.guests[i];

        if (!json_object_get(guest->words, "disk") && guest_set_default(guest->words, &err) < 0) {
            complain(guest->shown, &err);
            return -1;
        }
    }
    return 0;
}

static int configure_guests(struct program *p)
{
    struct error err = ERROR_INIT;

    for (size_t i = 0; i < p->options.guest_count; i++) {
        struct option_guest *guest = &p->options.guests[i];
        json_t *disk = json_object_get(guest->words, "disk");
        int ret = 0;

        if (disk) {
            json_t *words = json_copy(guest->words);

            json_object_del(words, "disk");
            ret = guest_configure(json_string_value(disk), words, &err);
            json_decref(words);
        }
        if (ret < 0) {
            complain(guest->shown, &err);
            return -1;
        }
    }
    return 0;
}

/* All disks are there: what -guest said can be held against them. */
static int co_check_guests(struct program *p)
{
    struct error err = ERROR_INIT;

    if (co_guest_check_settings(&err) < 0) {
        complain(p->options.guest_count == 1 ? p->options.guests[0].shown : "-guest", &err);
        monitor_quit_request(OUTCOME_USAGE);
        return -1;
    }
    return 0;
}

static int open_monitors(struct program *p, struct chardev **places)
{
    struct error err = ERROR_INIT;

    static co_serve_fn *const serve[] = {
        [PLACE_IDLE] = co_idle_serve, [PLACE_HUMAN] = co_hmp_serve, [PLACE_QMP] = co_qmp_serve,
    };

    for (size_t i = 0; i < p->options.place_count; i++) {
        struct option_place *place = &p->options.places[i];
        bool terminal = place->spec.kind == CHARDEV_STDIO && place->use != PLACE_QMP;

        place->style.compat = p->options.compat;
        place->style.echo = p->options.compat && !place->spec.telnet;
        if (place->spec.kind == CHARDEV_NONE && place->spec.id) {
            chardev_note_null(place->spec.id);
        }
        if (terminal || place->spec.kind == CHARDEV_NONE) {
            continue;
        }
        places[i] = chardev_open(&place->spec, serve[place->use], &place->style, &err);
        if (!places[i]) {
            complain(place->shown, &err);
            return -1;
        }
    }
    return 0;
}

/* Let clients in, and wait for those that were to be waited for. */
static int co_start_monitors(struct program *p, struct chardev **places)
{
    for (size_t i = 0; i < p->options.place_count; i++) {
        if (places[i]) {
            chardev_start(places[i]);
        }
    }
    for (size_t i = 0; i < p->options.place_count; i++) {
        struct option_place *place = &p->options.places[i];

        if (place->spec.kind == CHARDEV_SERVER && place->spec.wait) {
            message("%s: info: waiting for a connection on: %s", place->shown, chardev_name(places[i]));
            if (co_chardev_wait_client(places[i]) < 0) {
                return -1;
            }
        }
    }
    return 0;
}

/* The working directory changes to that of the demonstration: paths of scripts must not. */
static void anchor_scripts(struct program *p)
{
    AUTOFREE char *here = io_working_dir();

    for (size_t i = 0; here && i < p->options.script_count; i++) {
        struct option_script *script = &p->options.scripts[i];

        if (script->is_file && script->text[0] != '/' && strcmp(script->text, "-")) {
            char *path = mem_printf("%s/%s", here, script->text);

            free(script->text);
            script->text = path;
        }
    }
}

static int co_make_demo(struct program *p)
{
    struct error err = ERROR_INIT;
    json_t *chain, *ide;

    anchor_scripts(p);
    p->demo_dir = co_demo_make(&err);
    if (!p->demo_dir) {
        complain(NULL, &err);
        return -1;
    }
    chain = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}",
                      "file", "file-E.img", "format", "qcow2", "if", "virtio",
                      "node-name", "node-E",
                      "backing.node-name", "node-D",
                      "backing.backing.node-name", "node-C",
                      "backing.backing.backing.node-name", "node-B",
                      "backing.backing.backing.backing.node-name", "node-A");
    ide = json_pack("{s:s, s:s, s:s}", "file", "ide.img", "format", "qcow2", "if", "ide");
    options_add_drive(&p->options, "the demonstration chain", chain);
    options_add_drive(&p->options, "the demonstration's IDE disk", ide);
    return 0;
}

static int co_open_disks(struct program *p)
{
    const struct drives *disks = &p->options.disks;
    const char *failed = NULL;
    struct error err = ERROR_INIT;

    if (!disks->drive_count && !disks->blockdev_count && !disks->device_count && !p->options.no_defaults &&
        co_make_demo(p) < 0) {
        return -1;
    }
    if (co_drives_start(disks, &failed, &err) < 0) {
        complain(failed, &err);
        return -1;
    }
    return 0;
}

/* All that was named is open, and nobody has been let in yet. */
static int enter_sandbox(struct program *p)
{
    struct error err = ERROR_INIT;

    if (p->options.sandbox && program_sandbox(&p->options, p->demo_dir, &err) < 0) {
        complain("--sandbox on", &err);
        return -1;
    }
    return 0;
}

/* 0; or -1: the program ends, with a complaint unless it was asked to end. */
static int co_begin(struct program *p)
{
    AUTOFREE struct chardev **places = mem_calloc(p->options.place_count + 1, sizeof(*places));

    compat = p->options.compat;
    machine_identity_set(p->options.name, p->options.uuid);
    guards_set_safe(p->options.safe);
    if (open_monitors(p, places) < 0 || set_guest_defaults(p) < 0 || co_open_disks(p) < 0 ||
        configure_guests(p) < 0 || co_check_guests(p) < 0 || enter_sandbox(p) < 0 || co_start_monitors(p, places) < 0) {
        return -1;
    }
    if (!p->options.stopped && !monitor_quit_requested()) {
        machine_cont();
    }
    process_daemon_ready();
    process_use_log();
    return 0;
}

/* --- The middle ------------------------------------------------------------------------------- */

static void script_write(struct monitor *mon, const char *text, size_t len)
{
    fwrite(text, 1, len, stdout);
    if (len && text[len - 1] == '\n') {
        fflush(stdout);
    }
}

/* False: one failed, and nothing further is to be run. */
static bool co_run_scripts(struct program *p, struct monitor *mon)
{
    bool stop = p->options.on_error != ERRORS_CONTINUE;

    for (size_t i = 0; i < p->options.script_count && !monitor_quit_requested(); i++) {
        const struct option_script *script = &p->options.scripts[i];
        enum outcome outcome = script->is_file ? co_script_file(mon, script->text, stop)
                                               : co_script_text(mon, "-c", script->text, stop);

        if (outcome != OUTCOME_GOOD && stop) {
            return false;
        }
    }
    return true;
}

static void co_until_quit(void)
{
    co_monitor_wait(NULL, NULL, NULL, UINT64_MAX);
}

/* Commands come from standard input until its end. */
static void co_run_stdin(struct program *p, struct monitor *mon)
{
    bool plain = p->options.compat && !p->options.script_count; /* QEMU's monitor knows no scripts */
    enum outcome outcome;

    if (plain) {
        monitor_banner(mon);
    }
    outcome = co_script_stream(mon, "standard input", STDIN_FILENO, p->options.on_error == ERRORS_STOP, plain);
    if (outcome == OUTCOME_GOOD || p->options.on_error != ERRORS_STOP) {
        co_outcome_wait_jobs(mon);
        if (p->options.stdin_may_end) {
            co_until_quit();
        }
    }
}

/* In a coroutine of its own: the program can end though a command does not. */
static CO_ENTRY void co_work(void *arg)
{
    struct program *p = arg;
    struct monitor mon = {
        .compat = p->options.compat,
        .on_stdout = true,
        .name = "script",
        .write = script_write,
    };
    bool more;

    monitor_init(&mon);
    more = co_run_scripts(p, &mon);
    if (!more || monitor_quit_requested()) {
        /* that is all */
    } else if (!p->options.human_stdio) {
        co_until_quit();
    } else if (terminal_possible()) {
        events_set_notice(p->options.compat ? NULL : terminal_notice);
        terminal_start(p->options.compat);
        co_until_quit();
    } else {
        co_run_stdin(p, &mon);
    }
    monitor_fini(&mon);
    p->working = false;
    monitor_wake_waiters();
}

static bool work_is_over(void *arg)
{
    struct program *p = arg;

    return !p->working;
}

/* --- The end ---------------------------------------------------------------------------------- */

static void co_end_jobs(void)
{
    struct job *job, *next;

    co_job_cancel_all();
    for (job = TAILQ_FIRST(&all_jobs); job; job = next) {
        next = TAILQ_NEXT(job, link);
        job_dismiss(job, NULL); /* one that waited for that */
    }
}

static void co_end_commands(struct program *p)
{
    uint64_t deadline = loop_now() + COMMANDS_END_NS;

    while ((p->working || commands_running()) && loop_now() < deadline) {
        co_sleep_ns(NS_PER_MS);
    }
    if (p->working || commands_running()) {
        fprintf(stderr, "merganser: a command does not end, leaving without it\n");
        p->stuck = true;
    }
}

static void co_end(struct program *p, bool began)
{
    struct error err = ERROR_INIT;

    monitor_quit_request(-1);
    p->exit_code = monitor_quit_code();
    if (p->exit_code < 0) {
        p->exit_code = began ? outcome_exit_code() : OUTCOME_NO_START;
        if (began && outcome_machine_waits()) {
            message("the machine is stopped by an I/O error, and its guests' requests were never finished: "
                    "`cont` would have tried again");
        }
    }
    events_set_notice(NULL);
    terminal_stop();
    events_shutdown(p->signal ? "host-signal" : "host-qmp-quit");
    co_end_jobs();
    co_end_commands(p);
    if (p->stuck) {
        return;
    }
    co_machine_stop(RUN_SHUTDOWN);
    if (began && monitor_quit_code() < 0 && !p->exit_code) {
        p->exit_code = outcome_exit_code(); /* the guests' last requests count too */
    }
    co_nbd_server_end();
    if (co_drives_end(&err) < 0) {
        complain(NULL, &err);
        /* What the guest wrote may be lost. */
        p->exit_code = p->exit_code ? p->exit_code : OUTCOME_GUEST;
    }
    co_chardevs_end();
}

static CO_ENTRY void co_life(void *arg)
{
    struct program *p = arg;
    bool began = co_begin(p) == 0;

    if (began) {
        p->working = true;
        co_start(co_work, p);
        co_monitor_wait(NULL, work_is_over, p, UINT64_MAX);
    }
    co_end(p, began);
}

static uint64_t choose_seed(const struct options *o)
{
    if (o->has_seed) {
        return o->seed;
    }
    /* The virtual clock is for runs that repeat. */
    return o->clock == LOOP_CLOCK_REAL ? loop_entropy() : 1;
}

/* Into the background before there is a thread, and the files that belong to the process.  0, or -1 after the
 * complaint. */
static int become_process(struct program *p)
{
    const struct options *o = &p->options;
    struct error err = ERROR_INIT;

    message_show_name(o->guest_name ? o->name : NULL);
    if ((o->daemonize && process_daemonize(&err) < 0) || (o->logfile && process_open_log(o->logfile, &err) < 0) ||
        (o->pidfile && process_write_pid(o->pidfile, &err) < 0)) {
        complain(NULL, &err);
        p->exit_code = OUTCOME_NO_START;
        return -1;
    }
    return 0;
}

static void run(struct program *p)
{
    if (become_process(p) < 0) {
        return;
    }
    signals_start(p);
    loop_init(p->options.clock, choose_seed(&p->options));
    if (p->options.map_cache_size) {
        chain_map_set_budget(p->options.map_cache_size);
    }
    if (!loop_is_virtual()) { /* there nobody waits */
        precedence_first(); /* before there are other threads, which inherit it */
    }
    io_init();
    drive_set_maker(co_drive_hot_add);
    machine_init(MACHINE_RAM_DEFAULT);
    outcome_init();
    events_init();
    p->signal_watch = loop_watch(p->signal_fd, LOOP_READ, signal_came, p);
    loop_run_co(co_life, p);
    if (p->stuck) {
        leave(p, p->exit_code);
    }
    fflush(stdout);
    if (p->demo_dir) {
        demo_remove(p->demo_dir);
        free(p->demo_dir);
    }
    loop_unwatch(p->signal_watch);
    stream_close(p->signal_fd);
    events_fini();
    outcome_fini();
    machine_fini();
    machine_identity_set(NULL, NULL);
    io_fini();
    loop_fini();
    co_pool_drain();
}

int main(int argc, char **argv)
{
    struct program p = { .exit_code = OUTCOME_GOOD };
    struct error err = ERROR_INIT;
    char *shown;

    mem_init();
    mem_on_exit(no_memory, &p);
    setlocale(LC_CTYPE, "");
    json_object_seed(loop_entropy() | 1); /* it would ask the host itself */
    node_set_drivers(drivers);
    if (options_are_sim(argc, argv)) {
        return sim_main(argc - 2, argv + 2);
    }
    if (options_parse(&p.options, argc, argv, &shown, &err) < 0) {
        complain(shown, &err);
        free(shown);
        p.exit_code = p.options.usage_code;
    } else if (p.options.help) {
        options_print_help(stdout, p.options.help_all);
    } else if (p.options.tables) {
        tables_print(stdout);
    } else if (p.options.done) {
        fflush(stdout);
    } else if (p.options.version) {
        printf("merganser %s\n", MERGANSER_VERSION);
    } else {
        run(&p);
    }
    process_remove_pid();
    ignored_forget();
    objects_end();
    options_free(&p.options);
    return p.exit_code;
}
