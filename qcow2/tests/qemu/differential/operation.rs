//! What is done to the disk: by us, by qemu-io, and to plain bytes.

use std::path::{Path, PathBuf};

use block::WriteAt;
use qcow2::Image;

use crate::oracle::{Random, path, run};

/// A change of the disk.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    /// Bytes of a pattern file, over and over.
    Write {
        offset: usize,
        len: usize,
        pattern: usize,
    },
    /// Clusters that QEMU compresses; they are unmapped before.
    Compress {
        offset: usize,
        len: usize,
        pattern: usize,
    },
    /// Clusters that we compress; QEMU just writes them.
    CompressByUs {
        offset: usize,
        len: usize,
        pattern: usize,
    },
    Zero {
        offset: usize,
        len: usize,
    },
    Discard {
        offset: usize,
        len: usize,
    },
    Flush,
}

/// Files of patterns, of lengths that are no multiples of anything: what lands at a wrong place is seen.
pub(super) struct Patterns {
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Patterns {
    pub(super) fn make(dir: &Path, random: &mut Random) -> Self {
        let make = |(index, len): (usize, usize)| {
            let file = dir.join(format!("pattern{index}"));
            let bytes = random.bytes(len);
            std::fs::write(&file, &bytes).unwrap();
            (file, bytes)
        };
        Self { files: [509, 1021, 2039, 4093, 97, 8191].into_iter().enumerate().map(make).collect() }
    }

    fn bytes(&self, pattern: usize, len: usize) -> Vec<u8> {
        self.files[pattern].1.iter().copied().cycle().take(len).collect()
    }
}

impl Operation {
    /// One that both can do alike.
    pub(super) fn random(random: &mut Random, len: usize, cluster_size: usize) -> Self {
        let grain = [1, 512, 4096, cluster_size][random.below(4) as usize];
        let offset = random.below(len as u64) as usize / grain * grain;
        let most = [2 * grain, 3 * cluster_size, 60_000][random.below(3) as usize].max(grain);
        let len = ((1 + random.below((most / grain) as u64) as usize) * grain).min(len - offset);
        match random.below(10) {
            0 | 1 => Self::Zero { offset, len },
            2 | 3 => Self::Discard { offset, len },
            4 => Self::Flush,
            _ => Self::Write { offset, len, pattern: random.below(6) as usize },
        }
    }

    /// Some clusters, compressed.
    pub(super) fn random_compression(random: &mut Random, len: usize, cluster_size: usize) -> Option<Self> {
        // One that the disk ends in would not be unmapped before.
        let clusters = (len / cluster_size) as u64;
        let first = random.below(clusters.max(1));
        let count = (1 + random.below(4)).min(clusters - first);
        let pattern = random.below(6) as usize;
        let (offset, len) = (first as usize * cluster_size, count as usize * cluster_size);
        (count > 0).then_some(Self::Compress { offset, len, pattern })
    }

    /// Some clusters, which may be the last one, compressed by us.
    pub(super) fn random_compression_by_us(random: &mut Random, len: usize, cluster_size: usize) -> Self {
        let first = random.below(len.div_ceil(cluster_size) as u64) as usize * cluster_size;
        let len = ((1 + random.below(5) as usize) * cluster_size).min(len - first);
        Self::CompressByUs { offset: first, len, pattern: random.below(6) as usize }
    }

    pub(super) fn apply_to_model(&self, patterns: &Patterns, model: &mut [u8]) {
        match *self {
            Self::Write { offset, len, pattern }
            | Self::Compress { offset, len, pattern }
            | Self::CompressByUs { offset, len, pattern } => {
                model[offset..offset + len].copy_from_slice(&patterns.bytes(pattern, len));
            }
            Self::Zero { offset, len } | Self::Discard { offset, len } => model[offset..offset + len].fill(0),
            Self::Flush => {}
        }
    }

    pub(super) fn apply_to_image(&self, patterns: &Patterns, image: &Image) -> block::Result<()> {
        match *self {
            Self::CompressByUs { offset, len, pattern } => {
                Ok(image.write_compressed(offset as u64, &patterns.bytes(pattern, len))?)
            }
            _ => self.apply(patterns, image),
        }
    }

    pub(super) fn apply(&self, patterns: &Patterns, device: &dyn WriteAt) -> block::Result<()> {
        match *self {
            Self::Write { offset, len, pattern }
            | Self::Compress { offset, len, pattern }
            | Self::CompressByUs { offset, len, pattern } => {
                device.write_at(offset as u64, &patterns.bytes(pattern, len))
            }
            Self::Zero { offset, len } => device.write_zeroes(offset as u64, len as u64),
            Self::Discard { offset, len } => device.discard(offset as u64, len as u64),
            Self::Flush => device.flush(),
        }
    }

    fn commands(&self, patterns: &Patterns) -> Vec<String> {
        match *self {
            Self::Write { offset, len, pattern } | Self::CompressByUs { offset, len, pattern } => {
                vec![format!("write -q -s {} {offset} {len}", path(&patterns.files[pattern].0))]
            }
            Self::Compress { offset, len, pattern } => vec![
                format!("write -q -z -u {offset} {len}"),
                format!("write -q -c -s {} {offset} {len}", path(&patterns.files[pattern].0)),
            ],
            Self::Zero { offset, len } => vec![format!("write -q -z {offset} {len}")],
            // QEMU's own discard leaves what is not a whole cluster.
            Self::Discard { offset, len } => vec![format!("write -q -z -u {offset} {len}")],
            Self::Flush => vec!["flush".to_owned()],
        }
    }
}

/// Has qemu-io do all of it.
pub(super) fn apply_by_qemu(operations: &[Operation], patterns: &Patterns, image: &Path) {
    let commands: Vec<String> = operations.iter().flat_map(|operation| operation.commands(patterns)).collect();
    let args: Vec<&str> = commands.iter().flat_map(|command| ["-c", command]).collect();
    run("qemu-io", &[&["-f", "qcow2"], &args[..], &[path(image)]].concat());
}
