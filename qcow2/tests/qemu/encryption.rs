//! Encrypted images, with LUKS: what QEMU writes we read, and what we write QEMU reads.

use std::path::Path;

use crate::oracle::{Random, disk, oracle_missing, path, run, temp_dir};
use block::{HostFile, ReadAt, WriteAt, read_vec};
use qcow2::{Backing, OpenOptions, Secret};
use qcow2::{CipherAlgorithm, CipherMode, CreateOptions, Error, HashAlgorithm, Image, IvGenerator, LuksOptions};

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
    use {CipherAlgorithm as Algorithm, CipherMode as Mode, IvGenerator as Iv};
    for mode in [Mode::Xts, Mode::Cbc] {
        for iv in [Iv::Plain, Iv::Plain64, Iv::Essiv] {
            for cipher in [Algorithm::Aes128, Algorithm::Aes192, Algorithm::Aes256] {
                if (cipher, mode) != (Algorithm::Aes192, Mode::Cbc) {
                    println!("{} {} {}", cipher.name(), mode.name(), iv.name());
                    with(cipher, mode, iv);
                }
            }
        }
    }
    // Each of the others once with each mode, and with each IV.
    for (cipher, mode, iv) in [
        (Algorithm::Serpent128, Mode::Xts, Iv::Plain64),
        (Algorithm::Serpent192, Mode::Xts, Iv::Plain),
        (Algorithm::Serpent256, Mode::Cbc, Iv::Essiv),
        (Algorithm::Serpent256, Mode::Ctr, Iv::Plain64),
        (Algorithm::Twofish128, Mode::Cbc, Iv::Plain64),
        (Algorithm::Twofish192, Mode::Xts, Iv::Essiv),
        (Algorithm::Twofish256, Mode::Xts, Iv::Essiv),
        (Algorithm::Twofish256, Mode::Ecb, Iv::Plain64),
        (Algorithm::Cast5, Mode::Cbc, Iv::Plain64),
        (Algorithm::Cast5, Mode::Ctr, Iv::Plain),
        (Algorithm::Cast5, Mode::Ecb, Iv::Plain64),
        (Algorithm::Aes256, Mode::Ctr, Iv::Plain64),
        (Algorithm::Aes128, Mode::Ctr, Iv::Essiv),
        (Algorithm::Aes256, Mode::Ecb, Iv::Plain64),
    ] {
        println!("{} {} {}", cipher.name(), mode.name(), iv.name());
        with(cipher, mode, iv);
    }
}

const HASHES: [HashAlgorithm; 8] = [
    HashAlgorithm::Md5,
    HashAlgorithm::Sm3,
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

/// Each header that QEMU makes takes it two seconds of work, whatever its options say: so there are few of them here. What QEMU
/// writes with the others is in the test before.
#[test]
fn headers_that_qemu_writes_are_read() {
    if oracle_missing("headers_that_qemu_writes_are_read") {
        return;
    }
    let dir = temp_dir();
    let bytes = disk(LEN, 5);
    std::thread::scope(|scope| {
        for (index, layout) in [
            "cipher-alg=serpent-256,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=md5",
            "cipher-alg=cast5-128,encrypt.cipher-mode=ctr,encrypt.ivgen-alg=plain,encrypt.hash-alg=sm3",
            "cipher-alg=twofish-192,encrypt.hash-alg=ripemd160",
        ]
        .into_iter()
        .enumerate()
        {
            let (image, bytes) = (dir.path().join(format!("disk{index}.qcow2")), &bytes);
            scope.spawn(move || {
                made_by_qemu(&image, bytes, &format!(",encrypt.{layout}"));
                assert_reads(&Image::open(&image, &options(false)).unwrap(), bytes);
            });
        }
    });
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
    let cast5 = luks().cipher(CipherAlgorithm::Cast5).mode(CipherMode::Xts);
    assert_eq!(refused(CreateOptions::new().encryption(Some(cast5))), "unsupported: cast5-128 in xts-plain64 mode");
    let hash = luks().iv_generator(IvGenerator::Essiv).iv_hash(HashAlgorithm::Sha1);
    assert!(refused(CreateOptions::new().encryption(Some(hash))).contains("\"sha1\" for IVs"));
    assert_eq!(
        "camellia-256".parse::<CipherAlgorithm>().unwrap_err().to_string(),
        "unsupported: the cipher \"camellia-256\""
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

#[test]
fn snapshots_lengths_and_backing_files_of_encrypted_images() {
    if oracle_missing("snapshots_lengths_and_backing_files_of_encrypted_images") {
        return;
    }
    let dir = temp_dir();
    let (base, top) = (dir.path().join("base.qcow2"), dir.path().join("top.qcow2"));
    let mut bytes = disk(LEN, 3);
    let other = LuksOptions::new(Secret::from("other")).iterations(1000);
    made_by_us(&base, &bytes, &CreateOptions::new().encryption(Some(other)));
    // An overlay, encrypted itself, with another passphrase.
    made_by_us(&top, &vec![0; LEN], &CreateOptions::new().encryption(Some(luks())));
    let rebase =
        ["rebase", "-u", "-b", "base.qcow2", "-F", "qcow2", "--object", SECRET, "--image-opts", &image_opts(&top)];
    run("qemu-img", &rebase);
    let chain =
        |writable| options(writable).backing_passphrase(1, Secret::from("other")).backing(Backing::Within(Vec::new()));
    {
        let image = Image::open(&top, &chain(true)).unwrap();
        assert_reads(&image, &bytes);
        image.write_at(70_001, &[9; 100_000]).unwrap();
        bytes[70_001..170_001].fill(9);
        image.write_zeroes(400_000, 300_000).unwrap();
        bytes[400_000..700_000].fill(0);
        assert_reads(&image, &bytes);
        image.close().unwrap();
    }
    let wrong = options(false).backing_passphrase(1, Secret::from("wrong")).backing(Backing::Within(Vec::new()));
    let Err(Error::Backing { source, .. }) = Image::open(&top, &wrong) else { panic!("opened") };
    assert!(matches!(*source, Error::WrongPassphrase));
    let named =
        image_opts(&top) + ",backing.driver=qcow2,backing.encrypt.key-secret=o,backing.file.filename=" + path(&base);
    let secrets = ["--object", SECRET, "--object", "secret,id=o,data=other"];
    let raw = dir.path().join("contents");
    let contents = |expected: &[u8]| {
        let out = ["convert", "-O", "raw", "--image-opts", &named, path(&raw)];
        run("qemu-img", &[&out[..], &secrets].concat());
        assert!(std::fs::read(&raw).unwrap() == expected);
    };
    contents(&bytes);

    // Committed into the base, which is encrypted otherwise.
    let overlay = Image::open(&top, &chain(true)).unwrap();
    let open_base = || Image::open(&base, &OpenOptions::new().writable(true).passphrase(Secret::from("other")));
    overlay.commit_to(open_base, &mut |_| {}).unwrap();
    assert_reads(&Image::open(&base, &OpenOptions::new().passphrase(Secret::from("other"))).unwrap(), &bytes);
    contents(&bytes);

    // Snapshots and lengths of the base alone.
    let alone = |writable| OpenOptions::new().writable(writable).passphrase(Secret::from("other"));
    let before = bytes.clone();
    let mut image = Image::open(&base, &alone(true)).unwrap();
    image.create_snapshot("before", std::time::SystemTime::UNIX_EPOCH).unwrap();
    image.write_at(1000, &[7; 200_000]).unwrap();
    bytes[1000..201_000].fill(7);
    image.resize((4 << 20) + 512).unwrap();
    bytes.resize((4 << 20) + 512, 0);
    image.resize((2 << 20) + 512).unwrap();
    bytes.truncate((2 << 20) + 512);
    image.resize(3 << 20).unwrap();
    bytes.resize(3 << 20, 0);
    image.write_at((2 << 20) + 700, &[3; 1000]).unwrap();
    bytes[(2 << 20) + 700..(2 << 20) + 1700].fill(3);
    assert_reads(&image, &bytes);
    image.close().unwrap();
    let base_opts = format!("driver=qcow2,encrypt.key-secret=o,file.filename={}", path(&base));
    run("qemu-img", &[&["check", "--image-opts", &base_opts], &secrets[..]].concat());
    run("qemu-img", &[&["convert", "-O", "raw", "--image-opts", &base_opts, path(&raw)], &secrets[..]].concat());
    assert!(std::fs::read(&raw).unwrap() == bytes);
    let snapshot = ["convert", "-l", "snapshot.name=before", "-O", "raw", "--image-opts", &base_opts, path(&raw)];
    run("qemu-img", &[&snapshot, &secrets[..]].concat());
    // QEMU shows as much of a snapshot as the disk is long now.
    assert!(std::fs::read(&raw).unwrap() == before[..3 << 20]);
    let snapshot = Image::open(&base, &alone(false)).unwrap().into_snapshot("before").unwrap();
    assert!(read_vec(&snapshot, 0, snapshot.len()).unwrap() == before);
}

#[test]
fn encrypted_clusters_in_a_data_file_lie_where_they_do_on_the_disk() {
    if oracle_missing("encrypted_clusters_in_a_data_file_lie_where_they_do_on_the_disk") {
        return;
    }
    let dir = temp_dir();
    let image = dir.path().join("disk.qcow2");
    let mut bytes = disk(LEN, 13);
    for raw in ["", ",data_file_raw=on"] {
        let _ = std::fs::remove_file(dir.path().join("data"));
        let _ = std::fs::remove_file(&image);
        made_by_qemu(&image, &bytes, &format!(",data_file={}{raw}", path(&dir.path().join("data"))));
        let open = options(true).data_file(qcow2::DataFile::Within(Vec::new()));
        let opened = Image::open(&image, &open).unwrap();
        assert_reads(&opened, &bytes);
        let mut random = Random(3);
        for step in 0..40 {
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
        opened.close().unwrap();
        assert_contents(&image, &bytes);
    }
}

#[test]
fn threads_that_write_parts_of_the_same_sectors_lose_nothing() {
    let storage = std::sync::Arc::new(block::Memory::new(0));
    let options_of_image = CreateOptions::new().encryption(Some(luks()));
    qcow2::create(&*storage, &block::Memory::from(vec![1; 65_536]), &options_of_image, &mut |_| {}).unwrap();
    let image = Image::open_storage(storage, &options(true)).unwrap();
    // Each thread has every fourth run of 100 bytes.
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let image = &image;
            scope.spawn(move || {
                for run in (0..655).filter(|run| run % 4 == u64::from(thread)) {
                    image.write_at(run * 100, &[thread + 10; 100]).unwrap();
                    assert_eq!(read_vec(image, run * 100, 100).unwrap(), [thread + 10; 100]);
                }
            });
        }
    });
    for run in 0..655 {
        assert_eq!(read_vec(&image, run * 100, 100).unwrap(), [(run % 4) as u8 + 10; 100]);
    }
}

#[test]
fn a_damaged_encryption_is_an_error_with_its_place() {
    let storage = block::Memory::new(0);
    let options_of_image = CreateOptions::new().encryption(Some(luks()));
    qcow2::create(&storage, &block::Memory::from(vec![1; 65_536]), &options_of_image, &mut |_| {}).unwrap();
    let bytes = read_vec(&storage, 0, storage.len()).unwrap();
    let open = |bytes: Vec<u8>, passphrase: bool| {
        let options = if passphrase { options(false) } else { OpenOptions::new() };
        Image::open_storage(std::sync::Arc::new(block::Memory::from(bytes)), &options)
    };
    assert!(open(bytes.clone(), true).is_ok());
    for (offset, new, expected) in [
        (35, &[0][..], "only an encrypted image may have one"),
        (112, &[1], "an encrypted image must have one"),
        (119, &[15], "must be 16 bytes long, found 15"),
        (126, &[1], "must be aligned and not 0"),
        (120, &[0xff; 8], "must be aligned and not 0"),
        (120, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], "must have 592 bytes, found 0"),
        (128, &[0; 8], "between header and payload"),
        (65_536, &[0], "magic"),
    ] {
        let mut changed = bytes.clone();
        changed[offset..offset + new.len()].copy_from_slice(new);
        for passphrase in [false, true] {
            let error = open(changed.clone(), passphrase).unwrap_err().to_string();
            assert!(error.contains(expected), "{offset}: {error}");
        }
    }
    // Salt, digest or key material damaged: nothing tells that from another passphrase.
    for offset in [65_536 + 112, 65_536 + 216, 65_536 + 4096] {
        let mut changed = bytes.clone();
        changed[offset] ^= 1;
        assert!(matches!(open(changed, true), Err(Error::WrongPassphrase)));
    }
    // A file cut off within the key material.
    assert!(open(bytes[..65_536 + 8192].to_vec(), true).is_err());
}

/// Whether QEMU opens the image with a passphrase.
fn opens_in_qemu(image: &Path, passphrase: &str) -> bool {
    let secret = format!("secret,id=s,data={passphrase}");
    let args = ["info", "--object", &secret, "--image-opts", &image_opts(image)];
    let read = ["-r", "--object", &secret, "--image-opts", &image_opts(image), "-c", "read 0 512"];
    let info = std::process::Command::new("qemu-img").args(args).output().unwrap();
    let read = std::process::Command::new("qemu-io").args(read).output().unwrap();
    info.status.success() && read.status.success()
}

#[test]
fn passphrases_are_added_and_taken_away() {
    if oracle_missing("passphrases_are_added_and_taken_away") {
        return;
    }
    let dir = temp_dir();
    let image = dir.path().join("disk.qcow2");
    let bytes = disk(300_032, 9);
    made_by_qemu(&image, &bytes, "");
    let open =
        |passphrase: &str| Image::open(&image, &OpenOptions::new().writable(true).passphrase(Secret::from(passphrase)));
    let new = |passphrase: &str| qcow2::NewPassphrase::new(Secret::from(passphrase)).iterations(1000);
    let mut opened = open(PASSPHRASE).unwrap();
    assert_eq!(opened.add_passphrase(&new("second")).unwrap(), 1);
    assert_eq!(opened.add_passphrase(&new("third").slot(6)).unwrap(), 6);
    assert!(matches!(opened.add_passphrase(&new("x").slot(6)), Err(Error::Invalid(_))));
    assert!(matches!(opened.add_passphrase(&new("x").slot(8)), Err(Error::Invalid(_))));
    assert_eq!(opened.key_slots_of(&Secret::from("third")).unwrap(), [6]);
    assert!(matches!(opened.erase_key_slot(3, false), Err(Error::Invalid(_))));
    opened.close().unwrap();
    for passphrase in [PASSPHRASE, "second", "third"] {
        assert_reads(&open(passphrase).unwrap(), &bytes);
        assert!(opens_in_qemu(&image, passphrase));
    }
    let place = u64::from_be_bytes(std::fs::read(&image).unwrap()[120..128].try_into().unwrap()) as usize;
    let material = |slot: usize| {
        let held = std::fs::read(&image).unwrap();
        let at = place + opened_slot_offset(&image, slot);
        held[at..at + 64 * 4000].to_vec()
    };
    let before = material(0);
    let mut opened = open("second").unwrap();
    opened.erase_key_slot(0, false).unwrap();
    opened.add_passphrase(&new("fourth").slot(6).replace(true)).unwrap();
    drop(opened);
    // Not a byte of the old key material is left but by chance.
    let same = before.iter().zip(material(0)).filter(|(old, new)| **old == *new).count();
    assert!(same < before.len() / 100, "{same} of {} bytes", before.len());
    for (passphrase, opens) in [(PASSPHRASE, false), ("second", true), ("third", false), ("fourth", true)] {
        assert_eq!(open(passphrase).is_ok(), opens, "{passphrase}");
        assert_eq!(opens_in_qemu(&image, passphrase), opens, "{passphrase}");
    }
    // What QEMU adds and erases.
    let secrets = ["--object", "secret,id=s,data=second", "--object", "secret,id=n,data=fifth"];
    for option in
        ["encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=10", "encrypt.state=inactive,encrypt.keyslot=6"]
    {
        run("qemu-img", &[&["amend"], &secrets[..], &["-o", option, "--image-opts", &image_opts(&image)]].concat());
    }
    assert!(open("fourth").is_err());
    let mut opened = open("fifth").unwrap();
    assert_reads(&opened, &bytes);
    opened.erase_key_slot(1, false).unwrap();
    assert!(matches!(opened.erase_key_slot(0, false), Err(Error::Invalid(_))), "the last one");
    for slot in 1..8 {
        assert_eq!(opened.add_passphrase(&new("more")).unwrap(), slot);
    }
    assert!(matches!(opened.add_passphrase(&new("more")), Err(Error::Invalid(_))), "no slot is free");
    assert!(opened.erase_key_slot(0, true).is_ok());
    drop(opened);
    assert_reads(&open("more").unwrap(), &bytes);
    run("qemu-img", &["check", "--object", "secret,id=s,data=more", "--image-opts", &image_opts(&image)]);
    // A plain image has none, and a locked one is not changed.
    let mut locked = Image::open(&image, &OpenOptions::new().writable(true)).unwrap();
    assert!(matches!(locked.add_passphrase(&new("x")), Err(Error::Encrypted)));
    let plain = dir.path().join("plain.qcow2");
    run("qemu-img", &["create", "-q", "-f", "qcow2", path(&plain), "1M"]);
    let mut plain = Image::open(&plain, &OpenOptions::new().writable(true)).unwrap();
    assert!(matches!(plain.add_passphrase(&new("x")), Err(Error::Invalid(_))));
}

/// Where a slot's key material is, from the start of the LUKS header.
fn opened_slot_offset(image: &Path, slot: usize) -> usize {
    let info = Image::open(image, &OpenOptions::new()).unwrap().info().unwrap();
    info.encrypt.unwrap().slots[slot].key_offset as usize
}

#[test]
fn a_passphrase_that_was_added_in_part_leaves_those_there_were() {
    let storage = std::sync::Arc::new(block::Memory::new(0));
    let create = CreateOptions::new().encryption(Some(luks()));
    qcow2::create(&*storage, &block::Memory::from(vec![1; 65_536]), &create, &mut |_| {}).unwrap();
    let initial = storage.to_vec();
    let trace = std::sync::Arc::new(block::Trace::new(block::Memory::from(initial.clone())));
    let mut image = Image::open_storage(trace.clone(), &options(true)).unwrap();
    image.add_passphrase(&qcow2::NewPassphrase::new(Secret::from("new")).iterations(1000)).unwrap();
    drop(image);
    let events = trace.events();
    for end in 0..=events.len() {
        for outcome in [block::Outcome::Lost, block::Outcome::Kept, block::Outcome::Torn(1)] {
            let state = block::replay(&initial, &events[..end], |_, _| outcome).unwrap();
            let state = std::sync::Arc::new(block::Memory::from(state));
            let image = Image::open_storage(state.clone(), &options(false)).unwrap();
            assert_eq!(read_vec(&image, 0, 65_536).unwrap(), vec![1; 65_536]);
            let new = OpenOptions::new().passphrase(Secret::from("new"));
            match Image::open_storage(state, &new) {
                Ok(image) => assert_eq!(read_vec(&image, 0, 65_536).unwrap(), vec![1; 65_536]),
                Err(error) => assert!(matches!(error, Error::WrongPassphrase), "{error}"),
            }
        }
    }
}
