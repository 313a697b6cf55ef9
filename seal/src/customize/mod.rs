//! Customizations: what a person wants changed in the guest besides the operations, in the order of the command line.

mod cloud_init;
mod copy;
mod edit;
mod edit_subset;
mod firewall;
mod firstboot;
mod hostname;
mod option;
mod package;
mod parse;
mod password;
mod password_hash;
mod service;
mod ssh_inject;
mod timezone;
mod unit_file;

use std::fmt;
use std::path::PathBuf;

use crate::changes::Changes;
use crate::{Error, GuestPath, Options, Result};

pub use option::{CUSTOMIZE_OPTIONS, CustomizeOption, OptionKind};
pub use parse::CustomizationError;
pub use password::{PasswordCrypto, PasswordSelector};

/// One customization. [`Customization::parse`] makes it of an option and its argument.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the fields are what the option's argument is made of; CUSTOMIZE_OPTIONS describes each"
)]
pub enum Customization {
    AppendLine { file: String, line: String },
    Chmod { mode: u32, path: String },
    Chown { uid: u32, gid: u32, path: String },
    CloudInit { user_data: PathBuf, meta_data: Option<PathBuf>, network_config: Option<PathBuf> },
    Copy { from: String, to: String },
    CopyIn { local: PathBuf, directory: String },
    Delete { pattern: String },
    DisableService { unit: String },
    Edit { file: String, expression: String },
    EnableService { unit: String },
    FirewallPort { port: String, protocol: String, zone: Option<String> },
    FirewallService { service: String, zone: Option<String> },
    Firstboot { script: PathBuf },
    FirstbootCommand { command: String },
    FirstbootInstall { packages: Vec<String> },
    FirstbootUninstall { packages: Vec<String> },
    FirstbootUpdate,
    Hostname { name: String },
    Link { target: String, links: Vec<String> },
    Mkdir { directory: String },
    Move { from: String, to: String },
    Password { user: String, selector: PasswordSelector },
    Scrub { file: String },
    SshInject { user: String, key: SshKey },
    TarIn { archive: PathBuf, directory: String },
    Timezone { zone: String },
    Touch { file: String },
    Truncate { file: String },
    TruncateRecursive { path: String },
    Upload { local: PathBuf, path: String },
    Write { file: String, contents: String },
}

/// Where a public key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SshKey {
    /// A file of the host.
    File(PathBuf),
    /// The key itself.
    Text(String),
}

/// For messages: without contents and passwords.
impl fmt::Display for Customization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AppendLine { file, .. } => write!(f, "--append-line {file}"),
            Self::Chmod { mode, path } => write!(f, "--chmod {mode:#o}:{path}"),
            Self::Chown { uid, gid, path } => write!(f, "--chown {uid}:{gid}:{path}"),
            Self::CloudInit { user_data, .. } => write!(f, "--cloud-init {}", user_data.display()),
            Self::Copy { from, to } => write!(f, "--copy {from}:{to}"),
            Self::CopyIn { local, directory } => write!(f, "--copy-in {}:{directory}", local.display()),
            Self::Delete { pattern } => write!(f, "--delete {pattern}"),
            Self::DisableService { unit } => write!(f, "--disable-service {unit}"),
            Self::Edit { file, .. } => write!(f, "--edit {file}"),
            Self::EnableService { unit } => write!(f, "--enable-service {unit}"),
            Self::FirewallPort { port, protocol, .. } => write!(f, "--firewall-add-port {port}/{protocol}"),
            Self::FirewallService { service, .. } => write!(f, "--firewall-add-service {service}"),
            Self::Firstboot { script } => write!(f, "--firstboot {}", script.display()),
            Self::FirstbootCommand { .. } => write!(f, "--firstboot-command"),
            Self::FirstbootInstall { packages } => write!(f, "--firstboot-install {}", packages.join(",")),
            Self::FirstbootUninstall { packages } => write!(f, "--uninstall {}", packages.join(",")),
            Self::FirstbootUpdate => write!(f, "--update"),
            Self::Hostname { name } => write!(f, "--hostname {name}"),
            Self::Link { target, .. } => write!(f, "--link {target}"),
            Self::Mkdir { directory } => write!(f, "--mkdir {directory}"),
            Self::Move { from, to } => write!(f, "--move {from}:{to}"),
            Self::Password { user, .. } => write!(f, "--password {user}"),
            Self::Scrub { file } => write!(f, "--scrub {file}"),
            Self::SshInject { user, .. } => write!(f, "--ssh-inject {user}"),
            Self::TarIn { archive, directory } => write!(f, "--tar-in {}:{directory}", archive.display()),
            Self::Timezone { zone } => write!(f, "--timezone {zone}"),
            Self::Touch { file } => write!(f, "--touch {file}"),
            Self::Truncate { file } => write!(f, "--truncate {file}"),
            Self::TruncateRecursive { path } => write!(f, "--truncate-recursive {path}"),
            Self::Upload { local, path } => write!(f, "--upload {}:{path}", local.display()),
            Self::Write { file, .. } => write!(f, "--write {file}"),
        }
    }
}

/// Does all customizations in their order, passwords last, as virt-customize does.
pub(crate) fn perform(changes: &mut Changes<'_>, options: &Options) -> Result<()> {
    changes.ask();
    password::check(&options.customizations)?;
    let mut firstboot = firstboot::Firstboot::default();
    for customization in &options.customizations {
        perform_one(changes, customization, &mut firstboot).map_err(|error| failed(customization, error))?;
    }
    for customization in &options.customizations {
        if let Customization::Password { user, selector } = customization {
            let done = password::set(changes, user, selector, options.password_crypto);
            done.map_err(|error| failed(customization, error))?;
        }
    }
    Ok(())
}

fn failed(customization: &Customization, source: Error) -> Error {
    let customization = GuestPath::from(customization.to_string().into_bytes()).to_string();
    Error::Customization { customization, source: Box::new(source) }
}

fn perform_one(
    changes: &mut Changes<'_>,
    customization: &Customization,
    firstboot: &mut firstboot::Firstboot,
) -> Result<()> {
    match customization {
        Customization::AppendLine { file, line } => edit::append_line(changes, file.as_bytes(), line.as_bytes()),
        Customization::Chmod { mode, path } => changes.set_mode(path.as_bytes(), *mode),
        Customization::Chown { uid, gid, path } => changes.set_owner(path.as_bytes(), *uid, *gid),
        Customization::CloudInit { user_data, meta_data, network_config } => {
            cloud_init::install(changes, user_data, meta_data.as_deref(), network_config.as_deref())
        }
        Customization::Copy { from, to } => changes.copy(from.as_bytes(), to.as_bytes()),
        Customization::CopyIn { local, directory } => copy::copy_in(changes, local, directory.as_bytes()),
        Customization::Delete { pattern } => changes.delete(pattern),
        Customization::DisableService { unit } => service::disable(changes, unit),
        Customization::Edit { file, expression } => edit::edit(changes, file.as_bytes(), expression),
        Customization::EnableService { unit } => service::enable(changes, unit),
        Customization::FirewallPort { port, protocol, zone } => {
            firewall::add_port(changes, port, protocol, zone.as_deref())
        }
        Customization::FirewallService { service, zone } => firewall::add_service(changes, service, zone.as_deref()),
        Customization::Firstboot { script } => {
            let text = copy::read_local(script)?;
            firstboot.add(changes, &script.to_string_lossy(), &text)
        }
        Customization::FirstbootCommand { command } => firstboot.add(changes, command, command.as_bytes()),
        Customization::FirstbootInstall { packages } => {
            let command = package::install_command(changes, packages)?;
            firstboot.add(changes, &format!("install {}", packages.join(" ")), command.as_bytes())
        }
        Customization::FirstbootUninstall { packages } => {
            let command = package::uninstall_command(changes, packages)?;
            firstboot.add(changes, &format!("uninstall {}", packages.join(" ")), command.as_bytes())
        }
        Customization::FirstbootUpdate => {
            let command = package::update_command(changes)?;
            firstboot.add(changes, "update", command.as_bytes())
        }
        Customization::Hostname { name } => hostname::set(changes, name),
        Customization::Link { target, links } => {
            links.iter().try_for_each(|link| changes.force_link(target.as_bytes(), link.as_bytes()))
        }
        Customization::Mkdir { directory } => changes.make_directories(directory.as_bytes()),
        Customization::Move { from, to } => changes.rename(from.as_bytes(), to.as_bytes()),
        // At the end, once for all.
        Customization::Password { .. } => Ok(()),
        Customization::Scrub { file } => changes.scrub_file(file.as_bytes()),
        Customization::SshInject { user, key } => ssh_inject::inject(changes, user, key),
        Customization::TarIn { archive, directory } => copy::tar_in(changes, archive, directory.as_bytes()),
        Customization::Timezone { zone } => timezone::set(changes, zone),
        Customization::Touch { file } => changes.touch(file.as_bytes()),
        Customization::Truncate { file } => changes.truncate(file.as_bytes()),
        Customization::TruncateRecursive { path } => changes.truncate_below(path.as_bytes()),
        Customization::Upload { local, path } => copy::upload(changes, local, path.as_bytes()),
        Customization::Write { file, contents } => changes.write_file(file.as_bytes(), contents.as_bytes()),
    }
}
