/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The tables of devices (see device.h), and how each becomes hardware.
 *
 * An IDLE property is one that QEMU has and that changes nothing here.
 */
#include <errno.h>
#include <string.h>

#include "block/disk.h"
#include "core/mem.h"
#include "hw/device.h"
#include "hw/guest.h"
#include "hw/ide.h"
#include "hw/machine.h"

#define SECTOR 512u
#define VIRTIO_QUEUE_MAX 1024u
#define CHS_CYLINDERS_MAX 65535u

#define ROW(property, type, value, text) \
    { .name = property, .kind = PROPERTY_##type, .fallback = value, .help = text }
#define IDLE(property, type, value) \
    { .name = property, .kind = PROPERTY_##type, .fallback = value, .idle = true }

static const struct device_property virtio_properties[] = {
    IDLE("account-failed", ON_OFF_AUTO, "auto"),
    IDLE("account-invalid", ON_OFF_AUTO, "auto"),
    IDLE("acpi-index", UINT32, "0"),
    IDLE("addr", PCI_ADDRESS, "-1"),
    IDLE("aer", BOOL, "false"),
    IDLE("any_layout", BOOL, "true"),
    IDLE("ats", BOOL, "false"),
    IDLE("backend_defaults", ON_OFF_AUTO, "auto"),
    IDLE("bootindex", INT32, NULL),
    IDLE("class", UINT32, "0"),
    ROW("config-wce", BOOL, "true", "the guest may choose the write cache"),
    IDLE("cyls", UINT32, "0"),
    IDLE("disable-legacy", ON_OFF_AUTO, "auto"),
    IDLE("disable-modern", BOOL, "false"),
    ROW("discard", BOOL, "true", "it offers discards"),
    IDLE("discard_granularity", SIZE, "4294967295"),
    ROW("drive", DRIVE, NULL, "the disk: a drive's id or a node-name"),
    IDLE("event_idx", BOOL, "true"),
    IDLE("failover_pair_id", STR, NULL),
    IDLE("heads", UINT32, "0"),
    IDLE("indirect_desc", BOOL, "true"),
    IDLE("ioeventfd", BOOL, "true"),
    IDLE("iommu_platform", BOOL, "false"),
    IDLE("iothread", IOTHREAD, NULL),
    IDLE("lcyls", UINT32, "0"),
    IDLE("lheads", UINT32, "0"),
    ROW("logical_block_size", BLOCK_SIZE, "0", "bytes of a logical block"),
    IDLE("lsecs", UINT32, "0"),
    IDLE("max-discard-sectors", UINT32, "4194303"),
    IDLE("max-write-zeroes-sectors", UINT32, "4194303"),
    IDLE("migrate-extra", BOOL, "true"),
    ROW("min_io_size", SIZE, "0", "smallest good request, bytes"),
    IDLE("modern-pio-notify", BOOL, "false"),
    IDLE("multifunction", BOOL, "false"),
    IDLE("notify_on_empty", BOOL, "true"),
    ROW("num-queues", UINT16, "4", "queues that it offers"),
    ROW("opt_io_size", SIZE, "0", "best request, bytes"),
    IDLE("packed", BOOL, "false"),
    IDLE("page-per-vq", BOOL, "false"),
    ROW("physical_block_size", BLOCK_SIZE, "0", "bytes of a physical block"),
    ROW("queue-size", UINT16, "256", "entries of a queue, a power of two"),
    IDLE("queue_reset", BOOL, "true"),
    IDLE("report-discard-granularity", BOOL, "true"),
    IDLE("request-merging", BOOL, "true"),
    ROW("rerror", POLICY, "auto", "what a failed read does"),
    IDLE("rombar", UINT32, "1"),
    IDLE("romfile", STR, NULL),
    IDLE("romsize", UINT32, "4294967295"),
    IDLE("scsi", BOOL, "false"),
    IDLE("secs", UINT32, "0"),
    IDLE("seg-max-adjust", BOOL, "true"),
    ROW("serial", STR, NULL, "its serial number"),
    ROW("share-rw", BOOL, "false", "others may write to the disk"),
    IDLE("use-disabled-flag", BOOL, "true"),
    IDLE("use-started", BOOL, "true"),
    IDLE("vectors", UINT32, "4294967295"),
    IDLE("virtio-pci-bus-master-bug-migration", BOOL, "false"),
    ROW("werror", POLICY, "auto", "what a failed write does: report, ignore, enospc, stop"),
    ROW("write-cache", ON_OFF_AUTO, "auto", "writes are stable after a flush only"),
    ROW("write-zeroes", BOOL, "true", "it offers to write zeroes"),
    IDLE("x-ats-page-aligned", BOOL, "true"),
    IDLE("x-disable-legacy-check", BOOL, "false"),
    IDLE("x-disable-pcie", BOOL, "false"),
    IDLE("x-enable-wce-if-config-wce", BOOL, "true"),
    IDLE("x-ignore-backend-features", BOOL, "false"),
    IDLE("x-pcie-deverr-init", BOOL, "true"),
    IDLE("x-pcie-extcap-init", BOOL, "true"),
    IDLE("x-pcie-flr-init", BOOL, "true"),
    IDLE("x-pcie-lnkctl-init", BOOL, "true"),
    IDLE("x-pcie-lnksta-dllla", BOOL, "true"),
    IDLE("x-pcie-pm-init", BOOL, "true"),
    { 0 },
};

static const struct device_property ide_hd_properties[] = {
    IDLE("account-failed", ON_OFF_AUTO, "auto"),
    IDLE("account-invalid", ON_OFF_AUTO, "auto"),
    IDLE("backend_defaults", ON_OFF_AUTO, "auto"),
    IDLE("bios-chs-trans", STR, "auto"),
    IDLE("bootindex", INT32, NULL),
    IDLE("cyls", UINT32, "0"),
    IDLE("discard_granularity", SIZE, "4294967295"),
    ROW("drive", DRIVE, NULL, "the disk: a drive's id or a node-name"),
    IDLE("heads", UINT32, "0"),
    IDLE("lcyls", UINT32, "0"),
    IDLE("lheads", UINT32, "0"),
    ROW("logical_block_size", BLOCK_SIZE, "0", "bytes of a logical block"),
    IDLE("lsecs", UINT32, "0"),
    ROW("min_io_size", SIZE, "0", "smallest good request, bytes"),
    ROW("model", STR, NULL, "what it calls itself"),
    ROW("opt_io_size", SIZE, "0", "best request, bytes"),
    ROW("physical_block_size", BLOCK_SIZE, "0", "bytes of a physical block"),
    ROW("rerror", POLICY, "auto", "what a failed read does"),
    ROW("rotation_rate", UINT16, "0", "turns a minute; 1: it does not turn"),
    IDLE("secs", UINT32, "0"),
    ROW("serial", STR, NULL, "its serial number"),
    ROW("share-rw", BOOL, "false", "others may write to the disk"),
    ROW("unit", UINT32, "4294967295", "its number on the bus"),
    ROW("ver", STR, NULL, "its firmware version"),
    ROW("werror", POLICY, "auto", "what a failed write does: report, ignore, enospc, stop"),
    ROW("write-cache", ON_OFF_AUTO, "auto", "writes are stable after a flush only"),
    ROW("wwn", UINT64, "0", "its world wide name"),
    { 0 },
};

static const struct device_property ide_cd_properties[] = {
    IDLE("account-failed", ON_OFF_AUTO, "auto"),
    IDLE("account-invalid", ON_OFF_AUTO, "auto"),
    IDLE("backend_defaults", ON_OFF_AUTO, "auto"),
    IDLE("bootindex", INT32, NULL),
    IDLE("discard_granularity", SIZE, "4294967295"),
    ROW("drive", DRIVE, NULL, "the disk: a drive's id or a node-name"),
    ROW("logical_block_size", BLOCK_SIZE, "0", "bytes of a logical block"),
    ROW("min_io_size", SIZE, "0", "smallest good request, bytes"),
    ROW("model", STR, NULL, "what it calls itself"),
    ROW("opt_io_size", SIZE, "0", "best request, bytes"),
    ROW("physical_block_size", BLOCK_SIZE, "0", "bytes of a physical block"),
    ROW("rerror", POLICY, "auto", "what a failed read does"),
    ROW("serial", STR, NULL, "its serial number"),
    ROW("share-rw", BOOL, "false", "others may write to the disk"),
    ROW("unit", UINT32, "4294967295", "its number on the bus"),
    ROW("ver", STR, NULL, "its firmware version"),
    ROW("werror", POLICY, "auto", "what a failed write does: report, ignore, enospc, stop"),
    ROW("write-cache", ON_OFF_AUTO, "auto", "writes are stable after a flush only"),
    ROW("wwn", UINT64, "0", "its world wide name"),
    { 0 },
};

/* --- Hardware ------------------------------------------------------------------------------------ */

static const char *text_or_null(const struct device *dev, const char *property)
{
    const char *text = device_text(dev, property);

    return text && *text ? text : NULL;
}

/* The rules for blocks that all disks have. */
static int check_blocks(const struct device *dev, uint32_t *logical, uint32_t *physical, struct error *err)
{
    static const char *const sizes[] = { "min_io_size", "opt_io_size" };

    *logical = device_number(dev, "logical_block_size");
    *physical = device_number(dev, "physical_block_size");
    *logical = *logical ? *logical : SECTOR;
    *physical = *physical ? *physical : SECTOR;
    if (*logical > *physical) {
        error_set(err, "logical_block_size > physical_block_size not supported");
        return -EINVAL;
    }
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        if (device_number(dev, sizes[i]) % *logical) {
            error_set(err, "%s must be a multiple of logical_block_size", sizes[i]);
            return -EINVAL;
        }
    }
    return 0;
}

/* Geometry is of no use to anybody here, but a wrong one is wrong. */
static int check_geometry(const struct device *dev, struct error *err)
{
    uint64_t c = device_number(dev, "cyls"), h = device_number(dev, "heads"), s = device_number(dev, "secs");

    if (!c && !h && !s) {
        return 0;
    }
    if (c < 1 || c > CHS_CYLINDERS_MAX) {
        error_set(err, "cyls must be between 1 and %u", CHS_CYLINDERS_MAX);
    } else if (h < 1 || h > 255) {
        error_set(err, "heads must be between 1 and 255");
    } else if (s < 1 || s > 255) {
        error_set(err, "secs must be between 1 and 255");
    }
    return error_is_set(err) ? -EINVAL : 0;
}

static int identity_of(const struct device *dev, struct device_identity *out, struct error *err)
{
    *out = (struct device_identity){
        .serial = text_or_null(dev, "serial"),
        .model = text_or_null(dev, "model"),
        .version = text_or_null(dev, "ver"),
        .wwn = device_number(dev, "wwn"),
        .rotation_rate = device_number(dev, "rotation_rate"),
        .min_io = device_number(dev, "min_io_size"),
        .opt_io = device_number(dev, "opt_io_size"),
        .no_discard = !device_flag(dev, "discard"),
        .no_write_zeroes = !device_flag(dev, "write-zeroes"),
        .no_config_wce = !device_flag(dev, "config-wce"),
    };
    return check_blocks(dev, &out->logical_block, &out->physical_block, err) < 0 ? -EINVAL
                                                                                : check_geometry(dev, err);
}

static int realize_virtio(struct device *dev, struct error *err)
{
    uint64_t queues = device_number(dev, "num-queues"), size = device_number(dev, "queue-size");
    struct device_identity identity;

    if (identity_of(dev, &identity, err) < 0) {
        return -EINVAL;
    }
    if (!queues) {
        error_set(err, "num-queues property must be larger than 0");
        return -EINVAL;
    }
    if (size <= 2) {
        error_set(err, "invalid queue-size property (%llu), must be > 2", (unsigned long long)size);
        return -EINVAL;
    }
    if (size & (size - 1) || size > VIRTIO_QUEUE_MAX) {
        error_set(err, "invalid queue-size property (%llu), must be a power of 2 (max %u)", (unsigned long long)size,
                  VIRTIO_QUEUE_MAX);
        return -EINVAL;
    }
    if (device_flag(dev, "scsi")) {
        error_set(err, "Please set scsi=off for virtio-blk devices in order to use virtio 1.0");
        return -EINVAL;
    }
    if (queues > VIRTIO_QUEUE_MAX) {
        error_set(err, "num-queues property must not be larger than %u", VIRTIO_QUEUE_MAX);
        return -EINVAL;
    }
    dev->disk->removable = false;
    dev->hardware = virtio_blk_new(dev->disk, queues, size);
    virtio_blk_identify(dev->hardware, &identity);
    dev->guest = guest_new(dev->hardware, &guest_virtio_driver);
    return 0;
}

static bool ide_taken(unsigned channel, unsigned unit)
{
    struct machine_device *hardware;

    TAILQ_FOREACH(hardware, &machine_devices, link) {
        if (!strncmp(hardware->kind->name, "ide-", 4) && hardware->channel == channel && hardware->unit == unit) {
            return true;
        }
    }
    return false;
}

/* Channel and unit from bus=ide.N and unit=; without them the second channel, where QEMU puts them as well, and the
 * first unit that is free. */
static int ide_place(const struct device *dev, unsigned *channel, unsigned *unit, struct error *err)
{
    const char *bus = device_text(dev, "bus");
    bool unit_given = json_object_get(dev->properties, "unit");
    uint64_t wanted = unit_given ? device_number(dev, "unit") : 0;

    *channel = bus ? bus[4] - '0' : 1; /* its name has been checked */
    *unit = wanted;
    if (wanted >= 2 && wanted != UINT32_MAX) {
        error_set(err, "Can't create IDE unit %llu, bus supports only 2 units", (unsigned long long)wanted);
        return -EINVAL;
    }
    if (!unit_given || wanted == UINT32_MAX) {
        *unit = ide_taken(*channel, 0) ? 1 : 0;
    }
    if (ide_taken(*channel, *unit)) {
        error_set(err, "IDE unit %u is in use", *unit);
        return -EBUSY;
    }
    return 0;
}

static int realize_ide_hd(struct device *dev, struct error *err)
{
    struct device_identity identity;
    unsigned channel, unit;

    if (dev->disk->read_only) {
        error_set(err, "Block node is read-only");
        return -EROFS;
    }
    if (identity_of(dev, &identity, err) < 0 || ide_place(dev, &channel, &unit, err) < 0) {
        return -EINVAL;
    }
    if (identity.logical_block != SECTOR) {
        error_set(err, "logical_block_size must be 512 for IDE");
        return -EINVAL;
    }
    dev->hardware = ide_disk_new(dev->disk, channel, unit, err);
    if (!dev->hardware) {
        return -EINVAL;
    }
    dev->disk->removable = false;
    dev->hardware->identity = identity;
    dev->guest = guest_new(dev->hardware, &guest_ide_driver);
    return 0;
}

/* A drive with a tray.  No guest here speaks ATAPI, so it has a place on the bus and a medium for
 * the monitor to change, and no registers. */
static void co_cd_reset(struct machine_device *hardware)
{
}

static void co_cd_remove(struct machine_device *hardware)
{
    machine_remove_device(hardware);
    free(hardware);
}

static const struct device_kind cd_kind = { .name = "ide-cd", .co_reset = co_cd_reset, .co_remove = co_cd_remove };

static int realize_ide_cd(struct device *dev, struct error *err)
{
    struct device_identity identity;
    unsigned channel, unit;

    if (identity_of(dev, &identity, err) < 0 || ide_place(dev, &channel, &unit, err) < 0) {
        return -EINVAL;
    }
    dev->disk->removable = true;
    dev->hardware = mem_zalloc(sizeof(*dev->hardware));
    *dev->hardware = (struct machine_device){
        .kind = &cd_kind, .disk = dev->disk, .channel = channel, .unit = unit, .identity = identity,
    };
    machine_add_device(dev->hardware);
    return 0;
}

/* --- The models ---------------------------------------------------------------------------------- */

const struct device_model device_models[] = {
    { "ide-cd", NULL, "IDE", "virtual IDE CD-ROM", false, ide_cd_properties, realize_ide_cd },
    { "ide-hd", NULL, "IDE", "virtual IDE disk", true, ide_hd_properties, realize_ide_hd },
    { "virtio-blk-pci", "virtio-blk", "PCI", NULL, true, virtio_properties, realize_virtio },
    { "virtio-blk-pci-non-transitional", NULL, "PCI", NULL, true, virtio_properties, realize_virtio },
    { "virtio-blk-pci-transitional", NULL, "PCI", NULL, true, virtio_properties, realize_virtio },
    { 0 },
};

const struct device_model *device_model_find(const char *name)
{
    for (const struct device_model *model = device_models; model->name; model++) {
        if (!strcmp(model->name, name) || (model->alias && !strcmp(model->alias, name))) {
            return model;
        }
    }
    return NULL;
}

/* Names that end in '*' stand for all that begin so. */
static const char *const ignored_models[] = {
    "AC97", "ES1370", "VGA", "ahci", "ati-vga", "bochs-display", "cirrus-vga", "e1000*", "edu", "hda-*",
    "i6300esb", "i82801b11-bridge", "ib700", "ich9-*", "intel-hda", "intel-iommu", "ioh3420", "ipmi-*", "isa-*",
    "ivshmem*", "lsi*", "megasas*", "mptsas1068", "nec-usb-xhci", "ne2k_*", "nvdimm", "pc-dimm", "pc-testdev",
    "pci-bridge*", "pci-serial*", "pci-testdev", "pcie-pci-bridge", "pcie-root-port", "pcnet", "pvpanic*", "pvscsi",
    "pxb*", "qemu-xhci", "qxl*", "ramfb", "rtl8139", "sdhci-pci", "secondary-vga", "smbus-*", "tpm-*", "tulip",
    "usb-*", "vhost-*", "virtconsole", "virtio-9p*", "virtio-balloon*", "virtio-crypto*", "virtio-gpu*",
    "virtio-input-*", "virtio-iommu*", "virtio-keyboard*", "virtio-mem*", "virtio-mouse*", "virtio-net*",
    "virtio-pmem*", "virtio-rng*", "virtio-scsi*", "virtio-serial*", "virtio-tablet*", "virtio-vga*", "virtserialport",
    "vmcoreinfo", "vmgenid", "vmware-svga", "vmxnet3", "x3130-upstream", "xio3130-downstream",
};

bool device_is_ignored(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(ignored_models); i++) {
        size_t len = strcspn(ignored_models[i], "*");

        if (!strncmp(name, ignored_models[i], len) && (ignored_models[i][len] || !name[len])) {
            return true;
        }
    }
    return false;
}
