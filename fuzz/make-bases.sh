#!/bin/bash
# make-bases.sh - makes bases/: small file systems that targets change as their input says, as compressed qcow2 images,
# and bases/places, which says where in them the structures are: BASE NAME OFFSET..., offsets of blocks or inodes in bytes.
set -euo pipefail
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin" E2FSPROGS_FAKE_TIME=1700000000 E2FSCK_TIME=1700000000 SOURCE_DATE_EPOCH=1700000000
HERE=$(cd "$(dirname "$0")" && pwd); W=$(mktemp -d); trap 'rm -rf "$W"' EXIT
mkdir -p "$HERE/bases"; PLACES=$HERE/bases/places; : > "$PLACES"
export MKE2FS_CONFIG=$W/mke2fs.conf; printf '[defaults]\n[fs_types]\next4 = {\ninode_size = 256\n}\nsmall = {\ninode_size = 256\n}\nfloppy = {\ninode_size = 256\n}\n' > "$MKE2FS_CONFIG"

# ------------------------------------------------------------------ what the files hold
printf 'a text\n' > "$W/text"; : > "$W/empty"; head -c 900 /dev/zero | tr '\0' v > "$W/value"
# Blocks of data with holes between them: 100 extents, or pointers of every depth.
for ((i = 0; i < 100; i++)); do head -c 1024 /dev/zero | tr '\0' d; head -c 1024 /dev/zero; done > "$W/holes"
truncate -s 70M "$W/deep"; for at in 0 20 300 70000; do head -c 1024 /dev/zero | tr '\0' d | dd of="$W/deep" bs=1024 seek=$at conv=notrunc status=none; done

file_system(){ # NAME SIZE FEATURES OPTIONS... : an empty one, with blocks of 1024 bytes
  FS=$W/$1; NAME=$1; truncate -s "$2" "$FS"
  mke2fs -q -F -t ext4 -b 1024 -I 256 -N 256 -m 0 -U 601d5ea1-0000-4000-8000-000000000001 -E hash_seed=601d5ea1-0000-4000-8000-000000000002,nodiscard,lazy_itable_init=1 -O "none,$3" "${@:4}" "$FS"; }
fs(){ { echo 'set_current_time 1700000000'; cat; } > "$W/script"; debugfs -w -f "$W/script" "$FS" > "$W/out" 2>&1; }
fill(){
  local i; { printf '%s\n' 'mkdir directory' 'mkdir hashed' 'mkdir deep' 'cd deep' 'mkdir a' 'cd a' 'mkdir b' 'cd /' "write $W/text text" "write $W/holes extents" "write $W/deep holes" 'symlink fast text' \
    "symlink slow $(printf '/x%.0s' {1..60})" 'mknod fifo p' "write $W/text attributes" 'ea_set attributes user.small value' "ea_set -f $W/value attributes user.large" 'ln text hard' 'sif text links_count 2' 'cd directory'
  for i in one two three four five six; do echo "write $W/empty $i"; done; echo 'rm three'; echo 'cd /hashed'
  for ((i = 0; i < 90; i++)); do echo "write $W/empty entry-$(printf '%040d' $i)"; done; } | fs
  repair -D; }
repair(){ e2fsck -fy "$@" "$FS" > "$W/out" 2>&1 || [ $? = 1 ] || { cat "$W/out" >&2; exit 1; }; e2fsck -fn "$FS" > "$W/out" 2>&1 || { cat "$W/out" >&2; exit 1; }; }
place(){ local p; { printf '%s %s' "$NAME" "$1"; shift; for p; do printf ' %s' "$p"; done; echo; } >> "$PLACES"; }
blocks(){ debugfs -R "blocks $1" "$FS" 2> /dev/null | tr ' ' '\n' | grep . | while read -r b; do echo $((b * 1024)); done; }   # with the tree's own
inode(){ debugfs -R "imap $1" "$FS" 2> /dev/null | sed -n 's/.*located at block \([0-9]*\), offset 0x\([0-9a-f]*\).*/\1 \2/p' | { read -r b o; echo $((b * 1024 + 16#$o)); }; }
tree(){ debugfs -R "ex $1" "$FS" 2> /dev/null | awk '$1 == "0/" && $2 == "1" {print $8 * 1024}'; }                        # blocks of the extent tree
attributes(){ debugfs -R "stat $1" "$FS" 2> /dev/null | sed -n 's/^File ACL: \([0-9]*\).*/\1/p' | { read -r b; echo $((b * 1024)); }; }
places(){
  place directory $(blocks directory); place hashed $(blocks hashed)
  place text $(inode text); place extents $(inode extents); place holes $(inode holes); place attributes $(inode attributes); place value $(attributes attributes); place root $(inode /); }
store(){ qemu-img convert -c -f raw -O qcow2 -o cluster_size=4096 "$FS" "$HERE/bases/$NAME.qcow2"; }

COMMON=ext_attr,dir_index,filetype,sparse_super,large_file
EXT4=$COMMON,extent,64bit,flex_bg,huge_file,dir_nlink,extra_isize
file_system plain 1M "$EXT4"; fill; places; place tree $(tree extents); store
file_system ext2 1M "$COMMON,resize_inode"; fill; places; store
file_system checksums 1M "$EXT4,metadata_csum,metadata_csum_seed"; fill; places; place tree $(tree extents); store
# Inline data and attributes in inodes of their own are only read.
file_system inline 1M "$EXT4,inline_data,ea_inode"; fill; places; store

# A journal with two transactions that are not replayed, of which the second revokes a block of the first.
file_system journal 3M "$EXT4,has_journal,orphan_file" -J size=1; fill; places
target=$(debugfs -R 'bmap directory 0' "$FS" 2> /dev/null); other=$(debugfs -R 'bmap extents 0' "$FS" 2> /dev/null)
dd if="$FS" of="$W/block" bs=1024 skip="$target" count=1 status=none; { cat "$W/block"; head -c 1024 /dev/zero | tr '\0' j; } > "$W/two"
printf 'jo\njw -b %s,%s %s\njc\njo\njw -b %s -r %s %s\njc\n' "$target" "$other" "$W/two" "$target" "$other" "$W/block" | fs
# The commit blocks have the true time, at byte 48; they have no checksum.
for n in 4 8; do at=$(debugfs -R "bmap <8> $n" "$FS" 2> /dev/null); printf '\0\0\0\0\x65\x53\xf1\0\0\0\0\0' | dd of="$FS" bs=1 seek=$((at * 1024 + 48)) conv=notrunc status=none; done
place journal $(blocks '<8>' | head -16); store

# A disk with a guest on it: GPT, and a root with something for many operations.
file_system guest 3M "$EXT4,has_journal" -J size=1 -U 601d5ea1-0000-4000-8000-000000000003
guest(){ # PATH LINE... : a file of the guest, in a folder that is there
  local p=$1 f=$W/guest-${1//\//-}; shift; printf '%s\n' "$@" > "$f"; echo "cd ${p%/*}/"; echo "write $f ${p##*/}"; }
{ for d in dev etc home home/alice home/alice/.ssh root root/.ssh tmp tmp/a usr usr/bin usr/sbin usr/lib usr/lib/systemd var var/log var/log/journal var/log/journal/5ea1ed0123456789abcdef0fedcba987 var/lib var/lib/dbus \
    var/lib/systemd var/mail var/spool var/spool/cron run etc/ssh etc/sysconfig etc/sysconfig/network-scripts etc/NetworkManager etc/NetworkManager/system-connections; do echo "mkdir /$d"; done
  printf '%s\n' 'cd /' 'symlink bin usr/bin' 'symlink lib usr/lib' 'cd /var' 'symlink run /run' 'cd /var/spool' 'symlink mail ../mail' 'cd /var/lib/dbus' 'symlink machine-id /etc/machine-id' 'cd /tmp' 'symlink out /etc' 'mknod pipe p'
  guest /usr/lib/os-release 'ID=goldenseal-example' 'PRETTY_NAME="Goldenseal Example Linux 1"'; printf 'cd /etc\nsymlink os-release ../usr/lib/os-release\n'
  guest /etc/fstab 'UUID=601d5ea1-0000-4000-8000-000000000003 / ext4 defaults 0 1' '/dev/sda9 /mnt ext4 defaults 0 2'; guest /etc/hosts '127.0.0.1 localhost'
  guest /etc/passwd 'root:x:0:0::/root:/bin/sh' 'alice:x:1000:1000::/home/alice:/bin/sh'; guest /etc/shadow 'root:*:1::::::' 'alice:!:1::::::'; guest /etc/group 'root:x:0:' 'sudo:x:27:alice' 'alice:x:1000:'; guest /etc/passwd- old
  guest /etc/machine-id 5ea1ed0123456789abcdef0fedcba987; guest /etc/ssh/ssh_host_rsa_key key; guest /usr/sbin/sshd program; guest /usr/bin/ssh-keygen program; guest /usr/lib/systemd/systemd program
  guest /etc/sysconfig/network-scripts/ifcfg-eth0 DEVICE=eth0 HWADDR=52:54:00:aa:bb:cc HOSTNAME=used; guest /etc/NetworkManager/system-connections/wired '[connection]' id=wired
  guest /var/log/syslog line; guest /var/log/journal/5ea1ed0123456789abcdef0fedcba987/system.journal journal; guest /home/alice/.ssh/authorized_keys key; guest /home/alice/.bash_history ls; guest /root/.ssh/id key
  guest /tmp/a/file x; guest /var/mail/alice mail; guest /var/spool/cron/root cron; guest /etc/hosts.bak old; guest /var/lib/systemd/random-seed seed; } | fs
repair
DISK=$W/disk; truncate -s $((34 * 512 * 2 + 30 * 512 + (3 << 20))) "$DISK"
printf 'label: gpt\nlabel-id: 601D5EA1-0000-4000-8000-000000000010\nfirst-lba: 34\nstart=64, size=6144, uuid=601D5EA1-0000-4000-8000-000000000011\n' | sfdisk -q "$DISK"
dd if="$FS" of="$DISK" bs=512 seek=64 conv=notrunc,sparse status=none; FS=$DISK; store

# The file of an image with extended L2 entries, whose clusters are of 16 KiB at least.
NAME=subclusters FS=$W/subclusters; qemu-img create -q -f qcow2 -o cluster_size=16k,extended_l2=on "$FS" 300k > /dev/null
qemu-io -f qcow2 -c 'write -P 1 0 600' -c 'write -P 2 20k 1k' -c 'write -z 24k 1k' -c 'write -c -P 3 64k 16k' -c 'write -z -u 96k 16k' -c 'write -P 4 200k 9k' "$FS" > /dev/null
truncate -s %1k "$FS"; store

# XFS, by mkfs.xfs from a prototype; its sizes are those of no release, so as to be small.
xfs(){ NAME=$1 FS=$W/$1; truncate -s "$2" "$FS"; mkfs.xfs -q -f --unsupported -b size=1024 -i size=512,sparse=1,nrext64=1 -m uuid=601d5ea1-0000-4000-8000-000000000004,finobt=1,reflink=1,rmapbt=1,bigtime=1,inobtcount=1 "${@:3}" "$FS" 2> /dev/null; }
head -c 9500 /dev/zero | tr '\0' c > "$W/contents"
{ printf '/dummy\n0 0\nd--755 3 4\n'
  for d in few:5 block:20 many:90; do echo "${d%:*} d--755 0 0"; for ((i = 0; i < ${d#*:}; i++)); do echo "$i$(printf 'n%.0s' $(seq $((i % 40)))) ---644 $i 7 $W/contents"; done; echo '$'; done
  printf 'link l--777 0 0 few/0\nfifo p--600 0 0\n$\n'; } > "$W/proto"
xfs xfs 24M -p "$W/proto"; store

# One that was not unmounted, with a log of many small records, a file deleted while it was open, and shared blocks. Needs
# root: without it the one that is there stays.
if [ "$(id -u)" = 0 ]; then
  xfs xfs-log 48M; mkdir "$W/mount"; mount -o loop "$FS" "$W/mount"; trap 'umount "$W/mount" || :; rm -rf "$W"' EXIT
  ( cd "$W/mount"; mkdir few many; for ((i = 0; i < 60; i++)); do cp "$W/contents" "many/file-$i"; done; cp --reflink=always many/file-1 few/shared; ln few/shared few/hard; ln -s "$(printf '/x%.0s' {1..400})" few/link; setfattr -n user.a -v "$(printf 'v%.0s' {1..900})" few/shared || :
    sync -f .; for i in 1 2 3; do rm "many/file-$i" "many/file-$((i * 9))"; mv "many/file-$((i * 11))" "few/moved-$i"; echo "$i" > "few/new-$i"; sync "few/new-$i"; done
    exec 9< many/file-50; rm many/file-50; printf y | dd of=few/shared bs=1 seek=3000 conv=notrunc,fsync status=none; xfs_io -x -c 'shutdown -f' . )
  umount "$W/mount"; trap 'rm -rf "$W"' EXIT; store
fi
