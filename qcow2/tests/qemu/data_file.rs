//! Images whose clusters lie in an external data file, read and written in place, judged by qemu-img.

use std::path::Path;

use crate::oracle::{Random, assert_contents, change_by_qemu, check, disk, oracle_missing, path, run, temp_dir};
use block::{ReadAt, WriteAt, read_vec};
use qcow2::{Backing, DataFile, Error, Image, OpenOptions};

/// Not a whole number of clusters.
const LEN: usize = (3 << 20) + 1536;

fn options(writable: bool) -> OpenOptions {
    OpenOptions::new().writable(writable).backing(Backing::Within(Vec::new())).data_file(DataFile::Within(Vec::new()))
}

fn assert_reads(image: &Image, expected: &[u8]) {
    assert_eq!(image.len(), expected.len() as u64);
    assert!(read_vec(image, 0, image.len()).unwrap() == expected);
    let mut random = Random(7);
    for _ in 0..200 {
        let offset = random.below(expected.len() as u64);
        let len = (1 + random.below(9000)).min(expected.len() as u64 - offset);
        let range = offset as usize..(offset + len) as usize;
        assert!(read_vec(image, offset, len).unwrap() == expected[range], "{len} bytes at {offset}");
    }
}

/// Makes the kinds of image; the callback gets each with what it holds, and whether its data file is a raw image.
fn for_each_image(dir: &Path, mut with: impl FnMut(&Path, &mut Vec<u8>, bool)) {
    let (raw, image) = (dir.join("disk.raw"), dir.join("disk.qcow2"));
    let bytes = disk(LEN, 61);
    std::fs::write(&raw, &bytes).unwrap();
    for kind in ["", ",data_file_raw=on", ",backed"] {
        for layout in ["", ",extended_l2=on", ",cluster_size=4k", ",cluster_size=2M,extended_l2=on"] {
            println!("{kind} {layout}");
            for name in ["disk.qcow2", "data"] {
                let _ = std::fs::remove_file(dir.join(name));
            }
            let mut model = bytes.clone();
            let data = format!("data_file=data{}{layout}", kind.trim_end_matches(",backed"));
            let create = format!("data_file={}{}", path(&dir.join("data")), &data["data_file=data".len()..]);
            if kind == ",backed" {
                run("qemu-img", &["create", "-f", "qcow2", "-o", &create, "-b", "disk.raw", "-F", "raw", path(&image)]);
            } else {
                run("qemu-img", &["create", "-f", "qcow2", "-o", &create, path(&image), &LEN.to_string()]);
                run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "qcow2", path(&raw), path(&image)]);
            }
            change_by_qemu(&image, &mut model, &mut Random(67), 40);
            with(&image, &mut model, kind == ",data_file_raw=on");
        }
    }
}

#[test]
fn external_data_files_read_as_qemu_wrote_them() {
    if oracle_missing("external_data_files_read_as_qemu_wrote_them") {
        return;
    }
    let dir = temp_dir();
    for_each_image(dir.path(), |image_path, model, raw| {
        let image = Image::open(image_path, &options(false)).unwrap();
        assert_reads(&image, model);
        let report = image.check(&mut |problem| panic!("{problem}")).unwrap();
        let out = run("qemu-img", &["check", "--output=json", "-f", "qcow2", path(image_path)]).stdout;
        let theirs: serde_json::Value = serde_json::from_slice(&out).unwrap();
        for (ours, name) in [
            (report.image_end_offset, "image-end-offset"),
            (report.allocated_clusters, "allocated-clusters"),
            (report.fragmented_clusters, "fragmented-clusters"),
        ] {
            assert_eq!(ours, theirs[name].as_u64().unwrap_or(0), "{name}");
        }
        let facts = image.info().unwrap();
        assert!(facts.data_file.unwrap().ends_with("/data"));
        assert_eq!(facts.data_file_raw, raw);
    });
}

#[test]
fn what_is_written_to_an_external_data_file_is_what_qemu_reads() {
    if oracle_missing("what_is_written_to_an_external_data_file_is_what_qemu_reads") {
        return;
    }
    let dir = temp_dir();
    for_each_image(dir.path(), |path, model, raw| {
        let mut random = Random(71);
        let data_len = std::fs::metadata(path.with_file_name("data")).unwrap().len();
        for _ in 0..3 {
            let image = Image::open(path, &options(true)).unwrap();
            change(&image, model, &mut random);
            image.flush().unwrap();
            assert_reads(&image, model);
            drop(image);
            check(path);
            assert_contents(path, model);
            if raw {
                let data = std::fs::read(path.with_file_name("data")).unwrap();
                // QEMU makes it a whole number of clusters long.
                assert!(data[..LEN] == **model && data.len() as u64 == data_len, "the data file is no raw image");
                assert!(Image::open(path, &options(false)).unwrap().info().unwrap().data_file_raw);
            }
            change_by_qemu(path, model, &mut random, 20);
        }
        assert_reads(&Image::open(path, &options(false)).unwrap(), model);
    });
}

fn change(device: &dyn WriteAt, model: &mut [u8], random: &mut Random) {
    for step in 0..25 {
        let grain = [1, 512, 2048, 65_536][random.below(4) as usize];
        let offset = random.below(model.len() as u64) as usize / grain * grain;
        let len = ((1 + random.below(60_000 / grain as u64 + 2) as usize) * grain).min(model.len() - offset);
        // The last cluster, too.
        let (offset, len) = if step == 7 { (model.len() - 5, 5) } else { (offset, len) };
        if random.below(3) == 0 {
            device.write_zeroes(offset as u64, len as u64).unwrap();
            model[offset..offset + len].fill(0);
        } else {
            let bytes = random.bytes(len);
            device.write_at(offset as u64, &bytes).unwrap();
            model[offset..offset + len].copy_from_slice(&bytes);
        }
    }
}

#[test]
fn data_files_are_opened_only_where_they_are_allowed() {
    if oracle_missing("data_files_are_opened_only_where_they_are_allowed") {
        return;
    }
    let (dir, elsewhere) = (temp_dir(), temp_dir());
    let image = dir.path().join("disk.qcow2");
    let create = |data: &Path| {
        let _ = std::fs::remove_file(&image);
        let data = format!("data_file={}", path(data));
        run("qemu-img", &["create", "-f", "qcow2", "-o", &data, path(&image), "4M"]);
    };
    let refused = |options: &OpenOptions| match Image::open(&image, options) {
        Err(Error::DataFileRefused { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    create(&dir.path().join("data"));
    Image::open(&image, &options(false)).unwrap();
    assert_eq!(refused(&OpenOptions::new()), "external data files are not allowed");
    create(&elsewhere.path().join("data"));
    assert!(refused(&options(false)).contains("outside"));
    let wider = options(true).data_file(DataFile::Within(vec![elsewhere.path().to_owned()]));
    drop(Image::open(&image, &wider).unwrap());

    // A name as only a hostile image has it.
    let mut bytes = std::fs::read(&image).unwrap();
    let at = bytes.windows(4).position(|bytes| bytes == b"DATA").unwrap();
    let len = u32::from_be_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
    let name = format!(".{}disk.qcow2", "/".repeat(len - 11));
    bytes[at + 8..at + 8 + len].copy_from_slice(name.as_bytes());
    std::fs::write(&image, &bytes).unwrap();
    assert_eq!(refused(&options(false)), "it is an image of the same chain");
    let mut bytes = std::fs::read(&image).unwrap();
    bytes[at + 8..at + 13].copy_from_slice(b"json:");
    std::fs::write(&image, &bytes).unwrap();
    assert!(refused(&options(false)).contains("local file"));
    bytes[at] = 0x11; // an extension of another kind
    std::fs::write(&image, &bytes).unwrap();
    let error = Image::open(&image, &options(false)).unwrap_err();
    assert_eq!(error.to_string(), "unsupported: an external data file that the image does not name");
}

#[test]
fn what_cannot_be_made_atomic_is_refused_by_name() {
    if oracle_missing("what_cannot_be_made_atomic_is_refused_by_name") {
        return;
    }
    let dir = temp_dir();
    let image = dir.path().join("disk.qcow2");
    let data = format!("data_file={}", path(&dir.path().join("data")));
    run("qemu-img", &["create", "-f", "qcow2", "-o", &data, path(&image), "4M"]);
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 9 0 1M", path(&image)]);
    let files = || (std::fs::read(&image).unwrap(), std::fs::read(dir.path().join("data")).unwrap());
    let before = files();
    let mut opened = Image::open(&image, &options(true)).unwrap();
    for (result, what) in [
        (opened.create_snapshot("one", std::time::UNIX_EPOCH).map(|_| ()), "a snapshot"),
        (opened.begin().map(|_| ()), "a transaction"),
    ] {
        let expected = format!("unsupported: {what} of an image with an external data file");
        assert_eq!(result.unwrap_err().to_string(), expected);
    }
    assert!(files() == before);

    // Two clusters of the disk in one of the data file: nothing says whether it may be written.
    let mut bytes = before.0;
    let l1 = u64::from_be_bytes(bytes[40..48].try_into().unwrap()) as usize;
    let l2 = (u64::from_be_bytes(bytes[l1..l1 + 8].try_into().unwrap()) & 0x00ff_ffff_ffff_fe00) as usize;
    bytes.copy_within(l2..l2 + 8, l2 + 8);
    std::fs::write(&image, &bytes).unwrap();
    let opened = Image::open(&image, &options(true)).unwrap();
    assert!(read_vec(&opened, 0, 1 << 20).unwrap() == vec![9; 1 << 20]);
    let error = opened.write_at(2 << 20, &[1; 100]).unwrap_err();
    assert!(error.to_string().contains("not laid out as the disk"), "{error}");
    drop(opened);
    bytes[l2] |= 0x40; // compressed
    std::fs::write(&image, &bytes).unwrap();
    let error = Image::open(&image, &options(false)).unwrap().map(0, 1).unwrap_err();
    assert!(error.to_string().contains("no cluster may be compressed in an external data file"), "{error}");
}
