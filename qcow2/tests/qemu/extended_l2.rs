//! Images with extended L2 entries: subclusters in every state, read, written and created, judged by qemu-img.

use crate::oracle::{Random, assert_contents, change_by_qemu, check, disk, oracle_missing, path, run, temp_dir};
use block::{HostFile, ReadAt, WriteAt, read_vec};
use qcow2::{Backing, Compression, CreateOptions, Error, Image, MappedKind, OpenOptions};

const SIZES: [u64; 8] = [16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20];

fn options(writable: bool) -> OpenOptions {
    OpenOptions::new().writable(writable).backing(Backing::Within(Vec::new()))
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

#[test]
fn subclusters_in_every_state_read_as_qemu_wrote_them() {
    if oracle_missing("subclusters_in_every_state_read_as_qemu_wrote_them") {
        return;
    }
    let dir = temp_dir();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"));
    // Not a whole number of clusters.
    let bytes = disk((5 << 20) + 512, 3);
    std::fs::write(&raw, &bytes).unwrap();
    for size in SIZES {
        for backed in [false, true] {
            let create = format!("extended_l2=on,cluster_size={size}");
            let mut model = bytes.clone();
            if backed {
                run("qemu-img", &["create", "-f", "qcow2", "-o", &create, "-b", "disk.raw", "-F", "raw", path(&image)]);
            } else {
                run(
                    "qemu-img",
                    &["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", &create, path(&raw), path(&image)],
                );
            }
            change_by_qemu(&image, &mut model, &mut Random(size | 1), 120);
            let opened = Image::open(&image, &options(false)).unwrap();
            assert_reads(&opened, &model);
            // A map covers the disk, and cuts clusters where their subclusters differ.
            let (mut at, mut within_clusters) = (0, 0);
            while at < opened.len() {
                let extent = opened.map(at, opened.len() - at).unwrap();
                at += extent.len;
                within_clusters += u32::from(at % size != 0 && extent.kind != MappedKind::Compressed);
            }
            assert!(within_clusters > 0, "{size}");
        }
    }
}

#[test]
fn what_is_preallocated_over_a_backing_file_reads_from_it() {
    if oracle_missing("what_is_preallocated_over_a_backing_file_reads_from_it") {
        return;
    }
    let dir = temp_dir();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"));
    let mut model = disk(2 << 20, 5);
    std::fs::write(&raw, &model).unwrap();
    let create = "extended_l2=on,preallocation=metadata";
    run("qemu-img", &["create", "-f", "qcow2", "-o", create, "-b", "disk.raw", "-F", "raw", path(&image)]);
    assert_reads(&Image::open(&image, &options(false)).unwrap(), &model);
    let opened = Image::open(&image, &options(true)).unwrap();
    opened.write_at(100_000, &[9; 70_000]).unwrap();
    model[100_000..170_000].fill(9);
    opened.discard(1_000_000, 200_000).unwrap();
    model[1_000_000..1_200_000].fill(0);
    assert_reads(&opened, &model);
    drop(opened);
    check(&image);
    assert_contents(&image, &model);
    let transaction = Image::open(&image, &options(true)).unwrap().begin().unwrap();
    transaction.write_at(300_000, &[8; 70_000]).unwrap();
    model[300_000..370_000].fill(8);
    transaction.commit().unwrap();
    assert_reads(transaction.image(), &model);
    drop(transaction);
    check(&image);
    assert_contents(&image, &model);
}

#[test]
fn a_small_write_takes_a_subcluster_and_not_a_cluster() {
    if oracle_missing("a_small_write_takes_a_subcluster_and_not_a_cluster") {
        return;
    }
    let dir = temp_dir();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"));
    let model = disk(4 << 20, 9);
    std::fs::write(&raw, &model).unwrap();
    let create = "extended_l2=on,cluster_size=2M";
    run("qemu-img", &["create", "-f", "qcow2", "-o", create, "-b", "disk.raw", "-F", "raw", path(&image)]);
    let opened = Image::open(&image, &options(true)).unwrap();
    opened.write_at((1 << 20) + 5, &[1; 10]).unwrap();
    assert_eq!(opened.map(0, 4 << 20).unwrap().len, 1 << 20);
    let written = opened.map(1 << 20, 3 << 20).unwrap();
    assert!(matches!(written.kind, MappedKind::Data { .. }) && written.len == 64 << 10, "{written:?}");
    opened.write_zeroes((1 << 20) + (128 << 10), 64 << 10).unwrap();
    let zeroed = opened.map((1 << 20) + (128 << 10), 1 << 20).unwrap();
    assert!(matches!(zeroed.kind, MappedKind::Zero { .. }) && zeroed.len == 64 << 10, "{zeroed:?}");
    // The last subcluster that holds data goes, and the host cluster with it.
    opened.write_zeroes(1 << 20, 64 << 10).unwrap();
    assert_eq!(opened.map(1 << 20, 64 << 10).unwrap().kind, MappedKind::Zero { host_offset: None });
    drop(opened);
    check(&image);

    // A transaction, too, sets nothing aside for zeros.
    run("qemu-img", &["create", "-f", "qcow2", "-o", create, path(&image), "4M"]);
    let transaction = Image::open(&image, &options(true)).unwrap().begin().unwrap();
    transaction.write_at((1 << 20) + 5, &[1; 10]).unwrap();
    transaction.commit().unwrap();
    let written = transaction.image().map(1 << 20, 3 << 20).unwrap();
    assert!(matches!(written.kind, MappedKind::Data { .. }) && written.len == 64 << 10, "{written:?}");
    assert_eq!(transaction.image().map(0, 4 << 20).unwrap().kind, MappedKind::Unallocated);
    drop(transaction);
    check(&image);
}

#[test]
fn random_changes_in_turn_with_qemu() {
    if oracle_missing("random_changes_in_turn_with_qemu") {
        return;
    }
    let dir = temp_dir();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"));
    let bytes = disk((3 << 20) + 1536, 17);
    std::fs::write(&raw, &bytes).unwrap();
    for (seed, size) in SIZES.into_iter().enumerate() {
        let create = format!("extended_l2=on,cluster_size={size}");
        run("qemu-img", &["create", "-f", "qcow2", "-o", &create, "-b", "disk.raw", "-F", "raw", path(&image)]);
        let mut model = bytes.clone();
        let mut random = Random(seed as u64 + 101);
        for round in 0..4 {
            change_by_qemu(&image, &mut model, &mut random, 30);
            let in_place = round % 2 == 0;
            let opened = Image::open(&image, &options(true)).unwrap();
            if in_place {
                change(&opened, &mut model, &mut random);
                assert_reads(&opened, &model);
                drop(opened);
            } else {
                let transaction = opened.begin().unwrap().memory_limit(200_000);
                change(&transaction, &mut model, &mut random);
                transaction.commit().unwrap();
                assert_reads(transaction.image(), &model);
            }
            check(&image);
            assert_contents(&image, &model);
        }
    }
}

fn change(device: &dyn WriteAt, model: &mut [u8], random: &mut Random) {
    for _ in 0..25 {
        let grain = [1, 512, 2048, 65_536][random.below(4) as usize];
        let offset = random.below(model.len() as u64) as usize / grain * grain;
        let len = ((1 + random.below(60_000 / grain as u64 + 2) as usize) * grain).min(model.len() - offset);
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
fn what_a_subcluster_held_is_gone_after_a_commit() {
    if oracle_missing("what_a_subcluster_held_is_gone_after_a_commit") {
        return;
    }
    let dir = temp_dir();
    let image = dir.path().join("disk.qcow2");
    for create in ["extended_l2=on", "extended_l2=off"] {
        run("qemu-img", &["create", "-f", "qcow2", "-o", create, path(&image), "4M"]);
        // QEMU keeps the host cluster, and what it holds, where it is not told that it may unmap.
        let zero = if create == "extended_l2=on" { "write -z 70k 40k" } else { "write -z 64k 64k" };
        run("qemu-io", &["-f", "qcow2", "-c", "write -P 0xa7 0 512k", "-c", zero, path(&image)]);
        let held = || std::fs::read(&image).unwrap().iter().filter(|&&byte| byte == 0xa7).count();
        assert_eq!(held(), 512 << 10);
        let transaction = Image::open(&image, &options(true)).unwrap().begin().unwrap();
        assert!(transaction.stale_host_bytes().unwrap() > 0);
        let committed = transaction.commit().unwrap();
        assert!(committed.host_bytes_reclaimed > 0);
        drop(transaction);
        let kept = if create == "extended_l2=on" { 472 << 10 } else { 448 << 10 };
        assert_eq!(held(), kept);
        check(&image);
        let transaction = Image::open(&image, &options(true)).unwrap().begin().unwrap();
        assert_eq!(transaction.stale_host_bytes().unwrap(), 0);
        assert_eq!(transaction.commit().unwrap(), qcow2::Committed::default());
    }
}

#[test]
fn images_created_with_extended_l2_are_what_qemu_reads() {
    if oracle_missing("images_created_with_extended_l2_are_what_qemu_reads") {
        return;
    }
    let dir = temp_dir();
    let image = dir.path().join("new.qcow2");
    for size in SIZES {
        for compression in [None, Some(Compression::Zlib)] {
            let bytes = disk((3 << 20) + 1536, size | 1);
            let _ = std::fs::remove_file(&image);
            let create = CreateOptions::new().cluster_size(size).extended_l2(true).compression(compression);
            let file = HostFile::create_new(&image).unwrap();
            qcow2::create(&file, &block::Memory::from(bytes.clone()), &create, &mut |_| {}).unwrap();
            drop(file);
            check(&image);
            assert_contents(&image, &bytes);
            let facts = crate::oracle::text(&run("qemu-img", &["info", path(&image)]).stdout);
            assert!(facts.contains("extended l2: true"), "{facts}");
            assert_reads(&Image::open(&image, &options(false)).unwrap(), &bytes);
        }
    }
    let small = CreateOptions::new().cluster_size(8 << 10).extended_l2(true);
    let refused = qcow2::create(&block::Memory::new(0), &block::Memory::new(512), &small, &mut |_| {});
    assert!(matches!(refused, Err(Error::Invalid(_))));
}

#[test]
fn bitmaps_that_contradict_themselves_are_named() {
    let source = block::Memory::from(disk(400_000, 3));
    let storage = block::Memory::new(0);
    let create = CreateOptions::new().cluster_size(16 << 10).extended_l2(true);
    qcow2::create(&storage, &source, &create, &mut |_| {}).unwrap();
    let good = storage.to_vec();
    let open = |bytes: Vec<u8>| Image::open_storage(std::sync::Arc::new(block::Memory::from(bytes)), &options(true));
    let image = open(good.clone()).unwrap();
    let first = (0..).find(|&n| matches!(image.map(n << 14, 1).unwrap().kind, MappedKind::Data { .. })).unwrap();
    let l1 = u64::from_be_bytes(good[40..48].try_into().unwrap()) as usize;
    let l2 = (u64::from_be_bytes(good[l1..l1 + 8].try_into().unwrap()) & 0x00ff_ffff_ffff_fe00) as usize;
    let entry = l2 + 16 * first as usize;
    for (at, value, message) in [
        (entry + 11, 1, "a subcluster must not be both allocated and zero, as number 0 is"),
        (entry, 0, "subclusters must be allocated in a host cluster, found 0xffffffff without one"),
    ] {
        let mut bytes = good.clone();
        if value == 0 {
            bytes[entry..entry + 8].fill(0);
        } else {
            bytes[at] = value;
        }
        let image = open(bytes.clone()).unwrap();
        let error = image.map(first << 14, 1).unwrap_err();
        assert_eq!(error.to_string(), format!("corrupt L2 entry at offset {entry:#x}: {message}"));
        assert!(open(bytes).unwrap().begin().is_err());
    }
    let mut bytes = good;
    bytes[23] = 13;
    let error = open(bytes).unwrap_err();
    assert!(error.to_string().contains("cluster_bits must be at least 14 with extended L2"), "{error}");
}
