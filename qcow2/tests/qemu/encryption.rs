//! Encrypted images, with LUKS: what QEMU writes we read, and what we write QEMU reads.

use std::path::Path;

use crate::oracle::{Random, disk, oracle_missing, path, run, temp_dir};
use block::{ReadAt, WriteAt, read_vec};
use qcow2::{Error, Image, OpenOptions, Secret};

const PASSPHRASE: &str = "correct horse";
const LEN: usize = (3 << 20) + 1536;

/// What qemu-img and qemu-io are told of the passphrase.
const SECRET: &str = "secret,id=s,data=correct horse";

fn options(writable: bool) -> OpenOptions {
    OpenOptions::new().writable(writable).passphrase(Secret::from(PASSPHRASE))
}

/// The name by which QEMU opens an encrypted image.
fn image_opts(image: &Path) -> String {
    format!("driver=qcow2,encrypt.key-secret=s,file.filename={}", path(image))
}

/// Has QEMU make an image that holds `bytes`.
fn made_by_qemu(image: &Path, bytes: &[u8], options: &str) {
    let raw = image.with_extension("raw");
    std::fs::write(&raw, bytes).unwrap();
    let create = format!("encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10{options}");
    run(
        "qemu-img",
        &["convert", "--object", SECRET, "-f", "raw", "-O", "qcow2", "-o", &create, path(&raw), path(image)],
    );
}

/// The image is sound, and holds these bytes, as QEMU reads it.
fn assert_contents(image: &Path, expected: &[u8]) {
    run("qemu-img", &["check", "--object", SECRET, "--image-opts", &image_opts(image)]);
    let raw = image.with_extension("contents");
    run("qemu-img", &["convert", "--object", SECRET, "-O", "raw", "--image-opts", &image_opts(image), path(&raw)]);
    let found = std::fs::read(&raw).unwrap();
    assert_eq!(found.len(), expected.len());
    let differs = found.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(differs, None, "first difference");
}

fn assert_reads(image: &Image, expected: &[u8]) {
    assert!(read_vec(image, 0, image.len()).unwrap() == expected);
    let mut random = Random(7);
    for _ in 0..200 {
        let offset = random.below(expected.len() as u64);
        let len = (1 + random.below(9000)).min(expected.len() as u64 - offset);
        let range = offset as usize..(offset + len) as usize;
        assert!(read_vec(image, offset, len).unwrap() == expected[range], "{len} bytes at {offset}");
    }
}

#[test]
fn every_cipher_that_qemu_writes_is_read_or_refused_by_name() {
    if oracle_missing("every_cipher_that_qemu_writes_is_read_or_refused_by_name") {
        return;
    }
    let dir = temp_dir();
    let image = dir.path().join("disk.qcow2");
    let bytes = disk(LEN, 5);
    for cipher in ["aes-128", "aes-192", "aes-256"] {
        for mode in ["xts", "cbc"] {
            for iv in ["plain", "plain64", "essiv"] {
                if (cipher, mode) == ("aes-192", "cbc") {
                    continue; // QEMU aborts: its key material is no whole number of sectors
                }
                let layout = format!(",encrypt.cipher-alg={cipher},encrypt.cipher-mode={mode},encrypt.ivgen-alg={iv}");
                made_by_qemu(&image, &bytes, &layout);
                println!("{layout}");
                assert_reads(&Image::open(&image, &options(false)).unwrap(), &bytes);
            }
        }
    }
    for hash in ["sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160"] {
        println!("{hash}");
        made_by_qemu(&image, &bytes[..65_536], &format!(",encrypt.hash-alg={hash}"));
        assert_reads(&Image::open(&image, &options(false)).unwrap(), &bytes[..65_536]);
    }
    for layout in
        ["cipher-alg=serpent-256", "cipher-alg=twofish-256", "cipher-mode=ecb", "cipher-mode=ctr", "hash-alg=md5"]
    {
        made_by_qemu(&image, &bytes[..65_536], &format!(",encrypt.{layout}"));
        let error = Image::open(&image, &options(false)).unwrap_err();
        let name = layout.split_once('=').unwrap().1;
        assert!(matches!(&error, Error::Unsupported(what) if what.contains(name)), "{error}");
        assert!(Image::open(&image, &OpenOptions::new()).unwrap().info().unwrap().encrypt.is_some());
    }
}

#[test]
fn encrypted_images_of_every_layout_are_read_and_written() {
    if oracle_missing("encrypted_images_of_every_layout_are_read_and_written") {
        return;
    }
    let dir = temp_dir();
    let image = dir.path().join("disk.qcow2");
    let mut bytes = disk(LEN, 9);
    for layout in ["", ",compat=0.10", ",cluster_size=512", ",cluster_size=2M", ",extended_l2=on,cluster_size=32k"] {
        println!("{layout}");
        made_by_qemu(&image, &bytes, layout);
        let mut random = Random(31);
        {
            let opened = Image::open(&image, &options(true)).unwrap();
            assert_reads(&opened, &bytes);
            for step in 0..60 {
                let offset = random.below(LEN as u64) as usize;
                let len = (1 + random.below(70_000) as usize).min(LEN - offset);
                let range = offset..offset + len;
                if step % 3 == 0 {
                    opened.write_zeroes(offset as u64, len as u64).unwrap();
                    bytes[range].fill(0);
                } else {
                    let new = random.bytes(len);
                    opened.write_at(offset as u64, &new).unwrap();
                    bytes[range].copy_from_slice(&new);
                }
            }
            assert_reads(&opened, &bytes);
            opened.flush().unwrap();
        }
        assert_contents(&image, &bytes);

        let transaction = Image::open(&image, &options(true)).unwrap().begin().unwrap().memory_limit(256 << 10);
        for step in 0..60 {
            let offset = random.below(LEN as u64) as usize;
            let len = (1 + random.below(70_000) as usize).min(LEN - offset);
            let range = offset..offset + len;
            if step % 3 == 0 {
                transaction.discard(offset as u64, len as u64).unwrap();
                bytes[range].fill(0);
            } else {
                let new = random.bytes(len);
                transaction.write_at(offset as u64, &new).unwrap();
                bytes[range].copy_from_slice(&new);
            }
        }
        assert!(read_vec(&transaction, 0, LEN as u64).unwrap() == bytes);
        transaction.commit().unwrap();
        assert!(read_vec(transaction.image(), 0, LEN as u64).unwrap() == bytes);
        drop(transaction);
        assert_contents(&image, &bytes);
    }
}

#[test]
fn without_the_passphrase_an_image_is_described_and_not_read() {
    if oracle_missing("without_the_passphrase_an_image_is_described_and_not_read") {
        return;
    }
    let dir = temp_dir();
    let image = dir.path().join("disk.qcow2");
    let bytes = disk(LEN, 5);
    made_by_qemu(&image, &bytes, "");
    let closed = Image::open(&image, &OpenOptions::new()).unwrap();
    let out = run("qemu-img", &["info", "--output=json", path(&image)]).stdout;
    let theirs: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let ours = serde_json::to_value(closed.info().unwrap().encrypt).unwrap();
    assert_eq!(ours, theirs["format-specific"]["data"]["encrypt"]);
    assert!(closed.check(&mut |problem| panic!("{problem}")).unwrap().is_clean());
    assert!(closed.snapshots().unwrap().is_empty());
    let out =
        run("qemu-img", &["map", "--output=json", "--object", SECRET, "--image-opts", &image_opts(&image)]).stdout;
    let theirs: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let mut ours = Vec::new();
    closed.map_chain(&mut |entry| ours.push(*entry)).unwrap();
    assert_eq!(serde_json::to_value(ours).unwrap(), theirs);

    let refused = |error: block::Error| {
        let block::Error::Layer(source) = error else { panic!("{error}") };
        assert!(matches!(source.downcast_ref(), Some(Error::Encrypted)), "{source}");
    };
    refused(closed.read_at(0, &mut [0; 1]).unwrap_err());
    drop(closed);
    let closed = Image::open(&image, &OpenOptions::new().writable(true)).unwrap();
    refused(closed.write_at(0, &[0; 1]).unwrap_err());
    refused(closed.write_zeroes(0, 512).unwrap_err());
    // No write failed: none was begun.
    closed.flush().unwrap();
    drop(closed);
    let wrong = OpenOptions::new().passphrase(Secret::from("correct horse\n"));
    assert!(matches!(Image::open(&image, &wrong), Err(Error::WrongPassphrase)));
    let bounded = options(false).max_key_iterations(1000);
    assert!(matches!(Image::open(&image, &bounded), Err(Error::KeyIterations { limit: 1000, .. })));
}
