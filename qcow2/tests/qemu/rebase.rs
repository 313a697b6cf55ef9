//! Images put on top of other backing files, judged by qemu-img.

use std::path::Path;
use std::sync::Arc;

use crate::oracle::{Random, assert_contents, change_by_qemu, check, disk, oracle_missing, path, run, temp_dir, text};
use block::{Access, HostFile, Outcome, ReadAt, Trace, read_vec, replay};
use qcow2::{Backing, BackingName, Image, OpenOptions};

const LEN: usize = 3 << 20;

fn writable() -> OpenOptions {
    OpenOptions::new().writable(true).backing(Backing::Within(Vec::new()))
}

/// The disk that a file holds, as it is given to a rebase.
fn device(file: &Path, format: &str) -> Arc<dyn ReadAt> {
    if format == "raw" {
        Arc::new(HostFile::open(file, Access::Read).unwrap())
    } else {
        Arc::new(Image::open(file, &OpenOptions::new().backing(Backing::Within(Vec::new()))).unwrap())
    }
}

/// Disks of different lengths and contents, and what an overlay of `LEN` bytes sees of them.
fn make_bases(dir: &Path) -> Vec<(&'static str, &'static str)> {
    let old = disk(LEN, 211);
    let mut new = old.clone();
    new[500_000..700_000].copy_from_slice(&disk(200_000, 223));
    new[1_500_000..1_500_512].fill(9);
    new[2_000_000..2_300_000].fill(0);
    std::fs::write(dir.join("old.raw"), &old).unwrap();
    std::fs::write(dir.join("short.raw"), &new[..1_100_288]).unwrap();
    new.resize(LEN + (1 << 20), 7);
    std::fs::write(dir.join("long.raw"), &new).unwrap();
    let name = |name: &str| dir.join(name).display().to_string();
    run("qemu-img", &["convert", "-O", "qcow2", "-c", &name("long.raw"), &name("long.qcow2")]);
    run("qemu-img", &["create", "-q", "-f", "qcow2", "-b", "old.raw", "-F", "raw", &name("over-old.qcow2"), "2M"]);
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 3 900k 300k", &name("over-old.qcow2")]);
    vec![("short.raw", "raw"), ("long.raw", "raw"), ("long.qcow2", "qcow2"), ("over-old.qcow2", "qcow2"), ("", "")]
}

#[test]
fn an_image_on_top_of_another_backing_file_holds_what_it_held() {
    if oracle_missing("an_image_on_top_of_another_backing_file_holds_what_it_held") {
        return;
    }
    let dir = temp_dir();
    let bases = make_bases(dir.path());
    let image = dir.path().join("image.qcow2");
    let mut streams = 0;
    let firsts = [("old.raw", "raw"), ("short.raw", "raw"), ("over-old.qcow2", "qcow2")];
    for (number, kind) in ["compat=1.1", "compat=0.10", "extended_l2=on", "cluster_size=512"].iter().enumerate() {
        for (first, format) in firsts.into_iter().cycle().skip(number).take(2) {
            let create = ["create", "-f", "qcow2", "-o", kind, "-b", first, "-F", format, path(&image), "3M"];
            run("qemu-img", &create);
            let mut model = read_vec(&Image::open(&image, &writable()).unwrap(), 0, LEN as u64).unwrap();
            change_by_qemu(&image, &mut model, &mut Random(227 + number as u64), 12);
            let original = std::fs::read(&image).unwrap();
            for (base, format) in &bases {
                println!("{kind}: from {first} to {base:?}");
                std::fs::write(&image, &original).unwrap();
                let new = (!base.is_empty())
                    .then(|| (BackingName::new(*base, *format), device(&dir.path().join(base), format)));
                let mut done = 0;
                Image::open(&image, &writable()).unwrap().rebase(new, &mut |at| done = at).unwrap();
                assert_eq!(done, LEN as u64);
                check(&image);
                assert_contents(&image, &model);
                let opened = Image::open(&image, &writable()).unwrap();
                assert!(read_vec(&opened, 0, LEN as u64).unwrap() == model);
                assert_eq!(opened.backing_name().map_or("", |backing| &backing.name), *base);
                assert_eq!(opened.backing_path().is_some(), !base.is_empty());
                drop(opened);
                streams += compressed(&image, &original, &model, (base, format), dir.path());
                // And QEMU takes it from there.
                run("qemu-img", &["rebase", "-f", "qcow2", "-b", "", path(&image)]);
                assert_contents(&image, &model);
            }
        }
    }
    assert!(streams > 0, "nothing was compressed");
}

/// The same with what is copied up compressed.
fn compressed(image: &Path, original: &[u8], model: &[u8], (base, format): (&str, &str), dir: &Path) -> u64 {
    let plain = std::fs::metadata(image).unwrap().len();
    std::fs::write(image, original).unwrap();
    let new = (!base.is_empty()).then(|| (BackingName::new(base, format), device(&dir.join(base), format)));
    let copied = Image::open(image, &writable()).unwrap().rebase_compressed(new, &mut |_| {}).unwrap();
    check(image);
    assert_contents(image, model);
    let opened = Image::open(image, &writable()).unwrap();
    assert_eq!(opened.backing_name().map_or("", |backing| &backing.name), base);
    // Each takes the end of a cluster at most beyond what it would take as it is.
    assert!(std::fs::metadata(image).unwrap().len() <= plain + (1 << 20), "{copied} bytes copied up");
    opened.check(&mut |_| {}).unwrap().compressed_clusters
}

#[test]
fn a_name_alone_changes_nothing_else() {
    if oracle_missing("a_name_alone_changes_nothing_else") {
        return;
    }
    let dir = temp_dir();
    let image = dir.path().join("image.qcow2");
    let closed = OpenOptions::new().writable(true).backing(Backing::LeaveClosed);
    for options in ["compat=1.1", "compat=0.10", "cluster_size=512", "cluster_size=1024", "refcount_bits=64"] {
        run("qemu-img", &["create", "-f", "qcow2", "-o", options, path(&image), "1M"]);
        run("qemu-io", &["-f", "qcow2", "-c", "write -P 5 0 64k", path(&image)]);
        if options != "compat=0.10" {
            run("qemu-img", &["bitmap", "--add", path(&image), "kept"]);
        }
        let long = format!("/{}", "x".repeat(if options.starts_with("cluster_size") { 200 } else { 1022 }));
        for (name, format) in [("a", "raw"), ("some/where.qcow2", "qcow2"), (&long, "raw"), ("", ""), ("b", "vmdk")] {
            println!("{options}: {name}");
            let new = (!name.is_empty()).then(|| BackingName::new(name, format));
            Image::open(&image, &closed).unwrap().set_backing_name(new.clone()).unwrap();
            let opened = Image::open(&image, &closed).unwrap();
            assert_eq!(opened.backing_name(), new.as_ref());
            assert_eq!(opened.bitmaps().unwrap().len(), usize::from(options != "compat=0.10"));
            drop(opened);
            let json = text(&run("qemu-img", &["info", "-U", "--output=json", path(&image)]).stdout);
            let info: serde_json::Value = serde_json::from_str(&json).unwrap();
            let said = |key: &str| info.get(key).and_then(|value| value.as_str()).unwrap_or_default();
            assert_eq!((said("backing-filename"), said("backing-filename-format")), (name, format));
        }
        Image::open(&image, &closed).unwrap().set_backing_name(None).unwrap();
        run("qemu-io", &["-f", "qcow2", "-c", "read -P 5 0 64k", "-c", "read -P 0 64k 960k", path(&image)]);
        check(&image);
        // QEMU reads and writes what we wrote of the header.
        std::fs::write(dir.path().join("base.raw"), [1; 1024]).unwrap();
        run("qemu-img", &["rebase", "-u", "-b", "base.raw", "-F", "raw", path(&image)]);
        assert_eq!(
            Image::open(&image, &writable()).unwrap().backing_name(),
            Some(&BackingName::new("base.raw", "raw"))
        );
    }
    let too_long = BackingName::new("x".repeat(1024), "raw");
    for wrong in [too_long, BackingName::new("", "raw")] {
        assert!(Image::open(&image, &closed).unwrap().set_backing_name(Some(wrong)).is_err());
    }
}

#[test]
fn a_crash_leaves_the_old_backing_file_or_the_new_one() {
    if oracle_missing("a_crash_leaves_the_old_backing_file_or_the_new_one") {
        return;
    }
    let dir = temp_dir();
    make_bases(dir.path());
    let (image, state_file) = (dir.path().join("image.qcow2"), dir.path().join("state.qcow2"));
    for options in ["cluster_size=4k", "cluster_size=512", "cluster_size=64k,compat=0.10"] {
        run("qemu-img", &["create", "-f", "qcow2", "-o", options, "-b", "old.raw", "-F", "raw", path(&image), "3M"]);
        run("qemu-io", &["-f", "qcow2", "-c", "write -P 3 100k 300k", "-c", "write -z 1M 64k", path(&image)]);
        let initial = std::fs::read(&image).unwrap();
        let model = read_vec(&Image::open(&image, &writable()).unwrap(), 0, LEN as u64).unwrap();
        for (base, format) in [("long.qcow2", "qcow2"), ("short.raw", "raw"), ("", "")] {
            let trace = Arc::new(Trace::new(block::Memory::from(initial.clone())));
            let absolute = vec![dir.path().to_owned()];
            let options = OpenOptions::new().writable(true).backing(Backing::Within(absolute));
            // In memory there is no folder that a relative name could start from.
            let old = BackingName::new(dir.path().join("old.raw").display().to_string(), "raw");
            let unnamed = OpenOptions::new().writable(true).backing(Backing::LeaveClosed);
            Image::open_storage(trace.clone(), &unnamed).unwrap().set_backing_name(Some(old)).unwrap();
            let setup = trace.events().len();
            let name = dir.path().join(base).display().to_string();
            let new =
                (!base.is_empty()).then(|| (BackingName::new(name, format), device(&dir.path().join(base), format)));
            Image::open_storage(trace.clone(), &options).unwrap().rebase(new, &mut |_| {}).unwrap();
            let events = trace.events();
            let mut random = Random(229);
            let mut names = std::collections::BTreeSet::new();
            // The states around the switch, and some of those before it, while data is copied.
            for end in (setup..=events.len()).filter(|end| events.len() - end < 40 || end % 16 == 0) {
                for variant in 0..3 {
                    let state = replay(&initial, &events[..end], |event, _| match variant {
                        _ if event < setup => Outcome::Kept,
                        0 => Outcome::Lost,
                        1 => Outcome::Kept,
                        _ => [Outcome::Lost, Outcome::Torn(random.below(128)), Outcome::Kept][random.below(3) as usize],
                    })
                    .unwrap();
                    std::fs::write(&state_file, &state).unwrap();
                    let opened = Image::open(&state_file, &options).unwrap();
                    assert!(read_vec(&opened, 0, LEN as u64).unwrap() == model, "{end} of {}", events.len());
                    names.insert(opened.backing_name().cloned().map(|backing| (backing.name, backing.format)));
                    drop(opened);
                    if variant == 2 && end % 3 == 0 {
                        check(&state_file);
                    }
                }
            }
            assert_eq!(names.len(), 2, "{names:?}");
        }
    }
}

#[test]
fn names_in_qemus_json_form_are_followed_by_the_same_rules() {
    if oracle_missing("names_in_qemus_json_form_are_followed_by_the_same_rules") {
        return;
    }
    let dir = temp_dir();
    let outside = temp_dir();
    let (base, image) = (dir.path().join("base.qcow2"), dir.path().join("image.qcow2"));
    let bytes = disk(1 << 20, 233);
    std::fs::write(dir.path().join("base.raw"), &bytes).unwrap();
    run("qemu-img", &["convert", "-O", "qcow2", path(&dir.path().join("base.raw")), path(&base)]);
    std::fs::copy(&base, outside.path().join("base.qcow2")).unwrap();
    let file = path(&base);
    for name in [
        format!(r#"json:{{"driver":"qcow2","file":{{"driver":"file","filename":"{file}"}}}}"#),
        format!(r#"json:{{"driver":"qcow2","file.driver":"file","file.filename":"{file}"}}"#),
        format!(r#"json:{{"driver":"raw","file":{{"driver":"file","filename":"{}/base.raw"}}}}"#, path(dir.path())),
    ] {
        let format = if name.contains("base.raw") { "raw" } else { "qcow2" };
        run("qemu-img", &["create", "-f", "qcow2", "-b", &name, "-F", format, path(&image)]);
        assert_contents(&image, &bytes);
        let opened = Image::open(&image, &writable()).unwrap();
        assert!(read_vec(&opened, 0, bytes.len() as u64).unwrap() == bytes);
        assert_eq!(opened.backing_name().unwrap().name, name);
        assert!(opened.backing_path().unwrap().starts_with(dir.path()));
        drop(opened);
        assert!(Image::open(&image, &OpenOptions::new()).is_err());
    }
    // A name without a format is as good as one with it, where the JSON says it.
    let closed = OpenOptions::new().writable(true).backing(Backing::LeaveClosed);
    let told = format!(r#"json:{{"driver":"qcow2","file.filename":"{file}"}}"#);
    let untold = format!(r#"json:{{"file.filename":"{file}"}}"#);
    let elsewhere = format!(r#"json:{{"driver":"qcow2","file.filename":"{}/base.qcow2"}}"#, path(outside.path()));
    let network = r#"json:{"driver":"qcow2","file":{"driver":"nbd","host":"example.org"}}"#;
    for (name, opens) in [(told.as_str(), true), (&untold, false), (&elsewhere, false), (network, false)] {
        let name = BackingName { name: name.to_owned(), format: None };
        Image::open(&image, &closed).unwrap().set_backing_name(Some(name.clone())).unwrap();
        let opened = Image::open(&image, &writable());
        assert_eq!(opened.is_ok(), opens, "{name:?}: {:?}", opened.err());
    }
}
