//! File systems by mkfs.xfs and the kernel, read: every path with all that belongs to it.

use crate::common::{ALL, EL7, EL8, EL9, Image, assert_same, populate, tree_of, tree_of_kernel};

fn check(test: &str, options: &str) {
    let Some(mut image) = Image::new(test, options) else { return };
    let expected = image.mounted(|top| {
        populate(top);
        tree_of_kernel(top)
    });
    image.repair_finds_nothing("as the kernel left it");
    let fs = image.open();
    assert_same(&tree_of(&fs), &expected, options);
}

#[test]
fn features_of_every_age() {
    for options in [EL7, EL8, EL9, ALL] {
        check("features_of_every_age", options);
    }
}

#[test]
fn blocks_of_every_size() {
    for size in [1024, 2048, 8192, 16384, 32768, 65536] {
        check("blocks_of_every_size", &format!("{EL9} -b size={size}"));
    }
}

#[test]
fn inodes_and_directories_of_every_size() {
    for options in
        ["-i size=1024", "-i size=2048", "-b size=1024 -n size=8192", "-n size=65536", "-b size=2048 -n size=4096"]
    {
        check("inodes_and_directories_of_every_size", options);
    }
    check("inodes_and_directories_of_every_size", "-s size=4096 -d agcount=7 -l size=8m");
}
