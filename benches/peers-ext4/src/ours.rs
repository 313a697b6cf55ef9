//! The work, by `ext4fs`. Deleting and creating are committed as a whole through a redo log.

use std::path::Path;
use std::sync::Arc;

use block::{Access, HostFile, Staged};
use ext4fs::{FileKind, FileSystem, NewNode, OpenOptions, Ownership};

use crate::{Done, LARGE, SMALL, SMALL_FILES, STEP, Seen};

pub fn run(work: &str, image: &str) -> Done {
    match work {
        "walk" | "read" => {
            let fs = FileSystem::open_read_only(Arc::new(HostFile::open(image, Access::Read)?))?;
            let mut seen = Seen::default();
            let mut buf = vec![0; STEP];
            let mut pending = vec![fs.root()];
            while let Some(directory) = pending.pop() {
                for entry in fs.read_dir(directory)? {
                    seen.inodes += 1;
                    let metadata = fs.metadata(entry.inode)?;
                    match entry.kind {
                        FileKind::Directory => pending.push(entry.inode),
                        FileKind::File if work == "walk" => seen.bytes += metadata.size,
                        FileKind::File => {
                            let mut at = 0;
                            while at < metadata.size {
                                let len = fs.read_at(entry.inode, at, &mut buf)?;
                                seen.contents(&buf[..len]);
                                at += len as u64;
                            }
                        }
                        _ => {}
                    }
                }
            }
            Ok(seen.to_string())
        }
        "write" => {
            let mut fs =
                FileSystem::open(Arc::new(HostFile::open(image, Access::ReadWrite)?), &OpenOptions::default())?;
            let owner = Ownership { mode: 0o644, uid: 0, gid: 0 };
            let file = fs.create(fs.root(), b"large", NewNode::File, owner)?;
            let bytes = vec![7; STEP];
            for step in 0..LARGE / STEP {
                fs.write_at(file, (step * STEP) as u64, &bytes)?;
            }
            fs.flush()?;
            Ok("written".to_owned())
        }
        _ => {
            let device = Arc::new(Staged::open(Path::new(image), None)?);
            let mut fs = FileSystem::open(device.clone(), &OpenOptions::default())?;
            if work == "delete" {
                fs.remove_dir_all(b"/delete")?;
            } else {
                let directory = fs.resolve(b"/create")?;
                for n in 0..SMALL_FILES {
                    let name = format!("file-{n}");
                    let owner = Ownership { mode: 0o644, uid: 0, gid: 0 };
                    let file = fs.create(directory, name.as_bytes(), NewNode::File, owner)?;
                    fs.write_at(file, 0, &SMALL)?;
                }
            }
            fs.flush()?;
            device.commit()?;
            Ok("committed".to_owned())
        }
    }
}
