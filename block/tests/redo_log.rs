//! Staged changes and their redo log: a crash or an error at any moment leaves the old or the new.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail by panic")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use block::{
    Error, Event, Extent, Identity, LogPlace, Memory, Outcome, ReadAt, Recovery, Result, Staged, Storage, WriteAt,
    read_vec, recover, replay,
};

const TARGET: usize = 100_000;
const IDENTITY: Identity = *b"test device #001";

/// What happened on the device (0) and the log (1), in one order.
type History = Arc<Mutex<Vec<(usize, Event)>>>;

/// A storage in memory that notes in a common history what is done to it, and fails from a chosen call on.
#[derive(Clone)]
struct Noted {
    memory: Arc<Memory>,
    history: History,
    which: usize,
    calls: Arc<AtomicU64>,
    fail_from: u64,
}

impl Noted {
    fn note(&self, event: Event, change: impl FnOnce() -> Result<()>) -> Result<()> {
        self.pass()?;
        change()?;
        self.history.lock().unwrap().push((self.which, event));
        Ok(())
    }

    fn pass(&self) -> Result<()> {
        if self.calls.fetch_add(1, Ordering::Relaxed) >= self.fail_from {
            let source = std::io::Error::other("injected fault");
            return Err(Error::Io { action: "use", offset: 0, len: 0, source });
        }
        Ok(())
    }
}

impl ReadAt for Noted {
    fn len(&self) -> u64 {
        self.memory.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.pass()?;
        self.memory.read_at(offset, buf)
    }
    fn extent_at(&self, offset: u64, max_len: u64) -> Result<Extent> {
        self.memory.extent_at(offset, max_len)
    }
}

impl WriteAt for Noted {
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.note(Event::Write { offset, bytes: buf.to_vec() }, || self.memory.write_at(offset, buf))
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> Result<()> {
        self.note(Event::Zero { offset, len }, || self.memory.write_zeroes(offset, len))
    }
    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.write_zeroes(offset, len)
    }
    fn flush(&self) -> Result<()> {
        self.note(Event::Flush, || Ok(()))
    }
}

impl Storage for Noted {
    fn set_len(&self, len: u64) -> Result<()> {
        self.note(Event::SetLen(len), || self.memory.set_len(len))
    }
}

/// A place for a log in memory. Its name is safe at once, and gone at once.
#[derive(Clone)]
struct Place {
    log: Noted,
    exists: Arc<Mutex<bool>>,
}

impl LogPlace for Place {
    fn open(&self, _: bool) -> Result<Option<Box<dyn Storage>>> {
        Ok(self.exists.lock().unwrap().then(|| Box::new(self.log.clone()) as Box<dyn Storage>))
    }
    fn create(&self) -> Result<Box<dyn Storage>> {
        let mut exists = self.exists.lock().unwrap();
        assert!(!*exists, "a log that is there is not made again");
        *exists = true;
        self.log.set_len(0)?;
        Ok(Box::new(self.log.clone()))
    }
    fn remove(&self) -> Result<()> {
        self.log.pass()?;
        *self.exists.lock().unwrap() = false;
        Ok(())
    }
}

/// A device that holds `initial` and a log that holds `log`, or none.
fn devices(initial: &[u8], log: Option<&[u8]>, fail_from: u64) -> (Noted, Place, History) {
    let history = History::default();
    let calls = Arc::new(AtomicU64::new(0));
    let noted = |bytes: &[u8], which| Noted {
        memory: Arc::new(Memory::from(bytes.to_vec())),
        history: history.clone(),
        which,
        calls: calls.clone(),
        fail_from,
    };
    let place = Place { log: noted(log.unwrap_or_default(), 1), exists: Arc::new(Mutex::new(log.is_some())) };
    (noted(initial, 0), place, history)
}

fn initial() -> Vec<u8> {
    (0..TARGET).map(|at| (at / 13 + at) as u8 | 1).collect()
}

/// Changes of every kind: small, over borders, whole chunks, zeros, data over zeros and the reverse, up to the end.
fn change(disk: &dyn WriteAt, mut model: Option<&mut Vec<u8>>) -> Result<()> {
    let mut random = 99u64;
    let mut below = |limit: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) as usize % limit
    };
    for step in 0..60 {
        let offset = below(TARGET);
        let len = (1 + below([10, 5000, 30_000][step % 3])).min(TARGET - offset);
        let bytes = if step % 4 == 0 { vec![0; len] } else { vec![step as u8 | 0x80; len] };
        if step % 4 == 0 {
            disk.discard(offset as u64, len as u64)?;
        } else {
            disk.write_at(offset as u64, &bytes)?;
        }
        if let Some(model) = model.as_deref_mut() {
            model[offset..offset + len].copy_from_slice(&bytes);
            assert_eq!(&read_vec(disk, 0, TARGET as u64)?, model, "step {step}");
        }
    }
    disk.write_zeroes(TARGET as u64 - 9000, 9000)?;
    disk.write_at(TARGET as u64 - 3, b"end")?;
    if let Some(model) = model {
        model[TARGET - 9000..].fill(0);
        model[TARGET - 3..].copy_from_slice(b"end");
    }
    Ok(())
}

/// Changes the device and commits, with at most `memory` bytes of changes in memory.
fn run(device: &Noted, place: &Place, memory: usize) -> Result<()> {
    let staged = Staged::new(device.clone(), IDENTITY, Box::new(place.clone()))?.memory_limit(memory);
    change(&staged, None)?;
    staged.commit()
}

fn changed() -> Vec<u8> {
    let (device, place, _) = devices(&initial(), None, u64::MAX);
    let mut model = initial();
    let staged = Staged::new(device.clone(), IDENTITY, Box::new(place.clone())).unwrap().memory_limit(20_000);
    change(&staged, Some(&mut model)).unwrap();
    let mut at = 0;
    while at < TARGET as u64 {
        let extent = staged.extent_at(at, TARGET as u64 - at).unwrap();
        let hole = extent.kind == block::ExtentKind::Hole;
        assert!(!hole || model[at as usize..(at + extent.len) as usize].iter().all(|byte| *byte == 0));
        at += extent.len;
    }
    assert_eq!(device.memory.to_vec(), initial(), "nothing reaches the device before the commit");
    staged.commit().unwrap();
    assert_eq!(device.memory.to_vec(), model);
    assert!(!*place.exists.lock().unwrap());
    staged.write_at(5, b"again").unwrap();
    staged.commit().unwrap();
    assert_eq!(&device.memory.to_vec()[5..10], b"again");
    model
}

#[test]
fn what_is_staged_is_read_back_and_committed() {
    changed();
}

#[test]
fn dropped_changes_leave_nothing_and_no_change_writes_nothing() {
    let (device, place, history) = devices(&initial(), None, u64::MAX);
    let staged = Staged::new(device.clone(), IDENTITY, Box::new(place.clone())).unwrap().memory_limit(0);
    change(&staged, None).unwrap();
    assert!(*place.exists.lock().unwrap());
    drop(staged);
    assert!(!*place.exists.lock().unwrap());
    let staged = Staged::new(device.clone(), IDENTITY, Box::new(place)).unwrap();
    staged.commit().unwrap();
    staged.write_at(50, &initial()[50..9000]).unwrap();
    staged.commit().unwrap();
    assert_eq!(device.memory.to_vec(), initial());
    assert!(history.lock().unwrap().iter().all(|(which, _)| *which == 1));
}

#[test]
fn a_crash_at_any_moment_leaves_the_old_or_the_new() {
    let (old, new) = (initial(), changed());
    let (mut olds, mut news, mut applied) = (0, 0, 0);
    for memory in [0, 20_000, 1 << 20] {
        let (device, place, history) = devices(&old, None, u64::MAX);
        run(&device, &place, memory).unwrap();
        let history = history.lock().unwrap().clone();
        let mut random = 5u64;
        for end in 0..=history.len() {
            for variant in 0..8 {
                let mut state = |which: usize, initial: &[u8]| {
                    let events: Vec<Event> =
                        history[..end].iter().filter(|(found, _)| *found == which).map(|(_, e)| e.clone()).collect();
                    replay(initial, &events, |_, _| {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        match (variant, (random >> 33) % 4) {
                            (0, _) | (2.., 0) => Outcome::Lost,
                            (1, _) | (2.., 1) => Outcome::Kept,
                            _ => Outcome::Torn((random >> 40) % 40),
                        }
                    })
                    .unwrap()
                };
                let (disk, log) = (state(0, &old), state(1, &[]));
                let (device, place, _) = devices(&disk, Some(&log), u64::MAX);
                let view = Staged::interrupted(device.clone(), IDENTITY, Box::new(place.clone())).unwrap();
                let seen = view.map(|view| read_vec(&view, 0, TARGET as u64).unwrap());
                let recovery = recover(&device, &IDENTITY, &place).unwrap();
                let found = device.memory.to_vec();
                assert!(found == old || found == new, "after {end} of {} events, variant {variant}", history.len());
                assert!(seen.is_none_or(|seen| seen == found), "what a reader sees is what recovery makes");
                applied += usize::from(recovery == Recovery::Applied);
                if found == old {
                    olds += 1
                } else {
                    news += 1
                }
                // A second recovery, such as a crash in the first asks for, changes nothing.
                assert_eq!(recover(&device, &IDENTITY, &place).unwrap(), Recovery::None);
            }
        }
    }
    assert!(olds > 100 && news > 20 && applied > 20, "{olds} old, {news} new, {applied} applied");
}

#[test]
fn a_crash_while_recovering_is_recovered_from() {
    let (old, new) = (initial(), changed());
    let (device, place, history) = devices(&old, None, u64::MAX);
    run(&device, &place, 20_000).unwrap();
    let history = history.lock().unwrap().clone();
    // The log just after it was made complete, over the old device: from there on recovery fails at every call in turn.
    let complete = history.iter().position(|(which, _)| *which == 0).unwrap();
    let events: Vec<Event> =
        history[..complete].iter().filter(|(which, _)| *which == 1).map(|(_, event)| event.clone()).collect();
    let log = replay(&[], &events, |_, _| Outcome::Kept).unwrap();
    for fail_from in 0.. {
        let (device, place, _) = devices(&old, Some(&log), fail_from);
        let good = recover(&device, &IDENTITY, &place).is_ok();
        let left = place.exists.lock().unwrap().then(|| place.log.memory.to_vec());
        let (again, place, _) = devices(&device.memory.to_vec(), left.as_deref(), u64::MAX);
        recover(&again, &IDENTITY, &place).unwrap();
        assert_eq!(again.memory.to_vec(), new, "call {fail_from}");
        if good {
            assert!(fail_from > 20);
            break;
        }
    }
}

#[test]
fn an_error_at_any_call_is_reported_and_leaves_the_old_or_the_new() {
    let (old, new) = (initial(), changed());
    for memory in [0, 20_000] {
        for fail_from in 0.. {
            let (device, place, _) = devices(&old, None, fail_from);
            let good = run(&device, &place, memory).is_ok();
            let log = place.exists.lock().unwrap().then(|| place.log.memory.to_vec());
            let (again, place, _) = devices(&device.memory.to_vec(), log.as_deref(), u64::MAX);
            recover(&again, &IDENTITY, &place).unwrap();
            let found = again.memory.to_vec();
            assert!(if good { found == new } else { found == old || found == new }, "call {fail_from}");
            if good {
                assert!(fail_from > 20);
                break;
            }
        }
    }
}

/// A complete log over the old device.
fn complete_log() -> Vec<u8> {
    let (device, place, history) = devices(&initial(), None, u64::MAX);
    run(&device, &place, 20_000).unwrap();
    let history = history.lock().unwrap().clone();
    let end = history.iter().position(|(which, _)| *which == 0).unwrap();
    let events: Vec<Event> =
        history[..end].iter().filter(|(which, _)| *which == 1).map(|(_, event)| event.clone()).collect();
    replay(&[], &events, |_, _| Outcome::Kept).unwrap()
}

fn refused(disk: &[u8], log: &[u8], identity: &Identity) -> String {
    let (device, place, history) = devices(disk, Some(log), u64::MAX);
    match recover(&device, identity, &place) {
        Err(Error::RedoLog(why)) => {
            assert!(*place.exists.lock().unwrap(), "a log that was refused stays");
            assert!(history.lock().unwrap().is_empty(), "nothing was written");
            why
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_log_is_not_applied_to_what_it_is_not_for() {
    let log = complete_log();
    assert!(refused(&initial(), &log, b"test device #002").contains("another device"));
    assert!(refused(&initial()[1..], &log, &IDENTITY).contains("99999"));
    let mut since = initial();
    since[TARGET - 50] ^= 1;
    assert!(refused(&since, &log, &IDENTITY).contains("changed since"));
    assert!(refused(&initial(), &[0; 5000], &IDENTITY).contains("does not begin"));
    assert!(refused(&initial(), b"#!/bin/sh", &IDENTITY).contains("does not begin"));
}

#[test]
fn damaged_logs_are_refused_or_dropped_and_never_half_applied() {
    let (old, new, log) = (initial(), changed(), complete_log());
    let mut outcomes = [0; 3];
    // The header, a bit of each kind of bytes in between, and the whole index at its end.
    let places = (0..64).chain((64..log.len()).step_by(997)).chain(log.len() - 900..log.len());
    for at in places {
        for bit in [0x01, 0x80] {
            let mut bad = log.clone();
            bad[at] ^= bit;
            let (device, place, history) = devices(&old, Some(&bad), u64::MAX);
            match recover(&device, &IDENTITY, &place) {
                Ok(_) => {
                    let found = device.memory.to_vec();
                    assert!(found == new, "byte {at}: only what is padding may be changed");
                    outcomes[0] += 1;
                }
                Err(Error::RedoLog(_)) => {
                    assert!(history.lock().unwrap().is_empty(), "byte {at}");
                    outcomes[1] += 1;
                }
                Err(error) => panic!("byte {at}: {error}"),
            }
        }
    }
    for len in (0..log.len()).step_by(1013).chain([8, 16, 63, 64, 65, log.len() - 1]) {
        let (device, place, history) = devices(&old, Some(&log[..len]), u64::MAX);
        match recover(&device, &IDENTITY, &place) {
            Ok(recovery) => assert!(recovery == Recovery::Dropped && len < 64, "{len} bytes: {recovery:?}"),
            Err(error) => assert!(matches!(error, Error::RedoLog(_)), "{len} bytes: {error}"),
        }
        assert!(history.lock().unwrap().iter().all(|(which, _)| *which == 1));
        outcomes[2] += 1;
    }
    assert!(outcomes.iter().all(|count| *count > 10), "{outcomes:?}");
}

#[test]
fn a_log_file_lies_beside_its_image_and_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (image, link) = (dir.path().join("disk.img"), dir.path().join("link"));
    std::fs::write(&image, initial()).unwrap();
    std::os::unix::fs::symlink("disk.img", &link).unwrap();
    let log = dir.path().join("disk.img.redo-log");
    let staged = Staged::open(&link, None).unwrap().memory_limit(0);
    assert!(!log.exists());
    change(&staged, None).unwrap();
    assert_eq!(log.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    staged.commit().unwrap();
    assert!(!log.exists());
    assert_eq!(std::fs::read(&image).unwrap(), changed());
    // What is not ours is neither used nor removed.
    std::fs::write(&log, b"a file of somebody").unwrap();
    drop(staged);
    assert!(matches!(Staged::open(&image, None), Err(Error::RedoLog(_))));
    assert_eq!(std::fs::read(&log).unwrap(), b"a file of somebody");
}
