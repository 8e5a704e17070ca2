/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices as people name them: each row is a tree of properties (' stands for "), as JSON has it or as words do, and the one
 * sentence that it is refused with.  After a refusal nothing is left: no device, no disk, no hardware.
 *
 * There are: nodes "n" (qcow2), "other" (qcow2), "ro" (read-only), "f" (a file); disks "d" (on a node of its own), "readonly"
 * (the guest may not write), "empty" (no medium); iothread "io"; a throttle group "tg".
 */
#include "tests/unit/qcow2-rig.h"

#include "block/blockdev.h"
#include "block/disk.h"
#include "hw/device.h"
#include "hw/machine.h"
#include "hw/object.h"
#include "tests/unit/tree-rows.h"

/* --- The bench ---------------------------------------------------------------------------------- */

static void co_node_add(const char *text)
{
    struct row row = { text, NULL };
    struct error err = ERROR_INIT;
    json_t *tree = tree_of(text);

    co_blockdev_add(tree, false, &err);
    judge(&row, &err);
    json_decref(tree);
}

static void make_object(const char *text)
{
    struct error err = ERROR_INIT;
    json_t *tree = tree_of(text);

    assert_int_equal(object_add(tree, &err), 0);
    json_decref(tree);
}

static void make_image(const char *path)
{
    struct error err = ERROR_INIT;
    json_t *options = json_pack("{s:s}", "size", "1M");

    assert_int_equal(driver_qcow2.co_create(path, options, &err), 0);
    json_decref(options);
}

static struct disk *disks[3];

static void co_bench_begin(void)
{
    io_sim_reset();
    make_image("/a.img");
    make_image("/b.img");
    make_image("/c.img");
    make_image("/d.img");
    make_image("/e.img");
    make_image("/f.img");
    co_node_add("{'driver':'qcow2','node-name':'n','file':{'driver':'file','filename':'/a.img'}}");
    co_node_add("{'driver':'qcow2','node-name':'other','file':{'driver':'file','filename':'/b.img'}}");
    co_node_add("{'driver':'qcow2','node-name':'ro','read-only':true,'file':{'driver':'file','filename':'/c.img'}}");
    co_node_add("{'driver':'file','node-name':'f','filename':'/f.img'}");
    co_node_add("{'driver':'qcow2','node-name':'under','file':{'driver':'file','filename':'/d.img'}}");
    co_node_add("{'driver':'qcow2','node-name':'under2','file':{'driver':'file','filename':'/e.img'}}");
    disks[0] = disk_new("d", node_ref(node_find("under")));
    disks[1] = disk_new("readonly", node_ref(node_find("under2")));
    disks[1]->read_only = true;
    disks[2] = disk_new("empty", NULL);
    make_object("{'qom-type':'iothread','id':'io'}");
    make_object("{'qom-type':'throttle-group','id':'tg'}");
}

static void co_bench_end(void)
{
    struct error err = ERROR_INIT;

    for (size_t i = 0; i < ARRAY_SIZE(disks); i++) {
        co_disk_free(disks[i]);
    }
    objects_end();
    assert_int_equal(co_blockdevs_end(&err), 0);
    assert_true(TAILQ_EMPTY(&all_nodes));
}

static unsigned count_disks(void)
{
    struct disk *disk;
    unsigned n = 0;

    TAILQ_FOREACH(disk, &all_disks, link) {
        n++;
    }
    return n;
}

static void co_remove_all(void)
{
    while (!TAILQ_EMPTY(&all_devices)) {
        struct device *dev = TAILQ_FIRST(&all_devices);

        co_device_remove(dev, dev->own_disk);
    }
    assert_true(TAILQ_EMPTY(&machine_devices));
}

enum given { JSON, WORDS, PLUGGED };

static int co_row(const struct row *row, enum given how)
{
    unsigned before = count_disks();
    struct error err = ERROR_INIT;
    json_t *tree = tree_of(row->tree);
    int ret = how == PLUGGED ? co_device_plug(tree, &err) : co_device_add(tree, how == WORDS, NULL, &err);

    json_decref(tree);
    assert_int_equal(ret < 0, row->text != NULL);
    if (ret < 0) {
        assert_int_equal(count_disks(), before);
    }
    judge(row, &err);
    return ret;
}

/* Each row for itself: the machine is empty before and after. */
static void co_rows(const struct row *rows, size_t n, enum given how)
{
    co_bench_begin();
    for (size_t i = 0; i < n; i++) {
        int ret = co_row(rows + i, how);

        assert_int_equal(TAILQ_EMPTY(&all_devices), ret < 0);
        assert_int_equal(TAILQ_EMPTY(&machine_devices), ret < 0);
        co_remove_all();
    }
    co_bench_end();
}

/* A device that is on its way out takes its disk along, though it is in no list any more. */
static CO_ENTRY void co_leaving(void *arg)
{
    static const struct row taken = { "{'driver':'virtio-blk','drive':'d'}", "Drive 'd' is already in use by another device" };
    struct disk *disk;

    co_bench_begin();
    disk = disk_find("d");
    disk->qdev = mem_strdup("/machine/peripheral/gone/virtio-backend");
    co_row(&taken, PLUGGED);
    co_bench_end();
}

static void the_disk_of_a_leaving_device_is_taken(void **state)
{
    loop_run_co(co_leaving, NULL);
}

/* --- Values by type ------------------------------------------------------------------------------ */

#define V "{'driver':'virtio-blk','drive':'n',"
#define H "{'driver':'ide-hd','drive':'n',"

static const struct row json_rows[] = {
    { V "'share-rw':true,'config-wce':false,'discard':false,'write-zeroes':false}", NULL },
    { V "'share-rw':'on'}", "Invalid parameter type for 'share-rw', expected: boolean" },
    { V "'share-rw':null}", "Invalid parameter type for 'share-rw', expected: boolean" },
    { V "'num-queues':2,'queue-size':1024,'vectors':0}", NULL },
    { V "'num-queues':'2'}", "Parameter 'num-queues' expects uint64" },
    { V "'num-queues':true}", "Parameter 'num-queues' expects uint64" },
    { V "'num-queues':-1}", "Parameter 'num-queues' expects uint16_t" },
    { V "'num-queues':65536}", "Parameter 'num-queues' expects uint16_t" },
    { V "'vectors':4294967296}", "Parameter 'vectors' expects uint32_t" },
    { V "'bootindex':-2147483649}", "Parameter 'bootindex' expects int32_t" },
    { V "'bootindex':-2147483648}", NULL },
    { V "'opt_io_size':1048576,'min_io_size':512}", NULL },
    { V "'opt_io_size':'1M'}", "Parameter 'opt_io_size' expects size" },
    { V "'logical_block_size':4096,'physical_block_size':4096}", NULL },
    { V "'logical_block_size':0,'physical_block_size':0}", NULL },
    { V "'addr':5}", NULL },
    { V "'addr':'1f.7'}", NULL },
    { V "'addr':true}", "Invalid parameter type for 'addr', expected: string" },
    { V "'serial':7}", "Invalid parameter type for 'serial', expected: string" },
    { V "'serial':''}", NULL },
    { V "'write-cache':true}", "Invalid parameter type for 'write-cache', expected: string" },
    { V "'id':7}", "Invalid parameter type for 'id', expected: string" },
    { V "'id':'7up'}", NULL }, /* as QEMU has it: only words are looked at */
    { "{'drive':'n'}", "Parameter 'driver' is missing" },
    { "{'driver':7}", "Invalid parameter type for 'driver', expected: string" },
    { "{'driver':'virtio-blk-device','drive':'n'}", "No 'virtio-bus' bus found for device 'virtio-blk-device'" },
    { "{'driver':'abacus'}", "'abacus' is not a valid device model name" },
    { V "'colour':'red'}", "Property 'virtio-blk-pci.colour' not found" },
};

static const struct row word_rows[] = {
    { V "'share-rw':'on','num-queues':'0x10','opt_io_size':'1M','serial':'abc','id':'disk-1'}", NULL },
    { V "'share-rw':'perhaps'}", "Parameter 'share-rw' expects 'on' or 'off'" },
    { V "'share-rw':{'x':'on'}}", "Parameter 'share-rw' expects 'on' or 'off'" },
    { V "'num-queues':''}", "Parameter 'num-queues' expects integer" },
    { V "'num-queues':'two'}", "Parameter 'num-queues' expects integer" },
    { V "'num-queues':'2x'}", "Parameter 'num-queues' expects integer" },
    { V "'num-queues':{'x':'2'}}", "Parameter 'num-queues' expects integer" },
    { V "'num-queues':'99999999999999999999'}", "Parameter 'num-queues' expects uint16_t" },
    { V "'vectors':'-1'}", "Parameter 'vectors' expects uint32_t" },
    { V "'bootindex':'2147483648'}", "Parameter 'bootindex' expects int32_t" },
    { V "'opt_io_size':'much'}", "Parameter 'opt_io_size' expects size" },
    { V "'opt_io_size':{'x':'1'}}", "Parameter 'opt_io_size' expects size" },
    { V "'logical_block_size':'256'}",
      "Property .logical_block_size doesn't take value 256 (minimum: 512, maximum: 2097152)" },
    { V "'logical_block_size':'4M'}",
      "Property .logical_block_size doesn't take value 4194304 (minimum: 512, maximum: 2097152)" },
    { V "'logical_block_size':'1536'}",
      "Property .logical_block_size doesn't take value '1536', it's not a power of 2" },
    { V "'logical_block_size':'4096'}", "logical_block_size > physical_block_size not supported" },
    { V "'min_io_size':'513'}", "min_io_size must be a multiple of logical_block_size" },
    { V "'opt_io_size':'1000'}", "opt_io_size must be a multiple of logical_block_size" },
    { V "'addr':'4'}", NULL },
    { V "'addr':'4.1'}", NULL },
    { V "'addr':''}", "Property 'virtio-blk-pci.addr' doesn't take value ''" },
    { V "'addr':'x'}", "Property 'virtio-blk-pci.addr' doesn't take value 'x'" },
    { V "'addr':'4.'}", "Property 'virtio-blk-pci.addr' doesn't take value '4.'" },
    { V "'addr':'4.8'}", "Property 'virtio-blk-pci.addr' doesn't take value '4.8'" },
    { V "'addr':'20'}", "Property 'virtio-blk-pci.addr' doesn't take value '20'" },
    { V "'addr':'4.1.1'}", "Property 'virtio-blk-pci.addr' doesn't take value '4.1.1'" },
    { V "'iothread':'io'}", NULL },
    { V "'iothread':''}", NULL },
    { V "'iothread':'nobody'}", "Device 'nobody' not found" },
    { V "'iothread':'tg'}", "Device 'tg' not found" },
    { V "'write-cache':'on'}", NULL },
    { V "'write-cache':'perhaps'}", "Parameter 'write-cache' does not accept value 'perhaps'" },
    { V "'werror':'stop','rerror':'auto'}", NULL },
    { V "'werror':'panic'}", "Parameter 'werror' does not accept value 'panic'" },
    { V "'id':'7up'}", "Parameter 'id' expects an identifier" },
    { V "'bus':'pci.0'}", NULL },
    { V "'bus':'pci.1'}", "Bus 'pci.1' not found" },
    { V "'bus':'ide.0'}", "Device 'virtio-blk-pci' can't go on IDE bus" },
    { H "'bus':'pci.0'}", "Device 'ide-hd' can't go on PCI bus" },
};

/* What a model asks for beyond the types. */
static const struct row model_rows[] = {
    { V "'num-queues':'0'}", "num-queues property must be larger than 0" },
    { V "'num-queues':'1025'}", "num-queues property must not be larger than 1024" },
    { V "'queue-size':'2'}", "invalid queue-size property (2), must be > 2" },
    { V "'queue-size':'100'}", "invalid queue-size property (100), must be a power of 2 (max 1024)" },
    { V "'queue-size':'2048'}", "invalid queue-size property (2048), must be a power of 2 (max 1024)" },
    { V "'scsi':'on'}", "Please set scsi=off for virtio-blk devices in order to use virtio 1.0" },
    { V "'cyls':'16','heads':'16','secs':'63'}", NULL },
    { V "'cyls':'16'}", "heads must be between 1 and 255" },
    { V "'heads':'16'}", "cyls must be between 1 and 65535" },
    { V "'secs':'63'}", "cyls must be between 1 and 65535" },
    { V "'cyls':'65536','heads':'16','secs':'63'}", "cyls must be between 1 and 65535" },
    { V "'cyls':'1','heads':'256','secs':'63'}", "heads must be between 1 and 255" },
    { V "'cyls':'1','heads':'1'}", "secs must be between 1 and 255" },
    { V "'cyls':'1','heads':'1','secs':'256'}", "secs must be between 1 and 255" },
    { H "'serial':'abc','model':'DISK','ver':'2.0','wwn':'0x5000c50015ea71ac','rotation_rate':'1'}", NULL },
    { H "'wwn':'99999999999999999999'}", "Parameter 'wwn' expects integer" },
    { H "'logical_block_size':'4096','physical_block_size':'4096'}", "logical_block_size must be 512 for IDE" },
    { H "'logical_block_size':'4096'}", "logical_block_size > physical_block_size not supported" },
    { H "'unit':'2'}", "Can't create IDE unit 2, bus supports only 2 units" },
    { H "'unit':'1','bus':'ide.1'}", NULL },
    { H "'unit':'4294967295'}", NULL },
    { "{'driver':'ide-hd'}", "No drive specified" },
    { "{'driver':'virtio-blk'}", "drive property not set" },
    { "{'driver':'virtio-blk','drive':''}", "drive property not set" },
    { "{'driver':'virtio-blk','drive':'nobody'}", "Property 'virtio-blk-device.drive' can't find value 'nobody'" },
    { "{'driver':'ide-hd','drive':'nobody'}", "Property 'ide-hd.drive' can't find value 'nobody'" },
    { "{'driver':'virtio-blk','drive':'empty'}", "Device needs media, but drive is empty" },
    { "{'driver':'ide-hd','drive':'readonly'}", "Block node is read-only" },
    { "{'driver':'virtio-blk','drive':'readonly'}", NULL },
    { "{'driver':'virtio-blk','drive':'d','write-cache':'off'}", NULL },
    { "{'driver':'virtio-blk','drive':'f','share-rw':'on'}", NULL },
    { "{'driver':'ide-cd'}", NULL },
    { "{'driver':'ide-cd','id':'cd'}", NULL },
    { "{'driver':'ide-cd','drive':'empty','write-cache':'on','unit':'1'}", NULL },
    { "{'driver':'ide-cd','unit':'7'}", "Can't create IDE unit 7, bus supports only 2 units" },
    { "{'driver':'ide-cd','logical_block_size':'4096'}", "logical_block_size > physical_block_size not supported" },
};

/* device_add, into a machine that is there. */
static const struct row plug_rows[] = {
    { V "'id':'hot'}", NULL },
    { V "'bus':'pci.0'}", NULL },
    { V "'id':'7up'}", "Parameter 'id' expects an identifier" },
    { V "'bus':'usb.0'}", "Bus 'usb.0' not found" },
    { H "'id':'hot'}", "Bus 'ide.1' does not support hotplugging" },
    { H "'bus':'ide.0'}", "Bus 'ide.0' does not support hotplugging" },
    { "{'driver':'abacus'}", "'abacus' is not a valid device model name" },
};

static void CO_ENTRY co_json(void *arg)
{
    co_rows(json_rows, ARRAY_SIZE(json_rows), JSON);
}

static void CO_ENTRY co_words(void *arg)
{
    co_rows(word_rows, ARRAY_SIZE(word_rows), WORDS);
}

static void CO_ENTRY co_models(void *arg)
{
    co_rows(model_rows, ARRAY_SIZE(model_rows), WORDS);
}

static void CO_ENTRY co_plugs(void *arg)
{
    co_rows(plug_rows, ARRAY_SIZE(plug_rows), PLUGGED);
}

static void json_properties_are_checked_by_type(void **state)
{
    loop_run_co(co_json, NULL);
}

static void word_properties_are_checked_by_spelling(void **state)
{
    loop_run_co(co_words, NULL);
}

static void models_say_what_they_want(void **state)
{
    loop_run_co(co_models, NULL);
}

static void only_pci_devices_are_plugged_into_a_running_machine(void **state)
{
    loop_run_co(co_plugs, NULL);
}

/* --- Several at once ----------------------------------------------------------------------------- */

static void co_steps(const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        co_row(rows + i, WORDS);
    }
}

static void CO_ENTRY co_ide_places(void *arg)
{
    static const struct row steps[] = {
        { "{'driver':'ide-cd','id':'a'}", NULL },
        { "{'driver':'ide-cd','id':'a'}", "Duplicate ID 'a' for device" },
        { "{'driver':'ide-cd','unit':'0'}", "IDE unit 0 is in use" },
        { "{'driver':'ide-cd','id':'b'}", NULL },
        { "{'driver':'ide-cd','bus':'ide.1'}", "IDE unit 1 is in use" },
        { "{'driver':'ide-hd','drive':'n','bus':'ide.1','unit':'1'}", "IDE unit 1 is in use" },
        { "{'driver':'ide-cd'}", "IDE unit 1 is in use" },
        { "{'driver':'ide-cd','id':'c','bus':'ide.0'}", NULL },
        { "{'driver':'ide-cd','id':'d','bus':'ide.0'}", NULL },
        { "{'driver':'ide-cd','bus':'ide.0'}", "IDE unit 1 is in use" },
        { "{'driver':'virtio-blk','drive':'n','id':'v'}", NULL },
    };
    static const char order[] = "abcd";

    co_bench_begin();
    co_steps(steps, ARRAY_SIZE(steps));
    for (unsigned i = 0; i < 4; i++) {
        const char id[] = { order[i], 0 };
        struct device *dev = device_find(id);

        assert_non_null(dev);
        assert_int_equal(dev->hardware->channel, i < 2);
        assert_int_equal(dev->hardware->unit, i % 2);
        assert_ptr_equal(device_find_any(dev->path), dev);
    }
    co_machine_reset();
    co_remove_all();
    co_bench_end();
}

static void ide_devices_without_a_bus_stand_on_the_second_channel_until_it_is_full(void **state)
{
    loop_run_co(co_ide_places, NULL);
}

static void CO_ENTRY co_one_disk(void *arg)
{
    static const struct row steps[] = {
        { "{'driver':'virtio-blk','drive':'d','id':'one'}", NULL },
        { "{'driver':'virtio-blk','drive':'d','id':'two'}", "Drive 'd' is already in use by another device" },
        { "{'driver':'virtio-blk','drive':'ro','id':'r1'}", NULL },
        { "{'driver':'virtio-blk','drive':'n','id':'three'}", NULL },
        { "{'driver':'virtio-blk','drive':'n','id':'four'}",
          "Permission conflict on node 'n': permissions 'write' are both required by block device "
          "'/machine/peripheral/three/virtio-backend' (uses node 'n' as 'root' child) and unshared by block device "
          "'/machine/peripheral/four/virtio-backend' (uses node 'n' as 'root' child)." },
        { "{'driver':'ide-hd','drive':'under','id':'five'}",
          "Permission conflict on node 'under': permissions 'write' are both required by block device 'd' (uses node "
          "'under' as 'root' child) and unshared by block device '/machine/peripheral/five' (uses node 'under' as "
          "'root' child)." },
    };

    co_bench_begin();
    co_steps(steps, ARRAY_SIZE(steps));
    assert_int_equal(device_number(device_find("one"), "num-queues"), 4);
    assert_true(device_flag(device_find("one"), "discard"));
    assert_false(device_flag(device_find("one"), "share-rw"));
    assert_string_equal(device_text(device_find("one"), "drive"), "d");
    assert_null(device_text(device_find("one"), "serial"));
    co_remove_all();
    co_bench_end();
}

static void a_disk_has_one_device_that_writes(void **state)
{
    loop_run_co(co_one_disk, NULL);
}

/* [low] <- [over] and [low] <- [beside]: whoever writes to low changes what is seen above it. */
static void CO_ENTRY co_chains(void *arg)
{
    static const struct row below_first[] = {
        { "{'driver':'virtio-blk','drive':'low','id':'below'}", NULL },
        { "{'driver':'virtio-blk','drive':'over','id':'above'}",
          "Permission conflict on node 'low': permissions 'write' are both required by block device "
          "'/machine/peripheral/below/virtio-backend' (uses node 'low' as 'root' child) and unshared by node 'over' (uses node "
          "'low' as 'backing' child)." },
    };
    static const struct row above_first[] = {
        { "{'driver':'virtio-blk','drive':'over','id':'above'}", NULL },
        { "{'driver':'ide-hd','drive':'low','id':'below'}",
          "Permission conflict on node 'low': permissions 'write' are both required by block device '/machine/peripheral/below' "
          "(uses node 'low' as 'root' child) and unshared by node 'over' (uses node 'low' as 'backing' child)." },
        { "{'driver':'virtio-blk','drive':'beside','id':'other'}", NULL },
    };
    static const struct row readers[] = {
        { "{'driver':'virtio-blk','drive':'ro','id':'one'}", NULL },
        { "{'driver':'virtio-blk','drive':'ro','id':'two'}", NULL },
        { "{'driver':'virtio-blk','drive':'rawnode','id':'raw','write-cache':'auto'}", NULL },
        { "{'driver':'virtio-blk','drive':'held','id':'none'}", "Node 'held' is busy: somebody has it" },
    };

    co_bench_begin();
    make_image("/g.img");
    make_image("/h.img");
    make_image("/i.img");
    make_image("/j.img");
    co_node_add("{'driver':'qcow2','node-name':'low','file':{'driver':'file','filename':'/g.img'}}");
    co_node_add("{'driver':'qcow2','node-name':'over','backing':'low','file':{'driver':'file','filename':'/h.img'}}");
    co_node_add("{'driver':'qcow2','node-name':'beside','backing':'low','file':{'driver':'file','filename':'/i.img'}}");
    co_node_add("{'driver':'raw','node-name':'rawnode','file':{'driver':'file','filename':'/j.img'}}");
    io_sim_create("/k.img", 65536);
    co_node_add("{'driver':'raw','node-name':'held','file':{'driver':'file','filename':'/k.img'}}");
    node_find("held")->busy_reason = "somebody has it";
    co_steps(below_first, ARRAY_SIZE(below_first));
    co_remove_all();
    co_steps(above_first, ARRAY_SIZE(above_first));
    co_remove_all();
    co_steps(readers, ARRAY_SIZE(readers));
    co_remove_all();
    node_find("held")->busy_reason = NULL;
    co_bench_end();
}

static void nobody_writes_below_somebody_who_looks(void **state)
{
    loop_run_co(co_chains, NULL);
}

/* What another program does with the file is known when the lock is refused. */
static void CO_ENTRY co_locked(void *arg)
{
    const struct io_sim_fault fault = { .kind = IO_SIM_FAULT_ERROR, .ops = IO_SIM_LOCK, .path = "/f.img", .times = 1 };
    struct row step = { "{'driver':'virtio-blk','drive':'f','id':'x'}", "Failed to lock '/f.img': Input/output error" };

    co_bench_begin();
    io_sim_fault(&fault);
    co_row(&step, WORDS);
    step.text = NULL;
    co_row(&step, WORDS);
    co_remove_all();
    co_bench_end();
}

static void a_file_that_cannot_be_locked_gets_no_device(void **state)
{
    loop_run_co(co_locked, NULL);
}

static void CO_ENTRY co_policies(void *arg)
{
    static const struct {
        const char *word;
        enum disk_policy policy;
    } rows[] = {
        { "report", DISK_REPORT }, { "ignore", DISK_IGNORE }, { "stop", DISK_STOP }, { "enospc", DISK_ENOSPC },
    };

    co_bench_begin();
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        AUTOFREE char *tree = mem_printf(V "'werror':'%s','rerror':'%s','write-cache':'%s','id':'x'}", rows[i].word,
                                         rows[i].word, i & 1 ? "off" : "on");
        struct row row = { tree, NULL };

        co_row(&row, WORDS);
        assert_int_equal(device_find("x")->disk->werror, rows[i].policy);
        assert_int_equal(device_find("x")->disk->rerror, rows[i].policy);
        assert_int_equal(device_find("x")->disk->root->writethrough, i & 1);
        co_remove_all();
    }
    co_bench_end();
}

static void policies_and_the_cache_are_the_devices_to_say(void **state)
{
    loop_run_co(co_policies, NULL);
}

/* --- Going --------------------------------------------------------------------------------------- */

static unsigned gone;

static void on_deleted(const char *id, const char *path)
{
    gone++;
    assert_string_equal(id, "hot");
    assert_string_equal(path, "/machine/peripheral/hot");
}

static void CO_ENTRY co_unplugs(void *arg)
{
    static const struct row hot = { V "'id':'hot'}", NULL }, cold = { "{'driver':'ide-cd','id':'cd'}", NULL };
    struct row busy = { "the second time", "Device hot is already in the process of unplug" };
    struct row ide = { "ide-cd", "Bus 'ide.1' does not support hotplugging" };
    struct error err = ERROR_INIT;

    co_bench_begin();
    device_set_listener(on_deleted);
    co_row(&hot, PLUGGED);
    co_row(&cold, WORDS);
    assert_int_equal(device_unplug(device_find("cd"), &err), -ENOTSUP);
    judge(&ide, &err);
    assert_int_equal(device_unplug(device_find("hot"), &err), 0);
    assert_int_equal(device_unplug(device_find("hot"), &err), -EBUSY);
    judge(&busy, &err);
    /* Nobody looks while the machine stands still; a reset lets go of it. */
    assert_non_null(device_find("hot"));
    co_machine_reset();
    co_devices_settle();
    assert_null(device_find("hot"));
    assert_int_equal(gone, 1);
    /* And the running of it does. */
    co_row(&hot, PLUGGED);
    assert_int_equal(device_unplug(device_find("hot"), &err), 0);
    machine_cont();
    co_devices_settle();
    assert_null(device_find("hot"));
    assert_int_equal(gone, 2);
    co_machine_stop(RUN_PAUSED);
    device_set_listener(NULL);
    co_remove_all();
    co_bench_end();
}

static void an_unplugged_device_goes_at_the_next_reset_or_run(void **state)
{
    loop_run_co(co_unplugs, NULL);
}

/* At once while the machine runs, and with nobody to tell. */
static void CO_ENTRY co_unplugs_at_work(void *arg)
{
    static const struct row first = { V "'id':'hot'}", NULL }, second = { "{'driver':'virtio-blk','drive':'other'}", NULL };
    struct row again = { "again", NULL };
    struct error err = ERROR_INIT;
    struct device *nameless;

    co_bench_begin();
    device_set_listener(NULL);
    machine_cont();
    co_row(&first, PLUGGED);
    co_row(&second, PLUGGED);
    nameless = TAILQ_LAST(&all_devices, device_list);
    assert_null(nameless->id);
    assert_int_equal(device_unplug(device_find("hot"), &err), 0);
    assert_int_equal(device_unplug(nameless, &err), 0); /* while the other one is on its way */
    AUTOFREE char *said = mem_printf("Device %s is already in the process of unplug", nameless->path);

    again.text = said;
    assert_int_equal(device_unplug(nameless, &err), -EBUSY);
    judge(&again, &err);
    co_devices_settle();
    assert_true(TAILQ_EMPTY(&all_devices));
    co_machine_stop(RUN_PAUSED);
    co_bench_end();
}

static void a_running_machine_lets_go_at_once(void **state)
{
    loop_run_co(co_unplugs_at_work, NULL);
}

/* --- Names --------------------------------------------------------------------------------------- */

static void names_of_hardware_that_is_not_here_are_known(void **state)
{
    static const char *const known[] = { "virtio-net-pci", "VGA", "e1000", "e1000e", "usb-tablet", "x3130-upstream" };
    static const char *const unknown[] = { "VGA2", "", "virtio-blk-pci", "e100", "abacus" };

    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        assert_true(device_is_ignored(known[i]));
    }
    for (size_t i = 0; i < ARRAY_SIZE(unknown); i++) {
        assert_false(device_is_ignored(unknown[i]));
    }
}

static int setup(void **state)
{
    int ret = rig_setup(state);

    machine_init(64 << 20);
    return ret;
}

static int teardown(void **state)
{
    machine_fini();
    return rig_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_disk_of_a_leaving_device_is_taken),
        cmocka_unit_test(json_properties_are_checked_by_type),
        cmocka_unit_test(word_properties_are_checked_by_spelling),
        cmocka_unit_test(models_say_what_they_want),
        cmocka_unit_test(only_pci_devices_are_plugged_into_a_running_machine),
        cmocka_unit_test(ide_devices_without_a_bus_stand_on_the_second_channel_until_it_is_full),
        cmocka_unit_test(a_disk_has_one_device_that_writes),
        cmocka_unit_test(nobody_writes_below_somebody_who_looks),
        cmocka_unit_test(a_file_that_cannot_be_locked_gets_no_device),
        cmocka_unit_test(a_running_machine_lets_go_at_once),
        cmocka_unit_test(policies_and_the_cache_are_the_devices_to_say),
        cmocka_unit_test(an_unplugged_device_goes_at_the_next_reset_or_run),
        cmocka_unit_test(names_of_hardware_that_is_not_here_are_known),
    };
    return cmocka_run_group_tests_name("devices", tests, setup, teardown);
}
