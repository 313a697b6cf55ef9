//! The machine ID, of systemd and of D-Bus.

use crate::changes::Changes;
use crate::operation::{Operation, Step, Treatment};
use crate::{GuestPath, MachineId, Options, Result, text};

pub(crate) static OPERATION: Operation = Operation {
    name: "machine-id",
    heading: "Remove the local machine ID",
    enabled: true,
    about: "`/etc/machine-id` is emptied and stays empty, so that each clone makes its own ID when it first boots, and \
            no other first-boot step is set off. One that says `uninitialized` is left. D-Bus's own copy, which systemd \
            would take for the ID, becomes a link to it; where there is no `/etc/machine-id`, it goes, and D-Bus makes \
            one. `--machine-id` asks for `uninitialized` or no file in its \
            place, each of which makes the next boot a first boot. A kernel command line with a fixed `systemd.machine_id=` is warned of.",
    steps: &[
        Step::new(Treatment::EmptyFiles, &["/etc/machine-id"]),
        Step::new(Treatment::ReplaceByLink, &["/var/lib/dbus/machine-id"]),
    ],
    perform: Some(perform),
};

const SYSTEMD: &[u8] = b"/etc/machine-id";
const DBUS: &[u8] = b"/var/lib/dbus/machine-id";

fn perform(changes: &mut Changes<'_>, options: &Options) -> Result<()> {
    let systemd = match changes.resolve(SYSTEMD)? {
        Some(file) if changes.is_plain_file(&file)? => Some(file),
        _ => None,
    };
    if let Some(file) = &systemd {
        let start = changes.read_start(file, 64)?;
        let start = start.trim_ascii_end();
        // What a link leads to may be anything; only an ID is for this operation to empty.
        let is_id = start.len() == 32 && start.iter().all(u8::is_ascii_hexdigit);
        if is_id || (changes.is_plain_file(SYSTEMD)? && start != b"uninitialized") {
            changes.empty_file(file)?;
        }
    }
    if changes.is_plain_file(DBUS)? {
        match systemd {
            // The one is a link to the other already, the unusual way round.
            Some(file) if changes.resolve(DBUS)?.as_ref() == Some(&file) => {}
            Some(_) => changes.replace_by_link(SYSTEMD, DBUS)?,
            None => changes.remove_file(DBUS)?,
        }
    }
    match options.machine_id {
        MachineId::Empty => {}
        MachineId::Uninitialized => {
            if changes.is_plain_file(SYSTEMD)? {
                changes.edit(SYSTEMD, b"uninitialized\n")?;
            }
        }
        MachineId::Removed => changes.remove_file(SYSTEMD)?,
    }
    warn_of_fixed_ids(changes)
}

fn warn_of_fixed_ids(changes: &mut Changes<'_>) -> Result<()> {
    for pattern in COMMAND_LINES {
        for path in changes.glob(pattern)? {
            if changes.read_text(&path)?.is_some_and(|file| fixes_id(&file)) {
                let path = GuestPath::from(path);
                changes.warn(format!("{path} sets systemd.machine_id=, so all clones have that machine ID"));
            }
        }
    }
    Ok(())
}

/// Whether a kernel command line in the file sets an ID. `firmware`, which is no ID, is fine.
fn fixes_id(file: &[u8]) -> bool {
    let option = b"systemd.machine_id=";
    let mut words = file.split(|&byte| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\''));
    words.any(|word| {
        let value = word.strip_prefix(option).or_else(|| {
            // In `GRUB_CMDLINE_LINUX=systemd.machine_id=...` and the like it does not begin the word.
            let holds = text::holds(word, option);
            holds.then(|| word.rsplit(|&byte| byte == b'=').next().unwrap_or_default())
        });
        value.is_some_and(|id| id.iter().filter(|digit| digit.is_ascii_hexdigit()).count() >= 32)
    })
}

const COMMAND_LINES: &[&str] = &[
    "/boot/grub/grub.cfg",
    "/boot/grub/grubenv",
    "/boot/grub2/grub.cfg",
    "/boot/grub2/grubenv",
    "/boot/loader/entries/*.conf",
    "/etc/default/grub",
    "/etc/kernel/cmdline",
];

#[cfg(test)]
mod tests {
    use super::fixes_id;

    #[test]
    fn a_fixed_id_is_found_on_a_command_line() {
        let id = "0123456789abcdef0123456789abcdef";
        assert!(fixes_id(format!("linux /vmlinuz ro systemd.machine_id={id} quiet\n").as_bytes()));
        assert!(fixes_id(format!("GRUB_CMDLINE_LINUX=\"systemd.machine_id={id}\"").as_bytes()));
        assert!(fixes_id(format!("kernelopts=systemd.machine_id={id}").as_bytes()));
        assert!(!fixes_id(b"systemd.machine_id=firmware quiet"));
        assert!(!fixes_id(format!("other.machine_id={id}").as_bytes()));
    }
}
