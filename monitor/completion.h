/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What could stand at a place of a human line: from the rows, and from the disks, nodes and jobs that live now.
 */
#ifndef MONITOR_COMPLETION_H
#define MONITOR_COMPLETION_H

#include "monitor/monitor.h"

struct completion {
    char **words;    /* malloc'ed, those that begin with the text; sorted, each once */
    size_t count;
    bool files;      /* names of files fit too; the caller knows how to list them */
};
/* The word that begins at `start` of `line` and reads `text` so far.  Does not suspend. */
struct completion completion_find(const struct monitor *mon, const char *line, size_t start, const char *text);
void completion_free(struct completion *found);

#endif
