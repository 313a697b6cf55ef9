//! A guest of libvirt: its disks, by the XML that libvirt keeps of it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use crate::args::Format;

/// Where libvirt keeps the guests of the system.
const DOMAINS: &str = "/etc/libvirt/qemu";

/// The disks of a guest, by its name or UUID, or by a file with its XML.
pub(super) fn disks(name: &str) -> Result<Vec<(PathBuf, Option<Format>)>> {
    let file = file_of(name)?;
    let xml = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let disks = decode(&xml).with_context(|| format!("cannot read {}", file.display()))?.disks;
    if disks.is_empty() {
        bail!("{name}: libvirt guest has no disks that are files or devices of this host");
    }
    Ok(disks)
}

fn file_of(name: &str) -> Result<PathBuf> {
    if Path::new(name).extension().is_some_and(|extension| extension == "xml") && Path::new(name).is_file() {
        return Ok(name.into());
    }
    if !name.contains('/') {
        let file = Path::new(DOMAINS).join(format!("{name}.xml"));
        if file.is_file() {
            return Ok(file);
        }
        for entry in std::fs::read_dir(DOMAINS).into_iter().flatten().flatten() {
            let xml = std::fs::read_to_string(entry.path()).unwrap_or_default();
            if decode(&xml).is_ok_and(|domain| domain.uuid.eq_ignore_ascii_case(name)) {
                return Ok(entry.path());
            }
        }
    }
    bail!("there is no guest '{name}': neither {DOMAINS}/{name}.xml nor a file with a domain's XML");
}

#[derive(Debug, Default)]
struct Domain {
    uuid: String,
    disks: Vec<(PathBuf, Option<Format>)>,
}

/// A disk while its element is read.
#[derive(Debug, Default)]
struct Disk {
    source: Option<PathBuf>,
    format: Option<String>,
    is_disk: bool,
    is_read_only: bool,
}

fn decode(xml: &str) -> Result<Domain> {
    let mut reader = Reader::from_str(xml);
    let mut domain = Domain::default();
    let mut disk: Option<Disk> = None;
    let mut path: Vec<String> = Vec::new();
    loop {
        let (start, is_empty) = match reader.read_event()? {
            Event::Start(start) => (start, false),
            Event::Empty(start) => (start, true),
            Event::Text(text) => {
                if path.len() == 2 && path[1] == "uuid" {
                    domain.uuid = text.trim().to_owned();
                }
                continue;
            }
            Event::End(_) => {
                if path.last().is_some_and(|name| name == "disk")
                    && let Some(disk) = disk.take().filter(|disk| disk.is_disk && !disk.is_read_only)
                {
                    domain.disks.extend(disk.source.map(|source| (source, format_of(disk.format.as_deref()))));
                }
                path.pop();
                continue;
            }
            Event::Eof => return Ok(domain),
            _ => continue,
        };
        let name = start.name().as_ref().to_owned();
        if name == "disk" {
            let device = attribute(&start, "device")?;
            disk = Some(Disk { is_disk: device.is_none_or(|device| device == "disk"), ..Disk::default() });
        }
        // What lies deeper is of the backing chain.
        let is_of_disk = path.last().is_some_and(|parent| parent == "disk");
        if let Some(disk) = disk.as_mut().filter(|_| is_of_disk) {
            match name.as_str() {
                "source" => disk.source = attribute(&start, "file")?.or(attribute(&start, "dev")?).map(Into::into),
                "driver" => disk.format = attribute(&start, "type")?,
                "readonly" => disk.is_read_only = true,
                _ => {}
            }
        }
        if !is_empty {
            path.push(name);
        }
    }
}

fn format_of(name: Option<&str>) -> Option<Format> {
    match name {
        Some("qcow2") => Some(Format::Qcow2),
        Some("raw") => Some(Format::Raw),
        _ => None,
    }
}

fn attribute(start: &BytesStart<'_>, name: &str) -> Result<Option<String>> {
    for attribute in start.attributes() {
        let attribute = attribute?;
        if attribute.key.as_ref() == name {
            return Ok(Some(quick_xml::escape::unescape(&attribute.value)?.into_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disks_of_a_domain_are_read() {
        let domain = decode(
            "<domain type='kvm'><name>x</name><uuid>0d3c1b5e-9a77-4f2b-8c1d-5e6f7a8b9c0d</uuid><devices>\
             <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/a&amp;b.qcow2'/>\
             <backingStore><source file='/base'/></backingStore><target dev='vda'/></disk>\
             <disk type='file' device='cdrom'><source file='/cd.iso'/></disk>\
             <disk type='block'><driver type='raw'/><source dev='/dev/vg/lv'/></disk>\
             <disk type='file'><source file='/ro'/><readonly/></disk></devices></domain>",
        )
        .unwrap();
        assert_eq!(domain.uuid, "0d3c1b5e-9a77-4f2b-8c1d-5e6f7a8b9c0d");
        assert_eq!(
            domain.disks,
            [("/a&b.qcow2".into(), Some(Format::Qcow2)), ("/dev/vg/lv".into(), Some(Format::Raw))]
        );
        assert!(decode("<domain><devices></domain>").is_err());
    }
}
