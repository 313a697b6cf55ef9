//! Guests as the Red Hat family has them: XFS, and LVM2 where it is usual. Made by mkfs.xfs, the LVM tools and the kernel,
//! sealed by the real program, and judged by xfs_repair, the LVM tools and the kernel. Needs root and loop devices.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail by panic, and tells what it skips"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::tree::{assert_as_reported, changes, planted, tree};
use common::{qemu_img_check, run, small_guest_path, text};
use serde_json::Value;

const MIB: u64 = 1 << 20;
const EL7: &str = "-m crc=1,finobt=0,reflink=0,rmapbt=0,bigtime=0,inobtcount=0 -i sparse=0";
const EL9: &str = "-m finobt=1,reflink=1,rmapbt=0,bigtime=1,inobtcount=1 -i sparse=1";
const CONTEXT: &str = "system_u:object_r:etc_t:s0";

fn cannot_run(test: &str) -> bool {
    let in_ci = std::env::var("CI").as_deref() == Ok("true");
    for tool in ["mkfs.xfs", "xfs_repair", "lvm", "sfdisk", "losetup", "setfattr", "getfattr", "mkswap", "qemu-img"] {
        let found = ["/sbin", "/usr/sbin", "/usr/bin", "/bin", "/usr/local/bin"];
        if !found.iter().any(|folder| Path::new(folder).join(tool).exists()) {
            println!("SKIPPED {test}: {tool} is not installed");
            assert!(!in_ci, "{tool} has to be installed in CI");
            return true;
        }
    }
    let id = Command::new("id").arg("-u").output().unwrap();
    if id.stdout != b"0\n" {
        println!("SKIPPED {test}: it needs root, for loop devices");
        assert!(!in_ci, "root is needed in CI");
        return true;
    }
    false
}

/// A part of a raw disk as a loop device.
struct Loop(String);

impl Loop {
    fn new(disk: &Path, offset: u64, len: u64) -> Self {
        let (offset, len) = (offset.to_string(), len.to_string());
        let out = run("losetup", &["-f", "--show", "-o", &offset, "--sizelimit", &len, text(disk)]);
        Self(String::from_utf8(out.stdout).unwrap().trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

/// A command of LVM2 that sees one device and needs no device mapper.
fn lvm(device: &Loop, args: &[&str]) -> String {
    let config = format!(
        "devices{{ scan=\"/dev\" use_devicesfile=0 global_filter=[\"a|^{}$|\",\"r|.*|\"] obtain_device_list_from_udev=0 \
         external_device_info_source=\"none\" }} activation{{ udev_sync=0 udev_rules=0 }} backup{{ backup=0 archive=0 }}",
        device.0
    );
    let mut command = Command::new("lvm");
    command.arg(args[0]).args(["--driverloaded", "n", "--config", &config]).args(&args[1..]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "lvm {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap()
}

/// Where a logical volume of one piece is on its physical volume, and how long it is, in the words of lvs.
fn place(device: &Loop, name: &str) -> (u64, u64) {
    let bytes = ["--units", "b", "--nosuffix", "--noheadings", "-o"];
    let first = number(&lvm(device, &[&["pvs"], &bytes[..], &["pe_start", &device.0]].concat()));
    let extent = number(&lvm(device, &[&["vgs"], &bytes[..], &["vg_extent_size"]].concat()));
    let ranges = lvm(device, &[&["lvs", "--segments"], &bytes[..], &["seg_pe_ranges", name]].concat());
    let (_, range) = ranges.trim().rsplit_once(':').unwrap();
    let (from, to) = range.split_once('-').unwrap();
    let (from, to) = (number(from), number(to));
    (first + from * extent, (to - from + 1) * extent)
}

/// A guest: its file systems by the place that they have on the raw disk.
struct Layout {
    label: &'static str,
    /// `type=` of sfdisk, MiB, of each partition.
    partitions: &'static [(&'static str, u64)],
    mkfs: &'static str,
    /// Which partition is `/boot`, and which the root or the physical volume that it is on, from 1.
    boot: usize,
    root: usize,
    /// The group on that, if it is a physical volume.
    group: Option<&'static str>,
    os_release: &'static str,
}

const CENTOS_7: Layout = Layout {
    label: "dos",
    partitions: &[("83", 320), ("8e", 480)],
    mkfs: EL7,
    boot: 1,
    root: 2,
    group: Some("centos"),
    os_release: "NAME=\"CentOS Linux\"\nVERSION=\"7 (Core)\"\nID=\"centos\"\nID_LIKE=\"rhel fedora\"\nVERSION_ID=\"7\"\n\
                 PRETTY_NAME=\"CentOS Linux 7 (Core)\"\n",
};

const ROCKY_9: Layout = Layout {
    label: "gpt",
    partitions: &[("U", 16), ("L", 320), ("L", 400)],
    mkfs: EL9,
    boot: 2,
    root: 3,
    group: None,
    os_release: "NAME=\"Rocky Linux\"\nVERSION=\"9.4 (Blue Onyx)\"\nID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n\
                 VERSION_ID=\"9.4\"\nPRETTY_NAME=\"Rocky Linux 9.4 (Blue Onyx)\"\n",
};

impl Layout {
    fn partition(&self, number: usize) -> (u64, u64) {
        let before: u64 = self.partitions[..number - 1].iter().map(|(_, mib)| mib).sum();
        ((1 + before) * MIB, self.partitions[number - 1].1 * MIB)
    }

    /// Where the root file system is on the disk.
    fn root_place(&self, disk: &Path) -> (u64, u64) {
        let (start, len) = self.partition(self.root);
        match self.group {
            None => (start, len),
            Some(group) => {
                let (at, len) = place(&Loop::new(disk, start, len), &format!("{group}/root"));
                (start + at, len)
            }
        }
    }

    /// Makes the disk, with what the guest that ships with the project holds.
    fn make(&self, dir: &Path) -> PathBuf {
        let disk = dir.join("made.raw");
        let total: u64 = self.partitions.iter().map(|(_, mib)| mib).sum();
        std::fs::File::create(&disk).unwrap().set_len((total + 2) * MIB).unwrap();
        let mut script = format!("label: {}\n", self.label);
        for (kind, mib) in self.partitions {
            script.push_str(&format!("size={mib}MiB, type={kind}\n"));
        }
        let list = dir.join("partitions");
        std::fs::write(&list, script).unwrap();
        run("sh", &["-c", &format!("sfdisk -q {} < {}", text(&disk), text(&list))]);
        if let Some(group) = self.group {
            let (start, len) = self.partition(self.root);
            let device = Loop::new(&disk, start, len);
            lvm(&device, &["pvcreate", "-y", "-ff", &device.0]);
            lvm(&device, &["vgcreate", "-s", "4M", group, &device.0]);
            for (name, extents) in [("swap", "16"), ("root", "95")] {
                lvm(&device, &["lvcreate", "-an", "-Zn", "-Wn", "-y", "-l", extents, "-n", name, group]);
            }
            let (at, len) = place(&device, &format!("{group}/swap"));
            drop(device);
            run("mkswap", &[&Loop::new(&disk, start + at, len).0]);
        }
        let source = dir.join("source");
        std::fs::create_dir(&source).unwrap();
        let copied = Command::new(env!("CARGO_BIN_EXE_goldenseal"))
            .args(["copy-out", text(&small_guest_path()), "/", text(&source)])
            .output()
            .unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        // Links on XFS have at most 1023 bytes.
        run("sh", &["-c", &format!("find {} -type l -name 'symbolic-*' -delete", text(&source))]);
        let boot = self.partition(self.boot);
        let root = self.root_place(&disk);
        for (name, (start, len)) in [("boot", boot), ("root", root)] {
            let device = Loop::new(&disk, start, len);
            let options: Vec<&str> = self.mkfs.split_whitespace().collect();
            run("mkfs.xfs", &[&["-q", "-f", "--unsupported"], &options[..], &[&device.0]].concat());
            let uuid = run("blkid", &["-p", "-o", "value", "-s", "UUID", &device.0]);
            let uuid = String::from_utf8(uuid.stdout).unwrap().trim().to_owned();
            std::fs::write(dir.join(format!("{name}.uuid")), &uuid).unwrap();
            mounted(
                &device,
                dir,
                |top| if name == "boot" { fill_boot(top) } else { self.fill_root(top, &source, dir) },
            );
        }
        disk
    }

    fn fill_root(&self, top: &Path, source: &Path, dir: &Path) {
        run("cp", &["-a", &format!("{}/.", text(source)), text(top)]);
        let uuid = |name: &str| std::fs::read_to_string(dir.join(format!("{name}.uuid"))).unwrap();
        let root = match self.group {
            Some(group) => format!("/dev/mapper/{group}-root"),
            None => format!("UUID={}", uuid("root")),
        };
        let swap =
            self.group.map_or(String::new(), |group| format!("/dev/mapper/{group}-swap swap swap defaults 0 0\n"));
        let fstab = format!("{root} / xfs defaults 0 0\nUUID={} /boot xfs defaults 0 0\n{swap}", uuid("boot"));
        let write = |path: &str, contents: &str| {
            let path = top.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let _ = std::fs::remove_file(&path);
            std::fs::write(path, contents).unwrap();
        };
        // It may hold the marks of a secret in its place.
        let _ = std::fs::remove_dir_all(top.join("boot"));
        std::fs::create_dir(top.join("boot")).unwrap();
        write("etc/fstab", &fstab);
        write("etc/os-release", self.os_release);
        write("etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n");
        write(
            "etc/selinux/targeted/contexts/files/file_contexts",
            "/.*\tsystem_u:object_r:default_t:s0\n/etc(/.*)?\tsystem_u:object_r:etc_t:s0\n",
        );
        write("etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\nHWADDR=52:54:00:5e:c2:e7\nBOOTPROTO=dhcp\n");
        write("etc/lvm/backup/centos", "creation_host = \"SECRET-lvm-backup\"\n");
        // As Red Hat's installer labels a system, and with a file that takes many directory blocks beside it.
        let script = format!("find . -print0 | xargs -0 setfattr -h -n security.selinux -v {CONTEXT}");
        std::fs::create_dir_all(top.join("var/cache/yum/many")).unwrap();
        for number in 0..1500 {
            let name = format!("var/cache/yum/many/SECRET-cached-package-{number}.rpm");
            std::fs::write(top.join(name), format!("SECRET-package-{number}")).unwrap();
        }
        assert!(Command::new("sh").arg("-c").arg(script).current_dir(top).status().unwrap().success());
    }
}

fn fill_boot(top: &Path) {
    std::fs::create_dir_all(top.join("grub2")).unwrap();
    std::fs::write(top.join("grub2/grub.cfg"), "linux16 /vmlinuz root=/dev/mapper/centos-root ro\n").unwrap();
    std::fs::write(top.join("vmlinuz"), vec![0x5a; 3 << 20]).unwrap();
    let script = format!("find . -print0 | xargs -0 setfattr -h -n security.selinux -v {CONTEXT}");
    assert!(Command::new("sh").arg("-c").arg(script).current_dir(top).status().unwrap().success());
}

fn mounted<T>(device: &Loop, dir: &Path, action: impl FnOnce(&Path) -> T) -> T {
    let mount = dir.join("mnt");
    std::fs::create_dir_all(&mount).unwrap();
    run("mount", &["-t", "xfs", &device.0, text(&mount)]);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| action(&mount)));
    run("umount", &[text(&mount)]);
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn repair_finds_nothing(disk: &Path, (start, len): (u64, u64), when: &str) {
    let device = Loop::new(disk, start, len);
    let output = Command::new("xfs_repair").args(["-n", &device.0]).output().unwrap();
    let words = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !words.contains("would have"), "{when}: {words}");
}

fn tree_at(disk: &Path, dir: &Path, (start, len): (u64, u64)) -> BTreeMap<Vec<u8>, String> {
    let options = format!("ro,norecovery,nouuid,loop,offset={start},sizelimit={len}");
    tree(disk, &dir.join("mnt"), &options).unwrap()
}

fn goldenseal(args: &[&str]) -> Value {
    let out = Command::new(env!("CARGO_BIN_EXE_goldenseal")).args(args).output().unwrap();
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap_or(Value::Null)
}

fn is_sealed_and_judged(layout: &Layout, more: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let raw = layout.make(dir);
    let image = dir.join("guest.qcow2");
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", text(&raw), text(&image)]);
    let (root, boot) = (layout.root_place(&raw), layout.partition(layout.boot));
    let before = tree_at(&raw, dir, root);
    assert!(planted(&std::fs::read(&raw).unwrap()).len() > 1500);

    let report = goldenseal(&[&["seal", "--json", text(&image)], more].concat());
    assert_eq!(report["committed"], true);
    assert_eq!(report["warnings"].as_array().unwrap().iter().filter(|one| one.to_string().contains("LVM")).count(), 0);
    let types: Vec<_> = report["guest"]["mounts"].as_array().unwrap().iter().map(|mount| &mount["type"]).collect();
    assert_eq!(types, ["xfs", "xfs"]);
    qemu_img_check(&image);
    let sealed = dir.join("sealed.raw");
    run("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", text(&image), text(&sealed)]);
    repair_finds_nothing(&sealed, root, "root after sealing");
    repair_finds_nothing(&sealed, boot, "/boot after sealing");
    assert_as_reported(&before, &tree_at(&sealed, dir, root), &changes(&report));

    // Of what was removed nothing is left, in the disk and in the file.
    let secrets = std::fs::read_to_string(small_guest_path().with_extension("secrets")).unwrap();
    let of_class = |class: &str| -> BTreeSet<Vec<u8>> {
        let lines = secrets.lines().map(|line| line.split('\t').collect::<Vec<_>>());
        lines.filter(|fields| fields.get(2) == Some(&class)).map(|fields| fields[0].as_bytes().to_vec()).collect()
    };
    let left = |found: &BTreeSet<Vec<u8>>| -> Vec<String> {
        let planted = [&b"SECRET-package-"[..], b"SECRET-cached-package", b"SECRET-lvm"];
        let gone = of_class("default");
        let is_left =
            |secret: &&Vec<u8>| gone.contains(*secret) || planted.iter().any(|start| secret.starts_with(start));
        found.iter().filter(is_left).map(|secret| String::from_utf8_lossy(secret).into_owned()).collect()
    };
    let on_disk = planted(&std::fs::read(&sealed).unwrap());
    assert_eq!(left(&on_disk), [""; 0]);
    assert!(of_class("keep").intersection(&on_disk).count() > 5);
    let file = std::fs::read(&image).unwrap();
    assert_eq!(left(&planted(&file)), [""; 0]);

    if let Some(group) = layout.group {
        let (start, len) = layout.partition(layout.root);
        let columns = ["--noheadings", "-o"];
        let ids = |disk: &Path| {
            let device = Loop::new(disk, start, len);
            lvm(&device, &["vgck", group]);
            ["vg_uuid,pv_uuid", "lv_name,lv_uuid,lv_size,seg_pe_ranges"].map(|wanted| {
                let command = if wanted.starts_with("vg") { "pvs" } else { "lvs" };
                lvm(&device, &[&[command], &columns[..], &[wanted]].concat()).replace(&device.0, "")
            })
        };
        let ([old_ids, old_volumes], [new_ids, new_volumes]) = (ids(&raw), ids(&sealed));
        assert_eq!(old_volumes, new_volumes);
        let old: Vec<_> = old_ids.split_whitespace().collect();
        assert!(old.iter().all(|id| id.len() == 38 && !new_ids.contains(id)), "{old_ids} {new_ids}");
        let bytes = String::from_utf8_lossy(&std::fs::read(&sealed).unwrap()).into_owned();
        assert!(old.iter().all(|id| !bytes.contains(id) && !bytes.contains(&id.replace('-', ""))));
    }

    // Sealed means sealed, and audit says so.
    let again = goldenseal(&["seal", "--json", text(&image)]);
    assert_eq!((changes(&again), &again["scrubbed"]["bytes_zeroed"]), (Vec::new(), &Value::from(0)));
    assert!(std::fs::read(&image).unwrap() == file);
    goldenseal(&["audit", "-q", text(&image)]);

    // The kernel goes on from there.
    mounted(&Loop::new(&sealed, root.0, root.1), dir, |top| {
        for number in 0..100 {
            std::fs::write(top.join(format!("srv/new-{number}")), vec![number as u8; 1 << 20]).unwrap();
        }
        std::fs::remove_dir_all(top.join("usr")).unwrap();
    });
    repair_finds_nothing(&sealed, root, "after the kernel wrote on");
}

#[test]
fn a_guest_like_centos_7_is_sealed() {
    if !cannot_run("a_guest_like_centos_7_is_sealed") {
        is_sealed_and_judged(&CENTOS_7, &[]);
    }
}

#[test]
fn a_guest_like_rocky_9_is_sealed() {
    if !cannot_run("a_guest_like_rocky_9_is_sealed") {
        is_sealed_and_judged(&ROCKY_9, &[]);
    }
}

#[test]
fn a_guest_like_rocky_9_gets_new_uuids() {
    if cannot_run("a_guest_like_rocky_9_gets_new_uuids") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let raw = ROCKY_9.make(dir);
    let old = std::fs::read_to_string(dir.join("root.uuid")).unwrap();
    goldenseal(&["seal", "-q", "--enable", "fs-uuids,disk-guids", text(&raw)]);
    for number in [ROCKY_9.boot, ROCKY_9.root] {
        repair_finds_nothing(&raw, ROCKY_9.partition(number), "with another UUID");
    }
    let (start, len) = ROCKY_9.partition(ROCKY_9.root);
    let device = Loop::new(&raw, start, len);
    let uuid = run("blkid", &["-p", "-o", "value", "-s", "UUID", &device.0]);
    let uuid = String::from_utf8(uuid.stdout).unwrap().trim().to_owned();
    assert_ne!(uuid, old);
    let fstab = mounted(&device, dir, |top| std::fs::read_to_string(top.join("etc/fstab")).unwrap());
    assert!(fstab.starts_with(&format!("UUID={uuid} / xfs")), "{fstab}");
}
