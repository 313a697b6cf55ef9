//! `--enable-service` and `--disable-service`: what `systemctl enable` and `disable` do to links.

use std::collections::BTreeSet;

use guest::FileKind;
use guest::path::join;

use super::unit_file::{self, UnitFile, full_name, split_name};
use crate::Result;
use crate::changes::{Changes, name_of};
use crate::requested::refused;

const LINKS: &str = "/etc/systemd/system";

/// Makes the links that the unit's `[Install]` section asks for, and those of the units that it names with `Also=`.
pub(super) fn enable(changes: &mut Changes<'_>, unit: &str) -> Result<()> {
    if enable_in_openrc(changes, unit)? {
        return Ok(());
    }
    let first = full_name(unit)?;
    let mut waiting = vec![first.clone()];
    let mut done = BTreeSet::new();
    while let Some(name) = waiting.pop() {
        if !done.insert(name.clone()) {
            continue;
        }
        let unit = unit_file::find(changes, &name)?;
        if unit.install.is_empty() && name == first {
            changes.warn(format!("{name} has no [Install] section: it is started by others, and was not enabled"));
        }
        make_links(changes, &name, &unit)?;
        for also in &unit.install.also {
            waiting.push(full_name(&expand(also, &name, &unit)?)?);
        }
    }
    Ok(())
}

/// The links of one unit.
fn make_links(changes: &mut Changes<'_>, name: &str, unit: &UnitFile) -> Result<()> {
    let (prefix, instance, suffix) = split_name(name);
    let (unit_prefix, ..) = split_name(&unit.name);
    let install = &unit.install;
    // What stands in the directories of wants: the instance that was asked for, the default one, or the unit itself.
    let linked = match (instance, &install.default_instance) {
        (Some(""), Some(default)) => format!("{unit_prefix}@{default}.{suffix}"),
        (Some(""), None) if install.wanted_by.iter().chain(&install.required_by).any(|by| !by.contains('@')) => {
            return refused(format!("{name} is a template: say of what, as in {prefix}@NAME.{suffix}"));
        }
        (Some(instance), _) if !instance.is_empty() => format!("{unit_prefix}@{instance}.{suffix}"),
        _ => unit.name.clone(),
    };
    let target = target(changes, unit)?;
    for alias in &install.alias {
        let alias = expand(alias, &linked, unit)?;
        check_link_name(&alias, &linked)?;
        link(changes, &target, &format!("{LINKS}/{alias}"))?;
    }
    for (list, directory) in
        [(&install.wanted_by, "wants"), (&install.required_by, "requires"), (&install.upheld_by, "upholds")]
    {
        for by in list {
            let by = full_name(&expand(by, &linked, unit)?)?;
            link(changes, &target, &format!("{LINKS}/{by}.{directory}/{linked}"))?;
        }
    }
    Ok(())
}

/// An alias may name a directory of wants, too: `getty.target.wants/x.service`.
fn check_link_name(alias: &str, unit: &str) -> Result<()> {
    let ((_, instance, suffix), (_, alias_instance, alias_suffix)) = (split_name(unit), split_name(alias));
    if !alias.contains('/') && (instance, suffix) != (alias_instance, alias_suffix) {
        return refused(format!("'{alias}' is no alias that {unit} can have"));
    }
    let mut parts = alias.split('/');
    let is_name = |part: Option<&str>| part.is_some_and(|part| !part.is_empty() && !part.starts_with('.'));
    let (first, second) = (parts.next(), parts.next());
    if is_name(first) && second.is_none_or(|second| is_name(Some(second))) && parts.next().is_none() {
        Ok(())
    } else {
        refused(format!("'{alias}' is no alias"))
    }
}

/// What links lead to: the unit's place as this guest's own links spell it.
fn target(changes: &Changes<'_>, unit: &UnitFile) -> Result<String> {
    let Some(rest) = unit.path.strip_prefix("/usr/lib/systemd/system/") else { return Ok(unit.path.clone()) };
    // With /usr merged both lead there. Debian 12 writes the one without /usr.
    for directory in ["multi-user.target.wants", "sysinit.target.wants", "timers.target.wants", "getty.target.wants"] {
        let directory = format!("{LINKS}/{directory}");
        for name in changes.names_in(directory.as_bytes())? {
            let path = join(directory.as_bytes(), &name);
            let is_link = changes.lstat(&path)?.is_some_and(|metadata| metadata.kind == FileKind::Symlink);
            if is_link && changes.read_link(&path)?.starts_with(b"/lib/systemd/system/") {
                return Ok(format!("/lib/systemd/system/{rest}"));
            }
        }
    }
    Ok(unit.path.clone())
}

fn link(changes: &mut Changes<'_>, target: &str, path: &str) -> Result<()> {
    let path = path.as_bytes();
    match changes.lstat(path)? {
        None => {
            changes.check_path(path)?;
            changes.create_link(target.as_bytes(), path)
        }
        Some(metadata) if metadata.kind == FileKind::Symlink => {
            let old = changes.read_link(path)?;
            let leads_there = old == target.as_bytes()
                || changes
                    .resolve(path)?
                    .is_some_and(|to| changes.resolve(target.as_bytes()).is_ok_and(|t| t == Some(to)));
            if leads_there { Ok(()) } else { changes.force_link(target.as_bytes(), path) }
        }
        Some(_) => refused(format!("{} exists and is no link", crate::GuestPath::from(path))),
    }
}

/// Specifiers, as far as they are known before a boot. See systemd.unit(5), SPECIFIERS.
fn expand(text: &str, name: &str, unit: &UnitFile) -> Result<String> {
    let (prefix, instance, suffix) = split_name(name);
    let mut expanded = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            expanded.push(c);
            continue;
        }
        match chars.next() {
            Some('%') => expanded.push('%'),
            Some('i') => expanded.push_str(instance.unwrap_or_default()),
            Some('I') => expanded.push_str(&instance.unwrap_or_default().replace('-', "/")),
            Some('n') => expanded.push_str(name),
            Some('N') => expanded.push_str(name.strip_suffix(&format!(".{suffix}")).unwrap_or(name)),
            Some('p') => expanded.push_str(prefix),
            Some('j') => expanded.push_str(prefix.rsplit('-').next().unwrap_or(prefix)),
            _ => return refused(format!("{} holds '{text}', which is known only to the running guest", unit.path)),
        }
    }
    Ok(expanded)
}

/// Removes all links to the unit, and to those that it names with `Also=`.
pub(super) fn disable(changes: &mut Changes<'_>, unit: &str) -> Result<()> {
    let first = full_name(unit)?;
    if changes.is_file(format!("/etc/init.d/{unit}").as_bytes())? && changes.is_directory(b"/etc/runlevels")? {
        for level in changes.names_in(b"/etc/runlevels")? {
            changes.remove_file(&join(&join(b"/etc/runlevels", &level), unit.as_bytes()))?;
        }
        return Ok(());
    }
    let mut waiting = vec![first];
    let mut names = BTreeSet::new();
    while let Some(name) = waiting.pop() {
        if !names.insert(name.clone()) {
            continue;
        }
        let unit = unit_file::find(changes, &name)?;
        for also in &unit.install.also {
            waiting.push(full_name(&expand(also, &name, &unit)?)?);
        }
        if unit.name != name && split_name(&name).1.is_none() {
            names.insert(unit.name);
        }
    }
    let mut links = Vec::new();
    for entry in changes.names_in(LINKS.as_bytes())? {
        let path = join(LINKS.as_bytes(), &entry);
        let is_dependencies = [&b".wants"[..], b".requires", b".upholds"].iter().any(|end| entry.ends_with(end));
        if is_dependencies {
            links.extend(changes.names_in(&path)?.into_iter().map(|name| join(&path, &name)));
        } else {
            links.push(path);
        }
    }
    for link in links {
        if changes.lstat(&link)?.is_some_and(|metadata| metadata.kind == FileKind::Symlink) {
            let target = changes.read_link(&link)?;
            let is_of = |name: &String| {
                let (_, instance, _) = split_name(name);
                // An instance goes alone; a template goes with all its instances.
                match instance {
                    Some(instance) if !instance.is_empty() => name_of(&link) == name.as_bytes(),
                    _ => name_of(&link) == name.as_bytes() || name_of(&target) == name.as_bytes(),
                }
            };
            if target != b"/dev/null" && names.iter().any(is_of) {
                changes.remove_file(&link)?;
            }
        }
    }
    Ok(())
}

/// Where OpenRC is and systemd is not, a service is a link in a run level.
fn enable_in_openrc(changes: &mut Changes<'_>, unit: &str) -> Result<bool> {
    let is_openrc = changes.is_directory(b"/etc/runlevels/default")?
        && !changes.is_file(b"/usr/lib/systemd/systemd")?
        && !changes.is_file(b"/lib/systemd/systemd")?;
    if !is_openrc {
        return Ok(false);
    }
    let service = unit.strip_suffix(".service").unwrap_or(unit);
    full_name(service)?;
    let script = format!("/etc/init.d/{service}");
    if !changes.is_file(script.as_bytes())? {
        return refused(format!("the guest has no service {script}"));
    }
    let link = format!("/etc/runlevels/default/{service}");
    if changes.lstat(link.as_bytes())?.is_none() {
        changes.create_link(script.as_bytes(), link.as_bytes())?;
    }
    Ok(true)
}
