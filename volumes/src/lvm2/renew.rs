//! New UUIDs for physical volumes and groups, wherever LVM2 keeps them on the disk.
//!
//! The text of the metadata is edited, not printed anew, so that whatever we do not know in it stays as it is.

use block::{Window, WriteAt, read_vec};
use zerocopy::{FromBytes, IntoBytes};

use super::group::Group;
use super::layout::{MdaHeader, RawLocation, crc};
use super::physical_volume::{self, Corrupt, MDA_HEADER, PhysicalVolume, SECTOR, Text};
use crate::error::{Error, Result};
use crate::probe::{ContentKind, hyphenate, probe};
use crate::{Layout, RenewedId};

/// What [`VolumeGroup::description`](crate::VolumeGroup::description) says of metadata that [`renew_lvm_uuids`] wrote,
/// until a command of LVM2 writes it again.
pub const SEALED: &str = "Sealed by goldenseal";

/// The host that metadata is then said to be made on.
const HOST: &str = "localhost";
/// Characters of LVM2's UUIDs (lvm2 `lib/uuid/uuid.c`; two more are read, and no longer made).
const CHARACTERS: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Gives every volume group of a disk, and the physical volumes in it, new UUIDs, as `vgchange -u` and `pvchange -u` do.
///
/// Names and the UUIDs of logical volumes stay. With the UUIDs goes what else the metadata tell of the machine: the host
/// that made them and its disks, and all older versions in the metadata areas. A physical volume without a group keeps
/// its UUID, and so does a group that was renewed before and that no command of LVM2 changed since.
///
/// `random` fills a slice with random bytes. The caller's device has to make the writes one change: in between,
/// physical volumes and groups do not fit each other.
///
/// # Errors
/// [`Error::Lvm`], before anything is written, where anything about the metadata is odd: a copy is damaged or left
/// behind, a physical volume is not on this disk, or the group belongs to other hosts as well. What the device says.
pub fn renew_lvm_uuids(
    disk: &dyn WriteAt,
    layout: &Layout,
    random: &mut dyn FnMut(&mut [u8]),
) -> Result<Vec<RenewedId>> {
    let mut physical = Vec::new();
    for volume in layout.volumes.iter().filter(|volume| volume.logical.is_none()) {
        let window = Window::new(disk, volume.start, volume.len)?;
        if probe(&window)?.kind != ContentKind::Lvm2Member {
            continue;
        }
        let (one, warnings) =
            PhysicalVolume::read(&window, volume)?.map_err(|corrupt| refuse(&volume.name, corrupt))?;
        if let Some(warning) = warnings.first() {
            return Err(refuse(&volume.name, warning));
        }
        physical.push(one);
    }
    let mut warnings = Vec::new();
    let texts = physical_volume::newest(&physical, &mut warnings);
    if let Some(warning) = warnings.into_iter().next() {
        return Err(Error::Lvm(warning));
    }
    let mut renewed = Vec::new();
    let mut plans = Vec::new();
    for text in texts {
        if text.description == SEALED {
            continue;
        }
        plans.push(plan(disk, text, &physical, random, &mut renewed)?);
    }
    for (member, text) in plans.iter().flat_map(|plan| plan.members.iter().map(|member| (member, &plan.text))) {
        write(disk, member, text)?;
    }
    Ok(renewed)
}

/// What is to be written for a group.
struct Plan<'a> {
    text: Vec<u8>,
    members: Vec<Member<'a>>,
}

/// A physical volume and its new UUID, without hyphens.
struct Member<'a> {
    physical: &'a PhysicalVolume,
    id: String,
}

fn refuse(volume: &str, reason: impl std::fmt::Display) -> Error {
    Error::Lvm(format!("{volume}: {reason}"))
}

fn plan<'a>(
    disk: &dyn WriteAt,
    text: &Text,
    physical: &'a [PhysicalVolume],
    random: &mut dyn FnMut(&mut [u8]),
    renewed: &mut Vec<RenewedId>,
) -> Result<Plan<'a>> {
    let refuse_group = |reason: &dyn std::fmt::Display| refuse(&format!("group {}", text.name), reason);
    let group = Group::decode(text, physical).map_err(|corrupt| refuse_group(&corrupt))?;
    if let Some(problem) = group.problem() {
        return Err(refuse_group(&problem));
    }
    let new_group = new_id(random);
    let mut ids = vec![(group.uuid.clone(), hyphenate(&new_group))];
    renewed.push(RenewedId::new(format!("lvm:{}", group.name), &group.uuid, &hyphenate(&new_group)));
    let mut members = Vec::new();
    for member in &group.members {
        let found = physical.iter().find(|physical| hyphenate(&physical.id) == member.uuid);
        let Some(found) = found else {
            return Err(refuse_group(&format!("physical volume {} is missing", member.uuid)));
        };
        let id = new_id(random);
        ids.push((member.uuid.clone(), hyphenate(&id)));
        renewed.push(RenewedId::new(found.volume.clone(), &member.uuid, &hyphenate(&id)));
        members.push(Member { physical: found, id });
    }

    let source = members.iter().find_map(|member| current_text(disk, member.physical, &text.id).transpose());
    let Some(source) = source.transpose()? else { return Err(refuse_group(&"its metadata cannot be read again")) };
    let edited = edit(&source, text.seqno, &ids);
    let checked = check(&edited, text, &group, physical, &members);
    checked.map_err(|corrupt| refuse_group(&format!("its metadata could not be edited: {corrupt}")))?;
    let smallest = members.iter().flat_map(|member| &member.physical.areas).map(|(_, size)| size - MDA_HEADER).min();
    if smallest.is_none_or(|room| edited.len() as u64 > room) {
        return Err(refuse_group(&format!("its metadata of {} bytes has no room", edited.len())));
    }
    Ok(Plan { text: edited, members })
}

fn new_id(random: &mut dyn FnMut(&mut [u8])) -> String {
    let mut id = String::new();
    while id.len() < 32 {
        let mut bytes = [0; 64];
        random(&mut bytes);
        // Bytes beyond the largest multiple of 62 would favour the first characters.
        let fair = bytes.iter().filter(|byte| **byte < 248).take(32 - id.len());
        id.extend(fair.map(|byte| char::from(CHARACTERS[usize::from(byte % 62)])));
    }
    id
}

/// The text of a group as the first area of a physical volume that is in use has it.
fn current_text(disk: &dyn WriteAt, physical: &PhysicalVolume, group: &str) -> Result<Option<Vec<u8>>> {
    let window = Window::new(disk, physical.start, physical.len)?;
    for &(offset, size) in &physical.areas {
        if let Ok(Some(text)) = physical_volume::read_area(&window, offset, size)?
            && physical_volume::decode_text(&text).is_ok_and(|text| text.id == group)
        {
            return Ok(Some(text));
        }
    }
    Ok(None)
}

/// The text with other UUIDs, the next number, and without what it tells of the host that wrote it.
fn edit(source: &[u8], seqno: u64, ids: &[(String, String)]) -> Vec<u8> {
    let source = source.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut edited = Vec::with_capacity(source.len() + 64);
    let mut is_described = false;
    for line in source.split_inclusive(|byte| *byte == b'\n') {
        let indent = line.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let (blank, rest) = line.split_at(indent);
        let is =
            |key: &str| rest.strip_prefix(key.as_bytes()).is_some_and(|rest| rest.trim_ascii_start().starts_with(b"="));
        let replaced = if is("seqno") {
            Some(format!("seqno = {}", seqno.saturating_add(1)))
        } else if is("description") {
            is_described = true;
            Some(format!("description = \"{SEALED}\""))
        } else if is("creation_host") {
            Some(format!("creation_host = \"{HOST}\""))
        } else {
            None
        };
        match replaced {
            Some(replaced) => {
                edited.extend_from_slice(blank);
                edited.extend_from_slice(replaced.as_bytes());
                edited.push(b'\n');
            }
            // The name of the disk in that machine, which LVM2 takes for a hint.
            None if is("device_id") || is("device_id_type") => {}
            // When, by which version and on which kernel it was written.
            None if rest.starts_with(b"#") => {}
            None => edited.extend_from_slice(line),
        }
    }
    if !is_described {
        edited.extend_from_slice(format!("\ndescription = \"{SEALED}\"\n").as_bytes());
    }
    let mut text = edited;
    for (old, new) in ids {
        text = replace(&text, old.as_bytes(), new.as_bytes());
    }
    // LVM2 counts the NUL that ends it.
    text.push(0);
    text
}

fn replace(text: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.windows(old.len()).position(|window| window == old) {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(new);
        rest = &rest[at + old.len()..];
    }
    replaced.extend_from_slice(rest);
    replaced
}

/// Whether the edited text says of every logical volume what the old one says.
fn check(
    edited: &[u8],
    old: &Text,
    old_group: &Group<'_>,
    physical: &[PhysicalVolume],
    members: &[Member<'_>],
) -> Result<(), Corrupt> {
    let text = physical_volume::decode_text(edited)?;
    if text.seqno <= old.seqno || text.name != old.name || text.id == old.id || text.description != SEALED {
        return Err(Corrupt::new("it does not say what was put into it"));
    }
    let as_renewed = |one: &PhysicalVolume| {
        let renewed = members.iter().find(|member| member.physical.id == one.id);
        one.with_id(renewed.map_or_else(|| one.id.clone(), |member| member.id.clone()))
    };
    let physical: Vec<_> = physical.iter().map(as_renewed).collect();
    let group = Group::decode(&text, &physical)?;
    let same = group.logical.len() == old_group.logical.len()
        && group.members.iter().map(|member| &member.volume).eq(old_group.members.iter().map(|member| &member.volume))
        && group.logical.iter().zip(&old_group.logical).all(|(new, old)| {
            (&new.name, &new.uuid, new.visible) == (&old.name, &old.uuid, old.visible)
                && group.map(new) == old_group.map(old)
        });
    if same { Ok(()) } else { Err(Corrupt::new("it says something else of the logical volumes")) }
}

/// Writes label and metadata areas of a physical volume.
fn write(disk: &dyn WriteAt, member: &Member<'_>, text: &[u8]) -> Result<()> {
    let physical = member.physical;
    let window = Window::new(disk, physical.start, physical.len)?;
    for &(offset, size) in &physical.areas {
        let bytes = read_vec(&window, offset, MDA_HEADER)?;
        let Ok((mut header, _)) = MdaHeader::read_from_prefix(&bytes) else { continue };
        // Only the first place counts; what is kept of it are flags: an area may be one that is not to be used.
        let flags = header.raw_locations[0].flags;
        let empty = RawLocation { offset: 0.into(), size: 0.into(), checksum: 0.into(), flags: 0.into() };
        header.raw_locations = [empty; 4];
        header.raw_locations[0] = RawLocation {
            offset: MDA_HEADER.into(),
            size: (text.len() as u64).into(),
            checksum: crc(text).into(),
            flags,
        };
        let mut bytes = vec![0; MDA_HEADER as usize];
        bytes[..size_of::<MdaHeader>()].copy_from_slice(header.as_bytes());
        header.checksum = crc(&bytes[4..]).into();
        bytes[..size_of::<MdaHeader>()].copy_from_slice(header.as_bytes());
        // Older texts are in the rest of the ring.
        window.write_zeroes(offset + MDA_HEADER, size - MDA_HEADER)?;
        window.write_at(offset + MDA_HEADER, text)?;
        window.write_at(offset, &bytes)?;
    }
    let at = physical.label_sector * SECTOR;
    let mut sector = read_vec(&window, at, SECTOR)?;
    let uuid = sector.get_mut(physical.header_offset..).and_then(|header| header.get_mut(..32));
    // The label was read: its header lies in the sector.
    uuid.into_iter().for_each(|uuid| uuid.copy_from_slice(member.id.as_bytes()));
    let sum = crc(&sector[20..]);
    sector[16..20].copy_from_slice(&sum.to_le_bytes());
    window.write_at(at, &sector)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_edited_in_place() {
        let text =
            b"vg {\nid = \"AAA\"\nseqno = 7\npv0 {\n\tid = \"BBB\"\n\tdevice = \"/dev/sda2\"\n\tdevice_id = \"wwn\"\n\
            \tdevice_id_type = \"sys_wwid\"\n}\nlv { creation_time = 5\n creation_host = \"old\"\t# Linux\n}\n}\n\
            # Generated by LVM2\ndescription = \"Write from x\"\ncreation_host = \"old\"\t# Linux old\n\0";
        let edited = edit(text, 7, &[("AAA".to_owned(), "CCC".to_owned()), ("BBB".to_owned(), "DDD".to_owned())]);
        let expected = "vg {\nid = \"CCC\"\nseqno = 8\npv0 {\n\tid = \"DDD\"\n\tdevice = \"/dev/sda2\"\n}\n\
            lv { creation_time = 5\n creation_host = \"localhost\"\n}\n}\n\
            description = \"Sealed by goldenseal\"\ncreation_host = \"localhost\"\n\0";
        assert_eq!(String::from_utf8(edited).unwrap(), expected);
    }

    #[test]
    fn new_ids_are_ones_of_lvm2() {
        let mut byte = 0_u8;
        let mut random =
            |bytes: &mut [u8]| bytes.iter_mut().for_each(|one| (*one, byte) = (byte, byte.wrapping_add(7)));
        let ids: Vec<_> = (0..3).map(|_| new_id(&mut random)).collect();
        assert!(ids.iter().all(|id| physical_volume::id(id.as_bytes()).as_deref() == Some(id.as_str())), "{ids:?}");
        assert_ne!(ids[0], ids[1]);
    }
}
