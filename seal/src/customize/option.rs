//! The options: one table for the command line, `--commands-from-file` and the documentation.

/// A customize option, as a command line has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CustomizeOption {
    /// Its name, without the two dashes.
    pub name: &'static str,
    /// What its argument is made of; empty for an option without one.
    pub argument: &'static str,
    /// One line of what it does.
    pub help: &'static str,
    /// Which group of options it belongs to.
    pub kind: OptionKind,
}

/// What an option needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionKind {
    /// It changes files.
    Files,
    /// It needs a running guest: it is refused, or becomes work for the first boot with `--defer`.
    NeedsGuest,
    /// It is for Windows guests, and refused.
    Windows,
    /// It is taken, and there is nothing to do: labels are right as files are made, and there is no log file.
    Ignored,
}

const fn option(name: &'static str, argument: &'static str, help: &'static str) -> CustomizeOption {
    CustomizeOption { name, argument, help, kind: OptionKind::Files }
}

const fn other(kind: OptionKind, name: &'static str, argument: &'static str, help: &'static str) -> CustomizeOption {
    CustomizeOption { name, argument, help, kind }
}

/// All customize options, in the order of their names.
pub const CUSTOMIZE_OPTIONS: &[CustomizeOption] = &[
    option("append-line", "FILE:LINE", "Append a line to a file, with the line ends that the file has"),
    option("chmod", "PERM:FILE", "Set the mode of a file; a number that begins with 0 is octal"),
    option("chown", "UID:GID:PATH", "Set owner and group, both as numbers"),
    option(
        "cloud-init",
        "USER-DATA[,META-DATA[,NETWORK-CONFIG]]",
        "Give cloud-init a seed of its own (NoCloud), checked first",
    ),
    option("commands-from-file", "FILE", "Read customize options from a file of the host, one a line"),
    option("copy", "SOURCE:DEST", "Copy files of the guest, with all below"),
    option("copy-in", "LOCALPATH:REMOTEDIR", "Copy files of the host into a directory of the guest"),
    option("delete", "PATH", "Delete what a pattern matches, with all below"),
    option("disable-service", "UNIT", "Do as `systemctl disable UNIT`"),
    option("edit", "FILE:EXPR", "Edit each line of a file by a Perl expression"),
    option("enable-service", "UNIT", "Do as `systemctl enable UNIT`"),
    option(
        "firewall-add-port",
        "PORT/PROTOCOL[@ZONE]",
        "Let firewalld open a port, as `firewall-offline-cmd --add-port` does",
    ),
    option(
        "firewall-add-service",
        "NAME[@ZONE]",
        "Let firewalld open a service, as `firewall-offline-cmd --add-service` does",
    ),
    option("firstboot", "SCRIPT", "Run a script of the host at the guest's next boot, once"),
    option("firstboot-command", "COMMAND", "Run a shell command at the guest's next boot, once"),
    option("firstboot-install", "PKG,PKG..", "Install packages at the guest's next boot"),
    option("hostname", "HOSTNAME", "Set the host name"),
    other(OptionKind::Windows, "inject-blnsvr", "METHOD", "For Windows guests only: refused"),
    other(OptionKind::Windows, "inject-qemu-ga", "METHOD", "For Windows guests only: refused"),
    other(OptionKind::Windows, "inject-virtio-win", "METHOD", "For Windows guests only: refused"),
    other(
        OptionKind::NeedsGuest,
        "install",
        "PKG,PKG..",
        "Needs the running guest: refused, or done at its first boot with --defer",
    ),
    option("link", "TARGET:LINK[:LINK..]", "Make symbolic links, replacing files of their names"),
    option("mkdir", "DIR", "Make a directory and those above it"),
    option("move", "SOURCE:DEST", "Move files of the guest"),
    other(OptionKind::Ignored, "no-logfile", "", "Taken and needless: no log file is written"),
    other(OptionKind::Ignored, "no-selinux-relabel", "", "Taken and needless: only what is new is labelled, at once"),
    option(
        "password",
        "USER:SELECTOR",
        "Set a password: password:TEXT, file:FILE, random, disabled, locked, locked:SELECTOR",
    ),
    option("root-password", "SELECTOR", "Set root's password, as --password root:SELECTOR"),
    other(
        OptionKind::NeedsGuest,
        "run",
        "SCRIPT",
        "Needs the running guest: refused, or done at its first boot with --defer",
    ),
    other(
        OptionKind::NeedsGuest,
        "run-command",
        "COMMAND",
        "Needs the running guest: refused, or done at its first boot with --defer",
    ),
    option("scrub", "FILE", "Overwrite a file with zeros where it lies, then delete it"),
    other(OptionKind::Ignored, "selinux-relabel", "", "Taken and needless: only what is new is labelled, at once"),
    option(
        "ssh-inject",
        "USER[:SELECTOR]",
        "Add a public key to a user's authorized_keys: file:FILE or string:KEY; else the newest of ~/.ssh",
    ),
    option("tar-in", "TARFILE:REMOTEDIR", "Unpack an uncompressed tar archive of the host"),
    option("timezone", "TIMEZONE", "Set the time zone: Europe/Berlin"),
    option("touch", "FILE", "Make an empty file, or give one the current time"),
    option("truncate", "FILE", "Cut a file to length 0"),
    option("truncate-recursive", "PATH", "Cut every file at a path and below it to length 0"),
    other(
        OptionKind::NeedsGuest,
        "uninstall",
        "PKG,PKG..",
        "Needs the running guest: refused, or done at its first boot with --defer",
    ),
    other(
        OptionKind::NeedsGuest,
        "update",
        "",
        "Needs the running guest: refused, or done at its first boot with --defer",
    ),
    option("upload", "FILE:DEST", "Copy a file of the host, with its mode and owner"),
    option("write", "FILE:CONTENT", "Make a file hold exactly this"),
];
