//! Compressed clusters: raw deflate ("zlib") and zstd.
//!
//! Specification: "Compressed Clusters Descriptor" and "compression_type".

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};
use serde::Serialize;

/// How clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Raw deflate, without zlib's own header.
    Zlib,
    /// Zstandard; needs the `zstd` feature.
    Zstd,
}

/// Fills `out`, one cluster, from the stream at the start of `input`, and tells how long the stream is. What follows it is
/// not looked at. The error says what is wrong, and the caller knows where.
pub(crate) fn decompress(kind: Compression, input: &[u8], out: &mut [u8]) -> Result<usize, String> {
    match kind {
        Compression::Zlib => inflate(input, out),
        Compression::Zstd => decompress_zstd(input, out),
    }
}

fn inflate(input: &[u8], out: &mut [u8]) -> Result<usize, String> {
    let mut inflate = Decompress::new(false);
    loop {
        let (read, written) = (inflate.total_in() as usize, inflate.total_out() as usize);
        let status = inflate
            .decompress(&input[read..], &mut out[written..], FlushDecompress::Finish)
            .map_err(|e| format!("the deflate stream is invalid: {e}"))?;
        let progress = inflate.total_in() as usize > read || inflate.total_out() as usize > written;
        let full = inflate.total_out() as usize == out.len();
        // A full cluster does not end the stream: its last bits are still to be read, so that its length is known.
        if full && (status == Status::StreamEnd || !progress) {
            return Ok(inflate.total_in() as usize);
        }
        if !full && (status == Status::StreamEnd || !progress) {
            return Err(format!("the deflate stream ends after {} of {} bytes", inflate.total_out(), out.len()));
        }
    }
}

#[cfg(feature = "zstd")]
fn decompress_zstd(input: &[u8], out: &mut [u8]) -> Result<usize, String> {
    use zstd::zstd_safe::{DCtx, InBuffer, OutBuffer, get_error_name};
    let mut context = DCtx::create();
    let mut source = InBuffer::around(input);
    let len = out.len();
    let mut target = OutBuffer::around(out);
    loop {
        let (read, written) = (source.pos(), target.pos());
        let hint = context
            .decompress_stream(&mut target, &mut source)
            .map_err(|code| format!("the zstd frame is invalid: {}", get_error_name(code)))?;
        let stuck = source.pos() == read && target.pos() == written;
        if target.pos() == len && (hint == 0 || stuck) {
            return Ok(source.pos());
        }
        if hint == 0 || stuck {
            return Err(format!("the zstd frame ends after {} of {len} bytes", target.pos()));
        }
    }
}

#[cfg(not(feature = "zstd"))]
fn decompress_zstd(_: &[u8], _: &mut [u8]) -> Result<usize, String> {
    Err("zstd clusters need the `zstd` feature of this crate".to_owned())
}

/// Decompresses clusters, reusing its memory from one to the next.
#[derive(Default)]
pub(crate) struct Decompressor {
    /// Room for a stream that is read from the file.
    pub(crate) input: Vec<u8>,
    #[cfg(feature = "libdeflate")]
    deflate: libdeflater::Decompressor,
    #[cfg(feature = "zstd")]
    zstd: Option<zstd::zstd_safe::DCtx<'static>>,
}

impl Decompressor {
    /// As [`decompress`], but faster, and without the length of the stream, which is at the start of `self.input`.
    pub(crate) fn decompress_input(&mut self, kind: Compression, out: &mut [u8]) -> Result<(), String> {
        let fast = match kind {
            Compression::Zlib => self.inflate_whole(out),
            Compression::Zstd => self.decompress_zstd_whole(out),
        };
        // What these do not take may still be a stream that goes on after the cluster, or is made of several.
        if fast { Ok(()) } else { decompress(kind, &self.input, out).map(|_| ()) }
    }

    #[cfg(feature = "libdeflate")]
    fn inflate_whole(&mut self, out: &mut [u8]) -> bool {
        self.deflate.deflate_decompress(&self.input, out) == Ok(out.len())
    }

    #[cfg(not(feature = "libdeflate"))]
    fn inflate_whole(&mut self, _: &mut [u8]) -> bool {
        false
    }

    #[cfg(feature = "zstd")]
    fn decompress_zstd_whole(&mut self, out: &mut [u8]) -> bool {
        use zstd::zstd_safe::{DCtx, find_frame_compressed_size};
        let frame = find_frame_compressed_size(&self.input).ok().and_then(|len| self.input.get(..len));
        let len = out.len();
        frame.is_some_and(|frame| self.zstd.get_or_insert_with(DCtx::create).decompress(out, frame) == Ok(len))
    }

    #[cfg(not(feature = "zstd"))]
    fn decompress_zstd_whole(&mut self, _: &mut [u8]) -> bool {
        false
    }
}

/// Compresses clusters, reusing its memory from one to the next.
pub(crate) struct Compressor {
    kind: CompressorKind,
    out: Vec<u8>,
}

enum CompressorKind {
    Zlib(Box<Compress>),
    #[cfg(feature = "libdeflate")]
    Deflate(libdeflater::Compressor),
    #[cfg(feature = "zstd")]
    Zstd(zstd::bulk::Compressor<'static>),
}

/// QEMU's window: 4 KiB, so that every reader, however small its own, can follow.
const WINDOW_BITS: u8 = 12;
/// Of libdeflate, with a window of 32 KiB: smaller streams than zlib's with QEMU's window, and more than twice as fast.
#[cfg(feature = "libdeflate")]
const DEFLATE_LEVEL: i32 = 4;

impl Compressor {
    /// With `small_window` a deflate stream never refers further back than 4 KiB, as those that QEMU writes. The error says
    /// what is missing.
    #[cfg_attr(not(feature = "libdeflate"), allow(unused_variables, reason = "without it every window is small"))]
    pub(crate) fn new(kind: Compression, cluster_len: usize, small_window: bool) -> Result<Self, String> {
        let kind = match kind {
            #[cfg(feature = "libdeflate")]
            Compression::Zlib if !small_window => {
                let level = libdeflater::CompressionLvl::new(DEFLATE_LEVEL).unwrap_or_default();
                CompressorKind::Deflate(libdeflater::Compressor::new(level))
            }
            Compression::Zlib => CompressorKind::Zlib(Box::new(Compress::new_with_window_bits(
                flate2::Compression::default(),
                false,
                WINDOW_BITS,
            ))),
            #[cfg(feature = "zstd")]
            Compression::Zstd => {
                CompressorKind::Zstd(zstd::bulk::Compressor::new(3).map_err(|e| format!("cannot start zstd: {e}"))?)
            }
            #[cfg(not(feature = "zstd"))]
            Compression::Zstd => return Err("writing zstd clusters needs the `zstd` feature of this crate".to_owned()),
        };
        // Room for the worst case: zlib-rs does not survive the reset of a stream that was given up for want of room.
        Ok(Self { kind, out: vec![0; cluster_len + cluster_len / 8 + 128] })
    }

    /// The compressed cluster, or nothing where it would be no shorter.
    pub(crate) fn compress(&mut self, cluster: &[u8]) -> Option<&[u8]> {
        let len = match &mut self.kind {
            CompressorKind::Zlib(deflate) => {
                deflate.reset();
                match deflate.compress(cluster, &mut self.out, FlushCompress::Finish) {
                    Ok(Status::StreamEnd) => deflate.total_out() as usize,
                    _ => return None,
                }
            }
            #[cfg(feature = "libdeflate")]
            CompressorKind::Deflate(deflate) => deflate.deflate_compress(cluster, &mut self.out).ok()?,
            #[cfg(feature = "zstd")]
            CompressorKind::Zstd(zstd) => zstd.compress_to_buffer(cluster, &mut self.out[..]).ok()?,
        };
        self.out.get(..len).filter(|stream| stream.len() < cluster.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Vec<u8> {
        (0..65_536u32).map(|i| (i / 7 % 251) as u8).collect()
    }

    #[test]
    fn what_is_compressed_reads_back_whatever_follows_it() {
        let kinds: &[Compression] =
            if cfg!(feature = "zstd") { &[Compression::Zlib, Compression::Zstd] } else { &[Compression::Zlib] };
        for &kind in kinds {
            for small_window in [false, true] {
                let mut stream =
                    Compressor::new(kind, 65_536, small_window).unwrap().compress(&cluster()).unwrap().to_vec();
                assert!(stream.len() < 40_000);
                let len = stream.len();
                stream.extend([0xa5; 511]);
                let mut out = vec![0; 65_536];
                assert_eq!(decompress(kind, &stream, &mut out), Ok(len));
                assert_eq!(out, cluster());
                out.fill(0);
                let mut whole = Decompressor::default();
                whole.input.clone_from(&stream);
                whole.decompress_input(kind, &mut out).unwrap();
                assert_eq!(out, cluster());
                for cut in [0, 1, 100] {
                    assert!(decompress(kind, &stream[..cut], &mut out).is_err());
                    whole.input.truncate(cut);
                    assert!(whole.decompress_input(kind, &mut out).is_err());
                    whole.input.clone_from(&stream);
                }
            }
        }
    }

    #[test]
    fn what_does_not_shrink_is_not_compressed() {
        let mut state = 1u64;
        let noise: Vec<u8> = (0..4096)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        assert!(Compressor::new(Compression::Zlib, 4096, false).unwrap().compress(&noise).is_none());
    }
}
