//! What the header says that is not ours to change.

use crate::oracle::{check, oracle_missing, path, run, temp_dir};
use block::WriteAt;
use qcow2::{Image, OpenOptions};

#[test]
fn unknown_extensions_and_compatible_features_stay_and_autoclear_features_go() {
    if oracle_missing("unknown_extensions_and_compatible_features_stay_and_autoclear_features_go") {
        return;
    }
    let dir = temp_dir();
    let image = dir.path().join("a.qcow2");
    for in_place in [false, true] {
        let _ = std::fs::remove_file(&image);
        run("qemu-img", &["create", "-q", "-f", "qcow2", path(&image), "4M"]);
        let mut bytes = std::fs::read(&image).unwrap();
        // An extension of ours before QEMU's, an unknown compatible feature, an unknown autoclear feature.
        let header_len = u32::from_be_bytes(bytes[100..104].try_into().unwrap()) as usize;
        let extension = [&0x1357_9bdf_u32.to_be_bytes()[..], &5u32.to_be_bytes(), b"hello\0\0\0"].concat();
        let rest = bytes[header_len..4096].to_vec();
        bytes[header_len..header_len + extension.len()].copy_from_slice(&extension);
        let end = header_len + extension.len() + rest.len();
        bytes[header_len + extension.len()..end].copy_from_slice(&rest);
        bytes[80] |= 0x40;
        bytes[88] |= 0x40;
        std::fs::write(&image, &bytes).unwrap();

        let opened = Image::open(&image, &OpenOptions::new().writable(true)).unwrap();
        if in_place {
            opened.write_at(123_456, b"changed").unwrap();
            opened.flush().unwrap();
            drop(opened);
        } else {
            let transaction = opened.begin().unwrap();
            transaction.write_at(123_456, b"changed").unwrap();
            transaction.commit().unwrap();
        }
        let after = std::fs::read(&image).unwrap();
        assert_eq!(after[80..88], bytes[80..88]);
        assert_eq!(after[88..96], [0; 8]);
        assert_eq!(after[96..4096], bytes[96..4096], "in place: {in_place}");
        check(&image);
    }
}
