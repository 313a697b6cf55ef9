//! The program under the name `virt-sysprep` or `virt-customize`: that tool's own options, messages and exit codes.

mod arguments;
mod domain;
mod messages;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use guest::{Guest, OpenOptions};
use seal::{Accounts, Argument, Customization, Options, Progress, Selection};

use crate::args::Open;
use crate::commands::now;
use crate::disk::Disk;
use crate::render;
use arguments::{Arguments, Disks, Parsed};
use messages::Messages;

/// The tool that the program is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    VirtSysprep,
    VirtCustomize,
}

impl Tool {
    /// The tool of the name that the program was called by.
    pub(crate) fn of_program(program: &str) -> Option<Self> {
        match Path::new(program).file_name()?.to_str()? {
            "virt-sysprep" => Some(Self::VirtSysprep),
            "virt-customize" => Some(Self::VirtCustomize),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::VirtSysprep => "virt-sysprep",
            Self::VirtCustomize => "virt-customize",
        }
    }
}

/// Runs as the tool would; 0 or 1, as it ends.
pub(crate) fn run(tool: Tool, words: &[String]) -> ExitCode {
    let arguments = match arguments::parse(tool, words) {
        Ok(Parsed::Run(arguments)) => arguments,
        Ok(Parsed::Print(text)) => {
            render::text::line(text.trim_end());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            render::text::tool_error(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    match run_with(tool, &arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // These tools put names in quotation marks of their own.
            let text = render::text::chain(&error).replacen('\'', "‘", 1).replacen('\'', "’", 1);
            render::text::tool_error(&format!("{}: error: {text}", tool.name()));
            ExitCode::FAILURE
        }
    }
}

fn run_with(tool: Tool, arguments: &Arguments) -> Result<()> {
    let disk = match &arguments.disks {
        Disks::Files(files) => files.clone(),
        Disks::Domain(name) => domain::disks(name)?,
    };
    let [(image, format)] = disk.as_slice() else {
        bail!("a guest on several disks is not supported");
    };
    let selection = selection(tool, arguments)?;
    let options = Options {
        // What cannot be mounted is a warning to virt-sysprep.
        allow_unmounted: true,
        scrub: tool == Tool::VirtSysprep,
        accounts: Accounts { keep: arguments.keep_accounts.clone(), remove: arguments.remove_accounts.clone() },
        scripts: if arguments.dry_run { Vec::new() } else { arguments.scripts.clone() },
        script_folder: arguments.script_folder.clone(),
        customizations: arguments.customize.customizations()?,
        password_crypto: arguments.customize.password_crypto(),
        ..Options::default()
    };
    let messages = Messages::new(arguments.quiet, Instant::now());
    if arguments.dry_run && !arguments.scripts.is_empty() {
        render::text::tool_error(&format!("{}: warning: a dry run runs no script", tool.name()));
    }
    messages.say("Examining the guest ...");
    let open = Open::of_format(*format);
    let disk = Disk::open(image, &open, !arguments.dry_run)?;
    refuse_what_keeps_secrets(tool, &disk)?;
    let open = OpenOptions { root: None, read_only: false, now: now() };
    let mut guest = Guest::open(disk.device(), &open).with_context(|| format!("{}", image.display()))?;
    let report = seal::run_with_progress(&mut guest, &selection, &options, &mut |progress| {
        if let Progress::Operation(operation) = progress {
            if tool == Tool::VirtSysprep {
                messages.say(&format!("Performing \"{}\" ...", operation.name));
            }
            if operation.name == "customize" {
                let is_password = |one: &&Customization| matches!(one, Customization::Password { .. });
                options
                    .customizations
                    .iter()
                    .filter(|one| !is_password(one))
                    .for_each(|one| messages.customization(one));
                options.customizations.iter().find(is_password).into_iter().for_each(|one| messages.customization(one));
            }
        }
    })?;
    for warning in guest.warnings().iter().chain(&report.warnings) {
        render::text::tool_error(&format!("{}: warning: {warning}", tool.name()));
    }
    for note in &report.notes {
        messages.say(note);
    }
    if arguments.verbose {
        for change in report.changes() {
            render::text::tool_error(&format!("{:?} {}", change.action, change.path).to_lowercase());
        }
    }
    drop(guest);
    if !arguments.dry_run {
        disk.commit()?;
    }
    if tool == Tool::VirtCustomize {
        messages.say("Finishing off");
    }
    Ok(())
}

/// What cannot be sealed is refused here, too: these tools do not know of it, and would say that all is well.
fn refuse_what_keeps_secrets(tool: Tool, disk: &Disk) -> Result<()> {
    if tool == Tool::VirtCustomize {
        return Ok(());
    }
    if let Some(transaction) = disk.transaction() {
        let info = transaction.image().info()?;
        if let Some(snapshot) = info.snapshots.first() {
            bail!(
                "the internal snapshot {} keeps all that it holds: use `goldenseal seal --snapshots`",
                render::escape(&snapshot.name)
            );
        }
    }
    Ok(())
}

fn selection(tool: Tool, arguments: &Arguments) -> Result<Selection> {
    if tool == Tool::VirtCustomize {
        return Ok(Selection::from_arguments(&[Argument::Enable("customize")])?);
    }
    let given: Vec<_> = arguments
        .selection
        .iter()
        .map(|(enable, list)| if *enable { Argument::Enable(list) } else { Argument::Operations(list) })
        .collect();
    Ok(Selection::from_arguments(&given)?.of_virt_sysprep())
}
