//! What metadata occupies in the file: nothing else is written there, handed out from there, or freed.
//!
//! Every structure that a change in place may touch, or must not touch, is known by its clusters: the header, the L1
//! tables and L2 tables, the LUKS header, refcount table and blocks, the snapshot table, and the bitmaps' directory and tables. Two that
//! share a cluster are found when the first change is made; data over one of them, when it is written.
//! A transaction needs none of this: it writes only what nothing at all refers to.

use std::collections::BTreeMap;

use crate::geometry::Geometry;
use crate::image::{Image, State};
use crate::l2_entry::{COPIED, OFFSET};
use crate::{Autoclear, Error, Result, bitmap, snapshot};

/// L1 tables of snapshots are read to learn of their L2 tables, as long as all of them take no more bytes.
const SNAPSHOT_L1_BYTES: u64 = 4 << 20;

const L2_TABLE: &str = "L2 table";
/// One that is not to be written in place.
const SHARED_L2_TABLE: &str = "shared L2 table";
const SNAPSHOT_L2_TABLE: &str = "snapshot's L2 table";

/// The clusters of the file that metadata occupies.
#[derive(Debug)]
pub(crate) struct Occupied {
    geometry: Geometry,
    /// By the first cluster of each run: the cluster after its last one, and what is there. No run overlaps another.
    runs: BTreeMap<u64, (u64, &'static str)>,
}

impl Occupied {
    /// Finds the places of all metadata.
    ///
    /// # Errors
    /// [`Error::Overlap`] where two structures share a cluster; [`Error::Corrupt`], [`Error::Io`] where the tables of
    /// snapshots or of bitmaps cannot be read.
    pub(crate) fn read(image: &Image, state: &State) -> Result<Self> {
        let geometry = image.geometry;
        let roots = &state.header.roots;
        let mut found = Self { geometry, runs: BTreeMap::new() };
        found.add("header", 0, geometry.cluster_size())?;
        if let Some(crypto) = image.extensions.crypto {
            found.add("LUKS header", crypto.offset, crypto.len)?;
        }
        found.add("L1 table", roots.l1_offset, u64::from(roots.l1_entries) * 8)?;
        let table_len = u64::from(roots.refcount_table_clusters) << geometry.cluster_bits;
        found.add("refcount table", roots.refcount_table_offset, table_len)?;
        for &block in state.refcounts.blocks.iter().filter(|&&block| block != 0) {
            found.add("refcount block", block, geometry.cluster_size())?;
        }
        for &raw in image.l1(state)? {
            let table = raw & OFFSET;
            // One that is not aligned is no table, and an error where it is met.
            if table == 0 || !geometry.is_aligned(table) {
                continue;
            }
            let structure = if raw & COPIED == 0 { SHARED_L2_TABLE } else { L2_TABLE };
            if structure == L2_TABLE || !found.is(SHARED_L2_TABLE, table) {
                found.add(structure, table, geometry.cluster_size())?;
            }
        }
        if roots.snapshots > 0 {
            found.add_snapshots(image, state)?;
        }
        let extension = image.extensions.bitmaps.filter(|_| roots.autoclear.contains(Autoclear::BITMAPS));
        if let Some(extension) = extension {
            found.add("bitmap directory", extension.directory_offset, extension.directory_len)?;
            for bitmap in bitmap::read_directory(&*image.storage, &geometry, &extension)? {
                found.add("bitmap table", bitmap.table_offset, bitmap.table_entries * 8)?;
            }
        }
        Ok(found)
    }

    fn add_snapshots(&mut self, image: &Image, state: &State) -> Result<()> {
        let roots = &state.header.roots;
        let (snapshots, table_len) = snapshot::read_table(&*image.storage, roots, &self.geometry)?;
        self.add("snapshot table", roots.snapshots_offset, table_len)?;
        let mut read = 0;
        for snapshot in &snapshots {
            let len = u64::from(snapshot.l1_entries) * 8;
            self.add("snapshot's L1 table", snapshot.l1_offset, len)?;
            read += len;
        }
        if read > SNAPSHOT_L1_BYTES {
            return Ok(());
        }
        for snapshot in &snapshots {
            for table in snapshot.read_l1(&*image.storage)?.iter().map(|raw| raw & OFFSET) {
                let known = self.is(SHARED_L2_TABLE, table) || self.is(SNAPSHOT_L2_TABLE, table);
                if table != 0 && self.geometry.is_aligned(table) && !known {
                    self.add(SNAPSHOT_L2_TABLE, table, self.geometry.cluster_size())?;
                }
            }
        }
        Ok(())
    }

    /// Whether a structure of one cluster, and of this kind, is at `offset`.
    fn is(&self, structure: &str, offset: u64) -> bool {
        self.runs.get(&self.geometry.host_cluster_at(offset).0).is_some_and(|&(_, what)| what == structure)
    }

    /// Adds a structure, which nothing else may overlap.
    fn add(&mut self, structure: &'static str, offset: u64, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        if let Some((occupant, at)) = self.occupant(offset, len, "") {
            return Err(Error::Overlap { structure, occupant, offset: at });
        }
        let (first, end) = self.clusters(offset, len);
        self.runs.insert(first, (end, structure));
        Ok(())
    }

    fn clusters(&self, offset: u64, len: u64) -> (u64, u64) {
        let last = offset.saturating_add(len - 1);
        (offset >> self.geometry.cluster_bits, (last >> self.geometry.cluster_bits) + 1)
    }

    /// What else than `own` occupies some of `len` bytes at `offset`, and where.
    fn occupant(&self, offset: u64, len: u64, own: &str) -> Option<(&'static str, u64)> {
        let (first, end) = self.clusters(offset, len);
        let mut runs = self.runs.range(..end).rev().take_while(|(_, (run_end, _))| *run_end > first);
        runs.find(|(_, (_, what))| *what != own)
            .map(|(&start, &(_, what))| (what, offset.max(start << self.geometry.cluster_bits)))
    }

    /// Makes sure that nothing but a `structure` occupies any of `len` bytes at `offset`, which are to be written or freed.
    pub(crate) fn check(&self, structure: &'static str, offset: u64, len: u64) -> Result<()> {
        match self.occupant(offset, len.max(1), structure) {
            Some((occupant, offset)) => Err(Error::Overlap { structure, occupant, offset }),
            None => Ok(()),
        }
    }

    /// An L2 table, or a refcount block, that is new at `offset`, which is free so far.
    pub(crate) fn insert(&mut self, structure: &'static str, offset: u64) {
        let first = self.geometry.host_cluster_at(offset).0;
        self.runs.insert(first, (first + 1, structure));
    }

    /// The cluster at `offset` is free from now on.
    pub(crate) fn remove(&mut self, offset: u64) {
        self.runs.remove(&self.geometry.host_cluster_at(offset).0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_touches_a_run_is_found_and_names_both() {
        let geometry = Geometry {
            cluster_bits: 12,
            disk_len: 1 << 20,
            refcount_order: 4,
            extended_l2: false,
            external_data: false,
        };
        let mut occupied = Occupied { geometry, runs: BTreeMap::new() };
        occupied.add("header", 0, 4096).unwrap();
        occupied.add("L1 table", 3 << 12, 5000).unwrap();
        occupied.insert("L2 table", 8 << 12);
        assert!(occupied.check("data cluster", 1 << 12, 2 << 12).is_ok());
        assert!(occupied.check("L2 table", 8 << 12, 4096).is_ok());
        for (offset, len, expected) in
            [(4095, 1, "header"), (0, 1 << 20, "L2 table"), (5 << 12, 1, ""), (4 << 12, 1, "L1 table")]
        {
            match occupied.check("data cluster", offset, len) {
                Err(Error::Overlap { structure: "data cluster", occupant, .. }) => assert_eq!(occupant, expected),
                Err(other) => panic!("{other}"),
                Ok(()) => assert_eq!(expected, "", "{offset}"),
            }
        }
        let error = occupied.add("snapshot table", 2 << 12, 5000).unwrap_err();
        assert_eq!(error.to_string(), "corrupt image: the snapshot table lies over the L1 table at offset 0x3000");
        occupied.remove(8 << 12);
        assert!(occupied.check("data cluster", 8 << 12, 4096).is_ok());
    }
}
