/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Descriptors that are neither images nor sockets: standard input and output, terminals, pipes,
 * signals.  All calls to the host about them are in stream.c.
 *
 * Descriptors stay as they are: standard output may be shared with a shell that would not like it to
 * become non-blocking.  So bytes are written in pieces that a pipe takes whole once the host has
 * said that it takes some, and who reads asks first, or watches the descriptor (core/loop.h).
 */
#ifndef CORE_STREAM_H
#define CORE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <signal.h>
#include <sys/types.h>

/* For reading, without waiting for a writer: a script that is a pipe or a device.  A descriptor or
 * -errno. */
int stream_open(const char *path);
void stream_close(int fd);
/* Does it give its bytes as they come (a pipe, a terminal), so that who reads it may wait? */
bool stream_trickles(int fd);
/* For writing, made when it is not there; what it held goes, unless it is to be appended to. */
int stream_create(const char *path, bool append);
/* A pipe inside of the program that never waits: 0 and both ends, or -errno. */
int stream_pipe(int ends[2]);
/* A descriptor from which a struct signalfd_siginfo can be read for each of these signals. */
int stream_of_signals(const sigset_t *set);

/* Bytes read, 0 at the end, or -errno (-EAGAIN: nothing now).  Waits where the descriptor does. */
ssize_t stream_read(int fd, void *buf, size_t len);
/* Bytes that it takes now, 0 when it takes none, or -errno.  Does not wait. */
ssize_t stream_write(int fd, const void *data, size_t len);
/* As stream_write(), on our own pipe, from within a handler of signals; what it does not take is
 * lost. */
void stream_poke(int fd, char byte);
/* Is there something to read (or has it ended), can it be written to?  Waits up to `ms`, on the
 * spot: the loop stands still. */
bool stream_readable(int fd, int ms);
bool stream_writable(int fd, int ms);

bool stream_is_terminal(int fd);
unsigned stream_columns(int fd); /* of a terminal; 0: unknown */

#endif
