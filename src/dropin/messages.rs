//! What the tools say while they work: the seconds since the start, and the step.

use std::time::Instant;

use seal::Customization;

use crate::render;

/// Says what is done, unless it is to be quiet.
pub(super) struct Messages {
    quiet: bool,
    started: Instant,
}

impl Messages {
    pub(super) fn new(quiet: bool, started: Instant) -> Self {
        Self { quiet, started }
    }

    pub(super) fn say(&self, message: &str) {
        if !self.quiet {
            render::text::line(&format!("[{:6.1}] {message}", self.started.elapsed().as_secs_f64()));
        }
    }

    /// What virt-customize says of a customization, where it has it.
    pub(super) fn customization(&self, customization: &Customization) {
        let text = match customization {
            Customization::AppendLine { file, .. } => format!("Appending line to {file}"),
            Customization::Chmod { mode, path } => format!("Changing permissions of {path} to 0{mode:o}"),
            Customization::Copy { from, to } => format!("Copying (in image): {from} to {to}"),
            Customization::CopyIn { local, directory } => format!("Copying: {} to {directory}", local.display()),
            Customization::Delete { pattern } => format!("Deleting: {pattern}"),
            Customization::Edit { file, .. } => format!("Editing: {file}"),
            Customization::Firstboot { script } => format!("Installing firstboot script: {}", script.display()),
            Customization::FirstbootCommand { command } => format!("Installing firstboot command: {command}"),
            Customization::FirstbootInstall { packages } => {
                format!("Installing firstboot packages: {}", packages.join(" "))
            }
            Customization::Hostname { name } => format!("Setting the hostname: {name}"),
            Customization::Link { target, links } => format!("Linking: {} -> {target}", links.join(" ")),
            Customization::Mkdir { directory } => format!("Making directory: {directory}"),
            Customization::Move { from, to } => format!("Moving: {from} -> {to}"),
            Customization::Password { .. } => "Setting passwords".to_owned(),
            Customization::Scrub { file } => format!("Scrubbing: {file}"),
            Customization::SshInject { user, .. } => format!("SSH key inject: {user}"),
            Customization::Timezone { zone } => format!("Setting the timezone: {zone}"),
            Customization::Touch { file } => format!("Running touch: {file}"),
            Customization::Truncate { file } => format!("Truncating: {file}"),
            Customization::TruncateRecursive { path } => format!("Recursively truncating: {path}"),
            Customization::Upload { local, path } => format!("Uploading: {} to {path}", local.display()),
            Customization::Write { file, .. } => format!("Writing: {file}"),
            other => other.to_string().trim_start_matches("--").to_owned(),
        };
        self.say(&render::escape(&text));
    }
}
