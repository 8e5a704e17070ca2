/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The checker: a second, small reader of qcow2 and raw, made to judge the driver and therefore
 * sharing nothing with it.  It follows the format's specification, trusts no field, looks at bytes
 * that a callback supplies, and never changes one.
 *
 * What must hold of an image, whatever moment the power chose (the numbers are those of
 * docs/RELIABILITY.md):
 *
 *   2   no corruption; clusters that are counted but not used are leaks: counted, allowed
 *   8   counts are never too small, COPIED is set exactly when the count is one, nothing overlaps,
 *       everything lies inside the file
 *   9   the corrupt bit is not set; the dirty bit is found only where counts may be wrong
 *   10  no bit that the specification reserves is set; extensions are whole
 *   11  what internal snapshots use is counted like everything else and is not COPIED when shared
 *
 * Compressed clusters are decompressed by zlib and zstd themselves.
 */
#ifndef EXPLORE_CHECKER_H
#define EXPLORE_CHECKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct checker_source {
    void *arg;
    /* Bytes beyond the end are zeroes.  Cannot fail. */
    void (*read)(void *arg, uint64_t offset, void *buf, size_t len);
    uint64_t size;
    bool flags_may_lie; /* report.flags is all that is said of wrong COPIED bits that harm nobody */
};

struct checker_report {
    unsigned rule; /* the first that is broken; 0: none */
    char text[200];
    /* COPIED is missing where the count is one, or is there where it is larger than what refers:
     * what a crash may leave of a change of internal snapshots.  Else rule 8. */
    char flags[120]; /* the first of those; empty: none */
    uint64_t leaks; /* clusters */
    uint64_t used;  /* clusters of the file that something refers to */
};

/* An image as it was found: its tables are kept, its data is read when it is asked for. */
struct checker_image;
/* Parse and check.  Always gives an image (ended by checker_close()) unless the header itself makes
 * no sense: NULL then, with the report filled. */
struct checker_image *checker_open_qcow2(const struct checker_source *source,
                                         struct checker_report *report);
struct checker_image *checker_open_raw(const struct checker_source *source);
void checker_close(struct checker_image *image);

/* What the guest sees through a chain, the top first.  False when a layer cannot say (a compressed
 * cluster that is none). */
bool checker_read(struct checker_image *const *chain, unsigned n, uint64_t offset, void *buf,
                  size_t len);

uint64_t checker_size(const struct checker_image *image); /* of the disk, bytes */
/* As recorded in the header; NULL when there is none. */
const char *checker_backing(const struct checker_image *image);
const char *checker_backing_format(const struct checker_image *image);
/* The extensions and bits whose meaning is unknown here, as a number: nobody may change them (10).
 */
uint64_t checker_unknown(const struct checker_image *image);
/* Autoclear bits: a writer clears those that it does not know before it changes anything. */
uint64_t checker_autoclear(const struct checker_image *image);
bool checker_dirty(const struct checker_image *image);
/* An internal snapshot, and what this layer holds in it as a number (11); false: there are not that
 * many. */
bool checker_snapshot(struct checker_image *image, unsigned i, char *name, size_t room,
                      uint64_t *content);
/* The same number of what it holds now. */
uint64_t checker_active(struct checker_image *image);
/* From now on checker_read() shows this layer as the internal snapshot holds it. */
bool checker_show_snapshot(struct checker_image *image, unsigned i);
/* Has this layer nothing to say of a sector, so that what lies below shows? */
bool checker_is_none(const struct checker_image *image, uint64_t offset);
/* Where the data of this sector lies in the file; false: it is no plain data of this layer. */
bool checker_place(const struct checker_image *image, uint64_t offset, uint64_t *host);
/* Does this layer hold nothing up to the end of its disk, so that what lies below shows everywhere? */
bool checker_is_empty(const struct checker_image *image);

#endif
