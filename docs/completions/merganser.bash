# SPDX-License-Identifier: GPL-2.0-or-later
# made by scripts/manual from the programs' tables; do not edit

_merganser() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    case $before in
    -drive | --drive)
        COMPREPLY=($(compgen -W 'file= if= index= bus= unit= media= id= node-name= format= readonly= auto-read-only= force-share= snapshot= cache= cache.direct= cache.no-flush= cache.writeback= aio= discard= detect-zeroes= werror= rerror= copy-on-read= throttling.LIMIT= file.KEY= backing.KEY=' -- "$word"))
        compopt -o nospace
        return
        ;;
    -device | --device)
        COMPREPLY=($(compgen -W 'ide-cd ide-hd virtio-blk-pci virtio-blk-pci-non-transitional virtio-blk-pci-transitional' -- "$word"))
        return
        ;;
    esac
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W '
            --clock --help --map-cache-size --on-error --qemu-compat --safe --sandbox --seed --sim --tables
            --version -D -L -M -S -accel -acpitable -action -append -async-teardown -audio -audiodev -bios
            -blockdev -boot -c -cdrom -chardev -compat -cpu -d -daemonize -debugcon -device -dfilter -display
            -drive -dtb -echr -enable-kvm -enable-sync-profile -f -fda -fdb -fsdev -full-screen -fw_cfg -gdb
            -global -guest -h -hda -hdb -hdc -hdd -icount -initrd -k -kernel -m -machine -mem-path
            -mem-prealloc -mon -monitor -msg -name -net -netdev -nic -no-acpi -no-fd-bootchk -no-hpet
            -no-reboot -no-shutdown -no-user-config -nodefaults -nographic -numa -object -only-migratable
            -option-rom -overcommit -parallel -pflash -pidfile -portrait -qmp -qmp-pretty -readconfig -rotate
            -rtc -s -serial -singlestep -smbios -smp -snapshot -spice -tpmdev -trace -usb -usbdevice -uuid
            -vga -virtfs -vnc -watchdog-action -win2k-hack
        ' -- "$word"))
    else
        COMPREPLY=($(compgen -f -- "$word"))
        compopt -o filenames
    fi
}

_merganser_img() {
    local word=${COMP_WORDS[COMP_CWORD]} words=''
    if [ "$COMP_CWORD" = 1 ]; then
        COMPREPLY=($(compgen -W 'check compare convert create info map measure rebase resize snapshot --help --version' -- "$word"))
        return
    fi
    case ${COMP_WORDS[1]} in
    check) words='-h --help --object --image-opts -q -f --format --output -r --repair -T -U --force-share' ;;
    compare) words='-h --help --object --image-opts -f --format -F -T -p -q -s -U --force-share' ;;
    convert) words='-h --help --object --image-opts --target-image-opts --target-is-zero --bitmaps --skip-broken-bitmaps -U --force-share -C -c -p -q -n -f -t -T -O -B -F -o -l -S -r -m -W --salvage' ;;
    create) words='-h --help --object -q -f -b -F -u -o' ;;
    info) words='-h --help --object --image-opts -f --format --output --backing-chain -U --force-share' ;;
    map) words='-h --help --object --image-opts -f --format -s --start-offset -l --max-length --output -U --force-share' ;;
    measure) words='-h --help --object --image-opts -f --format -o -O --output --size -l -U --force-share' ;;
    rebase) words='-h --help --object --image-opts -U --force-share -q -f --format -t -T -p -u -b -F' ;;
    resize) words='-h --help --object --image-opts -f --format -q --preallocation --shrink' ;;
    snapshot) words='-h --help --object --image-opts -U --force-share -q -l -a -c -d' ;;
    esac
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "$words" -- "$word"))
    else
        COMPREPLY=($(compgen -f -- "$word"))
        compopt -o filenames
    fi
}

complete -F _merganser merganser
complete -F _merganser_img merganser-img
