//! Images broken in one place each: refused with the place named, or counted and repaired as QEMU does.

mod rows;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::SystemTime;

use block::{Memory, WriteAt, read_vec};
use qcow2::{Image, OpenOptions, Repair};
use serde_json::Value;

use crate::oracle::{oracle_missing, path, run, temp_dir};
use crate::overlap::Places;
use rows::Expect::{Counted, Mended, OpenedByUs, Otherwise, OursAlone, Refused, RefusedByUs, Unreadable};
use rows::{BITMAPS, Base, HEADER, LENGTHS, REFCOUNTS, Row, SNAPSHOTS, TABLES};

fn io(image: &Path, commands: &[&str]) {
    let args: Vec<&str> = commands.iter().flat_map(|command| ["-c", command]).collect();
    run("qemu-io", &[&["-f", "qcow2"], &args[..], &[path(image)]].concat());
}

fn make(base: Base, image: &Path) -> Vec<u8> {
    let kind = if base == Base::Rich { "cluster_size=4k" } else { "cluster_size=16k,extended_l2=on" };
    run("qemu-img", &["create", "-q", "-f", "qcow2", "-o", kind, path(image), "40M"]);
    io(image, &["write -P 1 0 50k", "write -P 2 8M 30k"]);
    run("qemu-img", &["snapshot", "-c", "one", path(image)]);
    io(
        image,
        &["write -P 3 0 20k", "write -P 4 8M 5k", "write -c -P 5 128k 32k", "write -z 200k 50k", "write -P 6 300k 9k"],
    );
    run("qemu-img", &["bitmap", "--add", "-f", "qcow2", path(image), "b"]);
    io(image, &["write -P 7 320k 9k"]);
    std::fs::read(image).unwrap()
}

/// What qemu-img says of an image; nothing where it does not open it.
fn check_by_qemu(image: &Path, repair: &[&str]) -> Option<Value> {
    let args = [&["check", "--output=json", "-f", "qcow2"], repair, &[path(image)]].concat();
    let out = Command::new("qemu-img").args(&args).output().unwrap();
    let mut value: Value = serde_json::from_slice(&out.stdout).ok()?;
    for key in ["filename", "format"] {
        value.as_object_mut().unwrap().remove(key);
    }
    Some(value)
}

/// Whatever is done to the image, nothing panics, and nothing takes long.
fn use_all(bytes: &[u8]) {
    let open = |options: &OpenOptions| Image::open_storage(Arc::new(Memory::from(bytes.to_vec())), options).ok();
    if let Some(image) = open(&OpenOptions::new()) {
        let _ = (image.info(), image.snapshots(), image.bitmaps(), image.read_bitmap("b"), image.check(&mut |_| {}));
        let _ = image.map_chain(&mut |_| {});
        for at in (0..40).map(|at| at << 20) {
            let _ = read_vec(&image, at, 400 << 10);
        }
        let _ = image.into_snapshot("one").map(|image| read_vec(&image, 0, 100 << 10));
    }
    let changes: [fn(Image); 8] = [
        |image| drop(image.write_at(1000, &[9; 400 << 10])),
        |image| drop(image.discard(0, 20 << 20)),
        |mut image| drop(image.create_snapshot("two", SystemTime::UNIX_EPOCH)),
        |mut image| drop(image.apply_snapshot("one")),
        |mut image| drop(image.delete_snapshot("one")),
        |mut image| drop(image.resize(1 << 20)),
        |mut image| drop(image.add_bitmap("c", None)),
        |image| {
            drop(image.begin().map(|transaction| transaction.write_at(0, &[1; 50_000]).map(|()| transaction.commit())))
        },
    ];
    for change in changes {
        if let Some(image) = open(&OpenOptions::new().writable(true)) {
            change(image);
        }
    }
}

/// What happened to one row, as far as it is not what was expected.
fn judge(row: &Row, image: &Path, theirs: &Path, bytes: &[u8]) -> Result<(), String> {
    let expect = row.3;
    std::fs::write(image, bytes).unwrap();
    std::fs::write(theirs, bytes).unwrap();
    use_all(bytes);
    let found_by_qemu = check_by_qemu(theirs, &[]);
    let opened = match (Image::open(image, &OpenOptions::new().repair(true)), expect) {
        (Err(error), Refused(message)) if error.to_string().contains(message) && found_by_qemu.is_none() => {
            return Ok(());
        }
        (Err(error), RefusedByUs(message)) if error.to_string().contains(message) && found_by_qemu.is_some() => {
            return Ok(());
        }
        (Err(error), _) => return Err(format!("refused: {error}; by QEMU: {}", found_by_qemu.is_none())),
        (Ok(opened), _) => opened,
    };
    let mut told = Vec::new();
    let report =
        opened.check(&mut |problem| told.push(problem.to_string())).map_err(|error| format!("check: {error}"))?;
    let found = report.corruptions + report.check_errors > 0;
    let counts = serde_json::to_value(report).unwrap();
    let Some(found_by_qemu) = found_by_qemu else {
        return if matches!(expect, OpenedByUs) && found {
            Ok(())
        } else {
            Err(format!("QEMU does not open it; {told:?}"))
        };
    };
    if matches!(expect, Otherwise) && found && counts != found_by_qemu {
        return Ok(());
    }
    if counts != found_by_qemu {
        return Err(format!("counted {counts}, QEMU {found_by_qemu}; {told:?}"));
    }
    let report = opened.repair(Repair::All, &mut |_| {}).map_err(|error| format!("repair: {error}"))?;
    drop(opened);
    let left = check_by_qemu(image, &[]).ok_or("not opened by QEMU after our repair")?;
    let number = |value: &Value, key: &str| value.get(key).and_then(Value::as_u64).unwrap_or(0);
    let all = |value: &Value| ["corruptions", "leaks", "check-errors"].map(|key| number(value, key));
    if all(&left) != [report.corruptions, report.leaks, report.check_errors] {
        return Err(format!("we left {report:?}, QEMU finds {left}"));
    }
    let mended = check_by_qemu(theirs, &["-r", "all"]);
    let same = mended.as_ref().is_some_and(|mended| all(mended) == all(&left));
    let compare = ["compare", "-q", "-f", "qcow2", "-F", "qcow2", path(image), path(theirs)];
    let compared = Command::new("qemu-img").args(compare).output().unwrap().status.code();
    match expect {
        Mended if report.is_clean() && same && compared == Some(0) => Ok(()),
        Unreadable if report.is_clean() && same && compared == Some(4) => Ok(()),
        Counted if !report.is_clean() && same => Ok(()),
        OursAlone(clean) if clean == report.is_clean() => Ok(()),
        _ => Err(format!("opened; left by us {left}, by QEMU {mended:?}, compared {compared:?}")),
    }
}

#[test]
fn every_corruption_is_refused_or_counted_and_repaired() {
    if oracle_missing("every_corruption_is_refused_or_counted_and_repaired") {
        return;
    }
    let dir = temp_dir();
    let (image, theirs) = (dir.path().join("image"), dir.path().join("theirs"));
    let (rich, extended) = (make(Base::Rich, &image), make(Base::Extended, &image));
    let mut wrong = Vec::new();
    for row in [HEADER, REFCOUNTS, TABLES, SNAPSHOTS, BITMAPS, LENGTHS].concat() {
        let good = if row.1 == Base::Rich { &rich } else { &extended };
        let mut bytes = good.clone();
        row.2(&mut bytes, &Places::of(good));
        if let Err(found) = judge(&row, &image, &theirs, &bytes) {
            wrong.push(format!("{}: {:?}, but {found}", row.0, row.3));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
