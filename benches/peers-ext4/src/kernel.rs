//! The work that no program does as it is, by the kernel: below a mount point instead of on an image.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::{Done, LARGE, SMALL, SMALL_FILES, STEP};

pub fn run(work: &str, point: &str) -> Done {
    let point = Path::new(point);
    if work == "create" {
        for n in 0..SMALL_FILES {
            File::create(point.join("create").join(format!("file-{n}")))?.write_all(&SMALL)?;
        }
    } else {
        let mut file = File::create(point.join("large"))?;
        let bytes = vec![7; STEP];
        for _ in 0..LARGE / STEP {
            file.write_all(&bytes)?;
        }
    }
    // Syncs the file system that the folder is on.
    File::open(point)?.sync_all()?;
    Ok("done".to_owned())
}
