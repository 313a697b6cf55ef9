//! Images changed in what they are, judged by qemu-img.

use std::path::Path;

use crate::oracle::{Random, assert_contents, change_by_qemu, check, disk, oracle_missing, path, run, temp_dir, text};
use block::{ReadAt, WriteAt, read_vec};
use qcow2::{AmendOptions, Backing, DataFile, Image, OpenOptions};

const LEN: usize = 3 << 20;

fn writable() -> OpenOptions {
    OpenOptions::new().writable(true).backing(Backing::Within(Vec::new())).data_file(DataFile::Within(Vec::new()))
}

fn amend(image: &Path, options: &AmendOptions) -> qcow2::Result<()> {
    Image::open(image, &writable())?.amend(options)
}

/// What QEMU says is particular to the format.
fn specific(image: &Path) -> serde_json::Value {
    let out = run("qemu-img", &["info", "--output=json", path(image)]);
    serde_json::from_str::<serde_json::Value>(&text(&out.stdout)).unwrap()["format-specific"]["data"].clone()
}

#[test]
fn version_width_and_laziness_change_and_the_disk_stays() {
    if oracle_missing("version_width_and_laziness_change_and_the_disk_stays") {
        return;
    }
    let dir = temp_dir();
    let (base, image) = (dir.path().join("base.raw"), dir.path().join("image.qcow2"));
    std::fs::write(&base, disk(LEN - 200_192, 307)).unwrap();
    let overlay = ["-b", "base.raw", "-F", "raw"];
    for (number, (options, over)) in [
        ("compat=1.1", &overlay[..]),
        ("compat=1.1,cluster_size=512", &[]),
        ("compat=0.10", &overlay),
        ("cluster_size=2M", &[]),
    ]
    .into_iter()
    .enumerate()
    {
        println!("{options}");
        run("qemu-img", &[&["create", "-f", "qcow2", "-o", options], over, &[path(&image), "3M"]].concat());
        let mut model = read_vec(&Image::open(&image, &writable()).unwrap(), 0, LEN as u64).unwrap();
        change_by_qemu(&image, &mut model, &mut Random(311 + number as u64), 8);
        let judge = |width: u64, compat: &str, lazy: bool| {
            check(&image);
            assert_contents(&image, &model);
            let said = specific(&image);
            assert_eq!((said["refcount-bits"].as_u64(), said["compat"].as_str()), (Some(width), Some(compat)));
            assert_eq!(said.get("lazy-refcounts").is_some_and(|lazy| lazy == true), lazy);
            let opened = Image::open(&image, &writable()).unwrap();
            assert!(read_vec(&opened, 0, LEN as u64).unwrap() == model);
        };
        amend(&image, &AmendOptions::new().version(2)).unwrap();
        judge(16, "0.10", false);
        assert!(amend(&image, &AmendOptions::new().refcount_bits(8)).is_err());
        assert!(amend(&image, &AmendOptions::new().lazy_refcounts(true)).is_err());
        amend(&image, &AmendOptions::new().version(3).lazy_refcounts(true).refcount_bits(1)).unwrap();
        judge(1, "1.1", true);
        for width in [64, 2, 8] {
            amend(&image, &AmendOptions::new().refcount_bits(width)).unwrap();
            judge(width.into(), "1.1", true);
        }
        assert!(amend(&image, &AmendOptions::new().version(2)).is_err(), "refcounts of 8 bits");
        amend(&image, &AmendOptions::new().lazy_refcounts(false)).unwrap();
        judge(8, "1.1", false);
        // We go on writing, and so does QEMU.
        Image::open(&image, &writable()).unwrap().write_at(1_000_000, &[3; 300_000]).unwrap();
        model[1_000_000..1_300_000].fill(3);
        change_by_qemu(&image, &mut model, &mut Random(317), 12);
        amend(&image, &AmendOptions::new().version(2).refcount_bits(16)).unwrap();
        check(&image);
        assert_contents(&image, &model);
    }
}

#[test]
fn what_cannot_be_is_refused_and_leaves_the_image_alone() {
    if oracle_missing("what_cannot_be_is_refused_and_leaves_the_image_alone") {
        return;
    }
    let dir = temp_dir();
    let image = dir.path().join("image.qcow2");
    let version_2 = AmendOptions::new().version(2);
    let data_file = format!("data_file={}", path(&dir.path().join("data.raw")));
    for options in ["extended_l2=on", "compression_type=zstd", "refcount_bits=32", &data_file] {
        run("qemu-img", &["create", "-f", "qcow2", "-o", options, path(&image), "1M"]);
        let before = std::fs::read(&image).unwrap();
        assert!(amend(&image, &version_2).is_err(), "{options}");
        assert!(std::fs::read(&image).unwrap() == before);
        if options.starts_with("compression_type") {
            continue; // QEMU takes it, and forgets how clusters are compressed
        }
        let theirs = std::process::Command::new("qemu-img").args(["amend", "-o", "compat=0.10", path(&image)]).output();
        assert!(!theirs.unwrap().status.success(), "{options}");
    }
    run("qemu-img", &["create", "-f", "qcow2", path(&image), "1M"]);
    run("qemu-io", &["-f", "qcow2", "-c", "write 0 128k", path(&image)]);
    run("qemu-img", &["bitmap", "--add", path(&image), "bitmap"]);
    assert!(amend(&image, &version_2).is_err());
    run("qemu-img", &["bitmap", "--remove", path(&image), "bitmap"]);
    run("qemu-img", &["snapshot", "-c", "one", path(&image)]);
    let wrong = [
        AmendOptions::new().refcount_bits(1),
        AmendOptions::new().refcount_bits(3),
        AmendOptions::new().refcount_bits(128),
        AmendOptions::new().version(4),
        AmendOptions::new().data_file("x"),
        AmendOptions::new().data_file_raw(true),
    ];
    let before = std::fs::read(&image).unwrap();
    for options in wrong {
        assert!(amend(&image, &options).is_err(), "{options:?}");
        check(&image);
    }
    assert_contents(&image, &[&[0xcd; 128 << 10][..], &vec![0; (1 << 20) - (128 << 10)]].concat());
    std::fs::write(&image, &before).unwrap();
    amend(&image, &AmendOptions::new().refcount_bits(2)).unwrap();
    check(&image);
    amend(&image, &AmendOptions::new().refcount_bits(16)).unwrap();
    // A snapshot of the same length is no hindrance; zeros in one are, and then a snapshot of another length is.
    amend(&image, &version_2).unwrap();
    check(&image);
    amend(&image, &AmendOptions::new().version(3)).unwrap();
    run("qemu-io", &["-f", "qcow2", "-c", "write -z 0 64k", path(&image)]);
    run("qemu-img", &["snapshot", "-c", "two", path(&image)]);
    assert!(amend(&image, &version_2).is_err());
    run("qemu-img", &["snapshot", "-d", "two", path(&image)]);
    run("qemu-img", &["resize", path(&image), "2M"]);
    assert!(amend(&image, &version_2).is_err());
    check(&image);
}

#[test]
fn the_name_of_the_data_file_changes_and_that_it_is_raw() {
    if oracle_missing("the_name_of_the_data_file_changes_and_that_it_is_raw") {
        return;
    }
    let dir = temp_dir();
    let image = dir.path().join("image.qcow2");
    let options = format!("data_file={},data_file_raw=on", path(&dir.path().join("data.raw")));
    run("qemu-img", &["create", "-f", "qcow2", "-o", &options, path(&image), "1M"]);
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 7 100k 100k", path(&image)]);
    std::fs::copy(dir.path().join("data.raw"), dir.path().join("moved.raw")).unwrap();
    amend(&image, &AmendOptions::new().data_file(dir.path().join("moved.raw").display().to_string())).unwrap();
    assert_eq!(specific(&image)["data-file-raw"], true);
    std::fs::remove_file(dir.path().join("data.raw")).unwrap();
    check(&image);
    run("qemu-io", &["-f", "qcow2", "-c", "read -P 7 100k 100k", "-c", "write -P 8 0 64k", path(&image)]);
    amend(&image, &AmendOptions::new().data_file_raw(false)).unwrap();
    assert_eq!(specific(&image)["data-file-raw"], false);
    check(&image);
    assert!(amend(&image, &AmendOptions::new().data_file_raw(true)).is_err());
    let opened = Image::open(&image, &writable()).unwrap();
    assert_eq!(read_vec(&opened, 0, 65_536).unwrap(), [8; 65_536]);
    assert_eq!(opened.len(), 1 << 20);
}
