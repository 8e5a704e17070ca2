/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What places (chardev.c) do with connections, beyond what chardev.h says.
 */
#ifndef MONITOR_CONNECTION_H
#define MONITOR_CONNECTION_H

#include "monitor/chardev.h"

enum conn_form {
    CONN_PLAIN,
    CONN_TELNET,       /* telnet's commands taken out and answered */
    CONN_TELNET_LINES, /* besides, we echo what is typed and let it be edited, line by line */
};
/* Takes the descriptors over: a socket (twice), standard input and output, or -1 and a file. */
struct conn *conn_new(int in, int out, enum conn_form form);
/* Waits until all is sent, or the program ends, and frees.  Suspends. */
void co_conn_close(struct conn *c);
/* The program ends: nothing is read any more (on), and whoever waits on `c` hears of it. */
void conns_set_ending(bool on);
void conn_end(struct conn *c);

#endif
