//! The work, by `rust-fs-ext4`.

use std::sync::Arc;

use fs_ext4::Filesystem;
use fs_ext4::block_io::FileDevice;
use fs_ext4::dir::DirEntryType;

use crate::{Done, LARGE, SMALL, SMALL_FILES, STEP, Seen};

fn wrong(error: impl std::fmt::Debug) -> Box<dyn std::error::Error> {
    format!("{error:?}").into()
}

pub fn run(work: &str, image: &str) -> Done {
    let reading = matches!(work, "walk" | "read");
    let device = if reading { FileDevice::open(image) } else { FileDevice::open_rw(image) }.map_err(wrong)?;
    let fs = Filesystem::mount(Arc::new(device)).map_err(wrong)?;
    let root = fs.lookup_path_bytes(b"/").map_err(wrong)?;
    match work {
        "walk" | "read" => {
            let mut seen = Seen::default();
            let mut buf = vec![0; STEP];
            let mut pending = vec![root];
            while let Some(directory) = pending.pop() {
                for entry in fs.read_dir_ino(directory).map_err(wrong)? {
                    if entry.name == b"." || entry.name == b".." {
                        continue;
                    }
                    seen.inodes += 1;
                    let inode = fs.stat_ino(entry.inode).map_err(wrong)?;
                    match entry.file_type {
                        DirEntryType::Directory => pending.push(entry.inode),
                        DirEntryType::RegFile if work == "walk" => seen.bytes += inode.size,
                        DirEntryType::RegFile => {
                            let mut at = 0;
                            while at < inode.size {
                                let len = fs.read_ino(entry.inode, at, &mut buf).map_err(wrong)?;
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
            let top = fs.lookup_path_bytes(b"/delete").map_err(wrong)?;
            let mut found = vec![(root, b"delete".to_vec(), top)];
            let mut next = 0;
            while next < found.len() {
                let directory = found[next].2;
                next += 1;
                for entry in fs.read_dir_ino(directory).map_err(wrong)? {
                    if entry.name == b"." || entry.name == b".." {
                        continue;
                    }
                    if matches!(entry.file_type, DirEntryType::Directory) {
                        found.push((directory, entry.name, entry.inode));
                    } else {
                        fs.apply_unlink_at(directory, &entry.name).map_err(wrong)?;
                    }
                }
            }
            for (parent, name, _) in found.into_iter().rev() {
                fs.apply_rmdir_at(parent, &name).map_err(wrong)?;
            }
        }
        "create" => {
            let directory = fs.lookup_path_bytes(b"/create").map_err(wrong)?;
            for n in 0..SMALL_FILES {
                let file = fs.apply_create_at(directory, format!("file-{n}").as_bytes(), 0o644).map_err(wrong)?;
                fs.apply_pwrite_ino(file, 0, &SMALL).map_err(wrong)?;
            }
        }
        _ => {
            let file = fs.apply_create_at(root, b"large", 0o644).map_err(wrong)?;
            let bytes = vec![7; STEP];
            for step in 0..LARGE / STEP {
                fs.apply_pwrite_ino(file, (step * STEP) as u64, &bytes).map_err(wrong)?;
            }
        }
    }
    fs.flush().map_err(wrong)?;
    Ok("flushed".to_owned())
}
