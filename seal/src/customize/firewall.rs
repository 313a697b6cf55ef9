//! `--firewall-add-service` and `--firewall-add-port`: what `firewall-offline-cmd` does to the files of zones. See
//! firewalld.zone(5).

use crate::changes::Changes;
use crate::requested::refused;
use crate::{Result, text};

/// Lets a service of firewalld in.
pub(super) fn add_service(changes: &mut Changes<'_>, service: &str, zone: Option<&str>) -> Result<()> {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    if !is_name(service) {
        return refused(format!("'{service}' is no name of a service"));
    }
    let mut is_known = false;
    for directory in ["/etc/firewalld/services", "/usr/lib/firewalld/services"] {
        is_known |= changes.is_file(format!("{directory}/{service}.xml").as_bytes())?;
    }
    if !is_known {
        return refused(format!("the guest's firewalld knows no service '{service}'"));
    }
    add(changes, zone, &format!("<service name=\"{service}\"/>"), "<service ")
}

/// Lets a port, or a range of them, in.
pub(super) fn add_port(changes: &mut Changes<'_>, port: &str, protocol: &str, zone: Option<&str>) -> Result<()> {
    let numbers: Vec<Option<u16>> = port.splitn(2, '-').map(|number| number.parse().ok()).collect();
    let is_port = match numbers.as_slice() {
        [Some(_)] => true,
        [Some(first), Some(last)] => first < last,
        _ => false,
    };
    if !is_port {
        return refused(format!("'{port}' is no port and no range of ports"));
    }
    if !["tcp", "udp", "sctp", "dccp"].contains(&protocol) {
        return refused(format!("'{protocol}' is none of tcp, udp, sctp and dccp"));
    }
    add(changes, zone, &format!("<port port=\"{port}\" protocol=\"{protocol}\"/>"), "<port ")
}

/// Puts an element into the file of a zone, after those of its kind; the distribution's file is copied first.
fn add(changes: &mut Changes<'_>, zone: Option<&str>, element: &str, kind: &str) -> Result<()> {
    let zone = match zone {
        Some(zone) => zone.to_owned(),
        None => default_zone(changes)?,
    };
    if zone.is_empty()
        || zone.len() > 17
        || !zone.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/'))
    {
        return refused(format!("'{zone}' is no zone"));
    }
    let own = format!("/etc/firewalld/zones/{zone}.xml");
    let shipped = format!("/usr/lib/firewalld/zones/{zone}.xml");
    let mut xml = None;
    for file in [&own, &shipped] {
        if xml.is_none() {
            xml = changes.read_text(file.as_bytes())?;
        }
    }
    let Some(xml) = xml else { return refused(format!("the guest's firewalld has no zone '{zone}'")) };
    let Ok(xml) = String::from_utf8(xml) else { return refused(format!("{own} is not UTF-8")) };
    if compact(&xml).contains(&compact(element)) {
        return Ok(());
    }
    let Some(changed) = insert(&xml, element, kind) else {
        return refused(format!("the zone '{zone}' has no end that could be found"));
    };
    changes.make_directories(b"/etc/firewalld/zones")?;
    let is_new = changes.stat(own.as_bytes())?.is_none();
    changes.write_file(own.as_bytes(), changed.as_bytes())?;
    if is_new { changes.set_mode(own.as_bytes(), 0o644) } else { Ok(()) }
}

/// The element after the last of its kind; else where firewalld writes that kind.
fn insert(xml: &str, element: &str, kind: &str) -> Option<String> {
    // Firewalld writes short, description, interfaces, sources, services, ports and then the rest.
    let before: &[&str] = if kind == "<service " {
        &[kind, "<source ", "<interface ", "</description>", "</short>"]
    } else {
        &[kind, "<service ", "<source ", "<interface ", "</description>", "</short>"]
    };
    let after_last = before.iter().find_map(|tag| {
        let at = xml.rfind(tag)?;
        let rest = xml.get(at..)?;
        let end = rest.find('>')? + 1;
        Some(at + end)
    });
    let at = match after_last {
        Some(at) => at,
        None => {
            let start = xml.find("<zone")?;
            start + xml.get(start..)?.find('>')? + 1
        }
    };
    // An element that is empty has no room.
    xml.rfind("</zone>").filter(|end| *end >= at)?;
    Some(format!("{}\n  {element}{}", xml.get(..at)?, xml.get(at..)?))
}

/// The text without spaces and with one kind of quote, to compare elements by.
fn compact(xml: &str) -> String {
    xml.chars().filter(|c| !c.is_whitespace()).map(|c| if c == '\'' { '"' } else { c }).collect()
}

fn default_zone(changes: &mut Changes<'_>) -> Result<String> {
    let Some(configuration) = changes.read_text(b"/etc/firewalld/firewalld.conf")? else {
        return refused("the guest has no /etc/firewalld/firewalld.conf: it has no firewalld");
    };
    let zone = text::lines(&configuration).find_map(|line| {
        let value = line.trim_ascii().strip_prefix(b"DefaultZone=")?;
        Some(String::from_utf8_lossy(value.trim_ascii()).into_owned())
    });
    Ok(zone.filter(|zone| !zone.is_empty()).unwrap_or_else(|| "public".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_go_where_firewalld_writes_them() {
        let zone = "<zone>\n  <short>P</short>\n  <service name=\"ssh\"/>\n  <forward/>\n</zone>\n";
        let service = insert(zone, "<service name=\"http\"/>", "<service ").unwrap();
        assert!(service.contains("\"ssh\"/>\n  <service name=\"http\"/>\n  <forward/>"), "{service}");
        let port = insert(zone, "<port port=\"1\" protocol=\"tcp\"/>", "<port ").unwrap();
        assert!(port.contains("\"ssh\"/>\n  <port port=\"1\" protocol=\"tcp\"/>\n  <forward/>"), "{port}");
        assert_eq!(insert("<zone/>", "x", "<port "), None);
        assert!(
            insert("<zone target=\"DROP\">\n</zone>", "<x/>", "<port ")
                .unwrap()
                .starts_with("<zone target=\"DROP\">\n  <x/>")
        );
    }
}
