#!/bin/bash
# make-small-guest.sh - makes small-guest.qcow2, a small used Linux guest, and small-guest.secrets, the list of what is
# planted in it. Needs no root: bash, coreutils, grep, gzip, e2fsprogs (1.47), sfdisk and qemu-img. Every run makes the same.
#
#   Usage: make-small-guest.sh [FOLDER]      where the two files go (default: the folder of this script)
set -euo pipefail
export LC_ALL=C TZ=UTC PATH="$PATH:/usr/sbin:/sbin"
umask 022
OUT=${1:-$(cd "$(dirname "$0")" && pwd)}
NOW=1700000000
# The e2fsprogs ask for the time in a different way each, and from 1.47.1 on in one way.
export E2FSPROGS_FAKE_TIME=$NOW E2FSCK_TIME=$NOW SOURCE_DATE_EPOCH=$NOW
W=$(mktemp -d); trap 'rm -rf "$W"' EXIT
export MKE2FS_CONFIG=$W/mke2fs.conf; printf '[defaults]\n[fs_types]\next4 = {\ninode_size = 256\n}\nsmall = {\ninode_size = 256\n}\n' > "$MKE2FS_CONFIG"   # not the distribution's
FS=$W/root.ext4; DISK=$W/disk.raw; STAGE=$W/stage; SECRETS=$W/secrets
mkdir "$STAGE"; : > "$SECRETS"
uuid(){ printf '601d5ea1-0000-4000-8000-%012x' "$1"; }

# ------------------------------------------------------------------ what the guest is made of
# A file is staged once for each path; the scripts for debugfs are made from these lists.
PATHS=(); KINDS=(); declare -A INDEX; ATTRIBUTES=$W/attributes; : > "$ATTRIBUTES"
add(){ # KIND PATH : a path of the guest, with its parents before it
  [ -z "${INDEX[$2]:-}" ] || return 0
  local parent=${2%/*}; [ -z "$parent" ] || add dir "$parent"
  PATHS+=("$2"); KINDS+=("$1"); INDEX[$2]=${#PATHS[@]}; }
dir(){ local p; for p; do add dir "$p"; done; }
append(){ add file "$1"; cat >> "$STAGE/${INDEX[$1]}"; }                    # PATH : more of a file, from stdin (no pipe: a subshell's lists are lost)
file(){ local p=$1; shift; append "$p" < <(printf '%s\n' "$@"); }           # PATH LINE...
empty(){ append "$1" < /dev/null; }
link(){ add "link $1" "$2"; }                                               # TARGET PATH
node(){ add "node $1" "$2"; }                                               # "p" or "c MAJOR MINOR", PATH
attribute(){ printf '%s\n' "$1" >> "$ATTRIBUTES"; }                         # a command for debugfs
mode(){ attribute "sif \"$2\" mode $1"; }                                   # MODE (with the file type, as in st_mode) PATH
owner(){ attribute "sif \"$3\" uid $1"; attribute "sif \"$3\" gid $2"; }    # UID GID PATH
modified(){ attribute "sif \"$2\" mtime @$1"; }                             # SECONDS PATH
private(){ local p; for p; do mode 0100600 "$p"; done; }

# ------------------------------------------------------------------ secrets
# A line of the list: SECRET <tab> OP <tab> CLASS <tab> PATH. README.md says what the classes are.
secret(){ # OP PATH -> a string that is unique, and the same in every run
  local h op=$1; [ "$op" != - ] || op=beyond; h=$(printf '%s' "$1:$2" | md5sum)
  printf 'SECRET-%s-%s-%s-%s-%s-%s' "$op" "${h:0:8}" "${h:8:4}" "${h:12:4}" "${h:16:4}" "${h:20:12}"; }
register(){ printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" >> "$SECRETS"; }  # SECRET OP CLASS PATH
plant(){ # CLASS OP PATH [TEXT] : TEXT (@S@ stands for the secret; without it the secret is a line of its own)
  local s t=${4:-$'data of '"$3"$'\n@S@'}; s=$(secret "$2" "$3${5:-}"); [[ $t == *@S@* ]] || t+=$'\n@S@'
  file "$3" "${t//@S@/$s}"; register "$s" "$2" "$1" "$3"; }
each(){ local c=$1 o=$2 p; shift 2; for p; do plant "$c" "$o" "$p"; done; } # CLASS OP PATH...
key(){ # CLASS OP PATH : what looks like a private key and is none
  plant "$1" "$2" "$3" $'-----BEGIN EXAMPLE PRIVATE KEY-----\nbm90IGEga2V5IGF0IGFsbCwganVzdCBhIHRleHQ\n@S@\n-----END EXAMPLE PRIVATE KEY-----'
  private "$3"; }
pad(){ printf '%s' "$1"; head -c $(($2 - ${#1})) /dev/zero; }               # TEXT LENGTH : a field filled up with zeros
login_record(){ # USER HOST : one record of wtmp
  printf '\x07\0\0\0\xd2\x04\0\0'; pad pts/0 32; pad ts/0 4; pad "$1" 32; pad "$2" 256
  head -c 8 /dev/zero; printf '\0\xf1\x53\x65'; head -c 44 /dev/zero; }

# ------------------------------------------------------------------ the system itself
MACHINE=5ea1ed0123456789abcdef0fedcba987; HOST=used-host-17
system(){
  dir /boot /dev /etc /home /media /mnt /opt /proc /root /run /run/lock /srv /sys /tmp /usr/bin /usr/lib /usr/sbin /usr/local/bin /var/lib /var/log /var/tmp
  link usr/bin /bin; link usr/sbin /sbin; link usr/lib /lib; link /run /var/run; link /run/lock /var/lock
  mode 040700 /root; mode 041777 /tmp; mode 041777 /var/tmp; modified 1500000000 /usr/bin
  file /usr/lib/os-release 'NAME="Goldenseal Example Linux"' 'ID=goldenseal-example' 'ID_LIKE=debian' 'VERSION_ID="1"' \
    'VERSION="1"' 'PRETTY_NAME="Goldenseal Example Linux 1"' 'HOME_URL="https://example.com/"'
  link ../usr/lib/os-release /etc/os-release
  file /etc/fstab '# <file system> <mount point> <type> <options> <dump> <pass>' "UUID=$(uuid 1) / ext4 errors=remount-ro 0 1" \
    'proc /proc proc defaults 0 0' '/dev/sr0 /media cdrom noauto 0 0'
  file /etc/hostname $HOST
  file /etc/hosts $'127.0.0.1\tlocalhost' $'127.0.1.1\t'"$HOST.example.com $HOST" $'::1\tlocalhost ip6-localhost'
  file /etc/login.defs '# numbers of ordinary accounts' $'UID_MIN\t\t\t 1000' $'UID_MAX\t\t\t60000' $'GID_MIN\t\t\t 1000' $'ENCRYPT_METHOD YESCRYPT'
  file /etc/shells /bin/sh /bin/bash /usr/bin/zsh
  local p; for p in bash ls env login passwd ssh ssh-keygen zsh; do file /usr/bin/$p "a placeholder for the program $p"; mode 0100755 /usr/bin/$p; done
  link bash /usr/bin/sh
  for p in sshd useradd cron; do file /usr/sbin/$p "a placeholder for the program $p"; mode 0100755 /usr/sbin/$p; done
  file /usr/lib/systemd/systemd 'a placeholder for the first process'; mode 0100755 /usr/lib/systemd/systemd
  link ../lib/systemd/systemd /usr/sbin/init; mode 0104755 /usr/bin/passwd
  file /usr/lib/systemd/system/ssh.service '[Unit]' 'Description=A secure shell server of the example' 'After=network.target' '' \
    '[Service]' 'ExecStart=/usr/sbin/sshd -D' 'Type=exec' '' '[Install]' 'WantedBy=multi-user.target' 'Alias=sshd.service'
  link /usr/lib/systemd/system/ssh.service /etc/systemd/system/multi-user.target.wants/ssh.service
  link /usr/lib/systemd/system/ssh.service /etc/systemd/system/sshd.service
  file /etc/ssh/sshd_config 'PermitRootLogin no' 'PasswordAuthentication no'
  file /boot/grub/grub.cfg "linux /boot/vmlinuz root=UUID=$(uuid 1) ro quiet"
  file /etc/machine-id $MACHINE; mode 0100444 /etc/machine-id; register $MACHINE machine-id default /etc/machine-id
  link /etc/machine-id /var/lib/dbus/machine-id
}

accounts(){
  file /etc/passwd 'root:x:0:0:root:/root:/bin/bash' 'daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin' 'mail:x:8:8:mail:/var/mail:/usr/sbin/nologin' \
    'www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin' 'sshd:x:100:65534::/run/sshd:/usr/sbin/nologin' 'nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin'
  plant optional user-account /etc/passwd 'alice:x:1000:1000:Alice @S@,,,:/home/alice:/bin/bash'
  file /etc/passwd 'bob:x:1001:1001::/srv/bob:/usr/bin/zsh'
  plant keep control /etc/shadow 'root:$y$j9T$@S@:19675:0:99999:7:::'
  file /etc/shadow 'daemon:*:19675:0:99999:7:::' 'mail:*:19675:0:99999:7:::' 'www-data:*:19675:0:99999:7:::' 'sshd:!:19675::::::' 'nobody:*:19675:0:99999:7:::'
  plant optional user-account /etc/shadow 'alice:$y$j9T$@S@:19675:0:99999:7:::'
  file /etc/shadow 'bob:!:19675:0:99999:7:::'
  file /etc/group 'root:x:0:' 'daemon:x:1:' 'adm:x:4:alice' 'mail:x:8:' 'sudo:x:27:alice,bob' 'www-data:x:33:' 'shadow:x:42:' 'utmp:x:43:' 'users:x:100:' 'nogroup:x:65534:' 'alice:x:1000:' 'bob:x:1001:'
  file /etc/gshadow 'root:*::' 'daemon:*::' 'adm:*::alice' 'mail:*::' 'sudo:*::alice,bob' 'www-data:*::' 'shadow:*::' 'utmp:*::' 'users:*::' 'nogroup:*::' 'alice:!::' 'bob:!::'
  file /etc/subuid 'alice:100000:65536' 'bob:165536:65536'; file /etc/subgid 'alice:100000:65536' 'bob:165536:65536'
  mode 0100640 /etc/shadow; owner 0 42 /etc/shadow; mode 0100640 /etc/gshadow; owner 0 42 /etc/gshadow
  local p; for p in passwd group subuid subgid; do plant default passwd-backups /etc/$p- 'x-@S@:x:0:'; done
  for p in shadow gshadow; do plant default passwd-backups /etc/$p- 'x-@S@:*:0:'; mode 0100640 /etc/$p-; owner 0 42 /etc/$p-; done
  plant keep control /root/notes.txt; plant optional user-account /home/alice/document.txt; plant optional user-account /srv/bob/plan.txt
  plant optional user-account '/home/alice/essay.txt~'
  local home
  for home in /root /home/alice /srv/bob; do
    local class=default; [ $home != /srv/bob ] || class=beyond
    plant $class bash-history $home/.bash_history $'ls\nmysql -p@S@'; plant $class zsh-history $home/.zsh_history ': 1700000000:0;export TOKEN=@S@'
    plant $class ssh-userdir $home/.ssh/authorized_keys 'ssh-ed25519 AAAA@S@ someone@example.com'; plant $class ssh-userdir $home/.ssh/known_hosts '192.0.2.9 ssh-ed25519 @S@'
    plant $class ssh-userdir $home/.ssh/deep/er/config 'Host @S@'; key $class ssh-userdir $home/.ssh/id_ed25519
    mode 040700 $home/.ssh; private $home/.bash_history $home/.zsh_history $home/.ssh/authorized_keys; done
  each beyond - /root/.lesshst /root/.python_history /home/alice/.viminfo /root/.aws/credentials /root/.gnupg/private-keys-v1.d/k.key /home/alice/.docker/config.json
}

# ------------------------------------------------------------------ its use: something for every operation
identity(){
  local t; for t in rsa ecdsa ed25519; do key default ssh-hostkeys /etc/ssh/ssh_host_${t}_key
    plant default ssh-hostkeys /etc/ssh/ssh_host_${t}_key.pub "ssh-$t AAAA@S@ root@$HOST"; done
  plant default ssh-hostkeys /etc/ssh/ssh_host_ed25519_key-cert.pub
  append /var/lib/systemd/random-seed < <(head -c 512 /dev/zero | tr '\0' R); plant beyond random-seed /var/lib/systemd/random-seed '@S@'
  plant beyond random-seed /var/lib/urandom/random-seed; private /var/lib/systemd/random-seed /var/lib/urandom/random-seed
  plant default net-nmconn /etc/NetworkManager/system-connections/eth0.nmconnection $'[connection]\nid=eth0\ntype=ethernet\n[ethernet]\nmac-address=52:54:00:AA:BB:CC\n#@S@\n[ipv4]\nmethod=auto'
  plant default net-nmconn '/etc/NetworkManager/system-connections/My Wifi.nmconnection' $'[connection]\nid=My Wifi\ntype=wifi\n[wifi-security]\npsk=@S@'
  plant beyond net-nmconn '/etc/NetworkManager/system-connections/Wired connection 1' $'[connection]\nid=Wired connection 1\ntype=ethernet\n[802-1x]\npassword=@S@'
  plant keep net-nmconn /etc/NetworkManager/system-connections/README 'No profile. @S@'
  private '/etc/NetworkManager/system-connections/My Wifi.nmconnection' /etc/NetworkManager/system-connections/eth0.nmconnection
  local ifcfg=/etc/sysconfig/network-scripts
  plant default net-hwaddr $ifcfg/ifcfg-eth0 $'TYPE=Ethernet\nDEVICE=eth0\nHWADDR=52:54:00:aa:bb:cc-@S@'
  plant keep net-hwaddr $ifcfg/ifcfg-eth0 $'BOOTPROTO=dhcp\n#HWADDR=@S@\nONBOOT=yes' ' kept'
  plant default net-hostname $ifcfg/ifcfg-eth1 $'DEVICE="eth1"\nHOSTNAME=@S@'
  plant default net-hostname $ifcfg/ifcfg-eth1 $'DHCP_HOSTNAME="@S@"' ' dhcp'
  plant default net-hwaddr $ifcfg/ifcfg-eth1 $'HWADDR="52:54:00:aa:bb:cd" # @S@'
  plant keep net-hostname $ifcfg/ifcfg-eth1 $' HOSTNAME=@S@\nONBOOT=no' ' indented'
  file $ifcfg/ifcfg-lo DEVICE=lo IPADDR=127.0.0.1
  plant beyond - /etc/sysconfig/network $'NETWORKING=yes\nHOSTNAME=@S@'
  plant default udev-persistent-net /etc/udev/rules.d/70-persistent-net.rules 'SUBSYSTEM=="net", ATTR{address}=="52:54:00:aa:bb:cc", NAME="eth0" # @S@'
  plant keep control /etc/udev/rules.d/99-local.rules '# @S@'
  plant default dhcp-client-state /var/lib/dhcp/dhclient.eth0.leases $'lease {\n  fixed-address 192.0.2.77; # @S@\n}'; plant default dhcp-client-state /var/lib/dhclient/dhclient-eth0.lease
  each default dhcp-client-state /var/lib/dhclient/nested/lease; plant default dhcp-server-state /var/lib/dhcpd/dhcpd.leases
  each beyond - /var/lib/NetworkManager/secret_key /var/lib/NetworkManager/internal-eth0.lease /etc/resolv.conf /etc/iscsi/initiatorname.iscsi /var/lib/systemd/credential.secret
  plant default lvm-system-devices /etc/lvm/devices/system.devices 'IDTYPE=sys_wwid IDNAME=@S@ DEVNAME=/dev/sda2'
  each beyond - /etc/lvm/backup/vg0 /var/lib/cloud/data/instance-id /var/lib/cloud/instances/i-0abc/user-data.txt; link /var/lib/cloud/instances/i-0abc /var/lib/cloud/instance
}

logs(){
  local p log=/var/log
  # Those that one of virt-sysprep's patterns matches, and then some that none does.
  for p in messages messages.1 messages-20240101 secure maillog cron syslog syslog.1 auth.log auth.log.1 daemon.log kern.log mail.log user.log debug boot.log dmesg dmesg.old \
     faillog tallylog spooler xferlog ntp grubby firewalld btmp-20240101 zypper.log dpkg.log alternatives.log cloud-init.log cloud-init-output.log Xorg.0.log openvpn.log \
     audit/audit.log apache2/access_log apache2/other_log-2024 httpd/access_log BackupPC/LOG ConsoleKit/history anaconda.syslog anaconda/syslog apt/history.log aptitude ceph/c.log chrony/tracking.log \
     cups/access_log exim4/mainlog gdm/:0.log glusterfs/x-glusterd.vol.log glusterfs/glusterfs.log installer/syslog installer/cdebconf/questions.dat jetty/jetty-console.log \
     libvirt/libvirtd.log libvirt/libxl/x.log libvirt/lxc/x.log libvirt/qemu/vm.log libvirt/uml/x.log lightdm/lightdm.log mail/statistics ntpstats/loopstats ppp/connect-errors \
     rhsm/rhsm.log sa/sa01 setroubleshoot/x.log squid/access.log tuned/tuned.log journal/$MACHINE/user-1000.journal
  do plant default logfiles $log/$p "Nov 14 22:13:20 $HOST daemon[1]: a line of $p"$'\n@S@'; done
  for p in /root/anaconda-ks.cfg /root/anaconda-post.log /root/initial-setup-ks.cfg /root/install.log /root/install.log.syslog /root/original-ks.cfg \
     /etc/Pegasus/a.cnf /etc/Pegasus/a.crt /etc/Pegasus/a.csr /etc/Pegasus/a.pem /etc/Pegasus/a.srl /var/cache/fontconfig/x /var/cache/gdm/x /var/cache/man/index.db /var/lib/AccountService/users/alice \
     /var/lib/fprint/alice/finger /var/lib/logrotate.status /var/named/data/named.run
  do plant default logfiles $p; done
  plant beyond logfiles /var/lib/AccountsService/users/alice; plant keep logfiles /etc/Pegasus/keep.conf
  for p in nginx/access.log postgresql/server.log unattended-upgrades/u.log myapp/app.txt puppetlabs-not/x; do plant beyond - $log/$p; done
  # A journal of systemd is a sparse, preallocated binary file.
  local journal=$log/journal/$MACHINE/system.journal; append $journal < <(printf LPKSHHRH); plant default logfiles $journal; truncate -s 8M "$STAGE/${INDEX[$journal]}"
  # Rotated and compressed; the secret is in the clear behind the stream, for nobody to have to inflate it.
  local s; for p in syslog.2.gz messages-20240101.gz auth.log.2.gz dpkg.log.1.gz kern.log.3.gz; do s=$(secret logfiles $log/$p)
    append $log/$p < <(echo 'a rotated log' | gzip -n; printf '%s' "$s"); register "$s" logfiles default $log/$p; done
  for p in wtmp btmp; do s=$(secret logfiles $log/$p); append $log/$p < <(login_record reboot 6.1; login_record alice "$s"); register "$s" logfiles default $log/$p
    mode 0100660 $log/$p; owner 0 43 $log/$p; done
  s=$(secret logfiles $log/lastlog); append $log/lastlog < <(head -c $((292 * 1000)) /dev/zero; printf '\0\xf1\x53\x65'; pad pts/0 32; pad "$s" 256); register "$s" logfiles default $log/lastlog
  for p in utmp; do s=$(secret utmp /run/$p); append /run/$p < <(login_record alice "$s"); register "$s" utmp default /run/$p; done
  plant default pacct-log /var/account/pacct; each default pacct-log /var/account/pacct-20240101.gz /var/log/account/pacct /var/log/account/pacct.1.gz
}

spools(){
  each default cron-spool /var/spool/cron/crontabs/root /var/spool/cron/crontabs/alice /var/spool/cron/root /var/spool/cron/tabs/bob /var/spool/cron/atjobs/a00001019b3c5f /var/spool/cron/atspool/x \
    /var/spool/at/a0000201 /var/spool/at/spool/y /var/spool/atjobs/a3 /var/spool/atspool/z
  file /var/spool/cron/atjobs/.SEQ 00042; file /var/spool/at/.SEQ 0002a; file /var/spool/atjobs/.SEQ 00001
  plant keep control /etc/crontab '# @S@'; plant keep control /etc/cron.d/job '# @S@'; private /var/spool/cron/crontabs/root /var/spool/cron/crontabs/alice
  dir /var/mail /var/spool; link ../mail /var/spool/mail; mode 042775 /var/mail; owner 0 8 /var/mail
  plant default mail-spool /var/mail/alice $'From root@used-host-17 Tue Nov 14 22:13:20 2023\nSubject: hello\n\n@S@'; plant default mail-spool /var/mail/root; plant default mail-spool /var/mail/folder/1
  mode 0100660 /var/mail/alice; owner 1000 8 /var/mail/alice; plant beyond - /var/spool/postfix/deferred/A/A1B2C3
}

backups(){
  local p; for p in '/etc/ssh/sshd_config~' /etc/hosts.bak '/root/notes~' /root/dir/old.bak /srv/site.bak '/srv/bob/todo~' '/var/lib/foo/state~' '/etc/.hidden~' /etc/.bak '/root/#autosave#~'; do plant default backup-files "$p"; done
  for p in /usr/share/foo/x.bak '/opt/app/y~' '/root/adir~/inside' /etc/dir.bak.d/inside /etc/backup.baker; do plant keep backup-files "$p"; done
  link keep-me.conf '/etc/link.bak'
}

services(){
  each default abrt-data /var/spool/abrt/ccpp-1/coredump /var/spool/abrt/last-ccpp; each default crash-data /var/crash/127.0.0.1-2023/vmcore /var/log/dump/1/dump
  each default blkid-tab /etc/blkid.tab /etc/blkid.tab.old /etc/blkid/blkid.tab /etc/blkid/blkid.tab.old /run/blkid.tab /run/blkid.tab.old /dev/.blkid.tab
  plant default dovecot-data /var/lib/dovecot/ssl-parameters.dat; plant keep dovecot-data /var/lib/dovecot/instances/x
  each default ipa-client /etc/ipa/ca.crt /etc/ipa/default.conf /var/lib/ipa-client/sysrestore/x /var/lib/ipa-client/pki/k /usr/local/share/ca-certificates/ipa-ca.crt
  plant default kerberos-hostkeytab /etc/krb5.keytab; each optional kerberos-data /var/kerberos/krb5kdc/principal; plant beyond - /var/kerberos/krb5kdc/.k5.EXAMPLE.COM; plant keep kerberos-data /var/kerberos/krb5kdc/kadm5.acl
  each default pam-data /run/console/alice /run/faillock/alice /run/sepermit/alice
  each default puppet-data-log /var/log/puppet/puppet.log /var/lib/puppet/ssl/private.pem /var/lib/puppet/state/graphs/x.dot; each beyond puppet-data-log /etc/puppetlabs/puppet/ssl/private_keys/host.pem /opt/puppetlabs/puppet/cache/state/last.yaml
  each default rh-subscription-manager /etc/pki/consumer/key.pem /etc/pki/entitlement/1-key.pem; each default rhn-systemid /etc/sysconfig/rhn/systemid /etc/sysconfig/rhn/osad-auth.conf
  plant default rpm-db /var/lib/rpm/__db.001; plant keep rpm-db /var/lib/rpm/Packages
  each default samba-db-log /var/log/samba/log.smbd /var/log/samba/old/log.nmbd /var/lib/samba/account_policy.tdb /var/lib/samba/private/secrets.tdb; plant beyond - /var/lib/samba/private/tls/key.pem
  each default smolt-uuid /etc/sysconfig/hw-uuid /etc/smolt/uuid /etc/smolt/hw-uuid
  each default sssd-db-log /var/log/sssd/sssd.log /var/lib/sss/db/cache_example.com.ldb /var/lib/sss/db/ccache_EXAMPLE; each beyond - /var/lib/sss/mc/passwd /var/lib/sss/secrets/secrets.ldb
  plant default yum-uuid /var/lib/yum/uuid
  each optional firewall-rules /etc/sysconfig/iptables /etc/firewalld/zones/public.xml /etc/firewalld/services/x.xml; plant beyond - /etc/nftables.conf
  each optional ca-certificates /etc/pki/CA/certs/x.crt /etc/pki/CA/crl/x.crt /etc/pki/CA/newcerts/x.crt /etc/pki/CA/private/x.key /etc/pki/tls/private/x.key /etc/pki/tls/certs/x.crt; plant keep ca-certificates /etc/pki/tls/certs/ca-bundle.crt
  each default package-manager-cache /var/cache/apt/archives/hello_2.10-3_amd64.deb /var/cache/apt/archives/partial/p.deb /var/cache/apt/archives/lock
  each beyond package-manager-cache /var/cache/dnf/base/repomd.xml /var/cache/yum/x86_64/7/base/primary.sqlite /var/cache/zypp/packages/p.rpm; plant keep control /var/lib/apt/lists/list
  each keep control /etc/keep-me.conf /usr/local/share/keep /var/lib/keep/data /opt/keep/data
}

temporary(){
  local p; for p in /tmp/file /tmp/.hidden /tmp/d1/d2/d3/x '/tmp/with space' '/tmp/scratch~' /var/tmp/file /var/tmp/systemd-private-1/tmp/x /var/tmp/.font-unix/y; do plant default tmp-files "$p"; done
  node p /tmp/fifo; node 'c 1 3' /tmp/dev; node p /tmp/sock; mode 0140755 /tmp/sock
  link /etc/passwd /tmp/link-to-passwd; link /home/alice /tmp/dir-link; link /nonexistent /var/tmp/dangling; link ../../../../etc /tmp/d1/up
}

# ------------------------------------------------------------------ files of every shape, under /opt/shapes
shapes(){
  local D=/opt/shapes i n p
  for ((i = 0; i < 720; i++)); do n=$(printf '%060d' 0); empty "$D/htree/entry-$(printf %04d $i)-${n:0:$((i * 7 % 50))}"; done
  for p in $'caf\xe9-latin1' $'\xff\xfe\x80' $'tab\there' -dash "quote'" ' lead' 'trail ' 'back\slash' '*?[glob]' $'e\xcc\x81' $'\xc3\xa9' $'n\xc3\xbc\xe6\xbc\xa2\xf0\x9f\x98\x80' \
    "$(printf 'L%.0s' {1..255})"; do file "$D/names/$p" "named $p"; done
  p=$D/sparse/island; add file $p; truncate -s 64M "$STAGE/${INDEX[$p]}"; printf island | dd of="$STAGE/${INDEX[$p]}" bs=1M seek=40 conv=notrunc status=none
  p=$D/sparse/all-hole; add file $p; truncate -s 123456789 "$STAGE/${INDEX[$p]}"
  # 700 extents of one block each: more than fit in one block of an extent tree.
  p=$D/sparse/many-extents; add file $p
  for ((i = 0; i < 700; i++)); do printf 'block %04d\n' $i; head -c 4085 /dev/zero | tr '\0' .; head -c 4096 /dev/zero; done >> "$STAGE/${INDEX[$p]}"
  file $D/sparse/preallocated 'the rest is allocated and not written'; attribute "fallocate $D/sparse/preallocated 1 20"
  append $D/large/text < <(for ((i = 0; i < 9000; i++)); do echo "line $i of an ordinary text"; done)
  file $D/links/target target; for i in 1 2 3 4 5; do add "hard $D/links/target" $D/links/hard$i; done; attribute "sif $D/links/target links_count 6"
  for n in 1 59 60 61 200 1023 4095; do link "$(head -c $n /dev/zero | tr '\0' s)" $D/links/symbolic-$n; done
  link target $D/links/relative; link loop $D/links/loop; link $'\xff\xfe' $D/links/bytes; link ../../../../../../etc/keep-me.conf $D/links/up
  file $D/xattr/label labelled; printf 'system_u:object_r:etc_t:s0\0' > "$W/label"; attribute "ea_set -f $W/label $D/xattr/label security.selinux"
  file $D/xattr/user user; attribute "ea_set $D/xattr/user user.small value"; attribute "ea_set $D/xattr/user user.empty \"\""
  head -c 1500 /dev/zero | tr '\0' v > "$W/big"; for i in 1 2; do file $D/xattr/big$i big; attribute "ea_set -f $W/big $D/xattr/big$i user.big"; done
  # An ACL as xattr(7) shows it: version 2; owner rw-, user 1000 rw-, group r--, group 27 r--, mask rw-, others r--.
  printf '\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x06\0\xe8\x03\0\0\x04\0\x04\0\xff\xff\xff\xff\x08\0\x04\0\x1b\0\0\0\x10\0\x06\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff' > "$W/acl"
  file $D/xattr/acl acl; attribute "ea_set -f $W/acl $D/xattr/acl system.posix_acl_access"; mode 0100664 $D/xattr/acl
  dir $D/xattr/directory; attribute "ea_set -f $W/acl $D/xattr/directory system.posix_acl_access"; attribute "ea_set -f $W/acl $D/xattr/directory system.posix_acl_default"; mode 040764 $D/xattr/directory
  p=$D/deep; for i in {01..30}; do p+=/level-$i; done; file $p/bottom deep
  for i in 0 1 59 60 61 128 160 4095 4096 4097; do append $D/sizes/$i < <(head -c $i /dev/zero | tr '\0' i); done
  file $D/times/before-1970 x; attribute "sif $D/times/before-1970 mtime_lo 0xc4653600"
  for n in 0 2147483647 2147483648 4102444800 4294967295 4294967296 15032385535; do file $D/times/$n x; modified $n $D/times/$n; done
  file $D/owners/large x; owner 70000 4000000000 $D/owners/large; file $D/owners/setuid x; mode 0106755 $D/owners/setuid; file $D/owners/none x; mode 0100000 $D/owners/none
}

# ------------------------------------------------------------------ leftovers: what a plain delete leaves behind
forgotten(){ local s; s=$(secret scrub "$1"); register "$s" scrub default -; FORGOTTEN=$s; }  # KEY -> FORGOTTEN
leftovers(){ # prints the commands for debugfs
  local i s t removed=()
  echo 'cd /var/lib/keep'
  # Behind the end of a file that stays.
  forgotten 'behind the end'; { echo 'a file that was longer'; head -c 2000 /dev/zero | tr '\0' -; echo "$FORGOTTEN"; } > "$W/longer"
  printf 'write %s shorter\nsif shorter size 23\n' "$W/longer"
  for i in 1 2 3 4; do forgotten "contents $i"; { echo "removed file $i"; head -c $((i * 3000)) /dev/zero | tr '\0' -; echo "$FORGOTTEN"; } > "$W/gone$i"
    echo "write $W/gone$i gone$i"; removed+=("gone$i"); done
  forgotten name; echo "write /dev/null $FORGOTTEN"; removed+=("$FORGOTTEN")
  forgotten 'fast link'; echo "symlink link $FORGOTTEN"; removed+=(link)                       # in the inode itself
  forgotten 'slow link'; s=$FORGOTTEN; echo "symlink long-link $s$(printf '/x%.0s' {1..40})"; removed+=(long-link)
  forgotten 'xattr in an inode'; echo 'write /dev/null attribute'; echo "ea_set attribute user.x $FORGOTTEN"; removed+=(attribute)
  forgotten 'xattr in a block'; { printf '%s' "$FORGOTTEN"; head -c 1000 /dev/zero | tr '\0' x; } > "$W/block"
  echo 'write /dev/null attributes'; echo "ea_set -f $W/block attributes user.x"; removed+=(attributes)
  # A directory, with names in its block.
  forgotten 'name in a directory'; printf 'mkdir gone\ncd gone\nwrite /dev/null %s\nrm %s\ncd ..\n' "$FORGOTTEN" "$FORGOTTEN"
  # All are removed only when all are there, or a later one would take the place of an earlier one.
  for t in "${removed[@]}"; do echo "rm $t"; done; echo 'rmdir gone'
  # Names in leaves of a hashed directory, which are not in its index any more.
  echo 'cd /opt/shapes/htree'
  for i in 1 2 3; do forgotten "name in a hashed directory $i"; echo "write /dev/null $FORGOTTEN"; echo "rm $FORGOTTEN"; done
}

# ------------------------------------------------------------------ the file system
fs(){ debugfs -w -f "$1" "$FS" > "$W/out" 2>&1; grep -vE '^debugfs( [0-9]|: )|^Allocated inode:|^Current time|^Setting current time|^$' "$W/out" > "$W/complaints" || :
  ! [ -s "$W/complaints" ] || { cat "$W/complaints" >&2; exit 1; }; }
block_of(){ debugfs -R "bmap $1 $2" "$FS" 2>/dev/null; }                     # FILE BLOCK
populate(){
  local i p name; { echo "set_current_time $NOW"
  for i in "${!PATHS[@]}"; do p=${PATHS[i]}; name=${p##*/}; echo "cd \"${p%/*}/\""
    case ${KINDS[i]} in
      dir) echo "mkdir \"$name\"";;
      file) echo "write \"$STAGE/${INDEX[$p]}\" \"$name\"";;
      'link '*) echo "symlink \"$name\" \"${KINDS[i]#link }\"";;
      'hard '*) echo "ln \"${KINDS[i]#hard }\" \"$name\"";;
      'node '*) echo "mknod \"$name\" ${KINDS[i]#node }";;
    esac; done
  # What is in a home belongs to its owner.
  for p in "${PATHS[@]}"; do case $p/ in /home/alice/*) owner_now 1000 "$p";; /srv/bob/*) owner_now 1001 "$p";; esac; done
  cat "$ATTRIBUTES"; } > "$W/populate"
  fs "$W/populate"; }
owner_now(){ printf 'sif "%s" uid %s\nsif "%s" gid %s\n' "$2" "$1" "$2" "$1"; }
forget(){ { echo "set_current_time $NOW"; leftovers; } > "$W/leftovers"; fs "$W/leftovers"; }

# In a block that is set aside for a file and was never written.
set_aside(){
  local b; b=$(block_of /opt/shapes/sparse/preallocated 9); b=${b%% *}; forgotten 'set aside'
  { echo 'what the block held before'; echo "$FORGOTTEN"; } | dd of="$FS" bs=4096 seek="$b" conv=notrunc status=none; }

# A transaction in the journal, replayed, whose contents are then overwritten: the journal alone still has them.
old_journal(){
  local b; forgotten journal; b=$(block_of /opt/shapes/large/text 3)
  dd if="$FS" of="$W/before" bs=4096 skip="$b" count=1 status=none; { echo "journalled $FORGOTTEN"; head -c 4096 /dev/zero | tr '\0' j; } | head -c 4096 > "$W/journalled"
  printf 'set_current_time %s\njo\njw -b %s %s\njc\njr\n' $NOW "$b" "$W/journalled" > "$W/journal"; fs "$W/journal"
  dd if="$W/before" of="$FS" bs=4096 seek="$b" conv=notrunc status=none
  # The commit block has the true time, at byte 48; it has no checksum.
  local n commit; for n in 1 2 3 4; do commit=$(block_of '<8>' $n)
    [ "$(dd if="$FS" bs=4096 skip="$commit" count=1 status=none | head -c 8 | od -An -tx1 | tr -d ' \n')" != c03b399800000002 ] || \
      { printf '\0\0\0\0\x65\x53\xf1\0\0\0\0\0' | dd of="$FS" bs=1 seek=$((commit * 4096 + 48)) conv=notrunc status=none; return; }; done
  echo 'the commit block is not where it was' >&2; exit 1; }

repair(){ e2fsck -fy "$@" "$FS" > "$W/fsck" 2>&1 || [ $? = 1 ] || { cat "$W/fsck" >&2; exit 1; }; }
file_system(){
  truncate -s $((SECTORS * 512)) "$FS"
  # The features that version 1.47 has by default, said here because distributions change that, and the block size of larger disks.
  mke2fs -q -F -t ext4 -b 4096 -I 256 -N 16384 -J size=4 -L rootfs -U "$(uuid 1)" -E "hash_seed=$(uuid 2),nodiscard,lazy_itable_init=1" \
    -O none,has_journal,ext_attr,resize_inode,dir_index,orphan_file,filetype,extent,64bit,flex_bg,metadata_csum_seed,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum "$FS"
  populate
  repair -D          # gives large directories their index, and the socket its type in the directory
  forget; repair     # debugfs does not free a block of attributes
  old_journal; set_aside
  printf 'set_current_time %s\nssv wtime @%s\nssv lastcheck @%s\nssv mkfs_time @%s\nssv kbytes_written 4096\n' $NOW $NOW $NOW $NOW > "$W/last"; fs "$W/last"
  e2fsck -fn "$FS" > "$W/fsck" 2>&1 || { cat "$W/fsck" >&2; exit 1; }; }

# ------------------------------------------------------------------ the disk
DISK_SECTORS=$((256 * 2048)); START=4096; SECTORS=$((DISK_SECTORS - START - 2048))
disk(){
  truncate -s $((DISK_SECTORS * 512)) "$DISK"
  printf '%s\n' 'label: gpt' "label-id: $(uuid 10)" "start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649, uuid=$(uuid 11), name=bios" \
    "start=$START, size=$SECTORS, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=$(uuid 12), name=root" | sfdisk -q "$DISK"
  dd if="$FS" of="$DISK" bs=1M seek=$((START / 2048)) conv=notrunc,sparse status=none; }

check(){ # every secret is on the disk, and none is part of another
  cut -f1 "$SECRETS" > "$W/patterns"; [ "$(sort -u "$W/patterns" | wc -l)" = "$(wc -l < "$W/patterns")" ] || { echo 'a secret is planted twice' >&2; exit 1; }
  local s; while read -r s; do [ "$(grep -cF -- "$s" "$W/patterns")" = 1 ] || { echo "$s is part of another secret" >&2; exit 1; }; done < "$W/patterns"
  grep -aoFf "$W/patterns" "$DISK" | sort -u > "$W/found"; sort "$W/patterns" | comm -23 - "$W/found" > "$W/missing"
  [ ! -s "$W/missing" ] || { echo 'not on the disk:' >&2; grep -Ff "$W/missing" "$SECRETS" >&2; exit 1; }; }

system; accounts; identity; logs; spools; backups; services; temporary; shapes
file_system; disk; check
qemu-img convert -c -O qcow2 -o compression_type=zlib "$DISK" "$W/small-guest.qcow2"
sort -t$'\t' -k3,3 -k2,2 -k4,4 -k1,1 "$SECRETS" > "$W/small-guest.secrets"
mv "$W/small-guest.qcow2" "$W/small-guest.secrets" "$OUT/"
