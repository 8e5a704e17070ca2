/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Telnet: see telnet.h.
 *
 * We offer ECHO, SUPPRESS GO AHEAD and BINARY, and take BINARY from the client; all else is refused.
 * An option is answered only when the answer changes something, so that two sides cannot answer each
 * other for ever (RFC 854).
 */
#include "monitor/telnet.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

enum command {
    SE = 240, /* end of a subnegotiation */
    AYT = 246, /* are you there? */
    IP = 244, /* interrupt */
    EC = 247, /* erase a character */
    EL = 248, /* erase the line */
    SB = 250, /* a subnegotiation begins */
    WILL = 251,
    WONT = 252,
    DO = 253,
    DONT = 254,
    IAC = 255, /* a command follows */
};
enum telnet_option { BINARY = 0, ECHO = 1, SUPPRESS_GO_AHEAD = 3 };
enum key { CTRL_C = 3, BACKSPACE = 8, CTRL_U = 21, CTRL_W = 23, DELETE = 127 };

enum state { TEXT, AFTER_IAC, AFTER_VERB, IN_SUB, IN_SUB_IAC };

struct telnet {
    bool lines;
    enum state state;
    uint8_t verb;
    bool ours[256], theirs[256]; /* options that are on: on our side, on the client's */
    bool after_cr;               /* in what the client sends */
    bool sent_cr;                /* in what we send */
    char line[TELNET_LINE_MAX];  /* being typed */
    size_t line_len;
};

static void put(struct telnet_output *out, const void *bytes, size_t len)
{
    out->bytes = mem_realloc(out->bytes, out->len + len);
    memcpy(out->bytes + out->len, bytes, len);
    out->len += len;
}

static void say(struct telnet_output *out, uint8_t verb, uint8_t option)
{
    const uint8_t bytes[] = { IAC, verb, option };

    put(out, bytes, sizeof(bytes));
}

struct telnet *telnet_new(bool lines, struct telnet_output *hello)
{
    static const uint8_t offered[] = { ECHO, SUPPRESS_GO_AHEAD, BINARY };
    struct telnet *t = mem_zalloc(sizeof(*t));

    t->lines = lines;
    for (size_t i = lines ? 0 : 1; i < ARRAY_SIZE(offered); i++) {
        t->ours[offered[i]] = true;
        say(hello, WILL, offered[i]);
    }
    t->theirs[BINARY] = true;
    say(hello, DO, BINARY);
    return t;
}

void telnet_free(struct telnet *t)
{
    free(t);
}

/* --- Negotiation ------------------------------------------------------------------------------- */

static bool we_can(const struct telnet *t, uint8_t option)
{
    return option == BINARY || option == SUPPRESS_GO_AHEAD || (option == ECHO && t->lines);
}

static void negotiate(struct telnet *t, uint8_t option, struct telnet_output *answer)
{
    switch (t->verb) {
    case DO:
        if (!t->ours[option]) {
            t->ours[option] = we_can(t, option);
            say(answer, t->ours[option] ? WILL : WONT, option);
        }
        break;
    case DONT:
        if (t->ours[option]) {
            t->ours[option] = false;
            say(answer, WONT, option);
        }
        break;
    case WILL:
        if (!t->theirs[option]) {
            t->theirs[option] = option == BINARY || option == SUPPRESS_GO_AHEAD;
            say(answer, t->theirs[option] ? DO : DONT, option);
        }
        break;
    case WONT:
        if (t->theirs[option]) {
            t->theirs[option] = false;
            say(answer, DONT, option);
        }
        break;
    }
}

/* --- Lines ------------------------------------------------------------------------------------- */

static void echo(const struct telnet *t, struct telnet_output *answer, const char *text)
{
    if (t->ours[ECHO]) {
        put(answer, text, strlen(text));
    }
}

/* One character back, which may be several bytes of UTF-8. */
static void erase(struct telnet *t, struct telnet_output *answer)
{
    if (!t->line_len) {
        return;
    }
    do {
        t->line_len--;
    } while (t->line_len && (t->line[t->line_len] & 0xc0) == 0x80);
    echo(t, answer, "\b \b");
}

static void erase_all(struct telnet *t, struct telnet_output *answer)
{
    while (t->line_len) {
        erase(t, answer);
    }
}

static void erase_word(struct telnet *t, struct telnet_output *answer)
{
    while (t->line_len && t->line[t->line_len - 1] == ' ') {
        erase(t, answer);
    }
    while (t->line_len && t->line[t->line_len - 1] != ' ') {
        erase(t, answer);
    }
}

static size_t end_line(struct telnet *t, char *out, struct telnet_output *answer)
{
    size_t len = t->line_len;

    echo(t, answer, "\r\n");
    memcpy(out, t->line, len);
    out[len] = '\n';
    t->line_len = 0;
    return len + 1;
}

/* A byte that was typed; bytes for the monitor. */
static size_t type(struct telnet *t, char c, char *out, struct telnet_output *answer)
{
    switch (c) {
    case '\r':
    case '\n':
        return end_line(t, out, answer);
    case BACKSPACE:
    case DELETE:
        erase(t, answer);
        return 0;
    case CTRL_U:
        erase_all(t, answer);
        return 0;
    case CTRL_W:
        erase_word(t, answer);
        return 0;
    case CTRL_C: /* an empty line gives a new prompt */
        t->line_len = 0;
        return end_line(t, out, answer);
    }
    if ((uint8_t)c < ' ' && c != '\t') {
        return 0;
    }
    if (t->line_len == sizeof(t->line) - 1) {
        echo(t, answer, "\a");
        return 0;
    }
    t->line[t->line_len++] = c;
    if (t->ours[ECHO]) {
        put(answer, (char[]){ c, c }, (uint8_t)c == IAC ? 2 : 1);
    }
    return 0;
}

/* --- Both ways ---------------------------------------------------------------------------------- */

/* A byte of text. */
static size_t take_text(struct telnet *t, char c, char *out, struct telnet_output *answer)
{
    bool second = t->after_cr && (c == '\n' || c == '\0'); /* CR LF and CR NUL are one end of line */

    t->after_cr = c == '\r';
    if (second || !c) {
        return 0;
    }
    if (t->lines) {
        return type(t, c, out, answer);
    }
    *out = c == '\r' ? '\n' : c;
    return 1;
}

static size_t take_command(struct telnet *t, uint8_t c, char *out, struct telnet_output *answer)
{
    static const char here[] = "\r\n[Yes]\r\n";

    t->state = TEXT;
    switch (c) {
    case IAC: /* a doubled one is a byte of the text */
        return take_text(t, c, out, answer);
    case DO:
    case DONT:
    case WILL:
    case WONT:
        t->verb = c;
        t->state = AFTER_VERB;
        return 0;
    case SB:
        t->state = IN_SUB;
        return 0;
    case AYT:
        put(answer, here, sizeof(here) - 1);
        return 0;
    case IP:
        return t->lines ? type(t, CTRL_C, out, answer) : 0;
    case EC:
        return t->lines ? type(t, DELETE, out, answer) : 0;
    case EL:
        return t->lines ? type(t, CTRL_U, out, answer) : 0;
    }
    return 0;
}

size_t telnet_decode(struct telnet *t, const char *bytes, size_t len, char *out, struct telnet_output *answer)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        uint8_t c = bytes[i];

        switch (t->state) {
        case TEXT:
            if (c == IAC) {
                t->state = AFTER_IAC;
            } else {
                n += take_text(t, c, out + n, answer);
            }
            break;
        case AFTER_IAC:
            n += take_command(t, c, out + n, answer);
            break;
        case AFTER_VERB:
            negotiate(t, c, answer);
            t->state = TEXT;
            break;
        case IN_SUB: /* of no option of ours */
            t->state = c == IAC ? IN_SUB_IAC : IN_SUB;
            break;
        case IN_SUB_IAC:
            t->state = c == SE ? TEXT : IN_SUB;
            break;
        }
    }
    return n;
}

char *telnet_encode(struct telnet *t, const char *text, size_t *len)
{
    char *out = mem_alloc(2 * *len + 1);
    size_t n = 0;

    for (size_t i = 0; i < *len; i++) {
        if (text[i] == '\n' && !t->sent_cr) {
            out[n++] = '\r';
        }
        if ((uint8_t)text[i] == IAC) {
            out[n++] = text[i];
        }
        out[n++] = text[i];
        t->sent_cr = text[i] == '\r';
    }
    *len = n;
    return out;
}
