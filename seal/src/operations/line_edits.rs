//! Operations that take lines out of configuration files.

use crate::changes::Changes;
use crate::operation::{Operation, Step, Treatment};
use crate::{Options, Result, text};

pub(crate) static MACHINE_INFO: Operation = Operation {
    name: "machine-info",
    heading: "Remove the pretty host name",
    enabled: true,
    about: "The line that names this one machine to people; all else in the file stays.",
    steps: &[Step::new(Treatment::Edit, &["/etc/machine-info"]).source("systemd, machine-info(5), and BUILDING_IMAGES")],
    perform: Some(|changes, _| drop_lines(changes, &MACHINE_INFO, &["PRETTY_HOSTNAME="])),
};

pub(crate) static GOOGLE_GUEST: Operation = Operation {
    name: "google-guest",
    heading: "Remove what Google's guest agent knows of its instance",
    enabled: true,
    about: "The ID of the instance: where it is another than the one that the agent finds, it makes new SSH host keys.",
    steps: &[
        Step::new(Treatment::RemoveFiles, &["/etc/google_instance_id"])
            .source("GoogleCloudPlatform/guest-agent, google_guest_agent/cfg/cfg.go: instance_id_dir"),
        Step::new(Treatment::Edit, &["/etc/default/instance_configs.cfg"])
            .source("GoogleCloudPlatform/guest-agent, google_guest_agent/cfg/cfg.go: Instance.InstanceID"),
    ],
    perform: Some(|changes, _| drop_lines(changes, &GOOGLE_GUEST, &["instance_id =", "instance_id="])),
};

pub(crate) static NET_INTERFACES: Operation = Operation {
    name: "net-interfaces",
    heading: "Remove MAC addresses from /etc/network/interfaces",
    enabled: true,
    about: "The lines that give an interface a fixed hardware address. Addresses and all else stay.",
    steps: &[Step::new(Treatment::Edit, &["/etc/network/interfaces", "/etc/network/interfaces.d/*"])
        .source("ifupdown, interfaces(5), hwaddress")],
    perform: Some(|changes, _| drop_lines(changes, &NET_INTERFACES, &["hwaddress "])),
};

pub(crate) static NET_WICKED: Operation = Operation {
    name: "net-wicked",
    heading: "Remove the DHCP identity and MAC addresses of wicked",
    enabled: true,
    about: "DHCP identities and leases go, and so do the lines `LLADDR=` of SUSE's `ifcfg` files.",
    steps: &[
        Step::new(
            Treatment::RemoveFiles,
            &["/var/lib/wicked/duid.xml", "/var/lib/wicked/iaid.xml", "/var/lib/wicked/lease-*"],
        )
        .source("wicked, wicked-config(5), and openSUSE's documentation on cloning"),
        Step::new(Treatment::Edit, &["/etc/sysconfig/network/ifcfg-*"]).source("ifcfg(5) of wicked, LLADDR"),
    ],
    perform: Some(|changes, _| drop_lines(changes, &NET_WICKED, &["LLADDR="])),
};

pub(crate) static POPULARITY_CONTEST: Operation = Operation {
    name: "popularity-contest",
    heading: "Remove the identity in Debian's popularity contest",
    enabled: true,
    about: "The line `MY_HOSTID=`, without which nothing is sent until the package is configured again.",
    steps: &[Step::new(Treatment::Edit, &["/etc/popularity-contest.conf"]).source("popularity-contest(8), MY_HOSTID")],
    perform: Some(|changes, _| drop_lines(changes, &POPULARITY_CONTEST, &["MY_HOSTID="])),
};

/// Takes the operation's steps, and in the files that it edits drops the lines that begin so.
fn drop_lines(changes: &mut Changes<'_>, operation: &Operation, beginnings: &[&str]) -> Result<()> {
    changes.take_steps()?;
    let goes = |line: &[u8]| beginnings.iter().any(|start| line.trim_ascii_start().starts_with(start.as_bytes()));
    for step in operation.steps.iter().filter(|step| step.treatment == Treatment::Edit) {
        for pattern in step.patterns {
            for path in changes.glob(pattern)? {
                if let Some(old) = changes.read_text(&path)? {
                    changes.edit(&path, &text::without_lines(&old, goes))?;
                }
            }
        }
    }
    Ok(())
}

pub(crate) static HOSTS_FILE: Operation = Operation {
    name: "hosts-file",
    heading: "Remove this machine's own address from /etc/hosts",
    enabled: true,
    about: "Lines that give the host's own name to an address that is not a loopback one: a clone has another. Lines of \
            127.0.0.0/8 and ::1 stay, for the name stays until it is changed.",
    steps: &[Step::new(Treatment::Edit, &["/etc/hosts"]).source("hosts(5); libguestfs issue 44")],
    perform: Some(remove_own_address),
};

fn remove_own_address(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    let Some(name) = changes.read_text(b"/etc/hostname")? else { return Ok(()) };
    let name = text::lines(&name).map(<[u8]>::trim_ascii).find(|line| !line.is_empty() && !line.starts_with(b"#"));
    let Some(name) = name.filter(|name| !name.starts_with(b"localhost")) else { return Ok(()) };
    let short = name.split(|&byte| byte == b'.').next().unwrap_or(name);
    let goes = |line: &[u8]| {
        let mut words = line.split(|byte| *byte == b'#').next().unwrap_or_default().split(u8::is_ascii_whitespace);
        let mut words = words.by_ref().filter(|word| !word.is_empty());
        let is_loopback =
            |address: &[u8]| address.starts_with(b"127.") || address == b"::1" || address.starts_with(b"fe00::");
        words.next().is_some_and(|address| !is_loopback(address)) && words.any(|word| word == name || word == short)
    };
    match changes.read_text(b"/etc/hosts")? {
        Some(old) => changes.edit(b"/etc/hosts", &text::without_lines(&old, goes)),
        None => Ok(()),
    }
}
