//! Has e2fsck judge what the inputs of an `ext4_` target do: a file system in which it finds nothing must be one in
//! which it finds nothing afterwards.
//!
//! `cargo run --no-default-features --example judge ext4_image corpus/ext4_image/* FOLDER/*`

use std::process::Command;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let target = arguments.next().expect("judge TARGET INPUT...");
    let (mut judged, mut faults) = (0, 0);
    for input in arguments {
        let data = std::fs::read(&input).expect("an input can be read");
        let Some((before, Some(after))) = goldenseal_fuzz::ext4_before_and_after(&target, &data) else { continue };
        if check(before).is_ok() {
            judged += 1;
            if let Err(found) = check(after) {
                faults += 1;
                println!("{input}:\n{found}");
            }
        }
    }
    println!("{judged} sound file systems were changed, {faults} of them are damaged now");
    std::process::exit(i32::from(faults > 0));
}

/// What e2fsck finds, if anything. A journal that waits for its replay is replayed first. There are journals at which
/// e2fsck does not come back.
fn check(bytes: Vec<u8>) -> Result<(), String> {
    let path = std::env::temp_dir().join(format!("goldenseal-judge-{}", std::process::id()));
    std::fs::write(&path, bytes).expect("a file can be written");
    let e2fsck = |arguments: &[&str]| {
        Command::new("timeout")
            .args(["-s", "KILL", "10", "e2fsck"])
            .args(arguments)
            .arg(&path)
            .output()
            .expect("e2fsck is installed")
    };
    e2fsck(&["-y", "-E", "journal_only"]);
    let found = e2fsck(&["-fn"]);
    std::fs::remove_file(&path).expect("a file can be removed");
    if found.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&found.stdout).into_owned()) }
}
