//! MAC addresses in netplan's files.

use crate::changes::Changes;
use crate::operation::{Operation, Step, Treatment};
use crate::{Options, Result, text};

pub(crate) static OPERATION: Operation = Operation {
    name: "net-netplan",
    heading: "Remove MAC addresses from netplan's configuration",
    enabled: true,
    about: "A `match` by `macaddress`, and the `set-name` that goes with it: the interface is then known by the name of its \
            section. A `macaddress` that is set goes, too. All else stays.",
    steps: &[Step::new(Treatment::Edit, &["/etc/netplan/*.yaml"]).source("netplan documentation, match and macaddress")],
    perform: Some(perform),
};

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    for path in changes.glob("/etc/netplan/*.yaml")? {
        if let Some(old) = changes.read_text(&path)? {
            changes.edit(&path, &without_addresses(&old))?;
        }
    }
    Ok(())
}

/// The file without the keys, line by line: YAML in block style, as netplan and all installers write it.
fn without_addresses(yaml: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = text::lines(yaml).collect();
    let key = |line: &[u8]| {
        let line = line.trim_ascii();
        line.iter()
            .position(|&byte| byte == b':')
            .map(|at| (line[..at].trim_ascii_end().to_vec(), line[at + 1..].trim_ascii().to_vec()))
    };
    let indent = |line: &[u8]| line.iter().take_while(|byte| **byte == b' ').count();
    let is_blank = |line: &[u8]| line.trim_ascii().is_empty() || line.trim_ascii_start().starts_with(b"#");
    let mut goes = vec![false; lines.len()];
    for (at, line) in lines.iter().enumerate() {
        let Some((name, value)) = key(line) else { continue };
        match name.as_slice() {
            b"macaddress" => goes[at] = true,
            b"match" if value.is_empty() => {
                let below: Vec<usize> = (at + 1..lines.len())
                    .take_while(|&next| is_blank(lines[next]) || indent(lines[next]) > indent(line))
                    .filter(|&next| !is_blank(lines[next]))
                    .collect();
                let is_mac = |next: &usize| key(lines[*next]).is_some_and(|(name, _)| name == b"macaddress");
                // Nothing is left to match by: the section's own name is.
                if !below.is_empty() && below.iter().all(is_mac) {
                    goes[at] = true;
                    mark_set_name(&lines, at, &indent, &key, &mut goes);
                }
            }
            b"match" if is_only_mac(&value) => {
                goes[at] = true;
                mark_set_name(&lines, at, &indent, &key, &mut goes);
            }
            _ => {}
        }
    }
    lines.iter().zip(goes).filter(|(_, goes)| !goes).flat_map(|(line, _)| line.iter().copied()).collect()
}

/// `{macaddress: 52:54:00:12:34:56}`
fn is_only_mac(value: &[u8]) -> bool {
    let inner = value.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}"));
    inner.is_some_and(|inner| inner.trim_ascii().starts_with(b"macaddress") && !inner.contains(&b','))
}

type Key<'a> = dyn Fn(&[u8]) -> Option<(Vec<u8>, Vec<u8>)> + 'a;

/// Marks the `set-name` beside a `match` that goes: without one, netplan refuses it.
fn mark_set_name(lines: &[&[u8]], at: usize, indent: &dyn Fn(&[u8]) -> usize, key: &Key<'_>, goes: &mut [bool]) {
    let level = indent(lines[at]);
    let is_within = |line: &&[u8]| line.trim_ascii().is_empty() || indent(line) >= level;
    let start = lines[..at].iter().rposition(|line| !is_within(line)).map_or(0, |before| before + 1);
    let end = lines[at..].iter().position(|line| !is_within(line)).map_or(lines.len(), |after| at + after);
    for (offset, line) in lines[start..end].iter().enumerate() {
        if indent(line) == level && key(line).is_some_and(|(name, _)| name == b"set-name") {
            goes[start + offset] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::without_addresses;

    #[test]
    fn an_interface_is_known_by_its_name_again() {
        let old = "network:\n  version: 2\n  ethernets:\n    ens3:\n      match:\n        macaddress: \"52:54:00:12:34:56\"\n      dhcp4: true\n      set-name: ens3\n    ens4:\n      match: {name: en*, macaddress: 1}\n      set-name: x\n    ens5:\n      match:\n        driver: virtio\n        macaddress: 1\n      macaddress: 52:54:00:00:00:01\n";
        let new = "network:\n  version: 2\n  ethernets:\n    ens3:\n      dhcp4: true\n    ens4:\n      match: {name: en*, macaddress: 1}\n      set-name: x\n    ens5:\n      match:\n        driver: virtio\n";
        assert_eq!(String::from_utf8(without_addresses(old.as_bytes())).unwrap(), new);
        assert_eq!(
            without_addresses(
                b"a:\n  match: {macaddress: 52:54:00:12:34:56}\n  set-name: y\n  dhcp4: true\nb:\n  set-name: z\n"
            ),
            b"a:\n  dhcp4: true\nb:\n  set-name: z\n"
        );
    }
}
