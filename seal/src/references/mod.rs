//! What names a volume by an ID that is about to change: found first, so that nothing changes where one cannot follow,
//! and rewritten then.

mod boot_image;
mod spelling;

use guest::FileKind;

pub(crate) use spelling::{Kind, Renames};

use crate::changes::{Changes, name_of, split};
use crate::{GuestPath, Result};

/// Where configuration that names volumes is. Whatever else is below is looked at, too.
const TOPS: [&[u8]; 3] = [b"/boot", b"/efi", b"/etc"];
/// A configuration file is no longer. What is longer in `/boot` is a kernel or the image of an early root file system.
const MAX_CONFIGURATION: u64 = 16 << 20;

/// Files that hold old IDs, each of which can be rewritten.
#[derive(Debug, Default)]
pub(crate) struct References {
    files: Vec<Vec<u8>>,
    /// Volumes that are not mounted and hold some.
    volumes: Vec<String>,
}

/// Where to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// All of the configuration.
    Configuration,
    /// That, and within the images that the early root file system is unpacked from.
    WithEarlyRoot,
}

impl References {
    /// Finds all that name the old IDs. The inner error says which of them cannot be rewritten, and why.
    pub(crate) fn find(changes: &Changes<'_>, renames: &Renames, reach: Reach) -> Result<Result<Self, String>> {
        let mut found = Self::default();
        for missing in changes.guest().unmounted() {
            let path = GuestPath::from(missing.path.as_slice());
            if missing.path == b"/boot" || missing.path == b"/etc" {
                return Ok(Err(format!("{path} is not mounted ({}), and holds references", missing.reason)));
            }
        }
        for top in TOPS {
            // What is linked to lies below one of these as well, or is not the boot loader's.
            if !changes.lstat(top)?.is_some_and(|metadata| metadata.kind == FileKind::Directory) {
                continue;
            }
            let mut files = Vec::new();
            changes.walk_names(top, &mut |path, kind| {
                if kind == FileKind::File {
                    files.push(path.to_vec());
                }
            })?;
            for path in files {
                match look_into(changes, &path, renames, reach)? {
                    Found::Nothing => {}
                    Found::Rewritable => found.files.push(path),
                    Found::Fixed(reason) => return Ok(Err(format!("{} {reason}", GuestPath::from(path)))),
                }
            }
        }
        let texts = renames.texts();
        let texts: Vec<&str> = texts.iter().map(|(old, _)| old.as_str()).collect();
        let vfat: Vec<String> = changes.guest().vfat_volumes().map(str::to_owned).collect();
        for volume in vfat {
            let count = |texts: &[&str]| changes.guest().count_in_volume(&volume, texts);
            if count(&texts).map_err(|source| changes.failed(source))? == 0 {
                continue;
            }
            let sections = [".cmdline", ".initrd\0"].map(|section| count(&[section]));
            let [cmdline, initrd] = sections;
            let is_unified = cmdline.map_err(|source| changes.failed(source))? > 0
                && initrd.map_err(|source| changes.failed(source))? > 0;
            if is_unified {
                return Ok(Err(format!("{volume} names it, and holds unified kernel images, which may be signed")));
            }
            found.volumes.push(volume);
        }
        Ok(Ok(found))
    }

    /// Rewrites what was found.
    pub(crate) fn rewrite(&self, changes: &mut Changes<'_>, renames: &Renames) -> Result<()> {
        for path in &self.files {
            let old = changes.read_all(path)?;
            changes.edit(path, &renames.replace(&old))?;
        }
        let texts = renames.texts();
        for volume in &self.volumes {
            changes.replace_in_volume(volume, &texts)?;
        }
        Ok(())
    }
}

enum Found {
    Nothing,
    Rewritable,
    /// It cannot be rewritten, because of this.
    Fixed(String),
}

fn look_into(changes: &Changes<'_>, path: &[u8], renames: &Renames, reach: Reach) -> Result<Found> {
    let Some(metadata) = changes.lstat(path)? else { return Ok(Found::Nothing) };
    let is_of_boot = !path.starts_with(b"/etc/");
    if is_of_boot && boot_image::is_one(&changes.read_start(path, boot_image::MAGIC_LEN)?) {
        if reach == Reach::Configuration {
            return Ok(Found::Nothing);
        }
        return Ok(match boot_image::holds(changes.guest(), path, renames) {
            Ok(false) => Found::Nothing,
            Ok(true) => {
                Found::Fixed("holds it in the early root file system, which only the guest can make anew".to_owned())
            }
            Err(reason) => Found::Fixed(format!("cannot be looked into for it: {reason}")),
        });
    }
    if metadata.size > MAX_CONFIGURATION {
        return Ok(match boot_image::holds_as_it_is(changes.guest(), path, renames) {
            Ok(false) => Found::Nothing,
            Ok(true) => Found::Fixed("holds it, and is too large for a file of configuration".to_owned()),
            Err(reason) => Found::Fixed(format!("cannot be looked into for it: {reason}")),
        });
    }
    let contents = changes.read_all(path)?;
    if !renames.are_in(&contents) {
        return Ok(Found::Nothing);
    }
    let is_text = !contents.contains(&0);
    let directory = split(path).map_or(path, |(parent, _)| parent);
    let platform = name_of(directory);
    // GRUB keeps beside its modules what it put into its own image: the image for BIOS is compressed, that for EFI
    // holds it as it is, here and in the EFI system partition.
    let is_of_grub = path.starts_with(b"/boot/grub") && platform.contains(&b'-');
    let is_for_efi = is_of_grub && platform.ends_with(b"-efi");
    if is_of_grub && !is_for_efi && name_of(path) == b"load.cfg" {
        return Ok(Found::Fixed(
            "says that GRUB's own image holds it, which only grub-install can make anew".to_owned(),
        ));
    }
    if is_text || (is_for_efi && path.ends_with(b".efi")) {
        return Ok(Found::Rewritable);
    }
    Ok(Found::Fixed("holds it, and is no text".to_owned()))
}
