//! Random images and random operations: ours beside QEMU's and beside plain bytes.
//!
//! Each seed is an image of some geometry, made twice by qemu-img. What is done to one by us is done to the other by
//! qemu-io; after each batch qemu-img checks ours, and compares the two. `QCOW2_SEEDS=1000..3000` runs others than the
//! ordinary ones, `QCOW2_SEEDS=42` one of them.

mod geometry;
mod operation;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use block::{Event, Memory, Outcome, ReadAt, Trace, read_vec, replay};
use qcow2::{Backing, DataFile, Error, Image, OpenOptions, Repair};

use crate::oracle::{Random, check, oracle_missing, path, run, temp_dir, text};
use geometry::Geometry;
use operation::{Operation, Patterns, apply_by_qemu};

/// Seeds that found something once.
const REGRESSIONS: &[u64] = &[];

/// Of an ordinary run.
const ORDINARY: Range<u64> = 0..70;

#[test]
fn random_operations_on_random_images_do_what_qemu_does() {
    if oracle_missing("random_operations_on_random_images_do_what_qemu_does") {
        return;
    }
    let seeds: Vec<u64> = match std::env::var("QCOW2_SEEDS") {
        Err(_) => REGRESSIONS.iter().copied().chain(ORDINARY).collect(),
        Ok(text) => match text.split_once("..") {
            Some((first, end)) => (first.parse().unwrap()..end.parse().unwrap()).collect(),
            None => vec![text.parse().unwrap()],
        },
    };
    let next = AtomicU64::new(0);
    let failed: Vec<u64> = std::thread::scope(|scope| {
        let work = || {
            let mut failed = Vec::new();
            while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                let mut log = Vec::new();
                if catch_unwind(AssertUnwindSafe(|| Run::new(seed, &mut log).run())).is_err() {
                    println!("seed {seed} failed:\n  {}", log.join("\n  "));
                    failed.push(seed);
                }
            }
            failed
        };
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(failed.is_empty(), "seeds {failed:?}");
}

/// One seed.
struct Run<'a> {
    random: Random,
    log: &'a mut Vec<String>,
    dir: tempfile::TempDir,
    geometry: Geometry,
    patterns: Patterns,
    ours: PathBuf,
    theirs: PathBuf,
    model: Vec<u8>,
    snapshots: Vec<(String, Vec<u8>)>,
}

impl<'a> Run<'a> {
    fn new(seed: u64, log: &'a mut Vec<String>) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.bytes(8);
        let geometry = Geometry::random(&mut random);
        log.push(format!("{geometry:?}"));
        let dir = temp_dir();
        let model = geometry.make_start(dir.path(), &mut random);
        geometry.make(dir.path(), "ours");
        geometry.make(dir.path(), "theirs");
        let patterns = Patterns::make(dir.path(), &mut random);
        let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
        Self { random, log, dir, geometry, patterns, ours, theirs, model, snapshots: Vec::new() }
    }

    fn run(mut self) {
        for _ in 0..3 + self.random.below(6) {
            match self.random.below(16) {
                0..4 => self.in_place(),
                4..6 => self.transaction(true),
                6 => self.transaction(false),
                7 | 8 => self.crash(false),
                9 => self.crash(true),
                10 => self.by_qemu(),
                11 | 12 => self.create_snapshot(),
                13 => self.apply_snapshot(),
                14 => self.delete_snapshot(),
                _ => self.resize(),
            }
            self.verify();
        }
        for (name, expected) in &self.snapshots {
            let found = self.open(false).into_snapshot(name).unwrap();
            assert!(read_vec(&found, 0, found.len()).unwrap() == *expected, "snapshot {name} as we read it");
            let raw = self.dir.path().join("snapshot.raw");
            run("qemu-img", &["convert", "-l", name, "-O", "raw", path(&self.ours), path(&raw)]);
            let found = std::fs::read(&raw).unwrap();
            // As long as the disk is now.
            let len = expected.len().min(found.len());
            assert!(found[..len] == expected[..len], "snapshot {name} as QEMU reads it");
        }
    }

    fn options(&self, writable: bool) -> OpenOptions {
        let folders = vec![self.dir.path().to_owned()];
        let options = OpenOptions::new().backing(Backing::Within(folders.clone()));
        options.data_file(DataFile::Within(folders)).writable(writable)
    }

    fn open(&self, writable: bool) -> Image {
        open(&self.ours, &self.options(writable))
    }

    fn operations(&mut self) -> Vec<Operation> {
        let (len, cluster_size) = (self.model.len(), self.geometry.cluster_size as usize);
        let count = 1 + self.random.below(9);
        let operations: Vec<_> = (0..count).map(|_| Operation::random(&mut self.random, len, cluster_size)).collect();
        self.log.push(format!("{operations:?}"));
        operations
    }

    /// Of those that only an image has, too.
    fn operations_in_place(&mut self) -> Vec<Operation> {
        let mut operations = self.operations();
        if self.geometry.data_file.is_none() && self.random.below(2) == 0 {
            let (len, cluster_size) = (self.model.len(), self.geometry.cluster_size as usize);
            for _ in 0..=self.random.below(3) {
                let compressed = Operation::random_compression_by_us(&mut self.random, len, cluster_size);
                operations.insert(self.random.below(operations.len() as u64 + 1) as usize, compressed);
            }
            self.log.push(format!("{operations:?}"));
        }
        operations
    }

    fn apply_to_model(&mut self, operations: &[Operation]) {
        operations.iter().for_each(|operation| operation.apply_to_model(&self.patterns, &mut self.model));
    }

    fn in_place(&mut self) {
        self.log.push("in place".to_owned());
        let image = self.open(true);
        let operations = self.operations_in_place();
        for operation in &operations {
            operation.apply_to_image(&self.patterns, &image).unwrap();
            operation.apply_to_model(&self.patterns, &mut self.model);
        }
        self.assert_reads(&image);
        image.close().unwrap();
        apply_by_qemu(&operations, &self.patterns, &self.theirs);
    }

    fn transaction(&mut self, commit: bool) {
        if self.geometry.data_file.is_some() {
            return self.in_place();
        }
        self.log.push(format!("transaction, committed: {commit}"));
        let limit = [0, 100_000, 32 << 20][self.random.below(3) as usize];
        let transaction = self.open(true).begin().unwrap().memory_limit(limit);
        let operations = self.operations();
        let before = self.model.clone();
        for operation in &operations {
            operation.apply(&self.patterns, &transaction).unwrap();
            operation.apply_to_model(&self.patterns, &mut self.model);
        }
        self.assert_reads(&transaction);
        if commit {
            transaction.commit().unwrap();
            apply_by_qemu(&operations, &self.patterns, &self.theirs);
        } else {
            self.model = before;
        }
    }

    /// Both images are written by QEMU, compressed in part.
    fn by_qemu(&mut self) {
        self.log.push("by QEMU".to_owned());
        let mut operations = self.operations();
        // Version 2 cannot unmap what is to be compressed. QEMU forgets that the host cluster that it would compress into next
        // was freed meanwhile, and then uses it twice: so nothing is compressed after anything else was.
        if self.geometry.data_file.is_none() && !self.geometry.version_2 {
            let (len, cluster_size) = (self.model.len(), self.geometry.cluster_size as usize);
            operations.extend(Operation::random_compression(&mut self.random, len, cluster_size));
            self.log.push(format!("{operations:?}"));
        }
        self.apply_to_model(&operations);
        apply_by_qemu(&operations, &self.patterns, &self.ours);
        apply_by_qemu(&operations, &self.patterns, &self.theirs);
        // QEMU itself leaks a cluster now and then where it compresses.
        assert_no_corruption(&self.ours);
        run("qemu-img", &["check", "-q", "-r", "leaks", path(&self.ours)]);
    }

    /// A crash, in the middle of writing in place or of a commit.
    fn crash(&mut self, transaction: bool) {
        if self.geometry.data_file.is_some() {
            return self.in_place();
        }
        self.log.push(format!("crash, of a transaction: {transaction}"));
        let initial = std::fs::read(&self.ours).unwrap();
        let trace = Arc::new(Trace::new(Memory::from(initial.clone())));
        let image = Image::open_storage(trace.clone(), &self.options(true)).unwrap();
        let operations = if transaction { self.operations() } else { self.operations_in_place() };
        // What the disk may hold from an event on.
        let mut versions = vec![(0, self.model.clone())];
        let mut flushed = vec![(0, 0)];
        if transaction {
            let transaction = image.begin().unwrap();
            for operation in &operations {
                operation.apply(&self.patterns, &transaction).unwrap();
                operation.apply_to_model(&self.patterns, &mut self.model);
            }
            transaction.commit().unwrap();
            versions.push((1, self.model.clone()));
        } else {
            for operation in &operations {
                operation.apply_to_image(&self.patterns, &image).unwrap();
                operation.apply_to_model(&self.patterns, &mut self.model);
                versions.push((versions.len(), self.model.clone()));
                if matches!(operation, Operation::Flush) {
                    flushed.push((trace.events().len(), versions.len() - 1));
                }
            }
        }
        let events = trace.events();
        let end = self.random.below(events.len() as u64 + 1) as usize;
        let state = self.state_after(&initial, &events[..end]);
        std::fs::write(&self.ours, &state).unwrap();

        let oldest = flushed.iter().rev().find(|(event, _)| *event <= end).unwrap().1;
        let image = self.open(false);
        let found = read_vec(&image, 0, image.len()).unwrap();
        drop(image);
        if transaction {
            assert!(versions.iter().any(|(_, version)| *version == found), "neither old nor new");
        }
        for (sector, bytes) in found.chunks(512).enumerate() {
            let at = sector * 512;
            let known = versions[oldest..].iter().any(|(_, version)| version[at..at + bytes.len()] == *bytes);
            assert!(known, "a sector at {at} holds what was never written there, after {end} events");
        }
        self.model = found;
        if !transaction {
            self.repair();
        }
        let raw = self.dir.path().join("model");
        std::fs::write(&raw, &self.model).unwrap();
        let command = format!("write -q -s {} 0 {}", path(&raw), self.model.len());
        run("qemu-io", &["-f", "qcow2", "-c", &command, path(&self.theirs)]);
    }

    fn state_after(&mut self, initial: &[u8], events: &[Event]) -> Vec<u8> {
        let fixed = self.random.below(4);
        replay(initial, events, |_, _| match (fixed, self.random.below(4)) {
            (0, _) | (1.., 0) => Outcome::Lost,
            (1, _) | (2.., 1) => Outcome::Kept,
            _ => Outcome::Torn(self.random.below(140)),
        })
        .unwrap()
    }

    /// There may be leaks, and nothing worse. They are repaired by us, by QEMU, or left to the next transaction.
    fn repair(&mut self) {
        assert_no_corruption(&self.ours);
        match self.random.below(3) {
            0 => {
                let report = open(&self.ours, &OpenOptions::new().repair(true).backing(Backing::LeaveClosed))
                    .repair(Repair::Leaks, &mut |_| {})
                    .unwrap();
                assert!(report.is_clean(), "{report:?}");
            }
            1 => drop(self.open(true).begin().unwrap().commit().unwrap()),
            _ => drop(run("qemu-img", &["check", "-q", "-r", "leaks", path(&self.ours)])),
        }
    }

    fn create_snapshot(&mut self) {
        let name = format!("s{}", self.random.next() % 10_000);
        self.log.push(format!("create snapshot {name}"));
        let created = self.open(true).create_snapshot(&name, SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30));
        if self.is_done(created) {
            self.snapshots.push((name.clone(), self.model.clone()));
            self.by_qemu_img(&["snapshot", "-c", &name], &[]);
        }
    }

    fn apply_snapshot(&mut self) {
        let Some((name, bytes)) = self.any_snapshot() else { return self.create_snapshot() };
        self.log.push(format!("apply snapshot {name}"));
        let applied = self.open(true).apply_snapshot(&name);
        if self.is_done(applied) {
            self.model = bytes;
            self.by_qemu_img(&["snapshot", "-a", &name], &[]);
        }
    }

    fn delete_snapshot(&mut self) {
        let Some((name, _)) = self.any_snapshot() else { return self.create_snapshot() };
        self.log.push(format!("delete snapshot {name}"));
        self.open(true).delete_snapshot(&name).unwrap();
        self.snapshots.retain(|(other, _)| *other != name);
        self.by_qemu_img(&["snapshot", "-d", &name], &[]);
    }

    fn any_snapshot(&mut self) -> Option<(String, Vec<u8>)> {
        let count = self.snapshots.len() as u64;
        (count > 0).then(|| self.snapshots[self.random.below(count) as usize].clone())
    }

    fn resize(&mut self) {
        let len = (1 + self.random.below(self.geometry.len * 3 / 1024)) * 512;
        self.log.push(format!("resize to {len}"));
        let resized = self.open(true).resize(len);
        if self.is_done(resized) {
            let old = self.model.len();
            self.model.resize(len as usize, 0);
            self.by_qemu_img(&["resize", "-q", "--shrink"], &[&len.to_string()]);
            if self.model.len() > old {
                // What an earlier resize cut off within a cluster is there again.
                let zero = Operation::Zero { offset: old, len: self.model.len() - old };
                apply_by_qemu(&[zero], &self.patterns, &self.theirs);
            }
        }
    }

    /// Whether a change was made, rather than refused for what the image is.
    fn is_done<T>(&mut self, result: Result<T, Error>) -> bool {
        match result {
            Ok(_) => true,
            Err(Error::Unsupported(what)) => {
                self.log.push(format!("refused: {what}"));
                false
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn by_qemu_img(&mut self, before: &[&str], after: &[&str]) {
        let out = Command::new("qemu-img").args(before).arg(&self.theirs).args(after).output().unwrap();
        if !out.status.success() {
            // Its own layout may be such that a refcount would outgrow its width.
            self.log.push(format!("refused by QEMU: {}", text(&out.stderr)));
            std::fs::copy(&self.ours, &self.theirs).unwrap();
        }
    }

    fn assert_reads(&mut self, device: &dyn ReadAt) {
        assert_eq!(device.len(), self.model.len() as u64);
        let found = read_vec(device, 0, device.len()).unwrap();
        let differs = found.iter().zip(&self.model).position(|(a, b)| a != b);
        assert_eq!(differs, None, "first difference");
        for _ in 0..4 {
            let offset = self.random.below(device.len());
            let len = 1 + self.random.below(20_000.min(device.len() - offset));
            let expected = &self.model[offset as usize..(offset + len) as usize];
            assert!(read_vec(device, offset, len).unwrap() == expected, "{len} bytes at {offset}");
        }
    }

    fn verify(&mut self) {
        let image = self.open(false);
        self.assert_reads(&image);
        drop(image);
        check(&self.ours);
        run("qemu-img", &["compare", "-q", "-f", "qcow2", "-F", "qcow2", path(&self.ours), path(&self.theirs)]);
    }
}

/// The image may have leaks, and nothing worse.
fn assert_no_corruption(image: &Path) {
    let out = Command::new("qemu-img").args(["check", "-f", "qcow2", path(image)]).output().unwrap();
    assert!(matches!(out.status.code(), Some(0 | 3)), "{}{}", text(&out.stdout), text(&out.stderr));
}

/// Opens an image; a program that another thread starts may hold its locks for a moment.
fn open(image: &Path, options: &OpenOptions) -> Image {
    for _ in 0..50 {
        match Image::open(image, options) {
            Err(error) if error.to_string().contains("lock") || error.to_string().contains("in use") => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other.unwrap(),
        }
    }
    Image::open(image, options).unwrap()
}
