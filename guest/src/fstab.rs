//! `/etc/fstab`: which file system belongs where. fstab(5); libmount's `tab_parse.c`.

use crate::path;

/// Lines that are looked at: more than any guest has.
const MAX_ENTRIES: usize = 1024;

/// A line of fstab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What: `UUID=...`, `/dev/sda1`.
    pub(crate) spec: String,
    /// Where: absolute, without `.` and doubled slashes.
    pub(crate) path: Vec<u8>,
}

/// How a line names its device, as far as one disk can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Device {
    Uuid(String),
    Label(String),
    PartUuid(String),
    PartLabel(String),
    /// A partition of the guest's first disk.
    Partition(u32),
    /// What the device mapper made: its name below `/dev/mapper`.
    Mapper(String),
    /// What the device mapper made: its UUID.
    MapperUuid(String),
    /// A logical volume: its group and its name.
    Logical(String, String),
    /// The guest's first disk itself.
    WholeDisk,
    /// The device that holds the root.
    Root,
    /// None that can be here, and why.
    Elsewhere(&'static str),
    /// Nothing that is kept on a disk: a tmpfs, the network, a CD.
    NoDisk,
}

/// What fstab wants mounted below the root, and the line for the root itself. Swap, and what belongs on no directory or
/// on one that the kernel fills, is left out.
pub(crate) fn parse(text: &[u8]) -> Vec<Entry> {
    let lines = text.split(|&byte| byte == b'\n');
    lines.filter_map(entry).take(MAX_ENTRIES).collect()
}

/// The files that fstab wants used as swap space.
pub(crate) fn swap_files(text: &[u8]) -> Vec<Vec<u8>> {
    let lines = text.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| matches!(byte, b' ' | b'\t' | b'\r')).filter(|field| !field.is_empty());
        let (spec, kind) = (unescape(fields.next()?), fields.nth(1)?);
        let is_file = kind == b"swap" && spec.starts_with(b"/") && !spec.starts_with(b"/dev/");
        (is_file && spec.len() <= path::MAX_PATH && !spec.contains(&0)).then_some(spec)
    });
    lines.take(MAX_ENTRIES).collect()
}

fn entry(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|byte| matches!(byte, b' ' | b'\t' | b'\r')).filter(|field| !field.is_empty());
    let spec = fields.next().filter(|spec| !spec.starts_with(b"#"))?;
    let at = unescape(fields.next()?);
    let kind = fields.next().unwrap_or_default();
    if !at.starts_with(b"/") || kind == b"swap" || at.len() > path::MAX_PATH || at.contains(&0) {
        return None;
    }
    let mut canonical = Vec::with_capacity(at.len());
    for name in path::components(&at) {
        path::push(&mut canonical, name);
    }
    if canonical.is_empty() {
        canonical.push(b'/');
    }
    let of_the_kernel = [&b"/dev"[..], b"/proc", b"/sys", b"/selinux", b"/media"];
    if of_the_kernel.iter().any(|top| path::is_within(&canonical, top)) {
        return None;
    }
    Some(Entry { spec: String::from_utf8_lossy(&unescape(spec)).into_owned(), path: canonical })
}

/// Blanks and backslashes are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut at = 0;
    while let Some(&byte) = field.get(at) {
        let escaped = field.get(at + 1..at + 4).filter(|_| byte == b'\\').and_then(octal);
        bytes.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 4 } else { 1 };
    }
    bytes
}

fn octal(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok()?;
    u8::from_str_radix(text, 8).ok().filter(|_| digits.iter().all(u8::is_ascii_digit))
}

impl Device {
    /// What a line's first field names.
    pub(crate) fn parse(spec: &str) -> Self {
        if let Some((tag, value)) = spec.split_once('=') {
            let value = value.trim_matches(|c| matches!(c, '"' | '\'')).to_owned();
            return match tag {
                "UUID" => Self::Uuid(value),
                "LABEL" => Self::Label(value),
                "PARTUUID" => Self::PartUuid(value),
                "PARTLABEL" => Self::PartLabel(value),
                "ID" => by_number(&value),
                _ => Self::NoDisk,
            };
        }
        let Some(name) = spec.strip_prefix("/dev/") else { return Self::NoDisk };
        if let Some((family, name)) = name.strip_prefix("disk/").and_then(|rest| rest.split_once('/')) {
            return match family {
                "by-uuid" => Self::Uuid(udev_unescape(name)),
                "by-label" => Self::Label(udev_unescape(name)),
                "by-partuuid" => Self::PartUuid(udev_unescape(name)),
                "by-partlabel" => Self::PartLabel(udev_unescape(name)),
                "by-id" if name.starts_with("dm-uuid-") => Self::MapperUuid(udev_unescape(&name["dm-uuid-".len()..])),
                "by-id" if name.starts_with("dm-name-") => Self::Mapper(udev_unescape(&name["dm-name-".len()..])),
                _ if name.starts_with("md-") => Self::Elsewhere(RAID),
                _ => by_number(name),
            };
        }
        by_device_name(name)
    }
}

const RAID: &str = "it is a RAID array, which is not supported";
const OTHER_DISK: &str = "it is on another disk";
const UNKNOWN: &str = "there is no telling which volume that device was";

/// `/dev/disk/by-id/virtio-1234-part2` and by-path: one disk is all there is, so the number tells the partition.
fn by_number(name: &str) -> Device {
    match name.rsplit_once("-part").map(|(_, number)| number.parse()) {
        Some(Ok(number)) => Device::Partition(number),
        Some(Err(_)) => Device::Elsewhere(UNKNOWN),
        None => Device::WholeDisk,
    }
}

fn by_device_name(name: &str) -> Device {
    let no_disk = ["fd", "cd", "sr", "scd", "dvd", "floppy", "iso9660/"];
    if name == "root" {
        return Device::Root;
    }
    if let Some(name) = name.strip_prefix("mapper/") {
        return Device::Mapper(udev_unescape(name));
    }
    if name.starts_with("md") {
        return Device::Elsewhere(RAID);
    }
    for family in ["xvd", "sd", "vd", "hd"] {
        if let Some(rest) = name.strip_prefix(family) {
            let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_lowercase()).len();
            return first_disk(&rest[..letters], "a", &rest[letters..]);
        }
    }
    for (family, first) in [("nvme", "0n1"), ("mmcblk", "0")] {
        if let Some(rest) = name.strip_prefix(family) {
            let (disk, number) = rest.split_once('p').unwrap_or((rest, ""));
            return first_disk(disk, first, number);
        }
    }
    if no_disk.iter().any(|family| name.starts_with(family)) {
        return Device::NoDisk;
    }
    // What is left with a slash is a logical volume in its group.
    match name.split_once('/') {
        Some((group, name)) if !name.contains('/') => Device::Logical(group.to_owned(), name.to_owned()),
        _ => Device::Elsewhere(UNKNOWN),
    }
}

/// A disk, or a partition of one, where `first` is the name of the guest's first.
fn first_disk(disk: &str, first: &str, number: &str) -> Device {
    match number.parse() {
        _ if disk != first => Device::Elsewhere(OTHER_DISK),
        Ok(number) => Device::Partition(number),
        Err(_) if number.is_empty() => Device::WholeDisk,
        Err(_) => Device::Elsewhere(UNKNOWN),
    }
}

/// udev writes what is special in a file's name as `\x20`.
fn udev_unescape(name: &str) -> String {
    let mut parts = name.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend_from_slice(&part.as_bytes()[2..]);
            }
            None => bytes.extend_from_slice(format!("\\x{part}").as_bytes()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_parsed_as_mount_does() {
        let text = b"# /etc/fstab\n\
            \tUUID=\"1\" / ext4 defaults 0 1\r\n\
            LABEL=my\\040disk  ///srv//my\\040files/. ext4\n\
            /dev/sda2 none swap sw 0 0\n\
            UUID=5 swap swap sw\n\
            /dev/vda5 /ignored swap\n\
            proc /proc proc\n\
            /dev/sdb1 /media/stick vfat noauto\n\
            broken\n\n\
            a\\0b /a\\012b\n\
            UUID=9 relative ext4\n\
            UUID=7 /nul\\000 ext4\n";
        let found: Vec<_> = parse(text).into_iter().map(|entry| (entry.spec, entry.path)).collect();
        let expected: [(&str, &[u8]); 3] =
            [("UUID=\"1\"", b"/"), ("LABEL=my disk", b"/srv/my files"), ("a\\0b", b"/a\nb")];
        assert_eq!(found, expected.map(|(spec, path)| (spec.to_owned(), path.to_vec())));
    }

    #[test]
    fn devices_by_every_name() {
        use Device as D;
        let cases = [
            ("UUID=\"ab-cd\"", D::Uuid("ab-cd".into())),
            ("LABEL='root'", D::Label("root".into())),
            ("PARTUUID=1234abcd-01", D::PartUuid("1234abcd-01".into())),
            ("PARTLABEL=root", D::PartLabel("root".into())),
            ("/dev/disk/by-uuid/CAFE-0001", D::Uuid("CAFE-0001".into())),
            ("/dev/disk/by-label/my\\x20disk", D::Label("my disk".into())),
            ("/dev/disk/by-label/\\xzz\\x2", D::Label("\\xzz\\x2".into())),
            ("/dev/disk/by-partlabel/boot", D::PartLabel("boot".into())),
            ("/dev/disk/by-id/virtio-serial-part2", D::Partition(2)),
            ("/dev/disk/by-path/pci-0000:00:04.0-part15", D::Partition(15)),
            ("/dev/disk/by-id/dm-uuid-LVM-abc", D::MapperUuid("LVM-abc".into())),
            ("/dev/disk/by-id/dm-name-rl-root", D::Mapper("rl-root".into())),
            ("/dev/sda1", D::Partition(1)),
            ("/dev/vda15", D::Partition(15)),
            ("/dev/xvda1", D::Partition(1)),
            ("/dev/hda", D::WholeDisk),
            ("/dev/sdb1", D::Elsewhere(OTHER_DISK)),
            ("/dev/sdaa1", D::Elsewhere(OTHER_DISK)),
            ("/dev/nvme0n1p3", D::Partition(3)),
            ("/dev/nvme1n1p3", D::Elsewhere(OTHER_DISK)),
            ("/dev/mmcblk0p2", D::Partition(2)),
            ("/dev/root", D::Root),
            ("/dev/mapper/rl-root", D::Mapper("rl-root".into())),
            ("/dev/ubuntu-vg/ubuntu-lv", D::Logical("ubuntu-vg".into(), "ubuntu-lv".into())),
            ("/dev/a/b/c", D::Elsewhere(UNKNOWN)),
            ("/dev/md0", D::Elsewhere(RAID)),
            ("/dev/sr0", D::NoDisk),
            ("/dev/fd0", D::NoDisk),
            ("tmpfs", D::NoDisk),
            ("host:/export", D::NoDisk),
            ("//server/share", D::NoDisk),
            ("/srv/home", D::NoDisk),
            ("/dev/sda99999999999999", D::Elsewhere(UNKNOWN)),
            ("/dev/strange", D::Elsewhere(UNKNOWN)),
        ];
        for (spec, device) in cases {
            assert_eq!(Device::parse(spec), device, "{spec}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed(text: Vec<u8>, spec in "(/dev/)?(disk/by-[a-z]+/)?.*") {
            for entry in parse(&text) {
                let _ = Device::parse(&entry.spec);
            }
            let _ = Device::parse(&spec);
        }
    }
}
