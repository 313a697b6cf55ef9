//! A logical volume as a device: which bytes of the disk hold which of its own.

use std::sync::Arc;

use block::{AllocationUnit, Error, Extent, ReadAt, Result, WriteAt};

/// Where on a disk a logical volume's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) len: u64,
    /// Copies of all of it. Of several the first is read, and all are written.
    pub(crate) legs: Vec<Vec<Segment>>,
}

/// A run of a logical volume's bytes, dealt out in chunks to one or more areas of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) start: u64,
    pub(crate) len: u64,
    /// Bytes that lie together before the next area has its turn; with one area, all.
    pub(crate) chunk: u64,
    /// Where on the disk each area starts.
    pub(crate) areas: Vec<u64>,
}

impl Segment {
    /// Where a byte of the volume is, and how many follow it there.
    fn place(&self, offset: u64) -> Option<(u64, u64)> {
        let within = offset.checked_sub(self.start).filter(|within| *within < self.len)?;
        let rest = self.len - within;
        match self.areas.as_slice() {
            [] => None,
            [area] => Some((area + within, rest)),
            areas => {
                let (chunk, into) = (within / self.chunk, within % self.chunk);
                let count = areas.len() as u64;
                let area = areas[usize::try_from(chunk % count).ok()?];
                Some((area + chunk / count * self.chunk + into, rest.min(self.chunk - into)))
            }
        }
    }
}

impl Segment {
    /// Which byte of the volume a byte of the disk is, if it is one of this run.
    fn offset_of(&self, place: u64) -> Option<u64> {
        let count = self.areas.len() as u64;
        let found = (0..count).zip(&self.areas).find_map(|(number, area)| {
            let within = place.checked_sub(*area).filter(|within| *within < self.bytes_in_area(number, self.len))?;
            if count == 1 {
                return Some(within);
            }
            Some((within / self.chunk * count + number) * self.chunk + within % self.chunk)
        });
        found.map(|within| self.start + within)
    }

    /// How many of the first `within` bytes are in an area.
    fn bytes_in_area(&self, number: u64, within: u64) -> u64 {
        let count = self.areas.len() as u64;
        if count == 1 {
            return within;
        }
        let (chunks, into) = (within / self.chunk, within % self.chunk);
        let last = match number.cmp(&(chunks % count)) {
            std::cmp::Ordering::Less => self.chunk,
            std::cmp::Ordering::Equal => into,
            std::cmp::Ordering::Greater => 0,
        };
        chunks / count * self.chunk + last
    }
}

impl Mapping {
    /// Which byte of the volume a byte of the disk is, if it is one of its.
    pub(crate) fn offset_of(&self, place: u64) -> Option<u64> {
        self.legs.iter().flatten().find_map(|segment| segment.offset_of(place))
    }

    /// Where on the disk the first byte is.
    pub(crate) fn start(&self) -> Option<u64> {
        Some(self.place(self.legs.first()?, 0)?.0)
    }

    fn place(&self, leg: &[Segment], offset: u64) -> Option<(u64, u64)> {
        let after = leg.partition_point(|segment| segment.start <= offset);
        leg.get(after.checked_sub(1)?)?.place(offset)
    }

    /// Calls `action` with (disk offset, offset in the range, length) for each run of bytes of the range.
    fn for_each(
        &self,
        leg: &[Segment],
        offset: u64,
        len: u64,
        mut action: impl FnMut(u64, u64, u64) -> Result<()>,
    ) -> Result<()> {
        Error::check_range(offset, len, self.len)?;
        let mut done = 0;
        while done < len {
            let Some((place, run)) = self.place(leg, offset + done) else {
                return Err(Error::OutOfBounds { offset, len, device_len: self.len });
            };
            let run = run.min(len - done);
            action(place, done, run)?;
            done += run;
        }
        Ok(())
    }

    /// The ranges of the disk that a range of the volume takes, over all legs: one for each area that it touches,
    /// however many chunks that are.
    fn ranges(&self, offset: u64, len: u64) -> Result<Vec<(u64, u64)>> {
        Error::check_range(offset, len, self.len)?;
        let mut ranges = Vec::new();
        for leg in &self.legs {
            let first = leg.partition_point(|segment| segment.start + segment.len <= offset);
            for segment in leg[first..].iter().take_while(|segment| segment.start < offset + len) {
                let start = offset.saturating_sub(segment.start);
                let end = (offset + len - segment.start).min(segment.len);
                for (number, area) in (0..).zip(&segment.areas) {
                    let (start, end) = (segment.bytes_in_area(number, start), segment.bytes_in_area(number, end));
                    if start < end {
                        ranges.push((area + start, end - start));
                    }
                }
            }
        }
        Ok(ranges)
    }
}

/// A logical volume on a disk.
#[derive(Debug, Clone)]
pub(crate) struct Mapped<D> {
    disk: D,
    mapping: Arc<Mapping>,
}

impl<D: ReadAt> Mapped<D> {
    /// The volume, where all of it lies on the disk.
    pub(crate) fn new(disk: D, mapping: Arc<Mapping>) -> Result<Self> {
        for leg in &mapping.legs {
            for segment in leg {
                for area in &segment.areas {
                    Error::check_range(*area, segment.len / segment.areas.len() as u64, disk.len())?;
                }
            }
        }
        Ok(Self { disk, mapping })
    }
}

impl<D: ReadAt> ReadAt for Mapped<D> {
    fn len(&self) -> u64 {
        self.mapping.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let leg = self.mapping.legs.first().map_or(&[][..], Vec::as_slice);
        self.mapping.for_each(leg, offset, buf.len() as u64, |place, done, run| {
            self.disk.read_at(place, &mut buf[done as usize..(done + run) as usize])
        })
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<Extent> {
        let device_len = self.mapping.len;
        Error::check_range(offset, max_len.max(1), device_len)?;
        let leg = self.mapping.legs.first().map_or(&[][..], Vec::as_slice);
        match self.mapping.place(leg, offset) {
            Some((place, run)) => self.disk.extent_at(place, run.min(max_len)),
            None => Err(Error::OutOfBounds { offset, len: max_len, device_len }),
        }
    }

    /// Known where the volume is in one piece, or in pieces that units of the disk fit into alike.
    fn allocation_unit(&self) -> Option<AllocationUnit> {
        let below = self.disk.allocation_unit()?;
        let mut starts = self.mapping.legs.iter().flatten().map(|segment| match segment.areas.as_slice() {
            // How far into a unit the disk is where the volume's byte 0 would be.
            [area] => Some((area % below.len + below.len - segment.start % below.len) % below.len),
            _ => None,
        });
        let into = starts.next()??;
        if starts.any(|start| start != Some(into)) {
            return None;
        }
        let into = (into + below.len - below.start % below.len) % below.len;
        Some(AllocationUnit { len: below.len, start: (below.len - into) % below.len })
    }
}

impl<D: WriteAt> WriteAt for Mapped<D> {
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        for leg in &self.mapping.legs {
            self.mapping.for_each(leg, offset, buf.len() as u64, |place, done, run| {
                self.disk.write_at(place, &buf[done as usize..(done + run) as usize])
            })?;
        }
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<()> {
        let ranges = self.mapping.ranges(offset, len)?;
        ranges.into_iter().try_for_each(|(place, run)| self.disk.write_zeroes(place, run))
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let ranges = self.mapping.ranges(offset, len)?;
        ranges.into_iter().try_for_each(|(place, run)| self.disk.discard(place, run))
    }

    fn flush(&self) -> Result<()> {
        self.disk.flush()
    }
}

#[cfg(test)]
mod tests {
    use block::Memory;

    use super::*;

    fn mapping(legs: Vec<Vec<Segment>>) -> Arc<Mapping> {
        let len = legs[0].iter().map(|segment| segment.len).sum();
        Arc::new(Mapping { len, legs })
    }

    fn linear(start: u64, len: u64, area: u64) -> Segment {
        Segment { start, len, chunk: len, areas: vec![area] }
    }

    #[test]
    fn stripes_are_dealt_out_in_turn() {
        let disk = Memory::new(4096);
        let striped = Segment { start: 100, len: 80, chunk: 10, areas: vec![1000, 2000] };
        let device = Mapped::new(&disk, mapping(vec![vec![linear(0, 100, 3000), striped]])).unwrap();
        let bytes: Vec<u8> = (0..180).collect();
        device.write_at(0, &bytes).unwrap();
        let mut found = [0; 4096];
        disk.read_at(0, &mut found).unwrap();
        assert_eq!(found[3000..3100], bytes[..100]);
        assert_eq!(found[1000..1020], [&bytes[100..110], &bytes[120..130]].concat());
        assert_eq!(found[2030..2040], bytes[170..]);
        let mut all = vec![0; 180];
        device.read_at(0, &mut all).unwrap();
        assert_eq!(all, bytes);
        assert_eq!(device.mapping.ranges(95, 85).unwrap(), [(3095, 5), (1000, 40), (2000, 40)]);
        device.discard(105, 30).unwrap();
        device.read_at(0, &mut all).unwrap();
        assert!(all.iter().enumerate().all(|(at, byte)| *byte == if (105..135).contains(&at) { 0 } else { bytes[at] }));
        assert!(device.read_at(170, &mut [0; 11]).is_err());
    }

    #[test]
    fn all_legs_are_written() {
        let disk = Memory::new(4096);
        let device = Mapped::new(
            &disk,
            mapping(vec![vec![linear(0, 512, 0)], vec![linear(0, 100, 1024), linear(100, 412, 2048)]]),
        )
        .unwrap();
        device.write_at(90, &[7; 20]).unwrap();
        for place in [90, 1114, 2048] {
            assert_eq!(block::read_vec(&disk, place, 10).unwrap(), [7; 10]);
        }
        device.write_zeroes(0, 512).unwrap();
        assert!(block::read_vec(&disk, 0, 4096).unwrap().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_volume_beyond_the_disk_is_refused() {
        assert!(Mapped::new(Memory::new(4096), mapping(vec![vec![linear(0, 4096, 1)]])).is_err());
    }

    #[test]
    fn units_are_known_where_the_pieces_agree() {
        let disk = block::Overlay::new(Memory::new(1 << 20));
        let unit = |segments| Mapped::new(&disk, mapping(vec![segments])).unwrap().allocation_unit();
        assert_eq!(unit(vec![linear(0, 8192, 1024)]), Some(AllocationUnit { len: 4096, start: 3072 }));
        assert_eq!(
            unit(vec![linear(0, 8192, 8192), linear(8192, 8192, 65536)]),
            Some(AllocationUnit { len: 4096, start: 0 })
        );
        assert_eq!(unit(vec![linear(0, 8192, 8192), linear(8192, 8192, 65537)]), None);
    }
}
