//! Checks and repairs of whole and of broken images, beside those of qemu-img.

use std::path::Path;
use std::process::Command;

use crate::oracle::{disk, oracle_missing, path, run, temp_dir};
use qcow2::{Backing, Image, OpenOptions, Repair};
use serde_json::Value;

const LEN: usize = 2 << 20;

/// Makes the kinds of image that are to be checked.
fn for_each_image(dir: &Path, mut with: impl FnMut(&str, &Path)) {
    let raw = dir.join("disk.raw");
    std::fs::write(&raw, disk(LEN, 11)).unwrap();
    let kinds: &[(&str, &[&str])] = &[
        ("plain", &[]),
        ("version 2", &["-o", "compat=0.10"]),
        ("512-byte clusters", &["-o", "cluster_size=512"]),
        ("4 KiB clusters", &["-o", "cluster_size=4k"]),
        ("2 MiB clusters", &["-o", "cluster_size=2M"]),
        ("1-bit refcounts", &["-o", "refcount_bits=1"]),
        ("64-bit refcounts, 512-byte clusters", &["-o", "refcount_bits=64,cluster_size=512"]),
        ("zlib", &["-c"]),
        ("zlib, 4 KiB clusters", &["-c", "-o", "cluster_size=4k"]),
        ("zstd", &["-c", "-o", "compression_type=zstd"]),
        ("not sparse", &["-S", "0"]),
        ("extended L2", &["-o", "extended_l2=on"]),
        ("extended L2, zlib", &["-c", "-o", "extended_l2=on"]),
    ];
    let image = dir.join("disk.qcow2");
    for (name, options) in kinds {
        let args = [&["convert", "-f", "raw", "-O", "qcow2"], *options, &[path(&raw), path(&image)]].concat();
        run("qemu-img", &args);
        with(name, &image);
    }
    run("qemu-img", &["create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", path(&image), "64M"]);
    with("preallocated", &image);
    run("qemu-img", &["create", "-q", "-f", "qcow2", path(&image), "0"]);
    with("empty", &image);
    run("qemu-img", &["create", "-q", "-f", "qcow2", "-b", "disk.raw", "-F", "raw", path(&image)]);
    run("qemu-io", &["-f", "qcow2", "-c", "write 100k 100k", "-c", "write -z 1M 1M", path(&image)]);
    with("backed", &image);
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", path(&raw), path(&image)]);
    run("qemu-img", &["snapshot", "-c", "one", path(&image)]);
    run("qemu-io", &["-f", "qcow2", "-c", "write 100k 300k", "-c", "discard 1M 200k", path(&image)]);
    run("qemu-img", &["snapshot", "-c", "two", path(&image)]);
    run("qemu-img", &["bitmap", "--add", "-f", "qcow2", path(&image), "b"]);
    run("qemu-io", &["-f", "qcow2", "-c", "write 900k 64k", path(&image)]);
    with("snapshots and a bitmap", &image);
}

/// A file that is to be broken.
struct Bytes(Vec<u8>);

impl Bytes {
    fn u64(&self, at: u64) -> u64 {
        u64::from_be_bytes(self.0[at as usize..at as usize + 8].try_into().unwrap())
    }

    fn set(&mut self, at: u64, value: u64) {
        self.0[at as usize..at as usize + 8].copy_from_slice(&value.to_be_bytes());
    }

    fn cluster_size(&self) -> u64 {
        1 << u32::from_be_bytes(self.0[20..24].try_into().unwrap())
    }

    fn refcount_bits(&self) -> u64 {
        if self.0[7] == 2 { 16 } else { 1 << self.0[99] }
    }

    fn refcount_table(&self) -> u64 {
        self.u64(48)
    }

    fn l1(&self) -> u64 {
        self.u64(40)
    }

    fn l2(&self) -> u64 {
        let empty = self.0[36..40] == [0; 4];
        if empty { 0 } else { self.u64(self.l1()) & 0x00ff_ffff_ffff_fe00 }
    }

    /// Where the first entry of the first L2 table is that leads somewhere, from entry `from` on.
    fn entry(&self, from: u64) -> Option<u64> {
        let l2 = self.l2();
        let size = if self.is_extended() { 16 } else { 8 };
        (from..self.cluster_size() / size).map(|i| l2 + i * size).find(|&at| l2 != 0 && self.u64(at) & !1 != 0)
    }

    /// Where the next such entry is.
    fn entry_after(&self, at: u64) -> Option<u64> {
        self.entry((at - self.l2()) / if self.is_extended() { 16 } else { 8 } + 1)
    }

    fn is_extended(&self) -> bool {
        self.0[7] == 3 && self.0[79] & 16 != 0
    }

    fn is_compressed(&self) -> bool {
        self.entry(0).is_some_and(|at| self.u64(at) >> 62 & 1 == 1)
    }

    /// Sets the refcount of a cluster; the first refcount block must hold it.
    fn set_refcount(&mut self, cluster: u64, count: u64) {
        let block = self.u64(self.refcount_table());
        let bits = self.refcount_bits();
        if bits < 8 {
            let at = (block + cluster * bits / 8) as usize;
            let shift = cluster * bits % 8;
            let mask = ((1u16 << bits) - 1) as u8;
            self.0[at] = self.0[at] & !(mask << shift) | (count as u8 & mask) << shift;
        } else {
            let len = (bits / 8) as usize;
            let at = block as usize + cluster as usize * len;
            self.0[at..at + len].copy_from_slice(&count.to_be_bytes()[8 - len..]);
        }
    }

    fn data_cluster(&self) -> Option<u64> {
        let at = self.entry(0).filter(|_| !self.is_compressed())?;
        Some((self.u64(at) & 0x00ff_ffff_ffff_fe00) / self.cluster_size())
    }
}

/// Breaks a file in one way; says whether that way applies to it.
type Break = fn(&mut Bytes) -> bool;

/// The ways to break an image, and whether a repair can mend each.
const BREAKS: &[(&str, bool, Break)] = &[
    ("whole", true, |_| true),
    ("leaked clusters", true, |file| {
        let size = file.cluster_size();
        let first = (file.0.len() as u64).div_ceil(size);
        file.0.resize(((first + 3) * size) as usize, 0x5a);
        if (first + 3) * file.refcount_bits() > size * 8 {
            return false;
        }
        (first..first + 3).for_each(|cluster| file.set_refcount(cluster, 1));
        true
    }),
    ("a refcount too high", true, |file| {
        let Some(cluster) = file.data_cluster().filter(|_| file.refcount_bits() > 1) else { return false };
        file.set_refcount(cluster, 3);
        true
    }),
    ("a refcount of 0", true, |file| {
        let Some(cluster) = file.data_cluster() else { return false };
        file.set_refcount(cluster, 0);
        true
    }),
    ("the header's refcount of 0", true, |file| {
        file.set_refcount(0, 0);
        true
    }),
    ("COPIED missing in L2", true, |file| {
        let Some(at) = file.entry(0).filter(|_| !file.is_compressed()) else { return false };
        file.set(at, file.u64(at) & !(1 << 63));
        true
    }),
    ("COPIED missing in L1", true, |file| {
        let at = file.l1();
        if file.l2() == 0 {
            return false;
        }
        file.set(at, file.u64(at) & !(1 << 63));
        true
    }),
    ("COPIED set for a compressed cluster", false, |file| {
        let Some(at) = file.entry(0).filter(|_| file.is_compressed()) else { return false };
        file.set(at, file.u64(at) | 1 << 63);
        true
    }),
    ("two entries with one cluster", true, |file| {
        let Some(first) = file.entry(0).filter(|_| !file.is_compressed() && file.refcount_bits() > 1) else {
            return false;
        };
        let Some(second) = file.entry_after(first) else { return false };
        file.set(second, file.u64(first));
        true
    }),
    ("two entries with one cluster that 1 bit cannot count", false, |file| {
        let Some(first) = file.entry(0).filter(|_| file.refcount_bits() == 1) else { return false };
        let Some(second) = file.entry_after(first) else { return false };
        file.set(second, file.u64(first));
        true
    }),
    ("data over the L1 table", true, |file| {
        let Some(at) = file.entry(0).filter(|_| !file.is_compressed() && file.refcount_bits() > 1) else {
            return false;
        };
        file.set(at, file.l1() | 1 << 63);
        true
    }),
    ("data over the refcount block", true, |file| {
        let Some(at) = file.entry(0).filter(|_| !file.is_compressed() && file.refcount_bits() > 1) else {
            return false;
        };
        file.set(at, file.u64(file.refcount_table()) | 1 << 63);
        true
    }),
    ("an L2 entry out of the file", false, |file| {
        let Some(at) = file.entry(0).filter(|_| !file.is_compressed()) else { return false };
        file.set(at, 1 << 40 | 1 << 63);
        true
    }),
    ("an L2 entry not aligned", false, |file| {
        let Some(at) = file.entry(0).filter(|_| !file.is_compressed() && file.cluster_size() > 512) else {
            return false;
        };
        file.set(at, file.u64(at) + 512);
        true
    }),
    ("reserved bits in L2", false, |file| {
        let Some(at) = file.entry(0).filter(|_| !file.is_compressed()) else { return false };
        file.set(at, file.u64(at) | 1 << 58);
        true
    }),
    ("reserved bits in L1", false, |file| {
        let at = file.l1();
        if file.l2() == 0 {
            return false;
        }
        file.set(at, file.u64(at) | 1 << 58);
        true
    }),
    ("an L1 entry out of the file", false, |file| {
        if file.l2() == 0 {
            return false;
        }
        file.set(file.l1(), 1 << 40 | 1 << 63);
        true
    }),
    ("a compressed cluster out of the file", false, |file| {
        let Some(at) = file.entry(0).filter(|_| file.is_compressed()) else { return false };
        file.set(at, file.u64(at) | 1 << 35);
        true
    }),
    ("a refcount block out of the file", true, |file| {
        let at = file.refcount_table() + 8;
        file.set(at, 1 << 40);
        true
    }),
    ("no refcount block", true, |file| {
        let at = file.refcount_table();
        file.set(at, 0);
        true
    }),
    ("subclusters both allocated and zero", false, |file| {
        let Some(at) = file.entry(0).filter(|_| file.is_extended() && !file.is_compressed()) else { return false };
        file.set(at + 8, u64::MAX);
        true
    }),
    ("subclusters of no cluster", false, |file| {
        let Some(at) = file.entry(0).filter(|_| file.is_extended() && !file.is_compressed()) else { return false };
        file.set(at, 0);
        true
    }),
    ("subclusters of a compressed cluster", false, |file| {
        let Some(at) = file.entry(0).filter(|_| file.is_extended() && file.is_compressed()) else { return false };
        file.set(at + 8, 1);
        true
    }),
    ("the dirty bit", true, |file| {
        file.0[79] |= 1;
        file.0[7] == 3
    }),
    ("the corrupt bit", true, |file| {
        file.0[79] |= 2;
        file.0[7] == 3
    }),
];

/// What qemu-img says of an image, but for its name and format; and its exit code.
fn qemu_check(image: &Path, repair: &[&str]) -> (Value, i32) {
    let args = [&["check", "--output=json", "-f", "qcow2"], repair, &[path(image)]].concat();
    let out = Command::new("qemu-img").args(&args).output().unwrap();
    let mut value: Value =
        serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out.stderr)));
    let object = value.as_object_mut().unwrap();
    object.remove("filename");
    object.remove("format");
    (value, out.status.code().unwrap())
}

fn options() -> OpenOptions {
    OpenOptions::new().backing(Backing::Within(Vec::new()))
}

/// Runs `test` on every image broken in every way that applies to it.
fn for_each_broken(dir: &Path, mut test: impl FnMut(&str, bool, &Path)) {
    let mut broken = 0;
    for_each_image(dir, |kind, image| {
        for &(way, mendable, break_it) in BREAKS {
            let mut file = Bytes(std::fs::read(image).unwrap());
            if !break_it(&mut file) {
                continue;
            }
            let copy = dir.join("broken.qcow2");
            std::fs::write(&copy, &file.0).unwrap();
            broken += 1;
            test(&format!("{kind}: {way}"), mendable, &copy);
        }
    });
    assert!(broken > 150, "{broken}");
}

#[test]
fn checks_count_what_qemu_counts_and_repairs_mend_what_qemu_mends() {
    if oracle_missing("checks_count_what_qemu_counts_and_repairs_mend_what_qemu_mends") {
        return;
    }
    let dir = temp_dir();
    let copy = dir.path().join("copy.qcow2");
    // Every way to break an image is repaired in some kinds of image, and every kind is repaired in some ways.
    let every = if std::env::var("QCOW2_CHECK").as_deref() == Ok("all") { 1 } else { 3 };
    let mut number = 0;
    for_each_broken(dir.path(), |name, mendable, image| {
        println!("{name}");
        count(name, image);
        number += 1;
        if number % every == 0 {
            std::fs::copy(image, &copy).unwrap();
            repair_leaks(name, &copy);
        }
        if (number + 1) % every == 0 {
            repair_all(name, mendable, image, &copy);
        }
    });
}

fn count(name: &str, image: &Path) {
    let mut problems = 0;
    let opened = Image::open(image, &options()).unwrap();
    let report = opened.check(&mut |problem| {
        println!("  {problem}");
        problems += 1;
    });
    let report = report.unwrap();
    assert_eq!(problems, report.leaks + report.corruptions + report.check_errors, "{name}");
    let (theirs, code) = qemu_check(image, &[]);
    assert_eq!(serde_json::to_value(report).unwrap(), theirs, "{name}");
    assert_eq!(report.is_clean(), code == 0, "{name}");
}

fn repair_all(name: &str, mendable: bool, image: &Path, theirs: &Path) {
    std::fs::copy(image, theirs).unwrap();
    let opened = Image::open(image, &options().repair(true)).unwrap();
    let report = opened.repair(Repair::All, &mut |_| {}).unwrap();
    assert_eq!(opened.check(&mut |_| {}).unwrap().corruptions, report.corruptions);
    drop(opened);
    assert_eq!(report.is_clean(), mendable, "{name}: {report:?}");
    let (found, code) = qemu_check(image, &[]);
    assert_eq!(found["check-errors"], 0, "{name}");
    assert_eq!(found.get("corruptions").and_then(Value::as_u64).unwrap_or(0), report.corruptions, "{name}");
    // QEMU would make the file a terabyte long to give such a block room, and finds leaks of its own making where it
    // has stored bitmaps.
    if !name.ends_with("a refcount block out of the file") && !name.starts_with("snapshots and a bitmap") {
        let (mended, _) = qemu_check(theirs, &["-r", "all"]);
        for key in ["corruptions", "leaks", "leaks-fixed", "corruptions-fixed"] {
            assert_eq!(serde_json::to_value(report).unwrap().get(key), mended.get(key), "{name}: {key}");
        }
    }
    if mendable {
        assert_eq!(code, 0, "{name}");
        run("qemu-img", &["compare", "-f", "qcow2", "-F", "qcow2", path(image), path(theirs)]);
        // Nothing is left to do, down to the file's bytes.
        let before = std::fs::read(image).unwrap();
        let again = Image::open(image, &options().repair(true)).unwrap();
        assert!(again.repair(Repair::All, &mut |_| {}).unwrap().is_clean());
        drop(again);
        assert!(std::fs::read(image).unwrap() == before, "{name}");
    }
}

fn repair_leaks(name: &str, image: &Path) {
    let before = Image::open(image, &options()).unwrap().check(&mut |_| {}).unwrap();
    let opened = Image::open(image, &options().repair(true)).unwrap();
    let report = opened.repair(Repair::Leaks, &mut |_| {}).unwrap();
    drop(opened);
    assert_eq!((report.leaks, report.leaks_fixed), (0, before.leaks), "{name}");
    let (found, _) = qemu_check(image, &[]);
    assert_eq!(found.get("leaks"), None, "{name}");
    assert_eq!(found.get("corruptions").and_then(Value::as_u64).unwrap_or(0), report.corruptions, "{name}");
}

#[test]
fn only_an_image_opened_for_a_repair_is_repaired() {
    if oracle_missing("only_an_image_opened_for_a_repair_is_repaired") {
        return;
    }
    let dir = temp_dir();
    let image = dir.path().join("disk.qcow2");
    run("qemu-img", &["create", "-q", "-f", "qcow2", path(&image), "1M"]);
    for options in [options(), options().writable(true)] {
        let opened = Image::open(&image, &options).unwrap();
        let error = opened.repair(Repair::All, &mut |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "the image is read-only: it was not opened for a repair");
    }
    let opened = Image::open(&image, &options().repair(true)).unwrap();
    assert!(block::WriteAt::write_at(&opened, 0, &[1]).is_err());
}
