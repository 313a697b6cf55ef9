//! The command line.

pub(crate) mod customize;
pub(crate) mod image;

use std::path::PathBuf;

use seal::Preset;

use clap::{ArgAction, Args as ClapArgs, Parser, Subcommand, ValueEnum};

/// Turns a used virtual machine image into a golden image: removes all that makes the guest one particular machine
/// (host keys, machine ID, MAC addresses, logs, histories), so that it is truly gone, straight on the image file.
#[derive(Debug, Parser)]
#[command(name = "goldenseal", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Seal images: each in place and atomically, or to a new file with -o
    Seal(Seal),
    /// Change a guest's files: the customize options without the operations
    Customize(CustomizeImage),
    /// Say what still makes a guest one particular machine; exit code 3 if anything does
    Audit(Audit),
    /// Show partitions, file systems, operating system and mounts
    Inspect(Inspect),
    /// List the operations that sealing performs
    Operations(Operations),
    /// List files of the guest
    Ls(Ls),
    /// Print files of the guest
    Cat(Cat),
    /// Copy files and directories of the guest to a folder
    CopyOut(CopyOut),
    /// Say which files differ between two guests; exit code 3 if any does
    Diff(Diff),
    /// Work on image files, with the names and options of qemu-img
    #[command(subcommand)]
    Image(image::Image),
    /// Print the completions of a shell
    Completions(Completions),
    /// Write the manual pages, one for each command, to a folder
    ManualPages(ManualPages),
}

/// Which guest of which image, common to all commands that open one.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Open {
    /// IMAGE's format; by default it is told by the file's first bytes
    #[arg(long, value_name = "FORMAT")]
    pub(crate) input_format: Option<Format>,
    /// The root file system to take if there are several, as `inspect` names it: gpt:3
    #[arg(long, value_name = "DEVICE")]
    pub(crate) root: Option<String>,
    /// Where the redo log of a raw image or a block device is kept; by default beside the image, as IMAGE.redo-log
    #[arg(long, value_name = "FILE")]
    pub(crate) redo_log: Option<PathBuf>,
    /// Folder where a backing file may be, besides the image's own (may be repeated)
    #[arg(long, value_name = "DIR")]
    pub(crate) backing_dir: Vec<PathBuf>,
    /// File that holds the passphrase of an encrypted image, all of its bytes (repeated: that of its backing file, and so on)
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Vec<PathBuf>,
}

impl Open {
    /// An image of this format, with its only system.
    pub(crate) fn of_format(format: Option<Format>) -> Self {
        Self { input_format: format, root: None, redo_log: None, backing_dir: Vec::new(), passphrase_file: Vec::new() }
    }
}

/// Which operations.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Select {
    /// Operations to perform: NAME, -NAME, defaults, all, separated by commas (may be repeated)
    #[arg(long, alias = "operation", value_name = "LIST", allow_hyphen_values = true)]
    pub(crate) operations: Vec<String>,
    /// Perform exactly these operations
    #[arg(long, value_name = "LIST")]
    pub(crate) enable: Vec<String>,
    /// What the image is for, where the choice of operations begins
    #[arg(long, value_name = "PRESET", value_parser = preset, conflicts_with = "enable")]
    pub(crate) preset: Option<Preset>,
    /// Read choices from a profile in TOML: preset, operations, customize, operations of its own
    #[arg(long, value_name = "FILE", conflicts_with = "enable")]
    pub(crate) profile: Option<PathBuf>,
    /// Only the operations of virt-sysprep
    #[arg(long, value_name = "TOOL")]
    pub(crate) compat: Option<Compat>,
    /// What operation machine-id leaves
    #[arg(long, value_name = "WHAT", default_value = "empty")]
    pub(crate) machine_id: MachineIdChoice,
    /// Accounts that operation user-account removes; by default all ordinary ones
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) remove_user_accounts: Vec<String>,
    /// Accounts that operation user-account keeps
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) keep_user_accounts: Vec<String>,
    /// Go on, with a warning, where a file system that an operation looks into cannot be mounted
    #[arg(long)]
    pub(crate) allow_unmounted: bool,
    /// Do not zero unused space: what was removed stays readable on the disk
    #[arg(long)]
    pub(crate) no_scrub: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Seal {
    /// Image to seal
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<PathBuf>,
    /// Leave IMAGE as it is and write the sealed, compacted image to OUT
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: Option<PathBuf>,
    /// Replace OUT if it exists
    #[arg(long, requires = "output")]
    pub(crate) force: bool,
    /// Format of OUT: qcow2 unless said otherwise
    #[arg(long = "format", value_name = "FORMAT", requires = "output")]
    pub(crate) output_format: Option<Format>,
    /// Compress OUT
    #[arg(long, value_name = "TYPE", requires = "output")]
    pub(crate) compress: Option<Compress>,
    /// Write OUT without encryption where IMAGE is encrypted; otherwise it is encrypted with the same passphrase
    #[arg(long, requires = "output")]
    pub(crate) decrypt: bool,
    /// Line for the host's bash, run in a copy of the guest's files whose changes are taken over (may be repeated)
    #[arg(long, value_name = "SCRIPT")]
    pub(crate) script: Vec<String>,
    /// Folder for that copy, empty, as an absolute path
    #[arg(long, value_name = "DIR", requires = "script")]
    pub(crate) scriptdir: Option<PathBuf>,
    /// Do everything but write: the report is exact
    #[arg(short = 'n', long, alias = "dryrun")]
    pub(crate) dry_run: bool,
    /// What to do with a guest that was suspended to disk: to go on from there would damage its file systems
    #[arg(long, value_name = "WHAT", default_value = "refuse")]
    pub(crate) hibernation: Hibernation,
    /// What to do with internal snapshots, which keep what they hold
    #[arg(long, value_name = "WHAT", default_value = "refuse")]
    pub(crate) snapshots: Snapshots,
    /// What to do with a backing file, which keeps what it holds
    #[arg(long, value_name = "WHAT", default_value = "refuse")]
    pub(crate) backing: BackingFile,
    /// Write a report for auditors: one page of HTML that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Do not search the sealed image for bytes of what was removed
    #[arg(long)]
    pub(crate) no_residue_search: bool,
    /// A warning is an error: nothing is written, and the exit code is 4
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) open: Open,
    #[command(flatten)]
    pub(crate) select: Select,
    #[command(flatten)]
    pub(crate) customize: customize::Customize,
    #[command(flatten)]
    pub(crate) print: Print,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CustomizeImage {
    /// Image to change, in place and atomically
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<PathBuf>,
    /// Do everything but write: the report is exact
    #[arg(short = 'n', long, alias = "dryrun")]
    pub(crate) dry_run: bool,
    /// A warning is an error: nothing is written, and the exit code is 4
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) open: Open,
    #[command(flatten)]
    pub(crate) customize: customize::Customize,
    #[command(flatten)]
    pub(crate) print: Print,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Audit {
    /// Image to look at
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) open: Open,
    #[command(flatten)]
    pub(crate) select: Select,
    #[command(flatten)]
    pub(crate) print: Print,
}

/// How a report is printed.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Print {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Print warnings and errors only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print every path
    #[arg(short, long, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Inspect {
    /// Image to look at
    pub(crate) image: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Operations {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Print what each operation touches
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Print the documentation of all operations in Markdown
    #[arg(long, hide = true)]
    pub(crate) markdown: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Ls {
    /// Image to look into
    pub(crate) image: PathBuf,
    /// Directory or file of the guest
    #[arg(default_value = "/")]
    pub(crate) path: String,
    /// Mode, owner, size and time as well
    #[arg(short, long)]
    pub(crate) long: bool,
    /// All below as well
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Cat {
    /// Image to look into
    pub(crate) image: PathBuf,
    /// Files of the guest
    #[arg(required = true)]
    pub(crate) paths: Vec<String>,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CopyOut {
    /// Image to look into
    pub(crate) image: PathBuf,
    /// Files and directories of the guest, and the folder to copy them to
    #[arg(required = true, num_args = 2.., value_name = "PATH|FOLDER")]
    pub(crate) paths: Vec<String>,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Diff {
    /// Image to compare from
    pub(crate) old: PathBuf,
    /// Image to compare with it
    pub(crate) new: PathBuf,
    /// Directory or file of the guests
    #[arg(default_value = "/")]
    pub(crate) path: String,
    /// Times of the last change of contents as well
    #[arg(long)]
    pub(crate) times: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Print nothing: the exit code says it
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Completions {
    /// Shell to complete for
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ManualPages {
    /// Folder to write to, which has to exist
    pub(crate) folder: PathBuf,
}

fn preset(name: &str) -> Result<Preset, String> {
    let known = Preset::ALL.iter().find(|(known, _)| *known == name);
    known.map(|(_, preset)| *preset).ok_or_else(|| {
        let names: Vec<_> = Preset::ALL.iter().map(|(name, _)| *name).collect();
        format!("it is none of {}", names.join(", "))
    })
}

/// A tool whose operations are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compat {
    /// The operations that virt-sysprep has, and no others
    VirtSysprep,
}

/// What a sealed guest has for a machine ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MachineIdChoice {
    /// An empty file: the next boot makes an ID, and is no first boot
    Empty,
    /// The word `uninitialized`: the next boot is a first boot
    Uninitialized,
    /// No file: the next boot is a first boot
    Removed,
}

/// An image format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// QEMU's image format
    Qcow2,
    /// The bytes of the disk
    Raw,
}

/// How clusters of a new image are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compress {
    /// Read by every program that reads qcow2
    Zlib,
    /// Faster; read by QEMU 5.1 and later
    Zstd,
}

/// What to do with a guest that was suspended to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Hibernation {
    /// Refuse to seal it
    Refuse,
    /// Give up what was in its memory, as by a loss of power
    Discard,
}

/// What to do with internal snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Snapshots {
    /// Refuse to seal an image that has any
    Refuse,
    /// Delete them
    Delete,
    /// Keep them, and what they hold
    Keep,
}

/// What to do with a backing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackingFile {
    /// Refuse to seal an image that has one in place
    Refuse,
    /// Keep it, and what it holds
    Keep,
}
