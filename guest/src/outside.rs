//! What holds a guest's secrets outside its file systems: swap space, swap files, and space that no partition has.

use std::sync::Arc;

use block::{ExtentKind, WriteAt};

use crate::error::Context;
use crate::{FileKind, Guest, Result, fstab};

/// Bytes that are looked at in one go.
const CHUNK: u64 = 1 << 20;
/// What was zeroed is counted in pieces of this size.
const PIECE: usize = 4096;
/// The signature is at the end of the first page, whatever the guest's pages are (Linux `include/linux/swap.h`).
const PAGES: [u64; 5] = [4096, 8192, 16384, 32768, 65536];
const SIGNATURE_LEN: usize = 10;
/// Of a suspended system: the one that was there before, and its own.
const SIGNATURES_LEN: usize = 2 * SIGNATURE_LEN;
const SIGNATURES: [&[u8; SIGNATURE_LEN]; 2] = [b"SWAPSPACE2", b"SWAP-SPACE"];
/// What stands there while a suspended system is in the swap space (Linux `kernel/power/swap.c`, uswsusp, tuxonice).
const SUSPENDED: [&[u8]; 4] = [b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001"];
/// Where version and UUID are in a header, whatever the guest's pages are (Linux `include/linux/swap.h`, `union
/// swap_header`).
pub(crate) const SWAP_VERSION: u64 = 1024;
pub(crate) const SWAP_UUID: u64 = 1036;
/// Where swap files are, besides those that fstab names.
const USUAL_FILES: [&[u8]; 3] = [b"/swapfile", b"/swap.img", b"/swap/swapfile"];

/// A part of the disk that no file system has.
pub(crate) struct Outside {
    /// How a report names it.
    pub(crate) name: String,
    pub(crate) device: Arc<dyn WriteAt>,
    /// How many bytes at its start stay as they are.
    pub(crate) header: u64,
    /// Whether a suspended system is in it.
    pub(crate) is_suspended: bool,
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outside")
            .field("name", &self.name)
            .field("header", &self.header)
            .field("is_suspended", &self.is_suspended)
            .finish_non_exhaustive()
    }
}

impl Outside {
    /// Space that no partition has.
    pub(crate) fn gap(device: Arc<dyn WriteAt>) -> Self {
        Self { name: "unpartitioned space".to_owned(), device, header: 0, is_suspended: false }
    }

    /// A swap volume. `None` where it is none after all.
    pub(crate) fn swap(name: &str, device: Arc<dyn WriteAt>) -> Result<Option<Self>> {
        let len = device.len();
        let found = swap_header(len, &mut |offset, buf| Ok(device.read_at(offset, buf)?))?;
        Ok(found.map(|(header, is_suspended)| Self { name: name.to_owned(), device, header, is_suspended }))
    }

    /// Makes all but the header read as zeros; says how many bytes did not.
    fn zero(&self) -> Result<u64> {
        let mut zeroed = 0;
        let mut offset = self.header;
        let mut buf = Vec::new();
        while offset < self.device.len() {
            let extent = self.device.extent_at(offset, self.device.len() - offset)?;
            if extent.kind != ExtentKind::Data {
                offset += extent.len;
                continue;
            }
            let len = extent.len.min(CHUNK);
            // At most a chunk.
            buf.resize(len as usize, 0);
            self.device.read_at(offset, &mut buf)?;
            let found = held(&buf);
            if found > 0 {
                self.device.write_zeroes(offset, len)?;
                zeroed += found;
            }
            offset += len;
        }
        Ok(zeroed)
    }

    /// Makes swap space that holds a suspended system plain swap space again.
    fn forget_suspended(&mut self) -> Result<()> {
        let at = self.header - SIGNATURES_LEN as u64;
        let mut tail = [0; SIGNATURES_LEN];
        self.device.read_at(at, &mut tail)?;
        self.device.write_at(at, &plain(tail))?;
        self.is_suspended = false;
        Ok(())
    }
}

/// The end of a header as it was before a system was suspended: what stood in its signature's place lies before it.
fn plain(tail: [u8; SIGNATURES_LEN]) -> [u8; SIGNATURES_LEN] {
    let (before, _) = tail.split_at(SIGNATURE_LEN);
    let signature = SIGNATURES.into_iter().find(|plain| *plain == before).unwrap_or(SIGNATURES[0]);
    let mut plain = [0; SIGNATURES_LEN];
    plain[SIGNATURE_LEN..].copy_from_slice(signature);
    plain
}

/// How long the header of swap space is, and whether a suspended system is in it. `None` where it is no swap space.
fn swap_header(len: u64, read: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>) -> Result<Option<(u64, bool)>> {
    for page in PAGES.into_iter().take_while(|page| *page <= len) {
        let mut signature = [0; SIGNATURE_LEN];
        read(page - SIGNATURE_LEN as u64, &mut signature)?;
        if SIGNATURES.contains(&&signature) {
            return Ok(Some((page, false)));
        }
        if SUSPENDED.iter().any(|suspended| signature.starts_with(suspended)) {
            return Ok(Some((page, true)));
        }
    }
    Ok(None)
}

/// How many bytes are in pieces that are not all zeros.
fn held(bytes: &[u8]) -> u64 {
    bytes.chunks(PIECE).filter(|piece| piece.iter().any(|byte| *byte != 0)).map(|piece| piece.len() as u64).sum()
}

impl Guest {
    /// The swap spaces, volumes and files, that hold the memory of a guest that was suspended to disk. It would go on
    /// from there at its next boot, with what it remembers of its file systems: changing those then damages them.
    ///
    /// # Errors
    /// What the file systems say of swap files.
    pub fn suspended(&self) -> Result<Vec<String>> {
        let mut found: Vec<_> =
            self.outside.iter().filter(|outside| outside.is_suspended).map(|outside| outside.name.clone()).collect();
        for (path, _, is_suspended) in self.swap_files()? {
            if is_suspended {
                found.push(crate::path::display(&path));
            }
        }
        Ok(found)
    }

    /// Makes swap spaces that hold a suspended guest plain ones: it will boot as after a loss of power.
    ///
    /// # Errors
    /// What the device and the file systems say.
    pub fn forget_suspended(&mut self) -> Result<()> {
        for (path, header, _) in self.swap_files()?.into_iter().filter(|(_, _, is_suspended)| *is_suspended) {
            let node = self.file(&path)?;
            let at = header - SIGNATURES_LEN as u64;
            let mut tail = [0; SIGNATURES_LEN];
            self.read_at(&path, at, &mut tail)?;
            self.table.writable(node.location)?.write_at(node.location.inode, at, &plain(tail)).at("write", &path)?;
        }
        self.outside.iter_mut().filter(|outside| outside.is_suspended).try_for_each(Outside::forget_suspended)
    }

    /// Zeroes swap space, swap files and unpartitioned space; says how many bytes held something.
    pub(crate) fn scrub_outside(&mut self) -> Result<u64> {
        let mut zeroed = 0;
        for outside in &self.outside {
            zeroed += outside.zero()?;
        }
        for (path, header, _) in self.swap_files()? {
            zeroed += self.zero_file(&path, header).at("zero", &path)?;
        }
        Ok(zeroed)
    }

    /// The swap files that fstab names or that are where they usually are: path, length of the header, and whether a
    /// suspended system is in it.
    fn swap_files(&self) -> Result<Vec<(Vec<u8>, u64, bool)>> {
        let fstab = match self.stat(b"/etc/fstab")? {
            Some(metadata) if metadata.kind == FileKind::File => self.read(b"/etc/fstab").unwrap_or_default(),
            _ => Vec::new(),
        };
        let mut paths = fstab::swap_files(&fstab);
        paths.extend(USUAL_FILES.map(<[u8]>::to_vec));
        let mut files: Vec<(Vec<u8>, u64, bool)> = Vec::new();
        for path in paths {
            // What cannot be looked at is not in use as swap space.
            let Ok(Some(path)) = self.resolve(&path) else { continue };
            let Some(metadata) = self.lstat(&path)? else { continue };
            if metadata.kind != FileKind::File || files.iter().any(|(known, ..)| *known == path) {
                continue;
            }
            let mut read = |offset, buf: &mut [u8]| self.read_at(&path, offset, buf).map(drop);
            if let Some((header, is_suspended)) = swap_header(metadata.size, &mut read)? {
                files.push((path, header, is_suspended));
            }
        }
        Ok(files)
    }

    /// Zeroes a file from `offset` on, in place: swap files must not have holes.
    fn zero_file(&mut self, path: &[u8], mut offset: u64) -> Result<u64> {
        let node = self.file(path)?;
        let (location, size) = (node.location, node.metadata.size);
        let mut zeroed = 0;
        let mut buf = vec![0; CHUNK as usize];
        while offset < size {
            let read = self.table.file_system(location).read_at(location.inode, offset, &mut buf)?;
            let Some(data) = buf.get_mut(..read).filter(|data| !data.is_empty()) else { break };
            let found = held(data);
            if found > 0 {
                data.fill(0);
                self.table.writable(location)?.write_at(location.inode, offset, data)?;
                zeroed += found;
            }
            offset += read as u64;
        }
        Ok(zeroed)
    }
}
