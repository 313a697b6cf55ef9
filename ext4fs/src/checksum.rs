//! The checksums of ext4: crc32c without inversion for `metadata_csum`, crc16 for `uninit_bg`.
//!
//! <https://docs.kernel.org/filesystems/ext4/overview.html#checksums>

/// The crc16 that `uninit_bg` uses: reflected, from all ones, no inversion at the end.
const CRC16: crc::Crc<u16> = crc::Crc::<u16>::new(&crc::CRC_16_MODBUS);

/// Continues a crc32c from `seed`, with neither the first nor the last inversion of the usual form.
pub(crate) fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    !::crc32c::crc32c_append(!seed, bytes)
}

/// The seed of all checksums in blocks that belong to one inode: the file system's seed, the inode's number and generation.
pub(crate) fn inode_seed(fs_seed: u32, inode: u32, generation: u32) -> u32 {
    crc32c(crc32c(fs_seed, &inode.to_le_bytes()), &generation.to_le_bytes())
}

/// The crc16 over all `parts`, one after the other.
pub(crate) fn crc16(parts: &[&[u8]]) -> u16 {
    let mut digest = CRC16.digest();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize()
}
