//! Guests that are sealed.

use std::sync::{Arc, LazyLock};

use block::{Memory, ReadAt, WriteAt};
use guest::memory::MemoryFileSystem;
use guest::{Guest, OpenOptions, Timestamp};
use qcow2::{CreateOptions, Image};
use seal::{Options, Selection};

use crate::base::guest_disk;
use crate::bounded::Bounded;
use crate::input::Input;

const NOW: Timestamp = Timestamp { seconds: 1_800_000_000, nanoseconds: 0 };

/// A whole image of a guest with up to 15 changes on its disk and up to 15 in the image itself, opened and sealed.
///
/// Input: which operations (1 byte), the changes on the disk, then the changes in the image.
pub fn guest_seal(data: &[u8]) {
    let mut input = Input(data);
    let selection = if input.u8() & 1 == 0 { Selection::defaults() } else { Selection::all() };
    let disk = guest_disk().patched(&mut input);
    let storage = Arc::new(Bounded::new(image_of(disk, &mut input)));
    let _ = seal(&storage, &selection);
}

fn image_of(disk: Vec<u8>, input: &mut Input<'_>) -> Vec<u8> {
    let storage = Bounded::new(Vec::new());
    let options = CreateOptions::new().cluster_size(4096).threads(1);
    qcow2::create(&storage, &Memory::from(disk), &options, &mut |_| {}).expect("an image can be made");
    let mut bytes = storage.to_vec();
    for _ in 0..input.u8() % 16 {
        // The header and the tables behind the data have all that matters.
        let (from_end, at) = (input.u8(), usize::from(input.u16()));
        let at = if from_end == 0 { at % 112 } else { bytes.len().saturating_sub(1 + at % (16 << 10)) };
        let len = usize::from(input.u8()) % 16 + 1;
        let patch = input.bytes(len.min(bytes.len() - at));
        bytes[at..at + patch.len()].copy_from_slice(patch);
    }
    bytes
}

fn seal(storage: &Arc<Bounded>, selection: &Selection) -> Option<()> {
    let open = || Image::open_storage(storage.clone(), &qcow2::OpenOptions::new().writable(true));
    let transaction = Arc::new(open().ok()?.begin().ok()?);
    if transaction.len() > 16 << 20 {
        return None; // a disk that says to be larger takes longer, and is no other
    }
    let options = OpenOptions { root: None, read_only: false, now: NOW };
    let disk: Arc<dyn WriteAt> = transaction.clone();
    let mut guest = Guest::open(disk, &options).ok()?;
    seal::run(&mut guest, selection, &Options { allow_unmounted: true, ..Options::default() }).ok()?;
    drop(guest);
    transaction.commit().ok()?;
    open().expect("the sealed image does not open").begin().expect("the sealed image is damaged");
    Some(())
}

/// A guest in memory whose files are the input's, sealed twice: the second time nothing must change.
///
/// Input: files, until it ends. For each: which one, of what kind, and its contents or target up to a byte of 0xff.
pub fn guest_files(data: &[u8]) {
    let mut input = Input(data);
    let mut fs = MemoryFileSystem::new();
    let mut patterns = Vec::new();
    while !input.is_empty() {
        let (which, kind) = (usize::from(input.u8()), input.u8());
        let len = input.0.iter().position(|&byte| byte == 0xff).unwrap_or(input.0.len());
        let contents = input.bytes(len);
        input.u8();
        let path = PATHS[which % PATHS.len()];
        match kind % 8 {
            0 => drop(fs.add_symlink(path, contents)),
            1 => drop(fs.add_dir(path)),
            2 => patterns.push(String::from_utf8_lossy(contents).into_owned()),
            _ => drop(fs.add_file(path, contents)),
        }
    }
    let Ok(mut guest) = Guest::from_file_systems(Box::new(fs), Vec::new()) else { return };
    for pattern in patterns.iter().filter(|pattern| pattern.len() < 200) {
        for path in guest.glob(pattern).unwrap_or_default() {
            assert!(guest.lstat(&path).is_ok_and(|found| found.is_some()), "{pattern} matches what is not there");
        }
    }
    let options = Options { allow_unmounted: true, ..Options::default() };
    for selection in [&*DEFAULTS, &*ALL] {
        if seal::run(&mut guest, selection, &options).is_err() {
            return;
        }
        let again = seal::run(&mut guest, selection, &options).expect("a second run fails");
        assert!(!again.is_changed(), "a second run changed {:?}", again.changes().collect::<Vec<_>>());
    }
}

static DEFAULTS: LazyLock<Selection> = LazyLock::new(Selection::defaults);
static ALL: LazyLock<Selection> = LazyLock::new(Selection::all);

/// Files whose contents matter, and places where a link or a directory may surprise.
const PATHS: &[&str] = &[
    "/etc/passwd",
    "/etc/shadow",
    "/etc/group",
    "/etc/gshadow",
    "/etc/subuid",
    "/etc/login.defs",
    "/etc/os-release",
    "/etc/machine-id",
    "/var/lib/dbus/machine-id",
    "/etc/sysconfig/network-scripts/ifcfg-eth0",
    "/etc/NetworkManager/system-connections/wired",
    "/usr/lib/systemd/system/ssh.service",
    "/usr/sbin/sshd",
    "/usr/bin/ssh-keygen",
    "/usr/lib/systemd/systemd",
    "/etc/ssh",
    "/etc/ssh/ssh_host_rsa_key",
    "/home",
    "/home/ann",
    "/home/ann/.ssh/id",
    "/srv/ben/.bash_history",
    "/root/.ssh",
    "/var/log",
    "/var/log/syslog",
    "/var/log/journal/id/system.journal",
    "/var/spool/mail",
    "/var/mail/ann",
    "/var/spool/cron/atjobs/.SEQ",
    "/var/run",
    "/run/utmp",
    "/tmp",
    "/tmp/a/b",
    "/var/tmp",
    "/etc/hosts.bak",
    "/boot/grub/grub.cfg",
    "/etc/cloud/cloud.cfg",
    "/var/cache/apt/archives/a.deb",
    "/etc/systemd/system",
    "/etc/systemd/system/goldenseal-ssh-hostkeys.service",
    "/var/log/account/pacct",
];
