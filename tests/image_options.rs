//! The less common options of `goldenseal image` beside qemu-img: the same exit codes, the same words where scripts read them,
//! and disks that hold the same.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail by panic, and tells what it skips"
)]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{Random, oracle_missing, qemu_img_check};

const SECRET: [&str; 2] = ["--object", "secret,id=s,data=abc"];

fn run_in(dir: &Path, program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).current_dir(dir).output().unwrap()
}

fn ours(dir: &Path, args: &[&str]) -> Output {
    run_in(dir, env!("CARGO_BIN_EXE_goldenseal"), &[&["image"], args].concat())
}

fn qemu(dir: &Path, args: &[&str]) -> Output {
    run_in(dir, "qemu-img", args)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn sure(dir: &Path, program: &str, args: &[&str]) {
    let out = run_in(dir, program, args);
    assert!(out.status.success(), "{program} {args:?}: {}{}", text(&out.stdout), text(&out.stderr));
}

fn sure_qemu(dir: &Path, args: &[&str]) {
    sure(dir, "qemu-img", args);
}

/// An image of every kind, all of the same disk, and what chains of them look like.
fn prepare(dir: &Path) {
    let mut bytes = vec![0; 2 << 20];
    let mut random = Random(11);
    bytes[..300_000].iter_mut().for_each(|byte| *byte = random.next() as u8);
    (500_000..900_000).for_each(|at| bytes[at] = (at / 9 % 90) as u8);
    std::fs::write(dir.join("disk.raw"), &bytes).unwrap();
    let kinds: &[(&str, &str)] = &[
        ("plain", "compat=1.1"),
        ("v2", "compat=0.10"),
        ("small", "cluster_size=512"),
        ("large", "cluster_size=2M"),
        ("narrow", "refcount_bits=1"),
        ("lazy", "lazy_refcounts=on"),
        ("extended", "extended_l2=on"),
        ("data", "data_file=data.raw"),
        ("rawdata", "data_file=rawdata.raw,data_file_raw=on"),
        ("full", "preallocation=full"),
    ];
    for (kind, options) in kinds {
        let file = format!("{kind}.qcow2");
        sure_qemu(dir, &["convert", "-f", "raw", "-O", "qcow2", "-o", options, "disk.raw", &file]);
    }
    sure_qemu(dir, &["convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", "disk.raw", "zstd.qcow2"]);
    sure_qemu(dir, &["create", "-q", "-f", "qcow2", "-b", "disk.raw", "-F", "raw", "mid.qcow2"]);
    sure(dir, "qemu-io", &["-f", "qcow2", "-c", "write -P 3 100k 100k", "-c", "write -z 256k 64k", "mid.qcow2"]);
    sure_qemu(dir, &["create", "-q", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "top.qcow2", "3M"]);
    sure(dir, "qemu-io", &["-f", "qcow2", "-c", "write -P 4 1M 64k", "-c", "write -P 5 2500k 70k", "top.qcow2"]);
    std::fs::copy(dir.join("plain.qcow2"), dir.join("snapshots.qcow2")).unwrap();
    sure_qemu(dir, &["snapshot", "-c", "2", "snapshots.qcow2"]);
    sure(dir, "qemu-io", &["-f", "qcow2", "-c", "write -P 6 0 70k", "snapshots.qcow2"]);
    sure_qemu(dir, &["snapshot", "-c", "other", "snapshots.qcow2"]);
    std::fs::copy(dir.join("plain.qcow2"), dir.join("bitmaps.qcow2")).unwrap();
    sure_qemu(dir, &["bitmap", "--add", "bitmaps.qcow2", "a"]);
    sure_qemu(dir, &["bitmap", "--add", "-g", "4k", "--disable", "bitmaps.qcow2", "b"]);
    sure(dir, "qemu-io", &["-f", "qcow2", "-c", "write -P 7 1M 200k", "bitmaps.qcow2"]);
    let luks = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    sure_qemu(dir, &[&["convert", "-O", "qcow2", "-o", luks], &SECRET[..], &["disk.raw", "luks.qcow2"]].concat());
    let mut dirty = std::fs::read(dir.join("plain.qcow2")).unwrap();
    dirty[79] = 1;
    std::fs::write(dir.join("dirty.qcow2"), dirty).unwrap();
}

const IMAGES: [&str; 19] = [
    "plain.qcow2",
    "v2.qcow2",
    "small.qcow2",
    "large.qcow2",
    "narrow.qcow2",
    "lazy.qcow2",
    "extended.qcow2",
    "data.qcow2",
    "rawdata.qcow2",
    "full.qcow2",
    "zstd.qcow2",
    "mid.qcow2",
    "top.qcow2",
    "snapshots.qcow2",
    "bitmaps.qcow2",
    "luks.qcow2",
    "dirty.qcow2",
    "disk.raw",
    "absent",
];

#[test]
fn what_people_read_is_what_they_know() {
    if oracle_missing("what_people_read_is_what_they_know", &["qemu-img", "qemu-io"]) {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let same = |args: &[&str]| {
        let (mine, theirs) = (ours(dir, args), qemu(dir, args));
        assert_eq!(mine.status.code(), theirs.status.code(), "{args:?}: {}", text(&mine.stderr));
        assert_eq!(text(&mine.stdout), text(&theirs.stdout), "{args:?}");
    };
    for image in IMAGES {
        same(&["info", image]);
        same(&["info", "-b", "-U", image]);
        // Without its passphrase QEMU opens an encrypted image for nothing but this.
        if image != "luks.qcow2" {
            same(&["check", image]);
            same(&["snapshot", "-l", image]);
            same(&["measure", "-O", "qcow2", image]);
            if image != "zstd.qcow2" {
                same(&["map", image]);
            }
        }
    }
    std::fs::create_dir(dir.join("below")).unwrap();
    sure_qemu(dir, &["create", "-q", "-f", "qcow2", "-b", "../top.qcow2", "-F", "qcow2", "below/over.qcow2", "3M"]);
    same(&["info", "below/over.qcow2"]);
    sure_qemu(dir, &["create", "-q", "-f", "qcow2", "nothing.qcow2", "0"]);
    let (mine, theirs) =
        (ours(dir, &["map", "--output=json", "nothing.qcow2"]), qemu(dir, &["map", "--output=json", "nothing.qcow2"]));
    let json = |out: &Output| serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap();
    assert_eq!(json(&mine), json(&theirs));
    for args in [
        &["compare", "plain.qcow2", "top.qcow2"][..],
        &["compare", "--a-format", "qcow2", "--b-format", "raw", "plain.qcow2", "disk.raw"],
        &["compare", "mid.qcow2", "top.qcow2"],
        &["measure", "--size", "1001"],
        &["measure", "-O", "qcow2", "-o", "preallocation=full", "--size", "1G"],
        &["measure", "-O", "qcow2", "-o", "backing_file=mid.qcow2,backing_fmt=qcow2", "top.qcow2"],
        &["create", "-f", "qcow2", "new.qcow2", "1.5M"],
        &["create", "-f", "qcow2", "-o", "compat=v2,cluster_size=4k", "-o", "preallocation=off", "new.qcow2", "1000k"],
        &["create", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "new.qcow2"],
        &["create", "-f", "qcow2", "-o", "extended_l2=yes,nocow=off,encryption=off,lazy_refcounts", "new.qcow2", "1M"],
        &["create", "new.raw", "512"],
        &["create", "-f", "qcow2", "new.qcow2", "0"],
        &["resize", "new.qcow2", "1M"],
        &["commit", "mid.qcow2"],
    ] {
        same(args);
    }
    qemu_img_check(&dir.join("new.qcow2"));
    for (args, words) in [
        (&["create", "-f", "qcow2", "-o", "help", "x"][..], "cluster_size"),
        (&["convert", "-o", "?", "x", "y"], "size="),
    ] {
        let (mine, theirs) = (ours(dir, args), qemu(dir, args));
        assert_eq!(mine.status.code(), theirs.status.code(), "{args:?}");
        assert!(text(&mine.stdout).contains(words), "{args:?}");
    }
}

/// A disk that was converted: the arguments before it, and what qemu-img is to say that it holds the same as.
fn converted(dir: &Path, args: &[&str], same_as: &str) {
    for name in ["new", "theirs"] {
        let _ = std::fs::remove_file(dir.join(name));
    }
    let mine = ours(dir, &[&["convert"], args, &["new"]].concat());
    assert!(mine.status.success(), "{args:?}: {}", text(&mine.stderr));
    let format = args.iter().position(|arg| *arg == "-O").map_or("raw", |at| args[at + 1]);
    let source = if same_as.ends_with(".qcow2") { "qcow2" } else { "raw" };
    let compared = qemu(dir, &["compare", "-f", source, "-F", format, same_as, "new"]);
    assert!(compared.status.success(), "{args:?}: {}", text(&compared.stdout));
    if format == "qcow2" {
        qemu_img_check(&dir.join("new"));
    }
    if !args.contains(&"-B") {
        sure_qemu(dir, &[&["convert"], args, &["theirs"]].concat());
        let held =
            |name: &str| std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(dir.join(name)).unwrap()) * 512;
        assert!(held("new") <= held("theirs") + (256 << 10), "{args:?}: {} {}", held("new"), held("theirs"));
    }
}

#[test]
fn disks_are_converted_in_every_way_that_qemu_img_knows() {
    if oracle_missing("disks_are_converted_in_every_way_that_qemu_img_knows", &["qemu-img", "qemu-io"]) {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    sure(dir, "sh", &["-c", "cat disk.raw disk.raw > twice.raw"]);
    converted(dir, &["disk.raw", "zstd.qcow2"], "twice.raw");
    converted(dir, &["-O", "qcow2", "-c", "zstd.qcow2", "disk.raw"], "twice.raw");
    converted(dir, &["-O", "qcow2", "-m", "2", "-W", "-C", "--source-format", "qcow2", "top.qcow2"], "top.qcow2");
    converted(dir, &["-O", "qcow2", "-r", "500M", "-t", "none", "-T", "none", "extended.qcow2"], "disk.raw");
    converted(dir, &["-S", "64k", "plain.qcow2"], "disk.raw");
    converted(dir, &["-O", "qcow2", "-l", "snapshot.name=2", "snapshots.qcow2"], "disk.raw");
    converted(dir, &["-O", "qcow2", "-l", "snapshot.id=1", "snapshots.qcow2"], "disk.raw");
    converted(dir, &["-O", "qcow2", "--salvage", "plain.qcow2"], "disk.raw");
    for options in ["data_file=new.data", "data_file=new2.data,data_file_raw=on", "data_file=new3.data,extended_l2=on"]
    {
        let data = options.split(['=', ',']).nth(1).unwrap();
        assert!(ours(dir, &["convert", "-O", "qcow2", "-o", options, "plain.qcow2", "new.qcow2"]).status.success());
        sure_qemu(dir, &["compare", "-f", "qcow2", "-F", "raw", "new.qcow2", "disk.raw"]);
        sure_qemu(dir, &["check", "-q", "new.qcow2"]);
        if options.contains("raw=on") {
            assert_eq!(std::fs::read(dir.join(data)).unwrap(), std::fs::read(dir.join("disk.raw")).unwrap());
        }
    }
    // Only what the backing file does not hold is in an overlay, compressed or not.
    let mid = std::fs::metadata(dir.join("mid.qcow2")).unwrap().len();
    for more in
        [&[][..], &["-c"], &["-c", "-o", "compression_type=zstd"], &["-o", "compat=0.10"], &["-o", "cluster_size=4k"]]
    {
        converted(dir, &[&["-O", "qcow2", "-B", "disk.raw", "-F", "raw"], more, &["mid.qcow2"]].concat(), "mid.qcow2");
        assert!(std::fs::metadata(dir.join("new")).unwrap().len() <= mid + (128 << 10), "{more:?}");
        converted(
            dir,
            &[&["-O", "qcow2", "-B", "mid.qcow2", "-F", "qcow2"], more, &["top.qcow2"]].concat(),
            "top.qcow2",
        );
    }
    // Into what is there.
    for (create, more) in [
        (&["-f", "qcow2"][..], &["-O", "qcow2"][..]),
        (&["-f", "qcow2"], &["-O", "qcow2", "-c"]),
        (&["-f", "qcow2", "-o", "cluster_size=2M"], &["-O", "qcow2", "-c", "-m", "2"]),
        (&["-f", "qcow2", "-o", "compression_type=zstd,cluster_size=512"], &["-O", "qcow2", "-c"]),
        (&["-f", "qcow2"], &["-O", "qcow2", "--target-is-zero"]),
        (&["-f", "raw"], &["-O", "raw"]),
        (&["-f", "raw"], &["-O", "raw", "-S", "0"]),
    ] {
        sure_qemu(dir, &[&["create", "-q"], create, &["new", "2M"]].concat());
        for source in ["bitmaps.qcow2", "plain.qcow2"] {
            if source == "plain.qcow2" && more.contains(&"--target-is-zero") {
                continue;
            }
            let args = [&["convert", "-n"], more, &[source, "new"]].concat();
            let mine = ours(dir, &args);
            assert!(mine.status.success(), "{args:?}: {}", text(&mine.stderr));
            sure_qemu(dir, &["compare", "-f", "qcow2", "-F", more[1], source, "new"]);
            if more[1] == "qcow2" {
                qemu_img_check(&dir.join("new"));
            }
        }
    }
    // Encrypted, by options.
    let opts = "driver=qcow2,encrypt.key-secret=s,file.filename=luks.qcow2";
    for args in [
        &["convert", "--source-image-opts", opts, "plain.raw"][..],
        &["convert", "-n", "--target-image-opts", "zstd.qcow2", opts],
        &["resize", "--image-opts", opts, "3M"],
        &[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,preallocation=metadata",
            "made.qcow2",
            "1M",
        ],
    ] {
        let mine = ours(dir, &[&args[..1], &SECRET, &args[1..]].concat());
        assert!(mine.status.success(), "{args:?}: {}", text(&mine.stderr));
    }
    sure_qemu(dir, &["compare", "-f", "raw", "-F", "raw", "plain.raw", "disk.raw"]);
    for (file, len) in [("luks.qcow2", "3145728"), ("made.qcow2", "1048576")] {
        let opts = opts.replace("luks.qcow2", file);
        let zeros = format!("driver=null-co,size={len},read-zeroes=on");
        let with = if file == "luks.qcow2" { "driver=raw,file.filename=disk.raw" } else { &zeros };
        sure_qemu(dir, &[&["compare", "--image-opts"], &SECRET[..], &[&opts, with]].concat());
    }
}

#[test]
fn bitmaps_are_copied_and_what_cannot_be_read_is_left_out() {
    if oracle_missing("bitmaps_are_copied_and_what_cannot_be_read_is_left_out", &["qemu-img", "qemu-io"]) {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let bits = |file: &str| {
        let image = qcow2::Image::open(dir.join(file), &qcow2::OpenOptions::new().backing(qcow2::Backing::LeaveClosed))
            .unwrap();
        let bitmaps = image.bitmaps().unwrap();
        let read = |bitmap: &qcow2::Bitmap| {
            let ranges: Vec<_> = image.read_bitmap(&bitmap.name).unwrap().ranges().collect();
            (bitmap.name.clone(), bitmap.enabled, bitmap.granularity, ranges)
        };
        bitmaps.iter().map(read).collect::<Vec<_>>()
    };
    assert_eq!(bits("bitmaps.qcow2").len(), 2);
    assert!(!bits("bitmaps.qcow2")[0].3.is_empty());
    for more in [&[][..], &["-c"], &["-B", "disk.raw", "-F", "raw"]] {
        let args = [&["convert", "-O", "qcow2", "--bitmaps"], more, &["bitmaps.qcow2", "new.qcow2"]].concat();
        let mine = ours(dir, &args);
        assert!(mine.status.success(), "{args:?}: {}", text(&mine.stderr));
        assert_eq!(bits("new.qcow2"), bits("bitmaps.qcow2"));
        qemu_img_check(&dir.join("new.qcow2"));
    }
    sure_qemu(dir, &["convert", "-O", "qcow2", "--bitmaps", "bitmaps.qcow2", "theirs.qcow2"]);
    assert_eq!(bits("theirs.qcow2"), bits("bitmaps.qcow2"));
    // One that was not stored: the flag in the directory, where QEMU's image says that it is.
    let mut broken = std::fs::read(dir.join("bitmaps.qcow2")).unwrap();
    let at = (104..1000).step_by(8).find(|&at| broken[at..at + 4] == [0x23, 0x85, 0x28, 0x75]).unwrap();
    let directory = u64::from_be_bytes(broken[at + 24..at + 32].try_into().unwrap()) as usize;
    broken[directory + 15] |= 1;
    std::fs::write(dir.join("broken.qcow2"), broken).unwrap();
    let args = ["convert", "-O", "qcow2", "--bitmaps", "broken.qcow2", "x.qcow2"];
    assert_eq!(ours(dir, &args).status.code(), Some(1));
    assert_eq!(qemu(dir, &args).status.code(), Some(1));
    let args = ["convert", "-O", "qcow2", "--bitmaps", "--skip-broken-bitmaps", "broken.qcow2", "x.qcow2"];
    let mine = ours(dir, &args);
    assert!(mine.status.success() && text(&mine.stderr).contains("\"a\""), "{}", text(&mine.stderr));
    assert_eq!(bits("x.qcow2").iter().map(|bitmap| &*bitmap.0).collect::<Vec<_>>(), ["b"]);

    // A cluster cut out of the file, and a stream that is none: zeros where they were, and the rest as it was.
    for (kind, lost) in [("plain.qcow2", 65_536), ("zstd.qcow2", 65_536)] {
        let mut bytes = std::fs::read(dir.join(kind)).unwrap();
        let word = |bytes: &[u8], at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        let l2 = (word(&bytes, word(&bytes, 40) as usize) & 0x00ff_ffff_ffff_fe00) as usize;
        let entry = if kind == "plain.qcow2" { 0x8000_0000_7fff_0000 } else { word(&bytes, l2 + 64) + 1 };
        bytes[l2 + 64..l2 + 72].copy_from_slice(&u64::to_be_bytes(entry));
        std::fs::write(dir.join("damaged.qcow2"), bytes).unwrap();
        assert_eq!(ours(dir, &["convert", "damaged.qcow2", "x.raw"]).status.code(), Some(1), "{kind}");
        assert!(!dir.join("x.raw").exists());
        let mine = ours(dir, &["convert", "--salvage", "damaged.qcow2", "x.raw"]);
        let told = text(&mine.stderr);
        assert!(mine.status.success() && told.contains("bytes 524288 to 589824 cannot be read"), "{kind}: {told}");
        let mut expected = std::fs::read(dir.join("disk.raw")).unwrap();
        expected[8 * 65_536..8 * 65_536 + lost].fill(0);
        assert!(std::fs::read(dir.join("x.raw")).unwrap() == expected, "{kind}");
        std::fs::remove_file(dir.join("x.raw")).unwrap();
    }
}

#[test]
fn images_with_data_files_and_passphrases_are_changed() {
    if oracle_missing("images_with_data_files_and_passphrases_are_changed", &["qemu-img", "qemu-io"]) {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    for (image, data) in [("data.qcow2", "data.raw"), ("rawdata.qcow2", "rawdata.raw")] {
        for args in [
            &["resize", image, "3M"][..],
            &["resize", "--shrink", image, "1M"],
            &["resize", "--preallocation=full", image, "2M"],
        ] {
            let mine = ours(dir, args);
            assert!(mine.status.success(), "{args:?}: {}", text(&mine.stderr));
            sure_qemu(dir, &["check", "-q", image]);
        }
        assert_eq!(std::fs::metadata(dir.join(data)).unwrap().len(), 2 << 20);
        sure_qemu(dir, &["resize", "-q", "--shrink", "plain.qcow2", "1M"]);
        sure_qemu(dir, &["resize", "-q", "plain.qcow2", "2M"]);
        sure_qemu(dir, &["compare", image, "plain.qcow2"]);
    }
    for (base, format) in [("disk.raw", "raw"), ("", "raw"), ("plain.qcow2", "qcow2")] {
        std::fs::copy(dir.join("top.qcow2"), dir.join("copy.qcow2")).unwrap();
        let format: &[&str] = if base.is_empty() { &[] } else { &["-F", format] };
        let mine = ours(dir, &[&["rebase", "-c", "-b", base], format, &["copy.qcow2"]].concat());
        assert!(mine.status.success(), "{}", text(&mine.stderr));
        sure_qemu(dir, &["compare", "copy.qcow2", "top.qcow2"]);
        qemu_img_check(&dir.join("copy.qcow2"));
    }
    // Names in JSON are opened like others.
    let name = r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"mid.qcow2"}}"#;
    for args in [
        &["create", "-q", "-f", "qcow2", "-b", name, "-F", "qcow2", "json.qcow2"][..],
        &["rebase", "-b", name, "-F", "qcow2", "top.qcow2"],
        &["convert", "-O", "qcow2", "-B", name, "-F", "qcow2", "top.qcow2", "json2.qcow2"],
    ] {
        let mine = ours(dir, args);
        assert!(mine.status.success(), "{args:?}: {}", text(&mine.stderr));
    }
    sure_qemu(dir, &["compare", "json.qcow2", "mid.qcow2"]);
    sure_qemu(dir, &["compare", "json2.qcow2", "top.qcow2"]);
    // A snapshot is deleted by its name, not by another's number.
    for args in [&["snapshot", "-d", "1", "snapshots.qcow2"][..], &["snapshot", "-d", "2", "snapshots.qcow2"]] {
        std::fs::copy(dir.join("snapshots.qcow2"), dir.join("theirs.qcow2")).unwrap();
        let theirs = [&args[..3], &["theirs.qcow2"]].concat();
        assert_eq!(ours(dir, args).status.code(), qemu(dir, &theirs).status.code(), "{args:?}");
        let list = |file: &str| text(&qemu(dir, &["snapshot", "-l", file]).stdout);
        assert_eq!(list("snapshots.qcow2"), list("theirs.qcow2"));
    }
    // Passphrases.
    let opts = "driver=qcow2,encrypt.key-secret=s,file.filename=luks.qcow2";
    let new = ["--object", "secret,id=n,data=new"];
    for (option, force, code) in [
        ("encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=10", false, 0),
        ("encrypt.state=active,encrypt.new-secret=n,encrypt.keyslot=1,encrypt.iter-time=10", false, 1),
        ("encrypt.state=active,encrypt.new-secret=n,encrypt.keyslot=9", false, 1),
        ("encrypt.state=active,encrypt.new-secret=n,encrypt.old-secret=s", false, 1),
        ("encrypt.state=active", false, 1),
        ("encrypt.state=inactive", false, 1),
        ("encrypt.new-secret=n", false, 1),
        ("encrypt.format=luks", false, 1),
        ("encrypt.state=inactive,encrypt.old-secret=n", false, 0),
        ("encrypt.state=inactive,encrypt.old-secret=n", false, 1),
        ("encrypt.state=inactive,encrypt.keyslot=0", false, 1),
        (
            "encrypt.state=active,encrypt.new-secret=n,encrypt.keyslot=3,encrypt.iter-time=10,lazy_refcounts=on",
            false,
            0,
        ),
        ("encrypt.state=inactive,encrypt.old-secret=s", false, 0),
    ] {
        let force: &[&str] = if force { &["--force"] } else { &[] };
        let args = [&["amend"], force, &SECRET, &new, &["-o", option, "--image-opts", opts]].concat();
        let mine = ours(dir, &args);
        assert_eq!(mine.status.code(), Some(code), "{option}: {}", text(&mine.stderr));
    }
    let by_new = ["--object", "secret,id=s,data=new"];
    sure_qemu(dir, &[&["check", "-q"], &by_new[..], &["--image-opts", opts]].concat());
    sure_qemu(dir, &[&["compare", "--image-opts"], &by_new[..], &[opts, "driver=raw,file.filename=disk.raw"]].concat());
    assert!(!qemu(dir, &[&["check", "-q"], &SECRET[..], &["--image-opts", opts]].concat()).status.success());
    // And what does not go together is refused before anything is made.
    for wrong in [
        &["convert", "--target-is-zero", "disk.raw", "x"][..],
        &["convert", "-O", "qcow2", "--skip-broken-bitmaps", "bitmaps.qcow2", "x"],
        &["convert", "--bitmaps", "bitmaps.qcow2", "x"],
        &["convert", "-O", "qcow2", "--bitmaps", "disk.raw", "x"],
        &["convert", "-O", "qcow2", "--bitmaps", "bitmaps.qcow2", "plain.qcow2", "x"],
        &["convert", "-O", "qcow2", "-l", "2", "snapshots.qcow2", "plain.qcow2", "x"],
        &["convert", "-O", "qcow2", "-l", "snapshot.name=1", "snapshots.qcow2", "x"],
        &["convert", "-O", "qcow2", "-c", "-o", "data_file=y", "plain.qcow2", "x"],
        &["convert", "-O", "qcow2", "-m", "0", "plain.qcow2", "x"],
        &["convert", "-S", "1000", "plain.qcow2", "x"],
        &["convert", "-O", "qcow2", "-B", "absent", "-F", "raw", "plain.qcow2", "x"],
        &["convert", "--target-image-opts", "plain.qcow2", opts],
        &["convert", "plain.qcow2"],
        &["create", "-q", "-f", "qcow2", "-b", "absent", "-F", "raw", "x", "1M"],
        &["create", "-q", "-f", "qcow2", "-o", "encryption=on", "x", "1M"],
    ] {
        assert!(!ours(dir, wrong).status.success(), "{wrong:?}");
        assert!(!dir.join("x").exists() && !dir.join("y").exists(), "{wrong:?}");
        if !wrong.contains(&"encryption=on") {
            assert!(!qemu(dir, wrong).status.success(), "{wrong:?}");
            let _ = std::fs::remove_file(dir.join("x"));
            let _ = std::fs::remove_file(dir.join("y"));
        }
    }
}
