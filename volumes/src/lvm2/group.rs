//! A volume group as its metadata tells it, and the mapping of its logical volumes.

use std::collections::{HashMap, HashSet};

use super::config::{Section, Value};
use super::mapping::{Mapping, Segment};
use super::physical_volume::{self, Corrupt, PhysicalVolume, Text};
use crate::probe::hyphenate;

const SECTOR: u64 = 512;
/// As LVM2 has it.
const MAX_STRIPES: u64 = 128;
/// The smallest stripe that LVM2 makes.
const MIN_STRIPE: u64 = 4096;

/// An LVM2 volume group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeGroup {
    /// Its name.
    pub name: String,
    /// Its UUID, with LVM2's hyphens.
    pub uuid: String,
    /// How often its metadata was changed.
    pub seqno: u64,
    /// Which command wrote its metadata, in that command's words.
    pub description: String,
    /// Bytes in an extent.
    pub extent_size: u64,
    /// Its physical volumes.
    pub physical_volumes: Vec<MemberVolume>,
    /// Its logical volumes, but those that LVM2 hides. Those without a problem are among the volumes, too.
    pub logical_volumes: Vec<LogicalVolume>,
}

/// A physical volume of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberVolume {
    /// Its UUID, with LVM2's hyphens.
    pub uuid: String,
    /// The volume of this disk that it is on; `None` where it is missing.
    pub volume: Option<String>,
}

/// A logical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogicalVolume {
    /// Its name in its group.
    pub name: String,
    /// Its UUID, with LVM2's hyphens.
    pub uuid: String,
    /// Its length in bytes.
    pub len: u64,
    /// Why it cannot be used, if it cannot.
    pub problem: Option<String>,
}

/// A group that was decoded, with what mapping needs.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    pub(crate) name: String,
    pub(crate) uuid: String,
    pub(crate) seqno: u64,
    pub(crate) description: String,
    pub(crate) extent_size: u64,
    pub(crate) members: Vec<MemberVolume>,
    pub(crate) logical: Vec<Logical<'a>>,
    /// By the names that segments call them.
    physical: HashMap<&'a str, Result<Extents, String>>,
    /// Places in `logical` by name.
    by_name: HashMap<&'a str, usize>,
    /// What snapshots need, and a name of one that does.
    kept_for: HashMap<&'a str, &'a str>,
    /// Why nothing of the group can be used, if so.
    problem: Option<String>,
}

/// Where the extents of a physical volume are on the disk.
#[derive(Debug)]
struct Extents {
    start: u64,
    count: u64,
}

/// A logical volume, hidden ones, too.
#[derive(Debug)]
pub(crate) struct Logical<'a> {
    pub(crate) name: String,
    pub(crate) uuid: String,
    pub(crate) visible: bool,
    section: &'a Section,
    segments: Vec<&'a Section>,
    extents: u64,
}

impl Logical<'_> {
    pub(crate) fn len(&self, extent_size: u64) -> u64 {
        self.extents.saturating_mul(extent_size)
    }

    fn is_raid1(&self) -> bool {
        self.segments.iter().any(|segment| segment.text("type") == Some("raid1"))
    }
}

impl<'a> Group<'a> {
    /// Decodes a group, and finds its physical volumes among those of the disk.
    pub(crate) fn decode(text: &'a Text, disk: &[PhysicalVolume]) -> Result<Self, Corrupt> {
        let section = &text.section;
        let sectors = section.number("extent_size")?;
        let extent_size = sectors.checked_mul(SECTOR).filter(|size| *size > 0);
        let extent_size = extent_size.ok_or_else(|| Corrupt::new(format!("extent_size is {sectors}")))?;
        let mut group = Self {
            name: text.name.clone(),
            uuid: hyphenate(&text.id),
            seqno: text.seqno,
            description: text.description.clone(),
            extent_size,
            members: Vec::new(),
            logical: Vec::new(),
            physical: HashMap::new(),
            by_name: HashMap::new(),
            kept_for: HashMap::new(),
            problem: problem(section),
        };
        for (name, member) in section.section("physical_volumes").into_iter().flat_map(Section::sections) {
            group.add_member(name, member, disk)?;
        }
        for (name, logical) in section.section("logical_volumes").into_iter().flat_map(Section::sections) {
            group.add_logical(name, logical)?;
        }
        group.check_overlaps()?;
        Ok(group)
    }

    fn add_member(&mut self, name: &'a str, member: &Section, disk: &[PhysicalVolume]) -> Result<(), Corrupt> {
        let id = member.text("id").and_then(|id| physical_volume::id(id.as_bytes()));
        let id = id.ok_or_else(|| Corrupt::new(format!("the id of physical volume {name} is not one of LVM2")))?;
        let (pe_start, count) = (member.number("pe_start")?, member.number("pe_count")?);
        let mut same = disk.iter().filter(|physical| physical.id == id);
        let found = same.next();
        if same.next().is_some() {
            return Err(Corrupt::new(format!("physical volume {} is there twice", hyphenate(&id))));
        }
        let extents = match found {
            None => Err(format!("physical volume {} is missing", hyphenate(&id))),
            Some(_) if member.lists("flags", "MISSING") || member.lists("status", "MISSING") => {
                Err(format!("physical volume {} is marked as missing", hyphenate(&id)))
            }
            Some(physical) => {
                let start = pe_start.checked_mul(SECTOR);
                let end =
                    count.checked_mul(self.extent_size).zip(start).and_then(|(len, start)| len.checked_add(start));
                match (start, end) {
                    (Some(start), Some(end)) if end <= physical.len => {
                        Ok(Extents { start: physical.start + start, count })
                    }
                    _ => Err(format!("the extents of {} do not lie on it", physical.volume)),
                }
            }
        };
        self.members.push(MemberVolume { uuid: hyphenate(&id), volume: found.map(|physical| physical.volume.clone()) });
        self.physical.insert(name, extents);
        Ok(())
    }

    fn add_logical(&mut self, name: &'a str, section: &'a Section) -> Result<(), Corrupt> {
        if !physical_volume::is_name(name) {
            return Err(Corrupt::new(format!("{name:?} is no name of a logical volume")));
        }
        let id = section.text("id").and_then(|id| physical_volume::id(id.as_bytes()));
        let id = id.ok_or_else(|| Corrupt::new(format!("the id of logical volume {name} is not one of LVM2")))?;
        let mut segments: Vec<&Section> = Vec::new();
        let mut extents = 0_u64;
        for number in 1..=section.number("segment_count")? {
            let Some(segment) = section.section(&format!("segment{number}")) else {
                return Err(Corrupt::new(format!("logical volume {name} has no segment {number}")));
            };
            let (start, count) = (segment.number("start_extent")?, segment.number("extent_count")?);
            if start != extents || count == 0 {
                let message = format!("segment {number} of logical volume {name} has {count} extents from {start} on");
                return Err(Corrupt::new(format!("{message}, expected some from {extents} on")));
            }
            extents = extents.checked_add(count).ok_or_else(|| Corrupt::new(format!("{name} is too long")))?;
            segments.push(segment);
        }
        for key in ["origin", "external_origin", "cow_store", "merging_store"] {
            let needed = segments.iter().copied().chain([section]).filter_map(|section| section.text(key));
            self.kept_for.extend(needed.map(|needed| (needed, name)));
        }
        self.by_name.insert(name, self.logical.len());
        let visible = section.lists("status", "VISIBLE");
        self.logical.push(Logical { name: name.to_owned(), uuid: hyphenate(&id), visible, section, segments, extents });
        Ok(())
    }

    /// No extent of a physical volume may be mapped twice.
    fn check_overlaps(&self) -> Result<(), Corrupt> {
        let mut used: Vec<(&str, u64, u64, &str)> = Vec::new();
        for logical in &self.logical {
            for segment in logical.segments.iter().filter(|segment| segment.text("type") == Some("striped")) {
                let stripes = stripes(segment)?;
                let count = segment.number("extent_count")? / stripes.len().max(1) as u64;
                for (name, first) in stripes {
                    let end =
                        first.checked_add(count).ok_or_else(|| Corrupt::new(format!("extent {first} is too far")))?;
                    used.push((name, first, end, &logical.name));
                }
            }
        }
        used.sort_unstable();
        match used.windows(2).find(|pair| pair[0].0 == pair[1].0 && pair[1].1 < pair[0].2) {
            Some(pair) => Err(Corrupt::new(format!("{} and {} share an extent", pair[0].3, pair[1].3))),
            None => Ok(()),
        }
    }

    /// Why nothing of the group can be used, if so.
    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Where a logical volume is, or why it cannot be used.
    pub(crate) fn map(&self, logical: &Logical<'_>) -> Result<Mapping, String> {
        if let Some(problem) = &self.problem {
            return Err(problem.clone());
        }
        check_status(logical)?;
        if let Some(snapshot) = self.kept_for.get(logical.name.as_str()) {
            return Err(format!("{snapshot} is a snapshot that needs it, which is not supported"));
        }
        let len = logical.extents.checked_mul(self.extent_size).ok_or("it is too long")?;
        if !logical.is_raid1() {
            return Ok(Mapping { len, legs: vec![self.leg(logical)?] });
        }
        let mut legs = Vec::new();
        for (_, image) in self.raid_legs(logical)? {
            if image.extents != logical.extents {
                return Err(format!("its leg {} is of another length", image.name));
            }
            legs.push(self.leg(image)?);
        }
        Ok(Mapping { len, legs })
    }

    /// The legs of a raid1 volume: for each its metadata and its image.
    pub(crate) fn raid_legs(&self, logical: &Logical<'_>) -> Result<Vec<(&Logical<'a>, &Logical<'a>)>, String> {
        let [segment] = logical.segments.as_slice() else {
            return Err("it is raid1 in several segments, which is not supported".to_owned());
        };
        let find = |value: &Value| match value {
            Value::Text(name) => Some(&self.logical[*self.by_name.get(name.as_str())?]).filter(|leg| !leg.visible),
            _ => None,
        };
        let legs = segment.list("raids").as_chunks::<2>();
        let found: Option<Vec<_>> = legs.0.iter().map(|[meta, image]| Some((find(meta)?, find(image)?))).collect();
        let found = found.filter(|found| !found.is_empty() && legs.1.is_empty());
        let found = found.ok_or("its raid1 segment does not name its legs")?;
        for (meta, image) in &found {
            check_status(meta)?;
            check_status(image)?;
        }
        Ok(found)
    }

    /// Where a volume of linear and striped segments is.
    pub(crate) fn leg(&self, logical: &Logical<'_>) -> Result<Vec<Segment>, String> {
        let mut leg = Vec::new();
        for (number, segment) in (1..).zip(&logical.segments) {
            let kind = segment.text("type").unwrap_or("none");
            if kind != "striped" {
                return Err(format!("its segment {number} is of the type {kind}, which is not supported"));
            }
            leg.push(self.segment(segment).map_err(|reason| format!("its segment {number}: {reason}"))?);
        }
        Ok(leg)
    }

    fn segment(&self, segment: &Section) -> Result<Segment, String> {
        let stripes = stripes(segment).map_err(|corrupt| corrupt.to_string())?;
        let extents = segment.number("extent_count").map_err(|corrupt| corrupt.to_string())?;
        let start = segment.number("start_extent").map_err(|corrupt| corrupt.to_string())?;
        let count = stripes.len() as u64;
        let fits = (1..=MAX_STRIPES).contains(&count) && extents.is_multiple_of(count);
        if segment.number("stripe_count").ok() != Some(count) || !fits {
            return Err(format!("it has {count} stripes for {extents} extents"));
        }
        let mut areas = Vec::new();
        for (name, first) in stripes {
            let physical = match self.physical.get(name) {
                Some(Ok(physical)) => physical,
                Some(Err(reason)) => return Err(reason.clone()),
                None => return Err(format!("it lies on {name}, which is no physical volume")),
            };
            if first.checked_add(extents / count).is_none_or(|end| end > physical.count) {
                return Err(format!("its extents from {first} on do not lie on {name}"));
            }
            areas.push(physical.start + first * self.extent_size);
        }
        let scaled = |extents: u64| extents.checked_mul(self.extent_size).ok_or("it is too long");
        let len = scaled(extents)?;
        let chunk = match count {
            1 => len,
            _ => {
                let sectors = segment.number("stripe_size").map_err(|corrupt| corrupt.to_string())?;
                let chunk = sectors
                    .checked_mul(SECTOR)
                    .filter(|chunk| *chunk >= MIN_STRIPE && self.extent_size.is_multiple_of(*chunk));
                chunk.ok_or_else(|| format!("its stripes are of {sectors} sectors"))?
            }
        };
        Ok(Segment { start: scaled(start)?, len, chunk, areas })
    }
}

/// What stands against all of a group.
fn problem(section: &Section) -> Option<String> {
    if section.text("format").is_some_and(|format| format != "lvm2") {
        return Some("the group is of a format other than lvm2".to_owned());
    }
    if section.lists("status", "EXPORTED") {
        return Some("the group is exported".to_owned());
    }
    let shared = section.text("lock_type").is_some_and(|lock| lock != "none");
    if shared || section.lists("status", "CLUSTERED") || section.lists("flags", "CLUSTERED") {
        return Some("the group is shared with other hosts".to_owned());
    }
    None
}

/// What a volume's flags may be without a meaning for us.
fn check_status(logical: &Logical<'_>) -> Result<(), String> {
    let known: HashSet<&str> = ["READ", "WRITE", "VISIBLE", "FIXED_MINOR", "ACTIVATION_SKIP"].into();
    let flags = logical.section.list("status").iter().chain(logical.section.list("flags"));
    for flag in flags {
        match flag {
            Value::Text(flag) if known.contains(flag.as_str()) => {}
            Value::Text(flag) => return Err(format!("{} is marked {flag}, which is not supported", logical.name)),
            _ => return Err(format!("{} has flags that are no words", logical.name)),
        }
    }
    if logical.section.lists("status", "WRITE") { Ok(()) } else { Err(format!("{} is read-only", logical.name)) }
}

/// The physical volumes and first extents of a striped segment.
fn stripes(segment: &Section) -> Result<Vec<(&str, u64)>, Corrupt> {
    let pairs = segment.list("stripes").as_chunks::<2>();
    let pair = |pair: &'_ [Value; 2]| match pair {
        [Value::Text(_), Value::Integer(first)] => u64::try_from(*first).ok(),
        _ => None,
    };
    let wrong = || Corrupt::new("stripes are not pairs of a physical volume and an extent");
    if !pairs.1.is_empty() {
        return Err(wrong());
    }
    let mut stripes = Vec::new();
    for value in pairs.0 {
        let (Value::Text(name), Some(first)) = (&value[0], pair(value)) else { return Err(wrong()) };
        stripes.push((name.as_str(), first));
    }
    Ok(stripes)
}
