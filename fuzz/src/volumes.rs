//! Partition tables, and what volumes hold.

use block::{Memory, ReadAt, WriteAt};

use crate::input::Input;

/// A disk with a GUID partition table whose fields are the input's and whose checksums are right.
///
/// Input: flags, the disk's length in sectors (2 bytes), the header behind its signature (84 bytes), the entries.
pub fn volumes_gpt(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.u8();
    let sector: u64 = if flags & 1 != 0 { 4096 } else { 512 };
    let sectors = 8 + u64::from(input.u16() % 1024);
    let disk = Memory::new((sectors * sector) as usize);
    let mut header = b"EFI PART".to_vec();
    header.extend(input.bytes(84));
    header.resize(sector as usize, 0);
    let entries = input.bytes(16 << 10);

    let field = |header: &[u8], at: usize| u64::from_le_bytes(std::array::from_fn(|index| header[at + index]));
    let place = field(&header, 72).saturating_mul(sector);
    if disk.write_at(place, entries).is_err() {
        let _ = disk.write_at(2 * sector, entries);
    }
    let array = (field(&header, 80) & 0xffff_ffff) * (field(&header, 80) >> 32);
    if let Ok(bytes) = block::read_vec(&disk, place, array) {
        header[88..92].copy_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    }
    let mut put = |lba: u64| {
        header[24..32].copy_from_slice(&lba.to_le_bytes());
        header[16..20].fill(0);
        let covered = (field(&header, 12) & 0xffff_ffff).clamp(92, sector) as usize;
        let crc = crc32fast::hash(&header[..covered]);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        let _ = disk.write_at(lba * sector, &header);
    };
    if flags & 2 != 0 {
        put(sectors - 1);
    }
    if flags & 4 == 0 {
        put(1);
    } else if flags & 8 != 0 {
        let _ = disk.write_at(sector, b"EFI PART, once");
    }
    if flags & 16 == 0 {
        let _ = disk.write_at(446, &[0, 0, 2, 0, 0xee, 255, 255, 255, 1, 0, 0, 0, 255, 255, 255, 255]);
        let _ = disk.write_at(510, &[0x55, 0xaa]);
    }
    if flags & 32 != 0 {
        let _ = disk.write_at(462, &[0x80, 0, 2, 0, 0x83, 255, 255, 255, 3, 0, 0, 0, 4, 0, 0, 0]);
    }
    look(&disk);
}

/// A disk with boot records: the first sector, and then any number of others.
///
/// Input: 512 bytes of the first sector, then records of 2 bytes (the sector's number) and 66 bytes (its end).
pub fn volumes_mbr(data: &[u8]) {
    let mut input = Input(data);
    let disk = Memory::new(512 << 10);
    let mut first = input.bytes(512).to_vec();
    first.resize(512, 0);
    first[510..].copy_from_slice(&[0x55, 0xaa]);
    let _ = disk.write_at(0, &first);
    while !input.is_empty() {
        let sector = u64::from(input.u16() % 1024);
        let _ = disk.write_at(sector * 512 + 446, input.bytes(66));
    }
    look(&disk);
}

/// A volume of the input's bytes, which may say to be of another length: the first 4 bytes.
pub fn volumes_probe(data: &[u8]) {
    let mut input = Input(data);
    let len = input.u32() % (1 << 20);
    let volume = Memory::from(input.0.to_vec());
    look(&volume);
    let mut bytes = input.0.to_vec();
    bytes.resize(len as usize, 0);
    // The end is where some formats have their superblock.
    let tail = input.0.len().min(bytes.len()).min(4096);
    let at = bytes.len() - tail;
    bytes[at..].copy_from_slice(&input.0[..tail]);
    look(&Memory::from(bytes));
}

/// A disk that is one physical volume of LVM2, whose checksums are right.
///
/// Input: where the text is in its ring (2 bytes, in units of 8 bytes), how much of it counts (2 bytes), the text.
pub fn volumes_lvm2(data: &[u8]) {
    const AREA: u64 = 4096;
    const AREA_LEN: u64 = 60 << 10;
    let mut input = Input(data);
    let at = 512 + u64::from(input.u16()) * 8 % (AREA_LEN - 512);
    let len = u64::from(input.u16());
    let text = input.bytes(32 << 10);
    let len = if len == 0 { text.len() as u64 } else { len };
    let disk = Memory::new(16 << 20);

    let mut label = b"LABELONE\x01\0\0\0\0\0\0\0\0\0\0\0\x20\0\0\0LVM2 001".to_vec();
    label.extend(b"abcdefghijklmnopqrstuvwxyz012345");
    for number in [disk.len(), 1 << 20, 0, 0, 0, AREA, AREA_LEN, 0, 0] {
        label.extend(number.to_le_bytes());
    }
    label.resize(512, 0);
    let sum = lvm2_crc(&label[20..]);
    label[16..20].copy_from_slice(&sum.to_le_bytes());
    let first = text.len().min((AREA_LEN - at) as usize);
    let _ = disk.write_at(AREA + at, &text[..first]);
    let _ = disk.write_at(AREA + 512, &text[first..]);
    let mut counted = block::read_vec(&disk, AREA + at, len.min(AREA_LEN - at)).unwrap_or_default();
    counted.extend(block::read_vec(&disk, AREA + 512, len - counted.len() as u64).unwrap_or_default());

    let mut header = b"\0\0\0\0 LVM2 x[5A%r0N*>\x01\0\0\0".to_vec();
    for number in [AREA, AREA_LEN, at, len] {
        header.extend(number.to_le_bytes());
    }
    header.extend(lvm2_crc(&counted).to_le_bytes());
    header.resize(512, 0);
    let sum = lvm2_crc(&header[4..]);
    header[..4].copy_from_slice(&sum.to_le_bytes());
    let _ = disk.write_at(512, &label);
    let _ = disk.write_at(AREA, &header);
    look(&disk);
}

fn lvm2_crc(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!0xf597_a6cf);
    hasher.update(bytes);
    !hasher.finalize()
}

fn look(disk: &Memory) {
    let Ok(layout) = volumes::discover(disk) else { return };
    assert!(layout.volumes.len() <= 5000, "{} volumes", layout.volumes.len());
    for volume in &layout.volumes {
        if volume.logical.is_some() {
            let copy = Memory::from(block::read_vec(disk, 0, disk.len()).expect("a disk can be read"));
            let device = volume.device_read_only(std::sync::Arc::new(copy)).expect("it lies on the disk");
            let _ = volumes::probe(&device);
            if let Some(last) = device.len().checked_sub(1) {
                device.read_at(last, &mut [0]).expect("its last byte is somewhere");
            }
            continue;
        }
        let end = volume.start.checked_add(volume.len).expect("a volume has an end");
        assert!(end <= disk.len(), "{volume:?} does not lie on the disk");
        let window = block::Window::new(disk, volume.start, volume.len).expect("a volume lies on the disk");
        let _ = volumes::probe(&window);
    }
}
