//! Which files hold what is at a place of the disk.

use std::collections::BTreeMap;

use crate::error::Context;
use crate::{FileKind, Guest, Result};

impl Guest {
    /// The files that hold the bytes at these offsets of the disk, by offset; a file with several names by each. What is
    /// in no file is left out: directories, journals, what an inode keeps of a file in itself. Reads no contents.
    ///
    /// # Errors
    /// What the file systems say.
    pub fn files_at(&self, offsets: &[u64]) -> Result<BTreeMap<u64, Vec<Vec<u8>>>> {
        let mut found: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
        let Some(storage) = &self.storage else { return Ok(found) };
        // For each mount the offsets on its volume, in order, with those of the disk.
        let places: Vec<Vec<(u64, u64)>> = self
            .mounts()
            .iter()
            .map(|mount| {
                let volume = storage.layout.volumes.iter().find(|volume| volume.name == mount.device);
                let place = |offset: &u64| Some((volume?.offset_of(*offset)?, *offset));
                let mut places: Vec<_> = offsets.iter().filter_map(place).collect();
                places.sort_unstable();
                places
            })
            .collect();
        if places.iter().all(Vec::is_empty) {
            return Ok(found);
        }
        self.descend(b"/", &mut |path, location, kind| {
            let places = places.get(location.mount).map_or(&[][..], Vec::as_slice);
            if kind == FileKind::File && !places.is_empty() {
                let mut visit = |range: std::ops::Range<u64>| {
                    let first = places.partition_point(|(offset, _)| *offset < range.start);
                    for (_, offset) in places[first..].iter().take_while(|(offset, _)| *offset < range.end) {
                        found.entry(*offset).or_default().push(path.to_vec());
                    }
                };
                self.table.file_system(location).data_ranges(location.inode, &mut visit).at("look at", path)?;
            }
            Ok(kind == FileKind::Directory)
        })?;
        Ok(found)
    }
}
