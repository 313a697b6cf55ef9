//! The images that an early root file system is unpacked from: archives of cpio, one after the other, each compressed or
//! not. Linux `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::io::{self, BufRead, Read};

use guest::Guest;

use super::Renames;

/// As much of a file tells whether it is such an image.
pub(crate) const MAGIC_LEN: usize = 6;
const CPIO: [&[u8]; 2] = [b"070701", b"070702"];
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// The format that the kernel knows, which is an old one of the program `lz4`.
const LZ4: &[u8] = &[0x02, 0x21, 0x4c, 0x18];
/// Compressed in ways that are not undone here.
const OTHERS: [(&[u8], &str); 4] = [
    (&[0xfd, b'7', b'z', b'X', b'Z'], "xz"),
    (b"BZh", "bzip2"),
    (&[0x5d, 0, 0], "lzma"),
    (&[0x89, b'L', b'Z', b'O'], "lzo"),
];
/// No more is looked at, compressed or not: a bound for what a few bytes may unpack to.
const MAX_UNPACKED: u64 = 4 << 30;
/// The largest piece that the old format of lz4 has.
const MAX_LZ4_PIECE: usize = 8 << 20;
const PIECE: usize = 1 << 18;
const CPIO_HEADER: usize = 110;
const MAX_CPIO_NAME: usize = 4096;

/// Whether a file that starts so is such an image.
pub(crate) fn is_one(start: &[u8]) -> bool {
    let compressed = [GZIP, ZSTD, LZ4].into_iter().chain(OTHERS.into_iter().map(|(magic, _)| magic));
    CPIO.into_iter().chain(compressed).any(|magic| start.starts_with(magic))
}

/// Whether an old ID is in what an image holds. `Err`: why it cannot be told.
pub(crate) fn holds(guest: &Guest, path: &[u8], renames: &Renames) -> Result<bool, String> {
    let mut source = Source::new(GuestFile { guest, path, at: 0 });
    search_image(&mut source, &mut Search::new(renames)).map_err(|error| error.to_string())
}

/// Whether an old ID is in a file as it is.
pub(crate) fn holds_as_it_is(guest: &Guest, path: &[u8], renames: &Renames) -> Result<bool, String> {
    let mut file = GuestFile { guest, path, at: 0 };
    Search::new(renames).read(&mut file).map_err(|error| error.to_string())
}

/// A guest's file from its start to its end.
struct GuestFile<'a> {
    guest: &'a Guest,
    path: &'a [u8],
    at: u64,
}

impl Read for GuestFile<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.guest.read_at(self.path, self.at, buf).map_err(io::Error::other)?;
        self.at += got as u64;
        Ok(got)
    }
}

/// A reader with a buffer that can be looked into before it is read.
struct Source<R> {
    inner: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<R: Read> Source<R> {
    fn new(inner: R) -> Self {
        Self { inner, buffer: vec![0; PIECE], start: 0, end: 0 }
    }

    /// The next bytes, which stay where they are; fewer than `len`, at most the buffer's length, only at the end.
    fn peek(&mut self, len: usize) -> io::Result<&[u8]> {
        if self.end - self.start < len {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            while self.end < len {
                match self.inner.read(&mut self.buffer[self.end..])? {
                    0 => break,
                    got => self.end += got,
                }
            }
        }
        let end = self.end.min(self.start + len);
        Ok(&self.buffer[self.start..end])
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.fill_buf()?.read(buf)?;
        self.consume(got);
        Ok(got)
    }
}

impl<R: Read> BufRead for Source<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.peek(1)?;
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, amount: usize) {
        self.start = self.end.min(self.start + amount);
    }
}

/// A search through bytes that come piece by piece.
struct Search<'a> {
    renames: &'a Renames,
    /// The end of what came before, in which a match may begin, and the piece after it.
    window: Vec<u8>,
    seen: u64,
}

impl<'a> Search<'a> {
    fn new(renames: &'a Renames) -> Self {
        Self { renames, window: Vec::new(), seen: 0 }
    }

    /// Whether a match is in this piece, or in the end of the last one and the start of this.
    fn piece(&mut self, bytes: &[u8]) -> io::Result<bool> {
        self.seen = self.seen.saturating_add(bytes.len() as u64);
        if self.seen > MAX_UNPACKED {
            return Err(invalid("it unpacks to more than 4 GiB"));
        }
        // One byte more than a match has, since what stands before it counts.
        let kept = self.window.len().min(self.renames.longest());
        self.window.drain(..self.window.len() - kept);
        self.window.extend_from_slice(bytes);
        Ok(self.renames.are_in(&self.window))
    }

    /// Reads to the end, or to the first match.
    fn read(&mut self, reader: &mut dyn Read) -> io::Result<bool> {
        let mut buf = vec![0; PIECE];
        loop {
            match reader.read(&mut buf) {
                Ok(0) => return Ok(false),
                Ok(got) => {
                    if self.piece(buf.get(..got).unwrap_or_default())? {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

/// Goes through all archives of an image. Each takes at least a byte of it, so that this ends.
fn search_image<R: Read>(source: &mut Source<R>, search: &mut Search<'_>) -> io::Result<bool> {
    loop {
        skip_zeros(source)?;
        let magic = source.peek(MAGIC_LEN)?;
        if magic.is_empty() {
            return Ok(false);
        }
        let found = if CPIO.contains(&magic) {
            search_cpio(source, search)?
        } else if magic.starts_with(GZIP) {
            search.read(&mut flate2::bufread::GzDecoder::new(&mut *source))?
        } else if magic.starts_with(ZSTD) {
            let frame = ruzstd::decoding::StreamingDecoder::new(&mut *source);
            search.read(&mut frame.map_err(|error| invalid(format!("zstd: {error}")))?)?
        } else if magic.starts_with(LZ4) {
            search_lz4(source, search)?
        } else if let Some((_, name)) = OTHERS.iter().find(|(other, _)| magic.starts_with(other)) {
            return Err(invalid(format!("it is compressed by {name}")));
        } else {
            return search.read(source);
        };
        if found {
            return Ok(true);
        }
    }
}

/// Archives may be filled up with zeros.
fn skip_zeros(source: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffered = source.fill_buf()?;
        let zeros = buffered.iter().take_while(|byte| **byte == 0).count();
        if zeros == 0 {
            return Ok(());
        }
        source.consume(zeros);
    }
}

/// An archive that is not compressed, up to its last entry.
fn search_cpio(reader: &mut impl Read, search: &mut Search<'_>) -> io::Result<bool> {
    loop {
        let mut header = [0; CPIO_HEADER];
        reader.read_exact(&mut header)?;
        if !CPIO.iter().any(|magic| header.starts_with(magic)) {
            return Err(invalid("an archive does not go on where it should"));
        }
        let field = |at: usize| -> io::Result<u64> {
            let digits = header.get(at..at + 8).and_then(|digits| std::str::from_utf8(digits).ok());
            let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
            number.ok_or_else(|| invalid("an archive's header holds no number"))
        };
        let (file_len, name_len) = (field(54)?, field(94)? as usize);
        if name_len == 0 || name_len > MAX_CPIO_NAME {
            return Err(invalid(format!("a name in an archive has {name_len} bytes")));
        }
        // Name and contents are each filled up to four bytes, the header being part of the former.
        let mut name = vec![0; (CPIO_HEADER + name_len).next_multiple_of(4) - CPIO_HEADER];
        reader.read_exact(&mut name)?;
        if search.piece(&name)? {
            return Ok(true);
        }
        let contents = file_len.next_multiple_of(4);
        if search.read(&mut (&mut *reader).take(contents))? {
            return Ok(true);
        }
        if name.starts_with(b"TRAILER!!!\0") {
            return Ok(false);
        }
    }
}

fn search_lz4<R: Read>(source: &mut Source<R>, search: &mut Search<'_>) -> io::Result<bool> {
    source.consume(LZ4.len());
    let mut unpacked = vec![0; MAX_LZ4_PIECE];
    loop {
        // What is no length of a piece begins something else.
        let len = source.peek(4)?.first_chunk::<4>().map(|len| u32::from_le_bytes(*len) as usize);
        let most = lz4_flex::block::get_maximum_output_size(MAX_LZ4_PIECE);
        let Some(len) = len.filter(|len| (1..=most).contains(len)) else { return Ok(false) };
        source.consume(4);
        let mut packed = vec![0; len];
        source.read_exact(&mut packed)?;
        let got = lz4_flex::block::decompress_into(&packed, &mut unpacked);
        let got = got.map_err(|error| invalid(format!("lz4: {error}")))?;
        if search.piece(unpacked.get(..got).unwrap_or_default())? {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::spelling::Kind;
    use super::*;

    const OLD: &str = "0d3c1b5e-9a77-4f2b-8c1d-5e6f7a8b9c0d";

    fn entry(name: &str, contents: &[u8]) -> Vec<u8> {
        let mut bytes = format!(
            "070701{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{name}\0",
            1,
            0o100644,
            0,
            0,
            1,
            0,
            contents.len(),
            0,
            0,
            0,
            0,
            name.len() + 1,
            0
        )
        .into_bytes();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend_from_slice(contents);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn archive(contents: &[u8]) -> Vec<u8> {
        let noise: Vec<u8> = (0..700_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        [entry("noise", &noise), entry("conf", contents), entry("TRAILER!!!", b"")].concat()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn lz4(bytes: &[u8]) -> Vec<u8> {
        let mut packed = LZ4.to_vec();
        for piece in bytes.chunks(MAX_LZ4_PIECE) {
            let block = lz4_flex::block::compress(piece);
            packed.extend((block.len() as u32).to_le_bytes());
            packed.extend(block);
        }
        packed
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn search(image: &[u8]) -> io::Result<bool> {
        let pair = (OLD.to_owned(), "11111111-2222-4333-8444-555555555555".to_owned());
        let renames = Renames::new(Kind::Uuid, &[pair]).unwrap();
        search_image(&mut Source::new(image), &mut Search::new(&renames))
    }

    #[test]
    fn an_id_is_found_in_any_archive_of_an_image() {
        let plain = archive(b"nothing");
        let with = archive(format!("RESUME=UUID={OLD}\n").as_bytes());
        type Pack = fn(&[u8]) -> Vec<u8>;
        let packers: [Pack; 4] = [<[u8]>::to_vec, gzip, lz4, zstd];
        for first in packers {
            for second in packers {
                let image = |last: &[u8]| [first(&plain), vec![0; 512], second(last)].concat();
                assert!(!search(&image(&plain)).unwrap());
                assert!(search(&image(&with)).unwrap());
            }
        }
        assert!(search(format!("no image {OLD}").as_bytes()).unwrap());
        assert!(!search(b"").unwrap() && !search(b"\0\0\0").unwrap());
    }

    #[test]
    fn what_cannot_be_looked_into_is_an_error() {
        assert!(search(b"\xfd7zXZ\0rest").unwrap_err().to_string().contains("xz"));
        let with = gzip(&archive(OLD.as_bytes()));
        for cut in [3, 20, with.len() / 2, with.len() - 9] {
            assert!(search(&with[..cut]).is_err(), "{cut}");
        }
        for magic in [GZIP, ZSTD, LZ4, CPIO[0]] {
            let junk: Vec<u8> = magic.iter().copied().chain((0..2000_u32).map(|at| (at * 7 + 1) as u8)).collect();
            assert!(!search(&junk).is_ok_and(|found| found));
        }
        let mut long_name = entry("x", b"");
        long_name[94..102].copy_from_slice(b"ffffffff");
        assert!(search(&long_name).is_err());
    }
}
