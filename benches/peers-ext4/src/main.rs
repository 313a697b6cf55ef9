//! One piece of work on an ext4 image, by one crate: `peers-ext4 CRATE WORK IMAGE`. The work is walk, read, delete (the
//! tree `/delete`), create (10,000 files of 500 bytes in `/create`) or write (`/large`, 512 MiB). What was found is
//! printed, so that all can be seen to have done the same.

mod kernel;
mod ours;
mod rsext4_crate;
mod rust_fs_ext4_crate;

use std::process::ExitCode;

type Done = Result<String, Box<dyn std::error::Error>>;

const SMALL_FILES: usize = 10_000;
const SMALL: [u8; 500] = [b'x'; 500];
const LARGE: usize = 512 << 20;
const STEP: usize = 1 << 20;

/// What a walk or a read found.
#[derive(Default)]
struct Seen {
    inodes: u64,
    bytes: u64,
    sum: u64,
}

impl Seen {
    fn contents(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        // Enough to have looked, and little enough not to be what is measured.
        self.sum ^= u64::from(bytes.first().copied().unwrap_or(0)) + u64::from(bytes.last().copied().unwrap_or(0));
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} inodes, {} bytes, sum {}", self.inodes, self.bytes, self.sum)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, work, image] = arguments.as_slice() else {
        eprintln!("usage: peers-ext4 ours|rsext4|rust-fs-ext4 walk|read|delete|create|write IMAGE");
        return ExitCode::from(2);
    };
    let done = match name.as_str() {
        "ours" => ours::run(work, image),
        "kernel" => kernel::run(work, image),
        "rsext4" => rsext4_crate::run(work, image),
        _ => rust_fs_ext4_crate::run(work, image),
    };
    match done {
        Ok(found) => {
            println!("{found}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{name} {work}: {error}");
            ExitCode::FAILURE
        }
    }
}
