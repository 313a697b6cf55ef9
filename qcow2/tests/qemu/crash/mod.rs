//! Crashes at any moment of a change: what a storage may hold afterwards, and what is judged of that.
//!
//! An ordinary run looks at a sample of the moments; `QCOW2_CRASH=all` looks at each, and has qemu-img look at each state.

mod at_once;
mod in_place;
mod steps;

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use block::{Event, Memory, Outcome, ReadAt, Result, Storage, WriteAt, replay};
use qcow2::Severity;

use crate::oracle::{Random, path, text};

/// What was done to several files, in order: the file, and the event.
type Log = Arc<Mutex<Vec<(usize, Event)>>>;

/// One of several files whose changes are recorded in their order.
#[derive(Debug)]
struct Recorded {
    memory: Memory,
    file: usize,
    log: Log,
}

impl Recorded {
    fn record(&self, event: Event) {
        self.log.lock().unwrap().push((self.file, event));
    }
}

impl ReadAt for Recorded {
    fn len(&self) -> u64 {
        self.memory.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.memory.read_at(offset, buf)
    }
}

impl WriteAt for Recorded {
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.memory.write_at(offset, buf)?;
        self.record(Event::Write { offset, bytes: buf.to_vec() });
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<()> {
        self.memory.write_zeroes(offset, len)?;
        self.record(Event::Zero { offset, len });
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.write_zeroes(offset, len)
    }

    fn flush(&self) -> Result<()> {
        self.record(Event::Flush);
        Ok(())
    }
}

impl Storage for Recorded {
    fn set_len(&self, len: u64) -> Result<()> {
        self.memory.set_len(len)?;
        self.record(Event::SetLen(len));
        Ok(())
    }
}

/// Storages that hold these bytes and are recorded together.
fn recorded(initial: &[Vec<u8>]) -> (Vec<Arc<Recorded>>, Log) {
    let log = Log::default();
    let storage = |(file, bytes): (usize, &Vec<u8>)| {
        Arc::new(Recorded { memory: Memory::from(bytes.clone()), file, log: Arc::clone(&log) })
    };
    (initial.iter().enumerate().map(storage).collect(), log)
}

/// A state that a crash may leave.
struct State<'a> {
    /// Events before the crash.
    end: usize,
    files: &'a [Vec<u8>],
    /// Whether it is one of those that qemu-img is to judge, too.
    for_qemu: bool,
}

fn exhaustive() -> bool {
    std::env::var("QCOW2_CRASH").as_deref() == Ok("all")
}

/// Shows `judge` the states that a crash may leave; tells how many those were.
fn for_each_state(initial: &[Vec<u8>], events: &[(usize, Event)], mut judge: impl FnMut(&State<'_>)) -> usize {
    let mut random = Random(101);
    let of_file = |file: usize, end: usize| -> Vec<Event> {
        events[..end].iter().filter(|(of, _)| *of == file).map(|(_, event)| event.clone()).collect()
    };
    // Around a flush, and at the end, is where one thing has to follow another.
    let near_flush =
        |end: usize| events[end.saturating_sub(1)..(end + 1).min(events.len())].iter().any(|e| e.1 == Event::Flush);
    let flushes = events.iter().filter(|(_, event)| *event == Event::Flush).count();
    let mut last = Vec::new();
    let mut states = 0;
    for end in 0..=events.len() {
        let sampled = exhaustive()
            || end + 4 > events.len()
            || (near_flush(end) && random.below(flushes as u64) < 12)
            || random.below(events.len() as u64) < 16;
        if !sampled {
            continue;
        }
        for variant in 0..4 {
            let mut outcome = |_: usize, _: &Event| match (variant, random.below(3)) {
                (0, _) | (2.., 0) => Outcome::Lost,
                (1, _) | (2.., 1) => Outcome::Kept,
                _ => Outcome::Torn(random.below(20)),
            };
            let files: Vec<Vec<u8>> = initial
                .iter()
                .enumerate()
                .map(|(file, bytes)| replay(bytes, &of_file(file, end), &mut outcome).unwrap())
                .collect();
            if files == last {
                continue;
            }
            let for_qemu = exhaustive() || end + 2 > events.len() || states % 8 == 0;
            judge(&State { end, files: &files, for_qemu });
            states += 1;
            last = files;
        }
    }
    states
}

/// Which damage a state may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowed {
    Nothing,
    Leaks,
}

/// Checks an image that was opened from a state, by our own walk.
fn check_by_us(image: &qcow2::Image, allowed: Allowed) {
    let mut found = Vec::new();
    image.check(&mut |problem| found.push((problem.severity, problem.to_string()))).unwrap();
    found.retain(|(severity, _)| allowed == Allowed::Nothing || *severity != Severity::Leak);
    assert!(found.is_empty(), "{found:?}");
}

fn check_by_qemu(image: &Path, allowed: Allowed) {
    let out = Command::new("qemu-img").args(["check", "-f", "qcow2", path(image)]).output().unwrap();
    let good = match allowed {
        Allowed::Nothing => out.status.code() == Some(0),
        Allowed::Leaks => matches!(out.status.code(), Some(0 | 3)),
    };
    assert!(good, "{}{}", text(&out.stdout), text(&out.stderr));
}
