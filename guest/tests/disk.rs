//! Guests on disks that sfdisk, mke2fs and mkfs.vfat made, opened, changed, and judged by e2fsck and debugfs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skipped"
)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use block::{Memory, WriteAt, read_vec};
use guest::{Error, FileKind, Guest, OpenOptions, Timestamp, Walk};

const MIB: u64 = 1 << 20;
const NOW: Timestamp = Timestamp { seconds: 1_700_000_000, nanoseconds: 0 };

/// Whether all programs are installed; where one is not the test says so, and fails in CI.
fn installed(test: &str, tools: &[&str]) -> bool {
    for tool in tools {
        if find(tool).is_none() {
            println!("SKIPPED {test}: {tool} is not installed");
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{tool} has to be installed in CI");
            return false;
        }
    }
    true
}

fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/sbin".into(), "/usr/sbin".into()]);
    directories.map(|directory| directory.join(tool)).find(|file| file.is_file())
}

fn run(tool: &str, args: &[&str], input: &str) -> String {
    let mut command = Command::new(find(tool).unwrap());
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {args:?}: {}{complaint}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A directory for a test's files, and the disk made of them.
struct Bench {
    temp: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { temp: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// An ext file system that holds the files: a path that ends in `/` is a directory, `a -> b` a link.
    fn ext(&self, name: &str, mib: u64, args: &[&str], files: &[(&str, &str)]) -> Vec<u8> {
        let tree = self.path(&format!("{name}.tree"));
        std::fs::create_dir(&tree).unwrap();
        for (path, contents) in files {
            let (path, target) = path.split_once(" -> ").map_or((*path, None), |(path, to)| (path, Some(to)));
            let host = tree.join(path.trim_start_matches('/'));
            std::fs::create_dir_all(host.parent().unwrap()).unwrap();
            match target {
                Some(target) => std::os::unix::fs::symlink(target, host).unwrap(),
                None if path.ends_with('/') => std::fs::create_dir_all(host).unwrap(),
                None => std::fs::write(host, contents).unwrap(),
            }
        }
        let file = self.path(name);
        let mut all = vec!["-q", "-F", "-d", tree.to_str().unwrap()];
        all.extend(args);
        let size = format!("{mib}M");
        all.extend([file.to_str().unwrap(), &size]);
        run("mke2fs", &all, "");
        std::fs::read(file).unwrap()
    }

    fn blank(&self, name: &str, mib: u64) -> PathBuf {
        let file = self.path(name);
        std::fs::File::create(&file).unwrap().set_len(mib * MIB).unwrap();
        file
    }

    /// A disk that is divided by sfdisk's script, its partitions filled.
    fn disk(&self, mib: u64, script: &str, contents: &[(u64, &[u8])]) -> Arc<Memory> {
        let file = self.blank("disk", mib);
        run("sfdisk", &["-q", file.to_str().unwrap()], script);
        let disk = Memory::from(std::fs::read(file).unwrap());
        for (start, bytes) in contents {
            disk.write_at(start * MIB, bytes).unwrap();
        }
        Arc::new(disk)
    }

    /// A part of a disk as a file, for the programs that judge.
    fn extract(&self, disk: &Memory, start: u64, mib: u64) -> PathBuf {
        let file = self.path("extracted");
        std::fs::write(&file, read_vec(disk, start * MIB, mib * MIB).unwrap()).unwrap();
        file
    }
}

fn fsck(file: &Path) {
    run("e2fsck", &["-fn", file.to_str().unwrap()], "");
}

fn has(disk: &Memory, text: &str) -> bool {
    disk.to_vec().windows(text.len()).any(|bytes| bytes == text.as_bytes())
}

fn options() -> OpenOptions {
    OpenOptions { now: NOW, ..OpenOptions::default() }
}

fn mounts(guest: &Guest) -> Vec<String> {
    let line = |mount: &guest::Mount| {
        assert_eq!(mount.read_only, None);
        format!("{} {} {}", mount.device, String::from_utf8_lossy(&mount.path), mount.type_name)
    };
    guest.mounts().iter().map(line).collect()
}

fn unmounted(guest: &Guest) -> Vec<String> {
    let line = |one: &guest::Unmounted| format!("{} {}: {}", String::from_utf8_lossy(&one.path), one.spec, one.reason);
    guest.unmounted().iter().map(line).collect()
}

const OS: (&str, &str) = ("/etc/os-release", "ID=test\nVERSION_ID=1\nPRETTY_NAME=\"Test 1\"\n");

#[test]
fn everything_that_fstab_names_is_mounted_or_said_not_to_be() {
    let test = "everything_that_fstab_names_is_mounted_or_said_not_to_be";
    if !installed(test, &["sfdisk", "mke2fs", "mkfs.vfat", "mkswap", "e2fsck", "debugfs"]) {
        return;
    }
    let bench = Bench::new();
    let fstab = "# a comment\n\
        UUID=11111111-1111-4111-8111-111111111111 / ext4 defaults 0 1\n\
        LABEL=the\\040boot /boot ext4 defaults 0 2\n\
        UUID=CAFE-0001 /boot/efi vfat umask=0077 0 1\n\
        PARTUUID=44444444-4444-4444-8444-444444444444 /srv/my\\040files ext3 defaults\n\
        PARTLABEL=home /home ext2 defaults\n\
        /dev/vda7 none swap sw 0 0\n\
        /dev/mapper/vg-data /data xfs defaults 0 0\n\
        /dev/sdb1 /other ext4 defaults 0 0\n\
        UUID=99999999-9999-4999-8999-999999999999 /gone ext4 nofail 0 0\n\
        LABEL=usr /missing ext4\n\
        tmpfs /tmp tmpfs defaults 0 0\n\
        server:/export /net nfs defaults 0 0\n";
    let root = [
        OS,
        ("/etc/fstab", fstab),
        ("/boot/efi/", ""),
        ("/srv/my files/", ""),
        ("/usr/bin/", ""),
        ("/bin -> usr/bin", ""),
        ("/mnt/homes/", ""),
        ("/home -> mnt/homes", ""),
        ("/data/", ""),
        ("/var/log/syslog", "a-secret-in-a-log"),
        ("/tmp/x", ""),
    ];
    let root = bench.ext("root", 32, &["-t", "ext4", "-U", "11111111-1111-4111-8111-111111111111"], &root);
    let boot = bench.ext("boot", 8, &["-t", "ext4", "-L", "the boot"], &[("/vmlinuz", "kernel"), ("/efi/", "")]);
    let srv = bench.ext("srv", 8, &["-t", "ext3"], &[("/www/index.html", "hello")]);
    let home = bench.ext(
        "home",
        8,
        &["-t", "ext2"],
        &[("/ann/.bash_history", "a-secret-in-history"), ("/bob/.bash_history", "cd")],
    );
    let usr = bench.ext("usr", 4, &["-t", "ext2", "-L", "usr"], &[("/local/", "")]);
    let esp = bench.blank("esp", 4);
    run("mkfs.vfat", &["-i", "CAFE0001", esp.to_str().unwrap()], "");
    let swap = bench.blank("swap", 4);
    run("mkswap", &[swap.to_str().unwrap()], "");
    let script = "label: gpt\n\
        start=1MiB, size=4MiB, type=U\nstart=5MiB, size=32MiB\nstart=37MiB, size=8MiB\n\
        start=45MiB, size=8MiB, uuid=44444444-4444-4444-8444-444444444444\n\
        start=53MiB, size=8MiB, name=home\nstart=61MiB, size=4MiB\nstart=65MiB, size=4MiB, type=S\n";
    let (esp, swap) = (std::fs::read(esp).unwrap(), std::fs::read(swap).unwrap());
    let parts: [(u64, &[u8]); 7] =
        [(1, &esp), (5, &root), (37, &boot), (45, &srv), (53, &home), (61, &usr), (65, &swap)];
    let disk = bench.disk(72, script, &parts);

    let mut guest = Guest::open(disk.clone(), &options()).unwrap();
    assert_eq!((guest.os().id.as_str(), guest.os().pretty_name.as_str()), ("test", "Test 1"));
    assert_eq!(
        mounts(&guest),
        ["gpt:2 / ext4", "gpt:3 /boot ext4", "gpt:5 /mnt/homes ext2", "gpt:4 /srv/my files ext3"]
    );
    assert_eq!(
        unmounted(&guest),
        [
            "/data /dev/mapper/vg-data: no LVM2 volume of this disk has that name, and what else the device mapper makes is not supported",
            "/gone UUID=99999999-9999-4999-8999-999999999999: no volume of this disk has that UUID",
            "/other /dev/sdb1: it is on another disk",
            "/missing LABEL=usr: the directory does not exist",
            "/boot/efi UUID=CAFE-0001: gpt:1 holds vfat, which is not supported",
        ]
    );
    assert_eq!(guest.warnings(), ["gpt:6 (ext2) is not mounted: it is left as it is"]);
    let contents: Vec<_> = guest.volumes().iter().map(|volume| volume.content.as_str()).collect();
    assert_eq!(contents, ["vfat", "ext4", "ext4", "ext3", "ext2", "ext2", "swap"]);
    assert_eq!(guest.read(b"/boot/vmlinuz").unwrap(), b"kernel");
    assert_eq!(guest.glob("/home/*/.bash_history").unwrap().len(), 2);

    // Changes reach the file system that they belong to.
    for path in guest.glob("/home/*/.bash_history").unwrap() {
        guest.remove_file(&path).unwrap();
    }
    guest.remove_all(b"/srv", &mut |_, _| ()).unwrap();
    guest.remove_all(b"/boot", &mut |_, _| ()).unwrap();
    guest.write(b"/etc/hostname", b"localhost\n").unwrap();
    guest.write(b"/var/log/syslog", b"").unwrap();
    guest.create_dir_all(b"/home/carol/.ssh", 0o700).unwrap();
    guest.symlink(b"/etc/hostname", b"/home/carol/link").unwrap();
    assert!(has(&disk, "a-secret-in-history") && has(&disk, "a-secret-in-a-log"));
    assert!(guest.scrub().unwrap().bytes_zeroed > 0);
    guest.flush().unwrap();
    assert_eq!(guest.scrub().unwrap().bytes_zeroed, 0);
    drop(guest);
    for gone in ["a-secret-in-history", "a-secret-in-a-log", ".bash_history", "vmlinuz", "index.html"] {
        assert!(!has(&disk, gone), "{gone}");
    }
    for (start, mib) in [(5, 32), (37, 8), (45, 8), (53, 8), (61, 4)] {
        fsck(&bench.extract(&disk, start, mib));
    }
    let file = bench.extract(&disk, 5, 32);
    assert_eq!(run("debugfs", &["-R", "cat /etc/hostname", file.to_str().unwrap()], ""), "localhost\n");
    let stat = run("debugfs", &["-R", "stat /etc/hostname", file.to_str().unwrap()], "");
    assert!(stat.contains("Mode:  0644") && stat.contains("Size: 10"), "{stat}");
    assert_eq!(read_vec(&disk, 61 * MIB, 4 * MIB).unwrap(), usr, "what is not mounted is not touched");

    let guest = Guest::open_read_only(disk, &options()).unwrap();
    assert!(guest.mounts().iter().all(|mount| mount.read_only.is_some()));
    assert_eq!(guest.read(b"/home/carol/link").unwrap(), b"localhost\n");
    assert_eq!(guest.read_dir(b"/srv").unwrap().len(), 1);
    assert_eq!(guest.stat(b"/var/log/syslog").unwrap().unwrap().size, 0);
}

#[test]
fn opening_for_reading_writes_nothing() {
    if !installed("opening_for_reading_writes_nothing", &["sfdisk", "mke2fs"]) {
        return;
    }
    let bench = Bench::new();
    let root = bench.ext("root", 16, &["-t", "ext4"], &[OS]);
    let disk = bench.disk(20, "label: dos\nstart=1MiB, size=16MiB\n", &[(1, &root)]);
    let before = disk.to_vec();
    let mut guest = Guest::open(disk.clone(), &OpenOptions { read_only: true, ..options() }).unwrap();
    assert!(matches!(guest.write(b"/x", b"").unwrap_err().cause(), Error::ReadOnly { .. }));
    guest.flush().unwrap();
    drop(guest);
    // For writing too, as long as nothing is.
    let mut guest = Guest::open(disk.clone(), &options()).unwrap();
    assert_eq!(guest.read(b"/etc/os-release").unwrap(), OS.1.as_bytes());
    guest.flush().unwrap();
    drop(guest);
    assert!(disk.to_vec() == before);
}

#[test]
fn partitions_by_number_on_an_mbr() {
    if !installed("partitions_by_number_on_an_mbr", &["sfdisk", "mke2fs"]) {
        return;
    }
    let bench = Bench::new();
    let fstab = "/dev/sda1 / ext4\n/dev/nvme0n1p5 /home ext4\n/dev/disk/by-id/ata-X-part6 /var ext4\n\
                 PARTUUID=0badcafe-06 /again ext4\n/dev/vda2 /extended ext4\n";
    let files =
        [("/etc/hosts", ""), ("/bin/", ""), ("/etc/fstab", fstab), ("/home/", ""), ("/var/", ""), ("/again/", "")];
    let root = bench.ext("root", 8, &["-t", "ext4"], &files);
    let home = bench.ext("home", 4, &["-t", "ext4"], &[("/ann/", "")]);
    let var = bench.ext("var", 4, &["-t", "ext4"], &[("/log/", "")]);
    let script = "label: dos\nlabel-id: 0x0badcafe\nstart=1MiB, size=8MiB\nstart=10MiB, size=14MiB, type=5\n\
                  start=11MiB, size=4MiB\nstart=17MiB, size=4MiB\n";
    let disk = bench.disk(28, script, &[(1, &root), (11, &home), (17, &var)]);
    let guest = Guest::open(disk, &options()).unwrap();
    assert_eq!(mounts(&guest), ["mbr:1 / ext4", "mbr:6 /var ext4", "mbr:5 /home ext4"]);
    assert_eq!(
        unmounted(&guest),
        [
            "/again PARTUUID=0badcafe-06: mbr:6 is mounted on /var already",
            "/extended /dev/vda2: no volume of this disk has that number",
        ]
    );
    assert_eq!(guest.os().id, "");
}

#[test]
fn a_file_system_straight_on_the_disk() {
    if !installed("a_file_system_straight_on_the_disk", &["mke2fs"]) {
        return;
    }
    let bench = Bench::new();
    // As Alpine's images: no table; and an fstab that knows the disk by its name.
    let files = [OS, ("/etc/fstab", "/dev/vda / ext4 rw 0 1\n/dev/sda1 /x ext4\n")];
    let disk = Arc::new(Memory::from(bench.ext("root", 8, &["-t", "ext4"], &files)));
    let guest = Guest::open(disk, &options()).unwrap();
    assert_eq!(mounts(&guest), ["disk / ext4"]);
    assert_eq!(unmounted(&guest), ["/x /dev/sda1: no volume of this disk has that number"]);
}

#[test]
fn a_separate_usr_tells_the_system() {
    if !installed("a_separate_usr_tells_the_system", &["sfdisk", "mke2fs"]) {
        return;
    }
    let bench = Bench::new();
    let files = [
        ("/etc/os-release -> ../usr/lib/os-release", ""),
        ("/etc/fstab", "LABEL=usr /usr ext4 ro\n"),
        ("/usr/", ""),
        ("/bin -> usr/bin", ""),
    ];
    let root = bench.ext("root", 8, &["-t", "ext4"], &files);
    let usr = bench.ext("usr", 8, &["-t", "ext4", "-L", "usr"], &[("/lib/os-release", "ID=split\n"), ("/bin/", "")]);
    let disk = bench.disk(20, "label: gpt\nstart=1MiB, size=8MiB\nstart=9MiB, size=8MiB\n", &[(1, &root), (9, &usr)]);
    let guest = Guest::open(disk, &options()).unwrap();
    assert_eq!(guest.os().id, "split");
    assert!(guest.warnings().is_empty(), "{:?}", guest.warnings());
}

#[test]
fn several_roots_are_for_the_caller_to_choose_from() {
    if !installed("several_roots_are_for_the_caller_to_choose_from", &["sfdisk", "mke2fs"]) {
        return;
    }
    let bench = Bench::new();
    let first = bench.ext("first", 8, &["-t", "ext4"], &[OS]);
    let second = bench.ext("second", 8, &["-t", "ext4"], &[("/etc/hosts", ""), ("/bin -> usr/bin", "")]);
    let data = bench.ext("data", 8, &["-t", "ext4"], &[("/x", "")]);
    let script = "label: gpt\nstart=1MiB, size=8MiB\nstart=9MiB, size=8MiB\nstart=17MiB, size=8MiB\n";
    let disk = bench.disk(28, script, &[(1, &first), (9, &second), (17, &data)]);
    let error = Guest::open(disk.clone(), &options()).unwrap_err();
    assert_eq!(error.to_string(), "several root file systems found: gpt:1 (Test 1); gpt:2");
    let choose = |root: &str| Guest::open(disk.clone(), &OpenOptions { root: Some(root.to_owned()), ..options() });
    assert_eq!(mounts(&choose("gpt:2").unwrap()), ["gpt:2 / ext4"]);
    let odd = choose("gpt:3").unwrap();
    assert_eq!(odd.warnings()[0], "gpt:3 was chosen as root: ext4 without a directory /etc");
    let error = choose("gpt:4").unwrap_err().to_string();
    assert_eq!(error, "there is no volume \"gpt:4\" on the disk, only gpt:1, gpt:2, gpt:3");
}

#[test]
fn no_root_is_said_with_what_there_is() {
    if !installed("no_root_is_said_with_what_there_is", &["sfdisk", "mke2fs", "mkswap"]) {
        return;
    }
    let bench = Bench::new();
    let boot = bench.ext("boot", 8, &["-t", "ext4"], &[("/vmlinuz", "")]);
    let etc = bench.ext("etc", 8, &["-t", "ext4"], &[("/etc/passwd", "")]);
    let mut broken = bench.ext("broken", 8, &["-t", "ext4"], &[OS]);
    broken[1024 + 24..1024 + 28].fill(0xff);
    let swap = bench.blank("swap", 4);
    run("mkswap", &[swap.to_str().unwrap()], "");
    let mut btrfs = vec![0; 1 << 20];
    btrfs[0x10040..0x10048].copy_from_slice(b"_BHRfS_M");
    let script = "label: gpt\nstart=1MiB, size=8MiB\nstart=9MiB, size=8MiB\nstart=17MiB, size=8MiB\n\
                  start=25MiB, size=4MiB\nstart=29MiB, size=4MiB\nstart=33MiB, size=1MiB\n";
    let swap = std::fs::read(swap).unwrap();
    let disk = bench.disk(40, script, &[(1, &boot), (9, &etc), (17, &broken), (25, &swap), (29, &btrfs)]);
    let error = Guest::open(disk.clone(), &options()).unwrap_err();
    let Error::NoRoot { volumes } = &error else { panic!("{error}") };
    let reasons: Vec<_> = volumes.iter().map(ToString::to_string).collect();
    assert_eq!(reasons[0], "gpt:1 is ext4 without a directory /etc");
    assert_eq!(reasons[1], "gpt:2 is ext4 with /etc, without os-release and /bin");
    assert!(reasons[2].starts_with("gpt:3 is ext4 that cannot be read: "), "{}", reasons[2]);
    assert_eq!(reasons[3], "gpt:4 is swap");
    assert_eq!(reasons[4], "gpt:5 is btrfs, which is not supported");
    assert_eq!(reasons[5], "gpt:6 is nothing that is known");
    let chosen = Guest::open(disk, &OpenOptions { root: Some("gpt:5".to_owned()), ..options() }).unwrap_err();
    assert_eq!(chosen.to_string(), "no root file system found: gpt:5 is btrfs, which is not supported");
    let empty = Guest::open(Arc::new(Memory::new(1 << 20)), &options()).unwrap_err();
    assert_eq!(empty.to_string(), "no root file system found: disk is nothing that is known");
}

#[test]
fn mount_points_that_cover_the_root_are_refused() {
    if !installed("mount_points_that_cover_the_root_are_refused", &["sfdisk", "mke2fs"]) {
        return;
    }
    let bench = Bench::new();
    let fstab = "LABEL=evil /cover/up ext4\nLABEL=evil /a/../b/.. ext4\nLABEL=evil /etc/os-release ext4\nLABEL=evil /loop ext4\n\
                 LABEL=evil /etc/the-longest-link ext4\n";
    let files = [
        OS,
        ("/etc/fstab", fstab),
        ("/cover/up -> ../../../..", ""),
        ("/a/", ""),
        ("/b/", ""),
        ("/loop -> loop", ""),
        ("/etc/the-longest-link -> /srv", ""),
        ("/srv/", ""),
    ];
    let root = bench.ext("root", 8, &["-t", "ext4"], &files);
    let evil = bench.ext("evil", 8, &["-t", "ext4", "-L", "evil"], &[("/etc/os-release", "ID=evil\n")]);
    let disk = bench.disk(20, "label: gpt\nstart=1MiB, size=8MiB\nstart=9MiB, size=8MiB\n", &[(1, &root), (9, &evil)]);
    let guest = Guest::open(disk, &OpenOptions { root: Some("gpt:1".to_owned()), ..options() }).unwrap();
    assert_eq!(guest.os().id, "test");
    assert_eq!(mounts(&guest), ["gpt:1 / ext4", "gpt:2 /srv ext4"]);
    let reasons: Vec<_> = guest.unmounted().iter().map(|one| one.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "the directory does not exist",
            "it would cover the root",
            "it would cover the root",
            "cannot mount on /etc/os-release: not a directory",
        ]
    );
}

#[test]
fn a_walk_finds_what_find_finds() {
    if !installed("a_walk_finds_what_find_finds", &["mke2fs"]) {
        return;
    }
    let bench = Bench::new();
    let mut files: Vec<(String, &str)> = vec![(OS.0.to_owned(), OS.1)];
    for at in 0..3000 {
        files.push((format!("/many/file-{at}-{}", "x".repeat(at % 90)), ""));
        files.push((format!("/deep/{}/{}/file", at % 13, at % 7), "x"));
    }
    files.dedup();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, contents)| (path.as_str(), *contents)).collect();
    let disk = Arc::new(Memory::from(bench.ext("root", 64, &["-t", "ext4"], &files)));
    let mut expected: Vec<Vec<u8>> = Vec::new();
    let tree = bench.path("root.tree");
    let listed = Command::new("find").args([".", "-mindepth", "1", "-print0"]).current_dir(tree).output().unwrap();
    for path in listed.stdout.split(|&byte| byte == 0).filter(|path| !path.is_empty()) {
        expected.push(path[1..].to_vec());
    }
    expected.push(b"/lost+found".to_vec());
    expected.sort();
    let guest = Guest::open_read_only(disk, &options()).unwrap();
    let mut walked = Vec::new();
    guest
        .walk(b"/", &mut |path, metadata| {
            walked.push(path.to_vec());
            assert_eq!(
                metadata.kind == FileKind::File,
                path.windows(4).any(|four| four == b"file") || path == OS.0.as_bytes()
            );
            Ok(Walk::Continue)
        })
        .unwrap();
    walked.sort();
    assert!(walked == expected, "{} paths, {} expected", walked.len(), expected.len());
}

#[test]
fn swap_and_unpartitioned_space_are_scrubbed_and_stay_what_they_are() {
    let test = "swap_and_unpartitioned_space_are_scrubbed_and_stay_what_they_are";
    if !installed(test, &["sfdisk", "mke2fs", "mkswap", "blkid", "e2fsck", "debugfs"]) {
        return;
    }
    let bench = Bench::new();
    // Files as a guest leaves them: a header, and what was swapped out.
    let swap = |name: &str, args: &[&str], secret: &str| {
        let file = bench.blank(name, 2);
        run("mkswap", &[args, &["-q", file.to_str().unwrap()]].concat(), "");
        let mut bytes = std::fs::read(file).unwrap();
        bytes[MIB as usize..][..secret.len()].copy_from_slice(secret.as_bytes());
        bytes
    };
    let in_file = swap("swapfile", &["-L", "in-a-file"], "secret-in-a-swap-file");
    let plain = swap("plain", &["-L", "in-a-partition"], "secret-in-swap");
    let large_pages = swap("large", &["-p", "65536"], "secret-in-large-pages");
    let mut suspended = swap("suspended", &[], "secret-in-hibernation");
    let signature = suspended[4086..4096].to_vec();
    suspended[4076..4086].copy_from_slice(&signature);
    suspended[4086..4096].copy_from_slice(b"S1SUSPEND\0");
    let fstab = "/var/swap\\040file none swap sw 0 0\n/no/such none swap sw 0 0\n";
    let root = [OS, ("/etc/fstab", fstab), ("/var/", ""), ("/swap.img", "no swap space: stays")];
    let root = bench.ext("root", 32, &["-t", "ext4"], &root);
    let script = "label: gpt\nstart=1MiB, size=32MiB\nstart=34MiB, size=2MiB\nstart=40MiB, size=2MiB\n";
    let parts: [(u64, &[u8]); 5] =
        [(1, &root), (34, &plain), (36, b"secret-in-a-gap"), (40, &large_pages), (43, b"secret-at-the-end")];
    let disk = bench.disk(48, script, &parts);
    let table = read_vec(&*disk, 0, MIB).unwrap();

    let mut guest = Guest::open(disk.clone(), &options()).unwrap();
    guest.write(b"/var/swap file", &in_file).unwrap();
    assert!(guest.suspended().unwrap().is_empty());
    let first = guest.scrub().unwrap().bytes_zeroed;
    guest.flush().unwrap();
    assert_eq!(guest.scrub().unwrap().bytes_zeroed, 0, "after {first}");
    guest.flush().unwrap();
    assert!(!has(&disk, "secret-"));
    assert!(has(&disk, "no swap space: stays"));
    assert_eq!(read_vec(&*disk, 0, MIB).unwrap(), table);
    fsck(&bench.extract(&disk, 1, 32));
    let probe = |file: &Path| run("blkid", &["-p", "-o", "export", file.to_str().unwrap()], "");
    let found = probe(&bench.extract(&disk, 34, 2));
    assert!(found.contains("TYPE=swap") && found.contains("LABEL=in-a-partition"), "{found}");
    assert!(probe(&bench.extract(&disk, 40, 2)).contains("TYPE=swap"));
    let file = bench.path("from-guest");
    std::fs::write(&file, guest.read(b"/var/swap file").unwrap()).unwrap();
    assert!(probe(&file).contains("LABEL=in-a-file"));

    // A suspended guest is told of, and can be made to forget.
    let parts: [(u64, &[u8]); 2] = [(1, &root), (34, &suspended)];
    let disk = bench.disk(48, script, &parts);
    let mut guest = Guest::open(disk.clone(), &options()).unwrap();
    assert_eq!(guest.suspended().unwrap(), ["gpt:2"]);
    guest.forget_suspended().unwrap();
    assert!(guest.suspended().unwrap().is_empty());
    guest.scrub().unwrap();
    guest.flush().unwrap();
    let found = probe(&bench.extract(&disk, 34, 2));
    assert!(found.contains("TYPE=swap\n") && !has(&disk, "secret-in-hibernation"), "{found}");
}
