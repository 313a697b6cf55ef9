//! The work, by `rsext4`.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rsext4::{
    BlockIo, DeviceCapabilities, DeviceGeometry, DirectoryCursor, DirectoryEntryType, Ext4, Ext4Error, Ext4Result,
    Ext4Timestamp, FileName, FilePermissions, InodeNumber, MountOptions, MountServices, MutationContext, NoopObserver,
    SectorId,
};

use crate::{Done, LARGE, SMALL, SMALL_FILES, STEP, Seen};

const SECTOR: u64 = 4096;

struct Image {
    file: File,
    sectors: u64,
    read_only: bool,
}

impl BlockIo for Image {
    fn write(&mut self, buffer: &[u8], sector: SectorId, _count: u32) -> Ext4Result<()> {
        let at = sector.as_usize()? as u64 * SECTOR;
        self.file.write_all_at(buffer, at).map_err(|_| Ext4Error::io())
    }
    fn read(&mut self, buffer: &mut [u8], sector: SectorId, _count: u32) -> Ext4Result<()> {
        let at = sector.as_usize()? as u64 * SECTOR;
        self.file.read_exact_at(buffer, at).map_err(|_| Ext4Error::io())
    }
    fn flush(&mut self) -> Ext4Result<()> {
        self.file.sync_data().map_err(|_| Ext4Error::io())
    }
    fn geometry(&self) -> DeviceGeometry {
        DeviceGeometry::new(SECTOR as u32, self.sectors)
    }
    fn capabilities(&self) -> DeviceCapabilities {
        DeviceCapabilities { read_only: self.read_only, flush: true, ..DeviceCapabilities::default() }
    }
}

struct Clock;

impl rsext4::Clock for Clock {
    fn now(&self) -> Ext4Result<Ext4Timestamp> {
        Ok(Ext4Timestamp::new(1_700_000_000, 0))
    }
}

fn wrong(error: Ext4Error) -> Box<dyn std::error::Error> {
    format!("{error:?}").into()
}

macro_rules! entries {
    ($fs:expr, $directory:expr) => {{
        let mut reader = $fs.open_directory_reader($directory).map_err(wrong)?;
        let mut cursor = DirectoryCursor::Start;
        let mut all = Vec::new();
        loop {
            let batch = $fs.read_directory_with_reader(&mut reader, cursor, 512).map_err(wrong)?;
            let Some(last) = batch.last() else { break };
            cursor = last.next_cursor;
            all.extend(batch.into_iter().filter(|entry| entry.name != b"." && entry.name != b".."));
        }
        all
    }};
}

pub fn run(work: &str, image: &str) -> Done {
    let reading = matches!(work, "walk" | "read");
    let file = File::options().read(true).write(!reading).open(image)?;
    let sectors = file.metadata()?.len() / SECTOR;
    let options = if reading { MountOptions::read_only_no_journal_replay() } else { MountOptions::read_write() };
    let services = MountServices::new(Clock, (), NoopObserver);
    let mut fs = Ext4::mount(Image { file, sectors, read_only: reading }, services, options).map_err(wrong)?;
    let context = MutationContext::new(0, 0, 0, 0);
    let permissions = FilePermissions::new(0o644).map_err(wrong)?;
    let root = fs.root_inode();
    match work {
        "walk" | "read" => {
            let mut seen = Seen::default();
            let mut buf = vec![0; STEP];
            let mut pending = vec![root];
            while let Some(directory) = pending.pop() {
                for entry in entries!(fs, directory) {
                    seen.inodes += 1;
                    let info = fs.inode(entry.inode).map_err(wrong)?;
                    match info.file_type() {
                        DirectoryEntryType::Directory => pending.push(entry.inode),
                        DirectoryEntryType::RegularFile if work == "walk" => seen.bytes += info.size,
                        DirectoryEntryType::RegularFile => {
                            let mut at = 0;
                            while at < info.size {
                                let len = fs.read_inode(entry.inode, at, &mut buf).map_err(wrong)?;
                                seen.contents(&buf[..len]);
                                at += len as u64;
                            }
                        }
                        _ => {}
                    }
                }
            }
            return Ok(seen.to_string());
        }
        "delete" => {
            let top = child(&mut fs, root, b"delete")?;
            // Directories in the order in which they were found; they go in the reverse.
            let mut found = vec![(root, b"delete".to_vec(), top)];
            let mut next = 0;
            while next < found.len() {
                let directory = found[next].2;
                next += 1;
                for entry in entries!(fs, directory) {
                    if entry.file_type == DirectoryEntryType::Directory {
                        found.push((directory, entry.name, entry.inode));
                        continue;
                    }
                    let name = FileName::new(&entry.name).map_err(wrong)?;
                    let _ = fs.unlink(directory, name).map_err(wrong)?;
                    if fs.inode(entry.inode).map_err(wrong)?.links == 0 {
                        fs.reap_unlinked_inode(entry.inode).map_err(wrong)?;
                    }
                }
            }
            for (parent, name, inode) in found.into_iter().rev() {
                let _ = fs.remove_empty_directory(parent, FileName::new(&name).map_err(wrong)?).map_err(wrong)?;
                fs.reap_unlinked_inode(inode).map_err(wrong)?;
            }
        }
        "create" => {
            let directory = child(&mut fs, root, b"create")?;
            for n in 0..SMALL_FILES {
                let name = format!("file-{n}");
                let name = FileName::new(name.as_bytes()).map_err(wrong)?;
                let file = fs.create_regular_file(context, directory, name, permissions).map_err(wrong)?;
                fs.write_inode(file.number, 0, &SMALL).map_err(wrong)?;
            }
        }
        _ => {
            let name = FileName::new(b"large").map_err(wrong)?;
            let file = fs.create_regular_file(context, root, name, permissions).map_err(wrong)?;
            let bytes = vec![7; STEP];
            for step in 0..LARGE / STEP {
                fs.write_inode(file.number, (step * STEP) as u64, &bytes).map_err(wrong)?;
            }
        }
    }
    fs.unmount().map_err(wrong)?;
    Ok("unmounted".to_owned())
}

fn child<D: BlockIo, O: rsext4::Observer>(
    fs: &mut Ext4<D, rsext4::MountedServices<(), O, ()>>,
    parent: InodeNumber,
    name: &[u8],
) -> Result<InodeNumber, Box<dyn std::error::Error>> {
    let name = FileName::new(name).map_err(wrong)?;
    Ok(fs.lookup_child(parent, name).map_err(wrong)?.ok_or("no such name")?.number)
}
