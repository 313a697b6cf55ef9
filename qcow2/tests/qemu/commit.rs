//! Overlays committed to what is behind them, judged by qemu-img.

use crate::oracle::{assert_contents, check, disk, oracle_missing, path, run, temp_dir};
use block::{Access, HostFile, ReadAt, WriteAt, read_vec};
use qcow2::{Backing, Image, OpenOptions};

const LEN: usize = 3 << 20;

#[test]
fn an_overlay_goes_into_its_backing_file_and_becomes_empty() {
    if oracle_missing("an_overlay_goes_into_its_backing_file_and_becomes_empty") {
        return;
    }
    let dir = temp_dir();
    let (raw, base, image) = (dir.path().join("raw"), dir.path().join("base"), dir.path().join("image.qcow2"));
    std::fs::write(&raw, disk(LEN, 149)).unwrap();
    let options = OpenOptions::new().writable(true).backing(Backing::Within(Vec::new()));
    for (format, overlay) in [
        ("raw", "compat=1.1"),
        ("qcow2", "compat=1.1"),
        ("qcow2", "compat=0.10"),
        ("raw", "extended_l2=on"),
        ("qcow2", "cluster_size=512"),
    ] {
        println!("{overlay} over {format}");
        run("qemu-img", &["convert", "-f", "raw", "-O", format, path(&raw), path(&base)]);
        run("qemu-img", &["create", "-f", "qcow2", "-o", overlay, "-b", "base", "-F", format, path(&image)]);
        let commands = ["write -P 1 70k 100k", "write -z 1M 300k", "write -P 2 2900k 1k", "discard 2M 200k"];
        for command in commands {
            run("qemu-io", &["-f", "qcow2", "-c", command, path(&image)]);
        }
        let expected = read_vec(&Image::open(&image, &options).unwrap(), 0, LEN as u64).unwrap();
        assert_contents(&image, &expected);

        let open_base = || -> qcow2::Result<Box<dyn WriteAt>> {
            Ok(if format == "raw" {
                Box::new(HostFile::open(&base, Access::ReadWrite)?)
            } else {
                Box::new(Image::open(&base, &options)?)
            })
        };
        let short = || Ok(Box::new(block::Memory::new(1000)) as Box<dyn WriteAt>);
        assert!(Image::open(&image, &options).unwrap().commit_to(short, &mut |_| {}).is_err());
        // Open for reading, the overlay stays as it is; open for writing, it is emptied.
        for writable in [false, true] {
            let overlay = Image::open(&image, &options.clone().writable(writable)).unwrap();
            let mut done = 0;
            let written = overlay.commit_to(open_base, &mut |at| done = at).unwrap();
            assert!((400 << 10..1 << 20).contains(&written) && done == LEN as u64, "{written}");
            run("qemu-img", &["compare", "-f", format, "-F", "qcow2", path(&base), path(&image)]);
        }
        if format == "qcow2" {
            check(&base);
        }

        let overlay = Image::open(&image, &options).unwrap();
        assert_eq!(overlay.map(0, 64 << 10).unwrap().kind, qcow2::MappedKind::Unallocated);
        assert!(read_vec(&overlay, 0, overlay.len()).unwrap() == expected);
        drop(overlay);
        check(&image);
        assert_contents(&image, &expected);
    }
}
