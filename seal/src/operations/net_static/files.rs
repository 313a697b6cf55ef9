//! The files of each kind, with DHCP in the place of addresses. Lines that have nothing to do with them stay as they are.

use crate::text;

/// Keys of `ifcfg` files, which may have a number at their end: Red Hat's sysconfig.txt, ifcfg(5) of wicked.
const IFCFG: &[&str] = &[
    "BROADCAST",
    "DNS",
    "GATEWAY",
    "IPADDR",
    "IPV6ADDR",
    "IPV6ADDR_SECONDARIES",
    "IPV6_DEFAULTGW",
    "NETMASK",
    "NETWORK",
    "PREFIX",
    "PREFIXLEN",
];

pub(super) fn ifcfg(old: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    let key = |line: &[u8]| -> String {
        let key = line.split(|&byte| byte == b'=').next().unwrap_or_default();
        String::from_utf8_lossy(key).trim_end_matches(|digit: char| digit.is_ascii_digit()).to_owned()
    };
    let is_address = |line: &[u8]| matches!(key(line).as_str(), "IPADDR" | "IPV6ADDR");
    if !text::lines(old).any(is_address) {
        return Ok(None);
    }
    let without = text::without_lines(old, |line| IFCFG.contains(&key(line).as_str()));
    let is_protocol = |line: &[u8]| key(line) == "BOOTPROTO";
    if text::lines(&without).any(is_protocol) {
        return Ok(Some(text::with_lines(&without, |line| is_protocol(line).then(|| b"BOOTPROTO=dhcp\n".to_vec()))));
    }
    Ok(Some(with_last_line(without, b"BOOTPROTO=dhcp\n")))
}

fn with_last_line(mut text: Vec<u8>, line: &[u8]) -> Vec<u8> {
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    text.extend_from_slice(line);
    text
}

/// Options of a static stanza: interfaces(5).
const STANZA: &[&[u8]] = &[
    b"accept_ra",
    b"address",
    b"autoconf",
    b"broadcast",
    b"dns-domain",
    b"dns-nameserver",
    b"dns-nameservers",
    b"dns-search",
    b"gateway",
    b"netmask",
    b"network",
    b"pointopoint",
    b"scope",
];

pub(super) fn interfaces(old: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    let mut new = Vec::with_capacity(old.len());
    let mut in_static = false;
    let mut changed = false;
    for line in text::lines(old) {
        let words: Vec<&[u8]> = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
        match words.as_slice() {
            [b"iface", name, family, b"static"] if *name != b"lo" => {
                let method: &[u8] = if *family == b"inet6" { b"auto" } else { b"dhcp" };
                new.extend_from_slice(&[b"iface", *name, *family, method].join(&b' '));
                new.push(b'\n');
                (in_static, changed) = (true, true);
                continue;
            }
            // What begins another stanza.
            [b"iface" | b"auto" | b"mapping" | b"source" | b"source-directory" | b"rename" | b"no-auto-down", ..] => {
                in_static = false;
            }
            [first, ..] if first.starts_with(b"allow-") => in_static = false,
            [option, ..] if in_static && STANZA.contains(option) => continue,
            _ => {}
        }
        new.extend_from_slice(line);
    }
    Ok(changed.then_some(new))
}

pub(super) fn networkd(old: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    let has = |section: &[u8], key: &[u8], wanted: &[u8]| section == wanted && key == b"Address";
    let mut section: &[u8] = b"";
    let mut has_address = false;
    for line in text::lines(old).map(<[u8]>::trim_ascii) {
        match line {
            [b'[', ..] => section = line,
            _ => {
                let key = key_of(line);
                has_address |= has(section, key, b"[Network]") || has(section, key, b"[Address]");
            }
        }
    }
    if !has_address {
        return Ok(None);
    }
    let mut new = Vec::with_capacity(old.len());
    let mut section: &[u8] = b"";
    let mut says_dhcp = false;
    for line in text::lines(old) {
        let trimmed = line.trim_ascii();
        if trimmed.starts_with(b"[") {
            section = trimmed;
            if section == b"[Network]" {
                new.extend_from_slice(line);
                if !says_dhcp {
                    new.extend_from_slice(b"DHCP=yes\n");
                    says_dhcp = true;
                }
                continue;
            }
        }
        // Routes lead over a gateway that was set by hand.
        if matches!(section, b"[Address]" | b"[Route]") {
            continue;
        }
        if section == b"[Network]" && matches!(key_of(trimmed), b"Address" | b"DHCP" | b"DNS" | b"Domains" | b"Gateway")
        {
            continue;
        }
        new.extend_from_slice(line);
    }
    if !says_dhcp {
        new = with_last_line(new, b"[Network]\nDHCP=yes\n");
    }
    Ok(Some(new))
}

fn key_of(line: &[u8]) -> &[u8] {
    line.split(|&byte| byte == b'=').next().unwrap_or_default().trim_ascii()
}

/// Keys of an interface that go: netplan's YAML reference.
const NETPLAN: &[&[u8]] = &[b"addresses", b"gateway4", b"gateway6", b"nameservers", b"routes"];

/// YAML in block style, as netplan and all installers write it; values in one line may be in flow style.
pub(super) fn netplan(old: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    let indent = |line: &[u8]| line.iter().take_while(|byte| **byte == b' ').count();
    let is_blank = |line: &[u8]| line.trim_ascii().is_empty() || line.trim_ascii_start().starts_with(b"#");
    let key = |line: &[u8]| -> Option<(Vec<u8>, Vec<u8>)> {
        let at = line.iter().position(|&byte| byte == b':')?;
        Some((line.get(..at)?.trim_ascii().to_vec(), line.get(at + 1..)?.trim_ascii().to_vec()))
    };
    let lines: Vec<&[u8]> = text::lines(old).collect();
    let mut new = Vec::with_capacity(old.len());
    let mut changed = false;
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        at += 1;
        // An interface: a name, two levels below `network`, with keys below it.
        let own = indent(line);
        let is_interface = !is_blank(line) && key(line).is_some_and(|(_, value)| value.is_empty());
        let end = lines.iter().skip(at).position(|next| !is_blank(next) && indent(next) <= own);
        let below = lines.get(at..end.map_or(lines.len(), |end| at + end)).unwrap_or_default();
        let level = below.iter().find(|next| !is_blank(next)).map_or(0, |next| indent(next));
        let own_keys = || below.iter().filter(|next| !is_blank(next) && indent(next) == level);
        let has_addresses = own_keys().any(|next| key(next).is_some_and(|(name, _)| name == b"addresses"));
        // The addresses of `nameservers` are no interface's.
        if !is_interface || !has_addresses || key(line).is_some_and(|(name, _)| name == b"nameservers") {
            new.extend_from_slice(line);
            continue;
        }
        new.extend_from_slice(line);
        new.extend(std::iter::repeat_n(b' ', level));
        new.extend_from_slice(b"dhcp4: true\n");
        let mut dropping = false;
        for next in below {
            if !is_blank(next) && indent(next) == level && !next.trim_ascii_start().starts_with(b"- ") {
                let (name, value) = key(next).unwrap_or_default();
                let open = value.starts_with(b"[") && !value.ends_with(b"]")
                    || value.starts_with(b"{") && !value.ends_with(b"}");
                if open {
                    return Err("a value in it goes over several lines");
                }
                dropping = name == b"dhcp4" || NETPLAN.contains(&name.as_slice());
            }
            if !dropping {
                new.extend_from_slice(next);
            }
        }
        at += below.len();
        changed = true;
    }
    Ok(changed.then_some(new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rewrite: super::super::Rewrite, old: &str, new: &str) {
        let rewritten = rewrite(old.as_bytes()).unwrap().map(|text| String::from_utf8(text).unwrap());
        assert_eq!(rewritten.as_deref(), Some(new));
        // Once is enough.
        assert_eq!(rewrite(new.as_bytes()).unwrap(), None);
    }

    #[test]
    fn ifcfg_of_red_hat_and_suse() {
        check(
            ifcfg,
            "DEVICE=eth0\nBOOTPROTO=none\nIPADDR=192.0.2.9\nPREFIX0=24\nGATEWAY=192.0.2.1\nDNS1=192.0.2.53\nONBOOT=yes\n",
            "DEVICE=eth0\nBOOTPROTO=dhcp\nONBOOT=yes\n",
        );
        check(
            ifcfg,
            "STARTMODE='auto'\nIPADDR_0='192.0.2.9/24'\nIPADDR='192.0.2.9/24'",
            "STARTMODE='auto'\nIPADDR_0='192.0.2.9/24'\nBOOTPROTO=dhcp\n",
        );
        assert_eq!(ifcfg(b"DEVICE=eth0\nBOOTPROTO=none\nMASTER=bond0\n").unwrap(), None);
    }

    #[test]
    fn stanzas_of_ifupdown() {
        check(
            interfaces,
            "auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet static\n\taddress 192.0.2.9/24\n\tgateway 192.0.2.1\n\tmtu 1400\niface eth0 inet6 static\n    address 2001:db8::9\nallow-hotplug eth1\niface eth1 inet dhcp\n",
            "auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet dhcp\n\tmtu 1400\niface eth0 inet6 auto\nallow-hotplug eth1\niface eth1 inet dhcp\n",
        );
    }

    #[test]
    fn files_of_networkd() {
        check(
            networkd,
            "[Match]\nName=en*\n\n[Network]\nAddress=192.0.2.9/24\nGateway=192.0.2.1\nDNS=192.0.2.53\nLLMNR=no\n\n[Route]\nGateway=192.0.2.2\n",
            "[Match]\nName=en*\n\n[Network]\nDHCP=yes\nLLMNR=no\n\n",
        );
        check(networkd, "[Match]\nName=a\n[Address]\nAddress=192.0.2.9/24", "[Match]\nName=a\n[Network]\nDHCP=yes\n");
        assert_eq!(networkd(b"[Match]\nName=en*\n[Network]\nDHCP=no\nBridge=br0\n").unwrap(), None);
    }

    #[test]
    fn interfaces_of_netplan() {
        check(
            netplan,
            "network:\n  version: 2\n  ethernets:\n    ens3:\n      addresses:\n      - 192.0.2.9/24\n      - \"2001:db8::9/64\"\n      dhcp4: no\n      mtu: 1400\n      nameservers:\n        addresses: [192.0.2.53]\n      routes:\n        - to: default\n          via: 192.0.2.1\n    ens4:\n      dhcp4: true\n",
            "network:\n  version: 2\n  ethernets:\n    ens3:\n      dhcp4: true\n      mtu: 1400\n    ens4:\n      dhcp4: true\n",
        );
        assert!(netplan(b"a:\n  b:\n    addresses: [1,\n      2]\n").is_err());
        assert_eq!(
            netplan(b"network:\n  ethernets:\n    a:\n      dhcp4: true\n      nameservers:\n        addresses: [1]\n")
                .unwrap(),
            None
        );
    }
}
