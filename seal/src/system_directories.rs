//! Directories that belong to the system: nobody's home, and no place to remove from by way of a link.

/// Whether a canonical path is a directory that every system has for itself.
pub(crate) fn is_system_directory(path: &[u8]) -> bool {
    is_any_of(SYSTEM, path) || is_any_of(SHARED, path) || is_below_any_of(PROGRAMS, path)
}

/// Whether what is in a directory may be removed although a link led there. `/var/spool/mail` is often a link to
/// `/var/mail`; that `/var/crash` should be one to `/` is a mishap or a trap.
pub(crate) fn may_be_cleared_through_a_link(path: &[u8]) -> bool {
    let is_package_state = is_below_any_of(&["/usr/lib/sysimage"], path);
    is_package_state || !(is_any_of(SYSTEM, path) || is_below_any_of(PROGRAMS, path))
}

fn is_any_of(directories: &[&str], path: &[u8]) -> bool {
    directories.iter().any(|directory| directory.as_bytes() == path)
}

fn is_below_any_of(tops: &[&str], path: &[u8]) -> bool {
    tops.iter().any(|top| path.strip_prefix(top.as_bytes()).is_some_and(|below| below.starts_with(b"/")))
}

const SYSTEM: &[&str] = &[
    "/",
    "/bin",
    "/boot",
    "/boot/efi",
    "/dev",
    "/efi",
    "/etc",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/media",
    "/mnt",
    "/nix",
    "/opt",
    "/ostree",
    "/proc",
    "/sbin",
    "/snap",
    "/srv",
    "/sys",
    "/sysroot",
    "/usr",
    "/usr/bin",
    "/usr/games",
    "/usr/include",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/local",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/local/sbin",
    "/usr/local/share",
    "/usr/sbin",
    "/usr/share",
    "/usr/src",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/spool",
];

/// These, too, are nobody's; but links between them are usual.
const SHARED: &[&str] = &[
    "/run",
    "/run/lock",
    "/tmp",
    "/var/backups",
    "/var/home",
    "/var/lock",
    "/var/log",
    "/var/mail",
    "/var/opt",
    "/var/run",
    "/var/spool/mail",
    "/var/tmp",
];

/// What is below these belongs to the system as well.
const PROGRAMS: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/proc",
    "/sbin",
    "/sys",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/sbin",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_are_told_from_system_directories() {
        for system in ["/", "/usr", "/bin", "/usr/sbin", "/dev/shm", "/proc/1", "/etc/x", "/var/lib", "/tmp", "/run"] {
            assert!(is_system_directory(system.as_bytes()), "{system}");
        }
        for home in ["/root", "/home/ann", "/srv/bob", "/var/lib/postgresql", "/var/www", "/binary", "/opt/app"] {
            assert!(!is_system_directory(home.as_bytes()), "{home}");
        }
    }

    #[test]
    fn usual_links_may_be_followed_to_remove_what_is_there() {
        for usual in ["/var/mail", "/run", "/tmp", "/usr/lib/sysimage/rpm", "/var/roothome"] {
            assert!(may_be_cleared_through_a_link(usual.as_bytes()), "{usual}");
        }
        for trap in ["/", "/etc", "/etc/systemd/system", "/usr/bin", "/usr/lib/modules", "/home"] {
            assert!(!may_be_cleared_through_a_link(trap.as_bytes()), "{trap}");
        }
    }
}
