//! New identities for file systems, swap space and partition tables, on disks that the usual tools made and judge.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use block::{Memory, ReadAt, WriteAt, read_vec};
use guest::{Guest, OpenOptions, Timestamp};
use seal::{Error, Options, Report, Selection};

use crate::support::only;

const MIB: u64 = 1 << 20;
const ROOT: &str = "c0ffee00-0000-4000-8000-000000000001";
const SWAP: &str = "5a5a5a5a-1111-4222-8333-444444444444";
const OPTIONS: OpenOptions =
    OpenOptions { root: None, read_only: false, now: Timestamp { seconds: 1_800_000_000, nanoseconds: 0 } };

fn installed(test: &str, tools: &[&str]) -> bool {
    let folders = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/bin"];
    for tool in tools {
        if !folders.iter().any(|folder| Path::new(folder).join(tool).exists()) {
            println!("SKIPPED {test}: {tool} is not installed");
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{tool} has to be installed in CI");
            return false;
        }
    }
    true
}

fn run(tool: &str, args: &[&str], input: &str) -> String {
    let mut child = Command::new(tool)
        .args(args)
        .env("PATH", std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{tool} {args:?}: {said}");
    said
}

/// A disk with an EFI system partition of 8 MiB, a root of 48 MiB, and 4 MiB of swap space.
struct Disk {
    directory: tempfile::TempDir,
    device: Arc<Memory>,
}

impl Disk {
    fn new(label: &str, features: &str, files: &[(&str, &[u8])]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let disk = path("disk");
        std::fs::File::create(&disk).unwrap().set_len(64 * MIB).unwrap();
        let (efi, linux, swap) = if label == "gpt" { ("U", "L", "S") } else { ("ef", "83", "82") };
        let script =
            format!("label: {label}\nsize=8MiB, type={efi}\nsize=48MiB, type={linux}\nsize=4MiB, type={swap}\n");
        run("sfdisk", &["-q", &text(disk.clone())], &script);
        let device = Memory::from(std::fs::read(&disk).unwrap());
        let table = volumes_of(&device);

        let tree = path("tree");
        let fill = |text: &str| text.replace("PARTUUID2", &table[1]).replace("PARTUUID3", &table[2]);
        for (name, contents) in files {
            let file = tree.join(name.trim_start_matches('/'));
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            let contents = match std::str::from_utf8(contents) {
                Ok(text) => fill(text).into_bytes(),
                Err(_) => contents.to_vec(),
            };
            std::fs::write(file, contents).unwrap();
        }
        for file in ["root", "swap", "esp"] {
            let mib = [("root", 48), ("swap", 4), ("esp", 8)].iter().find(|(name, _)| *name == file).unwrap().1;
            std::fs::File::create(path(file)).unwrap().set_len(mib * MIB).unwrap();
        }
        run(
            "mke2fs",
            &["-q", "-F", "-t", "ext4", "-O", features, "-U", ROOT, "-d", &text(tree), &text(path("root"))],
            "",
        );
        run("mkswap", &["-U", SWAP, &text(path("swap"))], "");
        run("mkfs.vfat", &["-i", "CAFE0001", &text(path("esp"))], "");
        for (name, at) in [("esp", 1), ("root", 9), ("swap", 57)] {
            device.write_at(at * MIB, &std::fs::read(path(name)).unwrap()).unwrap();
        }
        // As a file in the EFI system partition would hold it, over the border of what is looked at in one go.
        let loader = fill(&format!("search.fs_uuid {ROOT} root\nset root=PARTUUID2\n"));
        device.write_at(2 * MIB - 20, loader.as_bytes()).unwrap();
        Self { directory, device: Arc::new(device) }
    }

    fn run(&self, operation: &str) -> Result<Report, Error> {
        let mut guest = Guest::open(self.device.clone(), &OPTIONS).unwrap();
        seal::run(&mut guest, &only(operation), &Options::default())
    }

    fn read(&self, path: &str) -> String {
        let guest = Guest::open(self.device.clone(), &OPTIONS).unwrap();
        String::from_utf8(guest.read(path.as_bytes()).unwrap()).unwrap()
    }

    /// A part of the disk as a file.
    fn extract(&self, start: u64, mib: u64) -> String {
        let file = self.directory.path().join("extracted");
        std::fs::write(&file, read_vec(&self.device, start * MIB, mib * MIB).unwrap()).unwrap();
        file.to_str().unwrap().to_owned()
    }

    fn uuid(&self, start: u64, mib: u64) -> String {
        run("blkid", &["-p", "-o", "value", "-s", "UUID", &self.extract(start, mib)], "").trim().to_owned()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&read_vec(&self.device, 0, self.device.len()).unwrap()).into_owned()
    }
}

/// The PARTUUID of each partition.
fn volumes_of(device: &Memory) -> Vec<String> {
    // The guest's crates tell it, but the table has to be judged by itself.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), read_vec(device, 0, device.len()).unwrap()).unwrap();
    let dump = run("sfdisk", &["--dump", file.path().to_str().unwrap()], "").to_ascii_lowercase();
    let signature = dump.lines().find_map(|line| line.strip_prefix("label-id: 0x")).unwrap_or_default().to_owned();
    let partitions = dump.lines().filter(|line| line.contains("start="));
    partitions
        .enumerate()
        .map(|(number, line)| match line.split("uuid=").nth(1) {
            Some(uuid) => uuid.split(',').next().unwrap().trim().to_owned(),
            None => format!("{signature}-{:02x}", number + 1),
        })
        .collect()
}

const TOOLS: &[&str] = &["sfdisk", "mke2fs", "mkswap", "mkfs.vfat", "blkid", "e2fsck"];

fn base() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &str| text.replace("ROOT", ROOT).replace("SWAP", SWAP).into_bytes();
    vec![
        ("/etc/os-release", text("ID=test\nPRETTY_NAME=Test\n")),
        (
            "/etc/fstab",
            text("UUID=ROOT / ext4 defaults 0 1\nUUID=SWAP none swap sw 0 0\nPARTUUID=PARTUUID3 none swap noauto\n"),
        ),
        ("/etc/default/grub", text("GRUB_CMDLINE_LINUX=\"resume=UUID=SWAP\"\n")),
        ("/etc/initramfs-tools/conf.d/resume", text("RESUME=UUID=SWAP\n")),
        (
            "/etc/systemd/system/x.mount",
            text("[Unit]\nAfter=dev-disk-by\\x2duuid-c0ffee00\\x2d0000\\x2d4000\\x2d8000\\x2d000000000001.device\n"),
        ),
        ("/etc/other", text("no UUID at all\n")),
        (
            "/boot/grub/grub.cfg",
            text("search --fs-uuid --set=root ROOT\nlinux /vmlinuz root=UUID=ROOT resume=PARTUUID=PARTUUID3\n"),
        ),
        ("/boot/grub/grubenv", text("# GRUB Environment Block\nkernelopts=root=UUID=ROOT ro\n#####")),
        ("/boot/loader/entries/one.conf", text("options root=UUID=ROOT\n")),
    ]
}

fn disk(label: &str, more: &[(&'static str, Vec<u8>)]) -> Disk {
    let files: Vec<_> = base().into_iter().chain(more.iter().cloned()).collect();
    let files: Vec<_> = files.iter().map(|(name, contents)| (*name, contents.as_slice())).collect();
    Disk::new(label, "metadata_csum,^metadata_csum_seed", &files)
}

#[test]
fn new_uuids_are_everywhere_that_the_old_ones_were() {
    if !installed("new_uuids_are_everywhere_that_the_old_ones_were", TOOLS) {
        return;
    }
    let disk = disk("gpt", &[("/boot/grub/x86_64-efi/load.cfg", format!("search.fs_uuid {ROOT} root\n").into_bytes())]);
    let report = disk.run("fs-uuids").unwrap();
    run("e2fsck", &["-fn", &disk.extract(9, 48)], "");
    let (root, swap) = (disk.uuid(9, 48), disk.uuid(57, 4));
    assert!(root != ROOT && swap != SWAP && root != swap && root.len() == 36 && swap.len() == 36, "{root} {swap}");
    assert_eq!(run("blkid", &["-p", "-o", "value", "-s", "TYPE", &disk.extract(57, 4)], "").trim(), "swap");

    for (path, old) in base().into_iter().filter(|(path, _)| *path != "/etc/os-release") {
        let escape = |uuid: &str| uuid.replace('-', "\\x2d");
        let partition = volumes_of(&disk.device)[2].clone();
        let expected = String::from_utf8(old).unwrap().replace("PARTUUID3", &partition);
        let expected = expected.replace(ROOT, &root).replace(SWAP, &swap).replace(&escape(ROOT), &escape(&root));
        assert_eq!(disk.read(path), expected, "{path}");
    }
    assert_eq!(disk.read("/boot/grub/x86_64-efi/load.cfg"), format!("search.fs_uuid {root} root\n"));
    assert_eq!(read_vec(&disk.device, 2 * MIB - 20, 51).unwrap(), format!("search.fs_uuid {root}").into_bytes());
    let text = disk.text();
    assert!(!text.contains(ROOT) && !text.contains(SWAP), "an old UUID is still on the disk");
    let told: Vec<_> = report.changes().map(|change| change.path.to_string()).collect();
    for place in ["gpt:1", "gpt:2", "gpt:3", "/etc/fstab", "/boot/grub/grubenv", "/etc/systemd/system/x.mount"] {
        assert!(told.iter().any(|path| path == place), "{place} is not in {told:?}");
    }
    assert!(!told.contains(&"/etc/other".to_owned()));
    assert!(
        report.warnings.iter().any(|warning| warning.starts_with("gpt:1 (vfat) keeps its UUID")),
        "{:?}",
        report.warnings
    );
    assert!(report.traces.iter().any(|trace| trace.bytes == ROOT.as_bytes()), "old UUIDs are searched for");
}

#[test]
fn uuids_stay_where_a_reference_cannot_follow() {
    if !installed("uuids_stay_where_a_reference_cannot_follow", TOOLS) {
        return;
    }
    let cpio = |text: &str| {
        let mut bytes =
            format!("070701{}{:08x}{}{:08x}{:08x}x\0", "0".repeat(48), text.len(), "0".repeat(32), 2, 0).into_bytes();
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let module = |known: u32| [&b"\x7fELF"[..], &[0, 1, 2], &(!known).to_le_bytes(), b"\xff\xfe"].concat();
    let refusals: [(&'static str, Vec<u8>, &str); 5] = [
        (
            "/boot/initrd.img-6.1",
            gzip(&cpio(&format!("RESUME=UUID={SWAP}\n"))),
            "holds it in the early root file system",
        ),
        (
            "/boot/initramfs-5.img",
            vec![0xfd, b'7', b'z', b'X', b'Z', 0, 1, 2],
            "cannot be looked into for it: it is compressed by xz",
        ),
        ("/boot/grub/i386-pc/load.cfg", format!("search.fs_uuid {ROOT} root\n").into_bytes(), "GRUB's own image"),
        ("/boot/blob", [ROOT.as_bytes(), &[0, 1]].concat(), "holds it, and is no text"),
        (
            "/boot/grub/i386-pc/ext2.mod",
            module(0x103d6),
            "would get the feature metadata_csum_seed, and this guest's GRUB",
        ),
    ];
    for (path, contents, reason) in refusals {
        let disk = disk("gpt", &[(path, contents)]);
        let before = read_vec(&disk.device, 0, disk.device.len()).unwrap();
        let error = disk.run("fs-uuids").unwrap_err();
        assert!(matches!(error, Error::Refused(_)) && error.to_string().contains(reason), "{path}: {error}");
        assert!(read_vec(&disk.device, 0, disk.device.len()).unwrap() == before, "{path}: something was written");
    }
    // What holds none of it, and a GRUB that knows the feature, are in nobody's way.
    let fine =
        [("/boot/initrd.img-6.1", gzip(&cpio("ROOT=by-label\n"))), ("/boot/grub/i386-pc/ext2.mod", module(0x163d6))];
    disk("gpt", &fine).run("fs-uuids").unwrap();
}

#[test]
fn new_partition_ids_are_everywhere_that_the_old_ones_were() {
    if !installed("new_partition_ids_are_everywhere_that_the_old_ones_were", &[TOOLS, &["sgdisk"]].concat()) {
        return;
    }
    for label in ["gpt", "dos"] {
        let disk = disk(label, &[]);
        let old = volumes_of(&disk.device);
        disk.run("disk-guids").unwrap();
        let new = volumes_of(&disk.device);
        assert!(old.iter().zip(&new).all(|(old, new)| old != new && old.len() == new.len()), "{old:?} {new:?}");
        assert!(disk.read("/etc/fstab").contains(&format!("PARTUUID={} none", new[2])));
        assert!(disk.read("/boot/grub/grub.cfg").contains(&format!("resume=PARTUUID={}\n", new[2])));
        let text = disk.text();
        assert!(old.iter().all(|old| !text.contains(old.as_str())), "an old GUID is still named on the disk");
        assert!(text.contains(&format!("set root={}", new[1])), "in the EFI system partition");
        assert_eq!(disk.uuid(9, 48), ROOT);
        run("e2fsck", &["-fn", &disk.extract(9, 48)], "");
        if label == "gpt" {
            let said = run("sgdisk", &["-v", &disk.extract(0, 64)], "");
            assert!(said.contains("No problems found"), "{said}");
        }
    }
}

#[test]
fn the_seed_of_the_boot_loader_goes() {
    if !installed("the_seed_of_the_boot_loader_goes", &[TOOLS, &["mmd", "mcopy", "fsck.vfat"]].concat()) {
        return;
    }
    let disk = disk("gpt", &[]);
    let esp = disk.extract(1, 8);
    let seed = disk.directory.path().join("seed");
    std::fs::write(&seed, "SECRET-SEED-OF-THE-BOOT-LOADER..").unwrap();
    run("mkfs.vfat", &["-i", "CAFE0001", &esp], "");
    run("mmd", &["-i", &esp, "::/loader"], "");
    run("mcopy", &["-i", &esp, seed.to_str().unwrap(), "::/loader/random-seed"], "");
    disk.device.write_at(MIB, &std::fs::read(&esp).unwrap()).unwrap();
    assert!(disk.text().contains("SECRET-SEED"));
    let report = disk.run("random-seed").unwrap();
    let told: Vec<_> = report.changes().map(|change| (change.path.to_string(), change.bytes)).collect();
    assert_eq!(told, [("gpt:1/loader/random-seed".to_owned(), 32)]);
    run("fsck.vfat", &["-n", &disk.extract(1, 8)], "");
    assert!(!disk.text().contains("SECRET-SEED"));
    assert!(!disk.run("random-seed").unwrap().is_changed());
}

#[test]
fn a_guest_without_any_of_it_is_left_alone() {
    let selection = Selection::from_arguments(&[seal::Argument::Enable("disk-guids,fs-uuids,lvm-uuids")]).unwrap();
    let mut guest = crate::support::guest(&["/etc/os-release=ID=test\n", "/etc/fstab=UUID=x / ext4\n"]);
    let report = seal::run(&mut guest, &selection, &Options::default()).unwrap();
    assert!(!report.is_changed() && report.warnings.is_empty(), "{report:?}");
}
