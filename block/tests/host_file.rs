//! Files of the host: what they hold, where their holes are, and who may open them.
#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

use block::{Access, Error, ExtentKind, HostFile, MappedFile, Overlay, ReadAt, Storage, Window, WriteAt, read_vec};

fn file_of(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

#[test]
fn what_is_written_is_read_back_and_holes_are_told_from_data() {
    let (_dir, path) = file_of(&[]);
    let file = HostFile::open(&path, Access::ReadWrite).unwrap();
    file.set_len(4 << 20).unwrap();
    file.write_at(1 << 20, &[7; 1 << 20]).unwrap();
    file.flush().unwrap();
    let kinds = |file: &HostFile| {
        let mut kinds = Vec::new();
        let mut at = 0;
        while at < file.len() {
            let extent = file.extent_at(at, file.len() - at).unwrap();
            kinds.push((at, extent.kind));
            at += extent.len;
        }
        kinds
    };
    use ExtentKind::{Data, Hole};
    assert_eq!(kinds(&file), [(0, Hole), (1 << 20, Data), (2 << 20, Hole)]);
    file.discard(1 << 20, 512 << 10).unwrap();
    assert_eq!(kinds(&file), [(0, Hole), (3 << 19, Data), (2 << 20, Hole)]);
    file.write_zeroes(3 << 19, 512 << 10).unwrap();
    assert_eq!(read_vec(&file, 0, file.len()).unwrap(), vec![0; 4 << 20]);
    file.set_len(100).unwrap();
    assert!(matches!(file.read_at(50, &mut [0; 51]), Err(Error::OutOfBounds { device_len: 100, .. })));
    assert!(matches!(file.write_at(u64::MAX, &[0]), Err(Error::OutOfBounds { .. })));
}

#[test]
fn a_writer_excludes_all_and_readers_exclude_writers() {
    let (_dir, path) = file_of(&[1; 4096]);
    let locked = |access| matches!(HostFile::open(&path, access), Err(Error::Locked { .. }));
    let writer = HostFile::open(&path, Access::ReadWrite).unwrap();
    assert!(locked(Access::ReadWrite) && locked(Access::Read));
    assert!(matches!(MappedFile::open(&path), Err(Error::Locked { .. })));
    HostFile::open(&path, Access::ReadUnlocked).unwrap();
    drop(writer);
    let readers = [HostFile::open(&path, Access::Read).unwrap(), HostFile::open(&path, Access::Read).unwrap()];
    assert!(locked(Access::ReadWrite));
    assert!(matches!(readers[0].write_at(0, &[0]), Err(Error::ReadOnly)));
    drop(readers);
    let mapped = MappedFile::open(&path).unwrap();
    assert!(locked(Access::ReadWrite));
    assert_eq!(read_vec(&mapped, 4090, 6).unwrap(), [1; 6]);
    assert!(mapped.read_at(4091, &mut [0; 6]).is_err());
    drop(mapped);
    assert!(!locked(Access::ReadWrite));
}

#[test]
fn what_is_no_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |path: &std::path::Path| matches!(HostFile::open(path, Access::Read), Err(Error::NotAFile { .. }));
    assert!(refused(dir.path()));
    assert!(refused(std::path::Path::new("/dev/null")));
    assert!(matches!(HostFile::open(dir.path().join("none"), Access::Read), Err(Error::Open { .. })));
    let (_dir, path) = file_of(&[]);
    assert!(matches!(HostFile::create_new(&path), Err(Error::Open { .. })));
}

#[test]
fn a_window_reaches_no_further_than_its_range() {
    let (_dir, path) = file_of(&(0..=255).collect::<Vec<u8>>());
    let file = HostFile::open(&path, Access::ReadWrite).unwrap();
    assert!(Window::new(&file, 200, 57).is_err());
    let window = Window::new(&file, 100, 50).unwrap();
    window.write_at(49, &[0]).unwrap();
    assert!(window.write_at(50, &[0]).is_err() && window.discard(40, 11).is_err() && window.extent_at(50, 1).is_err());
    assert_eq!(read_vec(&file, 148, 3).unwrap(), [148, 0, 150]);
    let overlay = Overlay::new(&file);
    overlay.write_at(0, &[9; 256]).unwrap();
    assert_eq!(read_vec(&overlay, 100, 2).unwrap(), [9; 2]);
    assert_eq!(read_vec(&file, 100, 2).unwrap(), [100, 101]);
}
