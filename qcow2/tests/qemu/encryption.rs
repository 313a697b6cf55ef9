//! Encrypted images, with LUKS: what QEMU writes we read, and what we write QEMU reads.

use std::path::Path;

use crate::oracle::{Random, disk, oracle_missing, path, run, temp_dir};
use block::{HostFile, ReadAt, WriteAt, read_vec};
use qcow2::{CipherAlgorithm, CipherMode, CreateOptions, Error, HashAlgorithm, Image, IvGenerator, LuksOptions};
use qcow2::{OpenOptions, Secret};

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

/// How our own images are encrypted: as little work as can be.
fn luks() -> LuksOptions {
    LuksOptions::new(Secret::from(PASSPHRASE)).iterations(1000)
}

/// Makes an image of our own that holds `bytes`.
fn made_by_us(image: &Path, bytes: &[u8], options: &CreateOptions) {
    let _ = std::fs::remove_file(image);
    let file = HostFile::create_new(image).unwrap();
    qcow2::create(&file, &block::Memory::from(bytes.to_vec()), options, &mut |_| {}).unwrap();
}

/// The combinations that QEMU takes, but for AES-192 in CBC mode: there it aborts, since key material is no whole number of
/// sectors.
fn for_each_cipher(mut with: impl FnMut(CipherAlgorithm, CipherMode, IvGenerator)) {
    for cipher in [CipherAlgorithm::Aes128, CipherAlgorithm::Aes192, CipherAlgorithm::Aes256] {
        for mode in [CipherMode::Xts, CipherMode::Cbc] {
            for iv in [IvGenerator::Plain, IvGenerator::Plain64, IvGenerator::Essiv] {
                if (cipher, mode) != (CipherAlgorithm::Aes192, CipherMode::Cbc) {
                    println!("{} {} {}", cipher.name(), mode.name(), iv.name());
                    with(cipher, mode, iv);
                }
            }
        }
    }
}

const HASHES: [HashAlgorithm; 6] = [
    HashAlgorithm::Sha1,
    HashAlgorithm::Sha224,
    HashAlgorithm::Sha256,
    HashAlgorithm::Sha384,
    HashAlgorithm::Sha512,
    HashAlgorithm::Ripemd160,
];

/// What QEMU writes into images of ours, it encrypts by itself: so this is about both directions.
#[test]
fn qemu_reads_and_writes_our_images_with_every_cipher_and_hash() {
    if oracle_missing("qemu_reads_and_writes_our_images_with_every_cipher_and_hash") {
        return;
    }
    let dir = temp_dir();
    let image = dir.path().join("disk.qcow2");
    let bytes = disk(400_384, 5);
    let judge = |luks: LuksOptions| {
        made_by_us(&image, &bytes, &CreateOptions::new().cluster_size(4096).encryption(Some(luks)));
        assert_contents(&image, &bytes);
        let out = run("qemu-img", &["info", "--output=json", path(&image)]).stdout;
        let theirs: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let ours = Image::open(&image, &OpenOptions::new()).unwrap().info().unwrap().encrypt;
        assert_eq!(serde_json::to_value(ours).unwrap(), theirs["format-specific"]["data"]["encrypt"]);
        let args = ["-c", "write -P 0x5a 1k 70k", "--object", SECRET, "--image-opts", &image_opts(&image)];
        run("qemu-io", &args);
        let mut changed = bytes.clone();
        changed[1024..72_704].fill(0x5a);
        assert_reads(&Image::open(&image, &options(false)).unwrap(), &changed);
    };
    for_each_cipher(|cipher, mode, iv| judge(luks().cipher(cipher).mode(mode).iv_generator(iv)));
    for hash in HASHES {
        judge(luks().hash(hash));
    }
}

/// Each header that QEMU makes takes it two seconds of work, whatever its options say: so this one is only run when asked
/// for, with `--ignored`.
#[test]
#[ignore = "takes a minute, for QEMU's sake"]
fn every_header_that_qemu_writes_is_read_or_refused_by_name() {
    if oracle_missing("every_header_that_qemu_writes_is_read_or_refused_by_name") {
        return;
    }
    let dir = temp_dir();
    let image = dir.path().join("disk.qcow2");
    let bytes = disk(LEN, 5);
    let judge = |layout: String| {
        made_by_qemu(&image, &bytes, &layout);
        assert_reads(&Image::open(&image, &options(false)).unwrap(), &bytes);
    };
    for_each_cipher(|cipher, mode, iv| {
        let (cipher, mode, iv) = (cipher.name(), mode.name(), iv.name());
        judge(format!(",encrypt.cipher-alg={cipher},encrypt.cipher-mode={mode},encrypt.ivgen-alg={iv}"));
    });
    for hash in HASHES {
        judge(format!(",encrypt.hash-alg={}", hash.name()));
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
fn an_image_that_cannot_be_encrypted_so_is_not_made() {
    let storage = block::Memory::new(0);
    let refused = |options: CreateOptions| {
        qcow2::create(&storage, &block::Memory::new(65_536), &options, &mut |_| {}).unwrap_err().to_string()
    };
    let options = CreateOptions::new().encryption(Some(luks()));
    assert!(refused(options.compression(Some(qcow2::Compression::Zlib))).contains("compressed"));
    let cbc = luks().cipher(CipherAlgorithm::Aes192).mode(CipherMode::Cbc);
    assert_eq!(refused(CreateOptions::new().encryption(Some(cbc))), "unsupported: aes-192 in cbc-plain64 mode");
    assert_eq!(
        "serpent-256".parse::<CipherAlgorithm>().unwrap_err().to_string(),
        "unsupported: the cipher \"serpent-256\""
    );
}

#[test]
fn encrypted_images_of_every_layout_are_read_and_written() {
    if oracle_missing("encrypted_images_of_every_layout_are_read_and_written") {
        return;
    }
    let dir = temp_dir();
    let image = dir.path().join("disk.qcow2");
    let mut bytes = disk(LEN, 9);
    let ours = |cluster_size| CreateOptions::new().cluster_size(cluster_size).encryption(Some(luks()));
    for layout in 0..5 {
        match layout {
            0 => made_by_qemu(&image, &bytes, ""),
            // Version 2, and another cipher.
            1 => made_by_qemu(&image, &bytes, ",compat=0.10,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv"),
            2 => made_by_us(&image, &bytes, &ours(512)),
            3 => made_by_us(&image, &bytes, &ours(2 << 20)),
            _ => made_by_us(&image, &bytes, &ours(32 << 10).extended_l2(true)),
        }
        println!("layout {layout}");
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
