//! Many threads: that read one image, that decompress for one read, and that make one image.

use std::path::Path;
use std::sync::Arc;

use block::{Memory, ReadAt, read_vec};
use qcow2::{Compression, CreateOptions, Image, OpenOptions};

use crate::oracle::{Random, assert_contents, check, oracle_missing, path, run, temp_dir};

const LEN: usize = 6 << 20;

/// Counted words, noise, noise that comes again after 8 KiB, and zeros in turns.
fn disk() -> Vec<u8> {
    let mut random = Random(7);
    let mut disk = Vec::new();
    while disk.len() < LEN {
        match random.below(4) {
            0 => disk.extend(random.bytes(70_000)),
            1 => disk.extend((0..150_000u32).flat_map(|i| (i / 3).to_le_bytes())),
            2 => disk.extend(random.bytes(8192).repeat(16)),
            _ => disk.extend(vec![0; 200_000]),
        }
    }
    disk.truncate(LEN - 1024);
    disk
}

fn create(disk: &[u8], options: &CreateOptions) -> Vec<u8> {
    let target = Memory::new(0);
    qcow2::create(&target, &Memory::from(disk.to_vec()), options, &mut |_| {}).unwrap();
    target.to_vec()
}

fn kinds() -> Vec<Option<Compression>> {
    let mut kinds = vec![None, Some(Compression::Zlib)];
    if cfg!(feature = "zstd") {
        kinds.push(Some(Compression::Zstd));
    }
    kinds
}

#[test]
fn many_threads_read_one_handle_at_once() {
    fn shared<T: Send + Sync>(_: &T) {}
    let disk = disk();
    for compression in kinds() {
        for cluster_size in [4096, 65_536] {
            let image = create(&disk, &CreateOptions::new().compression(compression).cluster_size(cluster_size));
            let image = Image::open_storage(Arc::new(Memory::from(image)), &OpenOptions::new().threads(2)).unwrap();
            shared(&image);
            std::thread::scope(|scope| {
                for seed in 1..9 {
                    let (image, disk) = (&image, &disk);
                    scope.spawn(move || {
                        let mut random = Random(seed);
                        for _ in 0..200 {
                            let len = [1, 512, 4096, 70_000, 900_000][random.below(5) as usize];
                            let at = random.below((disk.len() - len) as u64) as usize;
                            let found = read_vec(image, at as u64, len as u64).unwrap();
                            assert!(found == disk[at..at + len], "{len} bytes at {at}");
                        }
                    });
                }
            });
        }
    }
}

#[test]
fn a_disk_read_in_order_is_whole_whatever_the_number_of_threads() {
    let disk = disk();
    for compression in kinds() {
        let image = create(&disk, &CreateOptions::new().compression(compression));
        for threads in [1, 2, 5] {
            let image = Image::open_storage(Arc::new(Memory::from(image.clone())), &OpenOptions::new()).unwrap();
            let (mut found, mut last) = (vec![0; disk.len()], 0);
            qcow2::read_in_order(&image, threads, &mut |offset, bytes| {
                assert!(offset >= last);
                last = offset + bytes.len() as u64;
                found[offset as usize..last as usize].copy_from_slice(bytes);
                Ok(())
            })
            .unwrap();
            assert!(found == disk, "{compression:?}, {threads} threads");
            let with_threads = OpenOptions::new().threads(threads);
            let image = Image::open_storage(Arc::new(Memory::from(image_bytes(&image))), &with_threads).unwrap();
            assert!(read_vec(&image, 0, image.len()).unwrap() == disk);
        }
    }
}

/// A copy of an image, made through it.
fn image_bytes(image: &Image) -> Vec<u8> {
    let target = Memory::new(0);
    qcow2::create(&target, image, &CreateOptions::new().compression(Some(Compression::Zlib)), &mut |_| {}).unwrap();
    target.to_vec()
}

#[test]
fn a_cut_stream_ends_the_read_with_an_error() {
    let disk = disk();
    for compression in kinds().into_iter().flatten() {
        let mut image = create(&disk, &CreateOptions::new().compression(Some(compression)));
        // Streams follow one another from the second cluster on.
        image[150_000..400_000].fill(0xff);
        for threads in [1, 3] {
            let options = OpenOptions::new().threads(threads);
            let image = Image::open_storage(Arc::new(Memory::from(image.clone())), &options).unwrap();
            assert!(read_vec(&image, 0, image.len()).is_err());
            assert!(qcow2::read_in_order(&image, threads, &mut |_, _| Ok(())).is_err());
        }
    }
}

#[test]
fn compressed_images_do_not_depend_on_threads_and_qemu_reads_every_window() {
    if oracle_missing("compressed_images_do_not_depend_on_threads_and_qemu_reads_every_window") {
        return;
    }
    let disk = disk();
    let dir = temp_dir();
    let (raw, image) = (dir.path().join("raw"), dir.path().join("image"));
    std::fs::write(&raw, &disk).unwrap();
    let judge = |bytes: &[u8], image: &Path| {
        std::fs::write(image, bytes).unwrap();
        check(image);
        assert_contents(image, &disk);
        run("qemu-img", &["compare", "-q", "-f", "raw", "-F", "qcow2", path(&raw), path(image)]);
    };
    for compression in kinds() {
        for cluster_size in [512, 4096, 65_536, 2 << 20] {
            let options = CreateOptions::new().compression(compression).cluster_size(cluster_size);
            let one = create(&disk, &options.clone().threads(1));
            assert!(one == create(&disk, &options.clone().threads(3)), "{compression:?}, {cluster_size}");
            judge(&one, &image);
            if compression == Some(Compression::Zlib) {
                let small = create(&disk, &options.small_window(true).threads(2));
                judge(&small, &image);
                // With large clusters the rounding to whole ones may hide what the full window saves.
                assert!(cfg!(not(feature = "libdeflate")) || cluster_size != 65_536 || one.len() < small.len());
            }
        }
    }
}
