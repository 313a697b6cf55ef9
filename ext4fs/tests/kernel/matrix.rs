//! The sets of features, and what is done with each.

use std::path::Path;
use std::sync::Arc;

use block::{Access, HostFile};
use ext4fs::{FileSystem, OpenOptions, Timestamp};

use crate::image::{copy, e2fsck, may_mount, mke2fs, mounted};
use crate::script::{Known, Limits, Random, Step};
use crate::{by_kernel, by_us, image, tree};

/// What mke2fs makes for ext2 and ext3, now and in the years when those were what there was.
const OLD: &[&str] = &[
    "-t ext2 -b 1024",
    "-t ext2 -b 2048",
    "-t ext2 -b 4096",
    "-t ext2 -b 1024 -I 128 -r 0",
    "-t ext2 -b 1024 -I 128 -O none,filetype,sparse_super",
    "-t ext2 -b 4096 -I 256 -O dir_index",
    "-t ext2 -b 1024 -O ^filetype,^large_file",
    "-t ext3 -b 1024",
    "-t ext3 -b 2048 -I 512",
    "-t ext3 -b 4096",
    "-t ext3 -b 4096 -I 128",
    "-t ext3 -b 1024 -O ^dir_index,^resize_inode",
    "-t ext3 -b 1024 -O uninit_bg,extra_isize",
    // CentOS 5, 6 and 7, Debian 7, Ubuntu 14.04, SUSE 11: as their mke2fs.conf said.
    "-t ext3 -b 4096 -I 128 -O none,has_journal,resize_inode,dir_index,filetype,sparse_super,large_file",
    "-t ext4 -b 4096 -O none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,flex_bg,sparse_super,large_file,huge_file,uninit_bg,dir_nlink,extra_isize",
    "-t ext4 -b 4096 -O none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,uninit_bg,dir_nlink,extra_isize",
    "-t ext4 -b 1024 -I 128 -O none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,flex_bg,sparse_super,large_file,huge_file,uninit_bg,dir_nlink,extra_isize",
];

/// ext4 as it is made today, with each feature on and off.
const NEW: &[&str] = &[
    "-t ext4 -b 4096",
    "-t ext4 -b 2048",
    "-t ext4 -b 1024",
    "-t ext4 -b 4096 -g 2048",
    "-t ext4 -b 4096 -I 128",
    "-t ext4 -b 1024 -I 128",
    "-t ext4 -b 2048 -I 512",
    "-t ext4 -b 4096 -I 1024",
    "-t ext4 -b 1024 -I 1024",
    "-t ext4 -b 4096 -O metadata_csum_seed,orphan_file",
    "-t ext4 -b 1024 -O metadata_csum_seed,orphan_file",
    "-t ext4 -b 4096 -O ^metadata_csum",
    "-t ext4 -b 4096 -O ^metadata_csum,uninit_bg",
    "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg,^64bit",
    "-t ext4 -b 4096 -O ^64bit",
    "-t ext4 -b 1024 -O ^extents,^64bit",
    "-t ext4 -b 4096 -O ^extents,^64bit,^metadata_csum",
    "-t ext4 -b 4096 -O ^flex_bg -g 2048",
    "-t ext4 -b 4096 -O ^has_journal",
    "-t ext4 -b 1024 -O ^dir_index",
    "-t ext4 -b 1024 -O ^filetype",
    "-t ext4 -b 4096 -O ^extra_isize",
    "-t ext4 -b 1024 -O ^dir_nlink,^huge_file",
    "-t ext4 -b 1024 -O ^sparse_super,^resize_inode",
    "-t ext4 -b 1024 -O meta_bg,^resize_inode",
    "-t ext4 -b 4096 -O meta_bg,^resize_inode,^flex_bg -g 1024",
    "-t ext4 -b 1024 -O sparse_super2",
    "-t ext4 -b 1024 -O large_dir",
];

/// Features that mke2fs does not turn on by itself.
const SPECIAL: &[&str] = &[
    "-t ext4 -b 4096 -O inline_data",
    "-t ext4 -b 1024 -O inline_data",
    "-t ext4 -b 4096 -I 1024 -O inline_data",
    "-t ext4 -b 4096 -I 512 -O inline_data,ea_inode",
    "-t ext4 -b 1024 -O ea_inode",
    "-t ext4 -b 4096 -O ea_inode",
    "-t ext4 -b 1024 -O bigalloc",
    "-t ext4 -b 4096 -C 16384 -O bigalloc",
    "-t ext4 -b 4096 -C 65536 -O bigalloc,^has_journal",
    "-t ext4 -b 4096 -O quota",
    "-t ext4 -b 4096 -O quota,project -E quotatype=usrquota:grpquota:prjquota",
    "-t ext4 -b 4096 -O project",
    "-t ext4 -b 4096 -O mmp",
    "-t ext4 -b 4096 -O encrypt",
    "-t ext4 -b 4096 -O encrypt,stable_inodes",
    "-t ext4 -b 4096 -O verity",
    "-t ext4 -b 4096 -O fast_commit",
    "-t ext4 -b 4096 -O casefold",
    "-t ext4 -b 8192",
    "-t ext4 -b 65536",
    "-t ext2 -b 65536",
];

const NOW: Timestamp = Timestamp { seconds: 1_700_000_000, nanoseconds: 0 };

fn open(path: &Path) -> FileSystem {
    let device = Arc::new(HostFile::open(path, Access::ReadWrite).unwrap());
    FileSystem::open(device, &OpenOptions { clock: Some(NOW), ..OpenOptions::default() }).unwrap()
}

fn limits(arguments: &str) -> Limits {
    let after = |option: &str| {
        let value = arguments.split_whitespace().skip_while(|word| *word != option).nth(1);
        value.and_then(|value| value.parse::<usize>().ok())
    };
    let block_size = after("-b").unwrap_or(4096);
    let old_inodes = after("-I") == Some(128);
    Limits {
        block_size,
        last_second: if old_inodes { (1 << 31) - 1 } else { i64::MAX },
        // A file system of revision 0 has no features, and what mounts it says no to attributes on some.
        xattrs: !arguments.contains("-r 0"),
        // Behind the double indirect blocks where blocks are small.
        far: if block_size == 1024 { 70 << 20 } else { 20 << 20 },
        crowd: 200,
    }
}

/// Applies a script by us, and lets e2fsck judge.
fn ours(path: &Path, steps: &[Step], what: &str) {
    let mut fs = open(path);
    assert_eq!(fs.read_only_reason(), None, "{what}");
    by_us::apply(&mut fs, steps, what);
    fs.flush().unwrap();
    drop(fs);
    e2fsck(path, what);
}

fn ours_read(path: &Path) -> tree::Tree {
    let device = Arc::new(HostFile::open(path, Access::Read).unwrap());
    tree::by_us(&FileSystem::open_read_only(device).unwrap())
}

/// What became of one set of features.
enum Done {
    Compared,
    /// The kernel here does not mount it: judged by e2fsck and our own reading alone.
    WithoutKernel,
    /// It is not written by us yet: only read.
    ReadOnly(String),
}

/// Keeps the images of a failure in the folder that `KERNEL_KEEP` names.
struct Keep<'a>(&'a Path);

impl Drop for Keep<'_> {
    fn drop(&mut self) {
        if let (true, Ok(folder)) = (std::thread::panicking(), std::env::var("KERNEL_KEEP")) {
            ["one", "two"].iter().for_each(|name| copy(&self.0.join(name), &Path::new(&folder).join(name)));
        }
    }
}

fn compare(arguments: &str, seed: u64) -> Done {
    let what = format!("mke2fs {arguments}, seed {seed}");
    let folder = image::scratch();
    let at = |name: &str| folder.path().join(name);
    let _keep = Keep(folder.path());
    let (base, one, two) = (at("base"), at("one"), at("two"));
    let limits = limits(arguments);
    let mebibytes = if limits.block_size > 4096 { 96 } else { 32 };
    mke2fs(&base, arguments, mebibytes);
    copy(&base, &one);
    copy(&base, &two);
    let mut random = Random(seed);
    let mut known = Known::nothing();
    let steps = known.script(&mut random, &limits, 150);
    let timed = known.timed.clone();

    // The same script, by the kernel on one copy and by us on the other.
    let read_only = open(&base).read_only_reason().map(str::to_owned);
    if read_only.is_none() {
        ours(&two, &steps, &format!("{what}, ours"));
    }
    let kernels = mounted(&one, "rw", |root| {
        by_kernel::apply(root, &steps, &what);
        tree::by_kernel(root)
    });
    if let Some(reason) = read_only {
        if let Some(kernels) = &kernels {
            tree::compare(kernels, &ours_read(&one), &timed, &format!("{what}: read by the kernel and by us"));
        }
        return Done::ReadOnly(reason);
    }
    let more = known.script(&mut random, &limits, 80);
    let Some(kernels) = kernels else {
        ours(&two, &more, &format!("{what}, more of ours"));
        return Done::WithoutKernel;
    };
    tree::compare(&kernels, &ours_read(&one), &timed, &format!("{what}: the kernel's image, read by it and by us"));
    tree::compare(&kernels, &ours_read(&two), &timed, &format!("{what}: the kernel's image and ours, read by us"));

    // Crosswise: the kernel goes on in our image, and we in the kernel's.
    let timed_after = known.timed.clone();
    let crossed = mounted(&two, "rw", |root| {
        tree::compare(&kernels, &tree::by_kernel(root), &timed, &format!("{what}: ours, read by the kernel"));
        by_kernel::apply(root, &more, &what);
        tree::by_kernel(root)
    });
    let crossed = crossed.unwrap_or_else(|| panic!("{what}: the kernel does not mount what we have written"));
    e2fsck(&two, &format!("{what}: the kernel on ours"));
    ours(&one, &more, &format!("{what}: ours on the kernel's"));
    let read = mounted(&one, "ro", tree::by_kernel).unwrap_or_else(|| panic!("{what}: the kernel does not mount ours"));
    tree::compare(&crossed, &read, &timed_after, &format!("{what}: crosswise"));
    Done::Compared
}

fn run(test: &str, sets: &[&str]) {
    if !may_mount(test) {
        return;
    }
    let seeds = std::env::var("KERNEL_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(1u64);
    let only = std::env::var("KERNEL_ONLY").unwrap_or_default();
    let other = std::env::var("KERNEL_SETS").ok().map(|path| std::fs::read_to_string(path).unwrap());
    let sets = other.as_ref().map_or_else(|| sets.to_vec(), |text| text.lines().collect());
    let mut compared = 0;
    for (number, arguments) in sets.into_iter().enumerate().filter(|(_, arguments)| arguments.contains(&only)) {
        for seed in 0..seeds {
            match compare(arguments, seed * 1000 + number as u64 + 1) {
                Done::Compared => compared += 1,
                Done::WithoutKernel => println!("{test}: the kernel here does not mount {arguments}"),
                Done::ReadOnly(reason) => println!("{test}: {arguments} is only read: {reason}"),
            }
        }
    }
    println!("{test}: {compared} comparisons");
}

#[test]
fn ext2_ext3_and_what_older_systems_made() {
    run("ext2_ext3_and_what_older_systems_made", OLD);
}

#[test]
fn ext4_with_each_feature_on_and_off() {
    run("ext4_with_each_feature_on_and_off", NEW);
}

#[test]
fn features_that_are_asked_for() {
    run("features_that_are_asked_for", SPECIAL);
}
