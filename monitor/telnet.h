/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Telnet (RFC 854, 855, 856, 857, 858): what stands between a telnet client and a monitor.  Pure: bytes in,
 * bytes out.
 *
 * Commands and negotiations are taken out of what the client sends and answered; a byte 255 of the
 * text is doubled; lines end with CR LF.  Towards people we announce that we echo, so that their
 * client sends each key at once; then it is us who show what is typed and let it be edited
 * (backspace, ^U, ^C), and the monitor gets whole lines.
 */
#ifndef MONITOR_TELNET_H
#define MONITOR_TELNET_H

#include <stdbool.h>
#include <stddef.h>

#define TELNET_LINE_MAX 4096u /* of a line that is being typed; more is not taken */

struct telnet;
struct telnet_output { /* to the client, as it is; malloc'ed */
    char *bytes;
    size_t len;
};
/* `lines`: we echo and edit.  What is to be said first goes to *hello. */
struct telnet *telnet_new(bool lines, struct telnet_output *hello);
void telnet_free(struct telnet *t); /* NULL is fine */
/* From the client: the text in it goes to `out`, which has room for len + TELNET_LINE_MAX bytes; its length.
 * What is to be answered goes to *answer. */
size_t telnet_decode(struct telnet *t, const char *bytes, size_t len, char *out, struct telnet_output *answer);
/* Text for the client: malloc'ed, *len is changed to its length. */
char *telnet_encode(struct telnet *t, const char *text, size_t *len);

#endif
