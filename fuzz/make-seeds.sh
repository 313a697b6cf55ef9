#!/bin/bash
# make-seeds.sh - makes the seed corpora that other programs can make: qcow2 images by qemu-img and qemu-io, partition
# tables by sfdisk, superblocks by the mkfs programs that are installed, and structures of bases/. What fuzzing found is beside them and stays.
set -euo pipefail
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin" E2FSPROGS_FAKE_TIME=1700000000 SOURCE_DATE_EPOCH=1700000000
HERE=$(cd "$(dirname "$0")" && pwd); W=$(mktemp -d); trap 'rm -rf "$W"' EXIT
le(){ local value=$1 bytes=$2 out='' i; for ((i = 0; i < bytes; i++)); do out+=$(printf '\\x%02x' $((value >> (8 * i) & 255))); done; printf "$out"; }

# ------------------------------------------------------------------ qcow2_image: 8 bytes of what is written, and the image
image(){ # NAME CHANGES-IN-HEX QEMU-IMG-OPTIONS SIZE COMMAND-OF-QEMU-IO... : an image with clusters of 512 bytes
  local name=$1 changes=$2 options=$3 size=$4 commands=(); shift 4
  qemu-img create -q -f qcow2 -o "cluster_size=512${options:+,$options}" "$W/image" "$size" > /dev/null
  local c; for c; do commands+=(-c "$c"); done
  [ ${#commands[@]} = 0 ] || qemu-io -f qcow2 "${commands[@]}" "$W/image" > /dev/null
  seed "$name" "$changes" "$W/image"; }
seed(){ mkdir -p "$HERE/corpus/qcow2_image"; { printf "$(sed 's/../\\x&/g' <<< "$2")"; cat "$3"; } > "$HERE/corpus/qcow2_image/$1"; }
qcow2(){
  image v3 0500000008000000 '' 40k 'write -P 1 0 3k' 'write -P 2 20k 1k' 'write -z 8k 2k' 'write -z -u 30k 1k'
  image v2 0a00000008000000 compat=0.10 40k 'write -P 1 0 3k' 'write -P 2 39k 1k'
  image refcounts-1-bit 0f10000020000000 refcount_bits=1 64k 'write -P 1 0 2k'
  image refcounts-64-bits 0b10000020000000 refcount_bits=64 64k 'write -P 1 1k 2k'
  image compressed 0700000002000000 '' 32k 'write -c -P 3 0 512' 'write -c -P 4 512 512' 'write -c -P 5 1k 512' 'write -P 6 4k 512'
  image compressed-zstd 0700000002000000 compression_type=zstd 32k 'write -c -P 3 0 512' 'write -c -P 4 512 512'
  image odd-length 0780ff0002000000 '' 33333 'write -P 3 32768 565'
  image empty 0000000000000000 '' 0
  image lazy-refcounts 0900000000000000 lazy_refcounts=on 16k 'write -P 1 0 1k'
  image several-l2 0900100020004000 '' 300k 'write -P 1 0 512' 'write -P 2 60k 512' 'write -P 3 290k 512'
  qemu-img create -q -f qcow2 -o cluster_size=512 "$W/image" 16k; qemu-io -f qcow2 -c 'write -P 1 0 2k' "$W/image" > /dev/null
  qemu-img snapshot -c one "$W/image"; qemu-io -f qcow2 -c 'write -P 2 1k 2k' "$W/image" > /dev/null; qemu-img snapshot -c two "$W/image"; seed snapshots 0900000000000000 "$W/image"
  qemu-img create -q -f qcow2 -o cluster_size=1024 "$W/image" 16k; qemu-img bitmap --add -g 512 "$W/image" b0; qemu-io -f qcow2 -c 'write -P 1 0 2k' "$W/image" > /dev/null; seed bitmap 0900000000000000 "$W/image"
  qemu-img create -q -f qcow2 -o cluster_size=512 -u -b other.qcow2 -F qcow2 "$W/image" 16k; seed backing 0900000000000000 "$W/image"
  image dirty 0900000000000000 lazy_refcounts=on 16k 'write -P 1 0 1k'; printf '\x01' | dd of="$HERE/corpus/qcow2_image/dirty" bs=1 seek=$((8 + 79)) conv=notrunc status=none; }

# ------------------------------------------------------------------ volumes_gpt and volumes_mbr
gpt(){ # NAME FLAGS SCRIPT-FOR-SFDISK : a disk of 264 sectors
  mkdir -p "$HERE/corpus/volumes_gpt"; rm -f "$W/disk"; truncate -s $((264 * 512)) "$W/disk"; printf 'label: gpt\nlabel-id: 601D5EA1-0000-4000-8000-000000000001\nfirst-lba: 34\n%b' "$3" | sfdisk -q --no-tell-kernel "$W/disk" > /dev/null
  { le "$2" 1; le 256 2; dd if="$W/disk" bs=1 skip=520 count=84 status=none; dd if="$W/disk" bs=512 skip=2 count=2 status=none; } > "$HERE/corpus/volumes_gpt/$1"; }
tables(){
  local a='start=40, size=40, uuid=601D5EA1-0000-4000-8000-000000000002, name=root\n' b='start=80, size=100, uuid=601D5EA1-0000-4000-8000-000000000003\n'
  gpt one 0 "$a"; gpt two-and-backup 2 "$a$b"; gpt backup-alone 6 "$a$b"; gpt damaged-primary 14 "$a"; gpt unannounced 16 "$a"; gpt hybrid 34 "$b"; gpt large-sectors 3 "$a"
  mkdir -p "$HERE/corpus/volumes_mbr"; rm -f "$W/disk"; truncate -s 512k "$W/disk"
  printf 'label: dos\nlabel-id: 0x601d5ea1\nstart=2, size=98, type=83, bootable\nstart=100, size=900, type=5\nstart=120, size=80, type=83\nstart=220, size=80, type=82\nstart=320, size=80, type=8e\n' | sfdisk -q "$W/disk" > /dev/null
  { head -c 512 "$W/disk"; local s; for s in 100 $(sfdisk -d "$W/disk" | sed -n 's/.*start= *\([0-9]*\), size= *80.*/\1/p'); do
    for ((e = s; e > 99; e--)); do if [ "$(dd if="$W/disk" bs=1 skip=$((e * 512 + 510)) count=2 status=none | od -An -tx1 | tr -d ' ')" = 55aa ]; then le $e 2; dd if="$W/disk" bs=1 skip=$((e * 512 + 446)) count=66 status=none; break; fi; done; done; } > "$HERE/corpus/volumes_mbr/logical"
  rm -f "$W/disk"; truncate -s 512k "$W/disk"; printf 'label: dos\nlabel-id: 0x601d5ea1\nstart=8, size=300, type=83\nstart=308, size=300, type=8e\n' | sfdisk -q "$W/disk" > /dev/null; head -c 512 "$W/disk" > "$HERE/corpus/volumes_mbr/primary"
  rm -f "$W/disk"; truncate -s 512k "$W/disk"; printf '\xeb\x3c\x90' | dd of="$W/disk" conv=notrunc status=none; printf 'start=0, type=c, bootable' | sfdisk -q --force -X dos "$W/disk" > /dev/null 2>&1 || :; head -c 512 "$W/disk" > "$HERE/corpus/volumes_mbr/covers-itself"; }

# ------------------------------------------------------------------ volumes_lvm2: place and length of the text, and the text
lvm2(){ # NAME PLACE SEGMENT MORE-VOLUMES
  mkdir -p "$HERE/corpus/volumes_lvm2"; { le "$2" 2; le 0 2; cat << EOF
vg { id = "aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa" seqno = 3 format = "lvm2" status = ["RESIZEABLE", "READ", "WRITE"] flags = [] extent_size = 128
physical_volumes { pv0 { id = "abcdef-ghij-klmn-opqr-stuv-wxyz-012345" status = ["ALLOCATABLE"] flags = [] dev_size = 32768 pe_start = 2048 pe_count = 200 } }
logical_volumes { root { id = "bbbbbb-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb" status = ["READ", "WRITE", "VISIBLE"] flags = [] segment_count = 1
segment1 { start_extent = 0 extent_count = 4 $3 } } ${4:-} } }
contents = "Text Format Volume Group"
version = 1
EOF
  } > "$HERE/corpus/volumes_lvm2/$1"; }
lvm2s(){
  local hidden='status = ["READ", "WRITE"] flags = [] segment_count = 1 segment1 { start_extent = 0' one='extent_count = 1 type = "striped" stripe_count = 1'
  lvm2 linear 0 'type = "striped" stripe_count = 1 stripes = ["pv0", 0]'; lvm2 wrapped 7600 'type = "striped" stripe_count = 1 stripes = ["pv0", 0]'
  lvm2 striped 0 'type = "striped" stripe_count = 2 stripe_size = 16 stripes = ["pv0", 0, "pv0", 9]'; lvm2 thin 0 'type = "thin" thin_pool = "pool" device_id = 1'
  lvm2 raid1 0 'type = "raid1" device_count = 2 raids = ["m0", "i0", "m1", "i1"]' "m0 { id = \"cccccc-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb\" $hidden $one stripes = [\"pv0\", 1] } }
i0 { id = \"dddddd-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb\" $hidden $one stripes = [\"pv0\", 2] } } m1 { id = \"eeeeee-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb\" $hidden $one stripes = [\"pv0\", 3] } }
i1 { id = \"ffffff-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb\" $hidden $one stripes = [\"pv0\", 4] } }"; }

# ------------------------------------------------------------------ volumes_probe: 4 bytes of another length, and the volume's start
probe(){ # NAME BYTES LENGTH : the first BYTES of a volume
  mkdir -p "$HERE/corpus/volumes_probe"; { le "$3" 4; head -c "$2" "$W/volume"; } > "$HERE/corpus/volumes_probe/$1"; }
magic(){ # NAME OFFSET BYTES-FOR-PRINTF
  rm -f "$W/volume"; truncate -s $(($2 + 128)) "$W/volume"; printf "$3" | dd of="$W/volume" bs=1 seek="$2" conv=notrunc status=none; probe "$1" $(($2 + 128)) 65536; }
volume(){ rm -f "$W/volume"; truncate -s "$1" "$W/volume"; }
probes(){
  volume 1M; mke2fs -q -F -t ext4 -O ^has_journal -U 601d5ea1-0000-4000-8000-000000000001 -E hash_seed=601d5ea1-0000-4000-8000-000000000002 -L seed "$W/volume"; probe ext4 2048 1048576
  volume 1M; mke2fs -q -F -t ext2 -U 601d5ea1-0000-4000-8000-000000000001 -E hash_seed=601d5ea1-0000-4000-8000-000000000002 "$W/volume"; probe ext2 2048 1048576
  volume 1M; mkswap -q -U 601d5ea1-0000-4000-8000-000000000001 -L seed "$W/volume" 2> /dev/null; probe swap 4096 1048575
  volume 1M; ! command -v mkfs.vfat > /dev/null || { mkfs.vfat -i 601D5EA1 "$W/volume" > /dev/null; probe vfat 1024 1048576; }
  volume 17M; ! command -v mkfs.xfs > /dev/null || mkfs.xfs -q -f "$W/volume" 2> /dev/null || :; magic xfs 0 XFSB
  magic luks2 0 'LUKS\xba\xbe\x00\x02'; magic luks1 0 'LUKS\xba\xbe\x00\x01'; magic lvm2 512 'LABELONE\x01\0\0\0\0\0\0\0\0\0\0\0\x20\0\0\0LVM2 001'; magic squashfs 0 hsqs
  magic f2fs 1024 '\x10\x20\xf5\xf2'; magic raid 4096 '\xfc\x4e\x2b\xa9'; magic ntfs 3 'NTFS    '; magic exfat 3 'EXFAT   '; magic suspended 4086 'S1SUSPEND\0'; magic hfs 1024 'H+\0\x04'; magic erofs 1024 '\xe2\xe1\xf5\xe0'; }

# ------------------------------------------------------------------ ext4_*: structures of the bases as they are, and what is done
bytes(){ dd if="$W/base" bs=1 skip="$1" count="$2" status=none; }
places_of(){ sed -n "s/^$1 $2 //p" "$HERE/bases/places"; }
actions(){ printf "$(sed 's/../\\x&/g' <<< "$1")"; }
ext4_seed(){ mkdir -p "$HERE/corpus/ext4_$1"; cat > "$HERE/corpus/ext4_$1/$2"; }
blocks_of(){ local p; for p in $(places_of "$1" "$2"); do bytes "$p" 1024; done; }
ext4(){
  local n=0 base at
  for base in plain ext2 checksums inline journal; do
    qemu-img convert -O raw "$HERE/bases/$base.qcow2" "$W/base"
    { le $n 1; bytes 1024 2048; actions 00850145070500000000100c; } | ext4_seed superblock $base
    { le $n 1; le 0 1; actions 0085014503010c000f00; } | ext4_seed image $base-nothing
    { le $n 1; le 2 1; le 5 1; le 40 2; le 3 1; actions 01020304; le 20 1; le 7 2; le 0 1; actions ff; actions 0040014102420702000000000010080100040000090506000a030b410c000d010e330f00; } | ext4_seed image $base
    { le $((n * 2)) 1; le 1024 2; blocks_of $base directory; actions 00450046014702480e21; } | ext4_seed directory $base-linear
    [ $base = inline ] || [ $base = journal ] || { le $((n * 2 + 1)) 1; le 1024 2; blocks_of $base hashed; actions 00a000a100a200a305830602; } | ext4_seed directory $base-hashed
    for which in 0 1; do at=$(places_of $base "$([ $which = 0 ] && echo extents || echo holes)")
      { le $((n * 2 + which)) 1; bytes $((at + 32)) 4; bytes $((at + 4)) 4; bytes $((at + 40)) 60; le 1024 2; blocks_of $base tree; if [ $which = 0 ]; then actions 070100100000001007010090000000100801000800000b01; else actions 070200001100001008020000300003; fi; } | ext4_seed extents $base-$which; done
    at=$(places_of $base attributes); { le $n 1; le 128 2; le 1024 2; bytes $((at + 128)) 128; blocks_of $base value; actions 09030a0319030303; } | ext4_seed attributes $base
    n=$((n + 1)); done
  { le 1024 2; for at in $(places_of journal journal | cut -d' ' -f1-9); do bytes "$at" 1024; done; } | ext4_seed journal two-transactions
  { le 256 2; for at in $(places_of journal journal | cut -d' ' -f1-9); do bytes "$at" 256; done; actions 000c; } | ext4_seed journal starts-of-blocks
}

# ------------------------------------------------------------------ guest_files and guest_seal
put(){ printf "\\x$(printf %02x "$1")\\x$(printf %02x "$2")"; printf "$3"; printf '\xff'; }  # FILE KIND CONTENTS, see PATHS in src/seal.rs
guests(){
  mkdir -p "$HERE/corpus/guest_files" "$HERE/corpus/guest_seal"; local c=$HERE/corpus/guest_files passwd='root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nben:x:1001:1001::/srv/ben:/bin/sh\n'
  { put 0 3 "$passwd"; put 1 3 'root:*:1::::::\nann:!:1::::::\n'; put 2 3 'root:x:0:\nsudo:x:27:ann,ben\nann:x:1000:\n'; put 3 3 'ann:!::\nsudo:*::ann\n'; put 4 3 'ann:100000:65536\n'; put 5 3 'UID_MIN 500\n#x\nUID_MAX\t60000\n'; put 19 3 key; put 20 3 ls; } > "$c/accounts"
  { put 7 3 '5ea1ed0123456789abcdef0fedcba987\n'; put 8 0 /etc/machine-id; put 34 3 'linux /v systemd.machine_id=5ea1ed0123456789abcdef0fedcba987\n'; } > "$c/machine-id-link"
  { put 7 3 'uninitialized\n'; put 8 3 '5ea1ed0123456789abcdef0fedcba987\n'; } > "$c/machine-id-copy"
  { put 6 3 'ID="a"\nPRETTY_NAME='"'"'b c'"'"'\nID_LIKE="debian rhel"\n'; put 9 3 'DEVICE=eth0\nHWADDR=a\nHOSTNAME=b\n HWADDR=c'; put 10 3 '[connection]\nid=wired\n'; } > "$c/network"
  { put 12 3 sshd; put 13 3 keygen; put 14 3 systemd; put 11 3 '[Service]\nExecStartPre=ssh-keygen -A\n'; put 16 3 key; } > "$c/ssh-own-way"
  { put 12 3 sshd; put 13 3 keygen; put 14 3 systemd; put 11 3 '[Service]\n'; put 16 3 key; put 35 3 'ssh_deletekeys: true\n'; } > "$c/ssh-unit-needed"
  { put 25 0 ../mail; put 26 3 mail; put 28 0 /run; put 29 3 utmp; put 30 0 /etc; put 32 0 tmp; put 22 0 ../../etc; put 18 0 /; put 0 3 "$passwd"; } > "$c/links"
  { put 24 3 j; put 23 3 l; put 27 3 '00042\n'; put 31 3 t; put 33 3 b; put 36 3 d; put 39 3 p; put 38 0 /dev/null; } > "$c/files"
  { put 23 3 l; put 2 2 '/var/{log,spool}/[!a-r]*'; put 2 2 '/*/../e?c/{a,{b,c}}/**'; put 2 2 '~/.ssh/\\*'; } > "$c/patterns"
  c=$HERE/corpus/guest_seal
  { le 0 1; le 0 1; le 0 1; } > "$c/defaults"; { le 1 1; le 0 1; le 0 1; } > "$c/all"
  { le 0 1; le 2 1; le 9 1; le 40 2; le 3 1; actions 01020304; le 30 1; le 7 2; le 0 1; actions ff; le 1 1; le 0 1; le 36 2; le 3 1; actions 00000002; } > "$c/changes"; }

# ------------------------------------------------------------------ qcow2_differential, qcow2_operations, qcow2_repair and qcow2_subclusters: from qcow2_image's
images(){
  local from=$HERE/corpus/qcow2_image name; mkdir -p "$HERE"/corpus/qcow2_{differential,operations,repair,subclusters}
  for name in v3 v2 compressed compressed-zstd snapshots bitmap refcounts-1-bit odd-length several-l2 dirty; do
    { le 48 1; actions 0803004001110000010a00220b00000005001002000004330400002003000705009000440600000000000f1000000855; tail -c +9 "$from/$name"; } > "$HERE/corpus/qcow2_differential/$name"; done
  for name in v3 v2 compressed snapshots bitmap refcounts-1-bit odd-length several-l2; do
    { le 14 1; actions 00000a0500000800010003000000; tail -c +9 "$from/$name"; } > "$HERE/corpus/qcow2_operations/$name-snapshots"
    { le 14 1; actions 0a050008000004500b0700000400; tail -c +9 "$from/$name"; } > "$HERE/corpus/qcow2_operations/$name-lengths"; done
  for name in v3 bitmap; do { le 14 1; actions 05030503090108000a0507010601; tail -c +9 "$from/$name"; } > "$HERE/corpus/qcow2_operations/$name-bitmaps"; done
  for name in v3 v2 compressed snapshots dirty bitmap; do tail -c +9 "$from/$name" > "$HERE/corpus/qcow2_repair/$name"; done
  # Refcounts of zeros, and no refcounts at all; qemu-img puts the first refcount block into the third cluster.
  tail -c +9 "$from/v3" > "$HERE/corpus/qcow2_repair/refcounts-of-zeros"; head -c 512 /dev/zero | dd of="$HERE/corpus/qcow2_repair/refcounts-of-zeros" bs=512 seek=2 conv=notrunc status=none
  tail -c +9 "$from/v3" > "$HERE/corpus/qcow2_repair/no-refcount-table"; head -c 512 /dev/zero | dd of="$HERE/corpus/qcow2_repair/no-refcount-table" bs=512 seek=1 conv=notrunc status=none
  { actions 0500000008000000; le 0 1; } > "$HERE/corpus/qcow2_subclusters/nothing"
  { actions 0b00700020100000; le 2 1; le 3 1; le 24 2; le 7 1; actions 00000000ffff0000; le 5 1; le 0 2; le 3 1; actions 80000000; } > "$HERE/corpus/qcow2_subclusters/changes"; }

qcow2; tables; lvm2s; probes; ext4; guests; images
