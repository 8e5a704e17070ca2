/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The words of the virtio block device (virtio 1.2, section 5.2), for the device and for the
 * guest's driver. Nothing here but what both sides must agree on.
 */
#ifndef HW_VIRTIO_BLK_H
#define HW_VIRTIO_BLK_H

#define VIRTIO_ID_BLOCK 2u

#define VIRTIO_BLK_SECTOR 512u /* the unit of all sector numbers, whatever the block size */

enum virtio_blk_feature {
    VIRTIO_BLK_F_SIZE_MAX = 1u << 1,
    VIRTIO_BLK_F_SEG_MAX = 1u << 2,
    VIRTIO_BLK_F_RO = 1u << 5,
    VIRTIO_BLK_F_BLK_SIZE = 1u << 6,
    VIRTIO_BLK_F_FLUSH = 1u << 9,
    VIRTIO_BLK_F_TOPOLOGY = 1u << 10,
    VIRTIO_BLK_F_CONFIG_WCE = 1u << 11,
    VIRTIO_BLK_F_MQ = 1u << 12,
    VIRTIO_BLK_F_DISCARD = 1u << 13,
    VIRTIO_BLK_F_WRITE_ZEROES = 1u << 14,
};

/* Configuration space: byte offsets, little-endian, and the length of what we have of it. */
enum virtio_blk_config {
    VIRTIO_BLK_CAPACITY = 0,           /* 64 bits, sectors */
    VIRTIO_BLK_SIZE_MAX = 8,           /* 32: bytes in one descriptor */
    VIRTIO_BLK_SEG_MAX = 12,           /* 32: data descriptors in one request */
    VIRTIO_BLK_BLK_SIZE = 20,          /* 32: bytes */
    VIRTIO_BLK_PHYSICAL_EXP = 24,      /* 8: physical block = blk_size << this */
    VIRTIO_BLK_ALIGNMENT = 25,         /* 8 */
    VIRTIO_BLK_MIN_IO = 26,            /* 16: blocks */
    VIRTIO_BLK_OPT_IO = 28,            /* 32: blocks */
    VIRTIO_BLK_WRITEBACK = 32,         /* 8: 1 = volatile cache; the driver may write it */
    VIRTIO_BLK_NUM_QUEUES = 34,        /* 16 */
    VIRTIO_BLK_MAX_DISCARD = 36,       /* 32: sectors in one segment */
    VIRTIO_BLK_MAX_DISCARD_SEG = 40,   /* 32 */
    VIRTIO_BLK_DISCARD_ALIGNMENT = 44, /* 32: sectors */
    VIRTIO_BLK_MAX_ZEROES = 48,        /* 32: sectors in one segment */
    VIRTIO_BLK_MAX_ZEROES_SEG = 52,    /* 32 */
    VIRTIO_BLK_ZEROES_MAY_UNMAP = 56,  /* 8 */
    VIRTIO_BLK_CONFIG_LEN = 60,
};

/* A request: header {le32 type, le32 reserved, le64 sector}, data, one status byte. */
#define VIRTIO_BLK_HEADER 16u

enum virtio_blk_type {
    VIRTIO_BLK_T_IN = 0,
    VIRTIO_BLK_T_OUT = 1,
    VIRTIO_BLK_T_FLUSH = 4,
    VIRTIO_BLK_T_GET_ID = 8,
    VIRTIO_BLK_T_DISCARD = 11,
    VIRTIO_BLK_T_WRITE_ZEROES = 13,
};

enum virtio_blk_status {
    VIRTIO_BLK_S_OK = 0,
    VIRTIO_BLK_S_IOERR = 1,
    VIRTIO_BLK_S_UNSUPP = 2,
};

#define VIRTIO_BLK_ID_BYTES 20u

/* The data of DISCARD and WRITE_ZEROES: segments {le64 sector, le32 sectors, le32 flags}. */
#define VIRTIO_BLK_SEGMENT 16u
#define VIRTIO_BLK_SEGMENT_UNMAP 1u

#endif
