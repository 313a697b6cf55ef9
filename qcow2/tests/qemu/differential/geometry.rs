//! Images of every geometry, by chance.

use std::path::Path;

use crate::oracle::{Random, disk, path, run};

/// What a random image consists of.
#[derive(Debug, Clone)]
pub(super) struct Geometry {
    pub(super) cluster_size: u64,
    pub(super) version_2: bool,
    refcount_bits: u32,
    pub(super) extended_l2: bool,
    /// The external data file, and whether it is a raw image.
    pub(super) data_file: Option<bool>,
    zstd: bool,
    lazy_refcounts: bool,
    preallocated: bool,
    /// Whether it starts with contents, compressed ones where told.
    filled: Option<bool>,
    pub(super) len: u64,
    /// The backing file's format and length.
    pub(super) backing: Option<(&'static str, u64)>,
}

impl Geometry {
    pub(super) fn random(random: &mut Random) -> Self {
        let version_2 = random.below(7) == 0;
        let cluster_size = 512 << random.below(13);
        let extended_l2 = !version_2 && cluster_size >= 16 << 10 && random.below(2) == 0;
        let data_file = (!version_2 && random.below(7) == 0).then(|| random.below(2) == 0);
        // Enough for several L2 tables where clusters are small, and for a few clusters where they are large.
        let longest = (cluster_size * 20).clamp(256 << 10, 5 << 20);
        let len = |random: &mut Random| (1 + random.below(longest / 512)) * 512;
        let backed = data_file.is_none_or(|raw| !raw) && random.below(2) == 0;
        let filled = (!backed && data_file.is_none() && random.below(2) == 0).then(|| random.below(2) == 0);
        let format = if random.below(2) == 0 { "raw" } else { "qcow2" };
        Self {
            cluster_size,
            version_2,
            refcount_bits: if version_2 { 16 } else { 1 << random.below(7) },
            extended_l2,
            data_file,
            zstd: !version_2 && data_file.is_none() && random.below(2) == 0,
            lazy_refcounts: !version_2 && random.below(6) == 0,
            preallocated: !backed && filled.is_none() && random.below(5) == 0,
            filled,
            len: len(random),
            backing: backed.then(|| (format, len(random))),
        }
    }

    /// Makes the backing file, or what the image starts with; returns what the disk holds.
    pub(super) fn make_start(&self, dir: &Path, random: &mut Random) -> Vec<u8> {
        let raw = dir.join("start.raw");
        let mut bytes = match self.backing {
            None if self.filled.is_none() => Vec::new(),
            None => disk(self.len as usize, random.next()),
            Some((_, len)) => disk(len as usize, random.next()),
        };
        std::fs::write(&raw, &bytes).unwrap();
        if let Some((format, _)) = self.backing {
            let backing = dir.join("backing");
            run("qemu-img", &["convert", "-f", "raw", "-O", format, path(&raw), path(&backing)]);
        }
        bytes.resize(self.len as usize, 0);
        bytes
    }

    /// Has qemu-img make an image `name`.
    pub(super) fn make(&self, dir: &Path, name: &str) {
        let mut options = format!("cluster_size={},refcount_bits={}", self.cluster_size, self.refcount_bits);
        options += if self.version_2 { ",compat=0.10" } else { ",compat=1.1" };
        let flags = [
            (self.extended_l2, "extended_l2=on"),
            (self.zstd, "compression_type=zstd"),
            (self.lazy_refcounts, "lazy_refcounts=on"),
            (self.preallocated, "preallocation=metadata"),
        ];
        flags.iter().filter(|(set, _)| *set).for_each(|(_, flag)| options += &format!(",{flag}"));
        if let Some(raw) = self.data_file {
            let data = dir.join(format!("{name}.data"));
            options += &format!(",data_file={},data_file_raw={}", path(&data), if raw { "on" } else { "off" });
        }
        let (image, len) = (dir.join(name), self.len.to_string());
        if let Some(compressed) = self.filled {
            let raw = dir.join("start.raw");
            let args = ["convert", "-f", "raw", "-O", "qcow2", "-o", &options, path(&raw), path(&image)];
            let compress = if compressed { &["-c"][..] } else { &[] };
            run("qemu-img", &[&args[..1], compress, &args[1..]].concat());
            return;
        }
        let backing = dir.join("backing");
        let mut args = vec!["create", "-q", "-f", "qcow2", "-o", &options];
        if let Some((format, _)) = self.backing {
            args.extend(["-b", path(&backing), "-F", format]);
        }
        run("qemu-img", &[&args[..], &[path(&image), &len]].concat());
    }
}
