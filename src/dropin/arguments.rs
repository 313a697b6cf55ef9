//! The options of virt-sysprep and virt-customize, read as getopt_long_only reads them: one dash or two, `=` or a word of
//! its own, and any beginning of a name that no other has.

use std::path::PathBuf;

use anyhow::Result;
use seal::{CUSTOMIZE_OPTIONS, PasswordCrypto};

use super::Tool;
use crate::args::Format;
use crate::args::customize::Customize;
use crate::render;

/// What the command line asks for.
#[derive(Debug)]
pub(super) enum Parsed {
    Run(Arguments),
    Print(String),
}

#[derive(Debug)]
pub(super) enum Disks {
    Files(Vec<(PathBuf, Option<Format>)>),
    Domain(String),
}

#[derive(Debug)]
pub(super) struct Arguments {
    pub(super) disks: Disks,
    /// Whether it is of `--enable`, and the list.
    pub(super) selection: Vec<(bool, String)>,
    pub(super) customize: Customize,
    pub(super) keep_accounts: Vec<String>,
    pub(super) remove_accounts: Vec<String>,
    pub(super) scripts: Vec<String>,
    pub(super) script_folder: Option<PathBuf>,
    pub(super) dry_run: bool,
    pub(super) quiet: bool,
    pub(super) verbose: bool,
}

/// Options of the tools besides the customize options: name, whether it has an argument, and which tools have it.
const OPTIONS: &[(&str, bool, &[Tool])] = &[
    ("add", true, BOTH),
    ("attach", true, &[Tool::VirtCustomize]),
    ("attach-format", true, &[Tool::VirtCustomize]),
    ("color", false, BOTH),
    ("colors", false, BOTH),
    ("colour", false, BOTH),
    ("colours", false, BOTH),
    ("connect", true, BOTH),
    ("domain", true, BOTH),
    ("dry-run", false, BOTH),
    ("dryrun", false, BOTH),
    ("echo-keys", false, BOTH),
    ("enable", true, &[Tool::VirtSysprep]),
    ("format", true, BOTH),
    ("help", false, BOTH),
    ("keep-user-accounts", true, &[Tool::VirtSysprep]),
    ("key", true, BOTH),
    ("keys-from-stdin", false, BOTH),
    ("list-operations", false, &[Tool::VirtSysprep]),
    ("memsize", true, &[Tool::VirtCustomize]),
    ("mount-options", true, &[Tool::VirtSysprep]),
    ("network", false, BOTH),
    ("no-network", false, BOTH),
    ("operation", true, &[Tool::VirtSysprep]),
    ("operations", true, &[Tool::VirtSysprep]),
    ("password-crypto", true, BOTH),
    ("quiet", false, BOTH),
    ("remove-user-accounts", true, &[Tool::VirtSysprep]),
    ("script", true, &[Tool::VirtSysprep]),
    ("scriptdir", true, &[Tool::VirtSysprep]),
    ("smp", true, &[Tool::VirtCustomize]),
    ("verbose", false, BOTH),
    ("version", false, BOTH),
    ("wrap", false, BOTH),
];

const BOTH: &[Tool] = &[Tool::VirtSysprep, Tool::VirtCustomize];

/// Options of one letter.
const SHORT: &[(&str, &str)] = &[
    ("a", "add"),
    ("c", "connect"),
    ("d", "domain"),
    ("m", "memsize"),
    ("n", "dry-run"),
    ("q", "quiet"),
    ("V", "version"),
    ("v", "verbose"),
    ("x", "verbose"),
];

/// Reads the words after the program's name.
pub(super) fn parse(tool: Tool, words: &[String]) -> Result<Parsed> {
    let program = tool.name();
    let error = |reason: String| anyhow::anyhow!("{program}: error: {reason}");
    let mut disks = Vec::new();
    let mut domain = None;
    let mut format = None;
    let mut format_is_used = true;
    let mut selection = Vec::new();
    let mut given = Vec::new();
    let mut crypto = None;
    let (mut keep_accounts, mut remove_accounts) = (Vec::new(), Vec::new());
    let (mut scripts, mut script_folder) = (Vec::new(), None);
    let (mut dry_run, mut quiet, mut verbose) = (false, false, false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(option) = word.strip_prefix('-').filter(|option| !option.is_empty()) else {
            return Err(error(format!("extra parameter '{}' on the command line", render::escape(word))));
        };
        let option = option.strip_prefix('-').unwrap_or(option);
        let (name, attached) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (option, None),
        };
        let (name, has_argument) = known(tool, name)?;
        let value = match (has_argument, attached) {
            (true, Some(value)) => value,
            (true, None) => match words.next() {
                Some(value) => value.clone(),
                None => anyhow::bail!("{program}: option '{word}' requires an argument"),
            },
            (false, Some(_)) => anyhow::bail!("{program}: option '--{name}' doesn't allow an argument"),
            (false, None) => String::new(),
        };
        let names = |list: &str| list.split(',').map(str::to_owned).collect::<Vec<_>>();
        match name {
            "add" => {
                disks.push((PathBuf::from(value.strip_prefix("file://").unwrap_or(&value)), format));
                format_is_used = true;
            }
            "domain" if domain.is_some() => return Err(error("--domain option can only be given once".to_owned())),
            "domain" => domain = Some(value),
            "dry-run" | "dryrun" => dry_run = true,
            "enable" => selection.push((true, value)),
            "operation" | "operations" => selection.push((false, value)),
            "format" => {
                format = match value.as_str() {
                    "auto" => None,
                    "qcow2" => Some(Format::Qcow2),
                    "raw" => Some(Format::Raw),
                    _ => return Err(error(format!("the format '{}' is not supported", render::escape(&value)))),
                };
                format_is_used = false;
            }
            "help" => return Ok(Parsed::Print(help(tool))),
            "version" => return Ok(Parsed::Print(format!("{program} (goldenseal {})", env!("CARGO_PKG_VERSION")))),
            "list-operations" => return Ok(Parsed::Print(list_operations())),
            "keep-user-accounts" => keep_accounts.append(&mut names(&value)),
            "remove-user-accounts" => remove_accounts.append(&mut names(&value)),
            "password-crypto" => crypto = Some(PasswordCrypto::parse(&value).map_err(error)?),
            "quiet" => quiet = true,
            "verbose" => verbose = true,
            "script" => scripts.push(value),
            "scriptdir" if script_folder.is_some() => {
                return Err(error("--scriptdir cannot be used more than once".to_owned()));
            }
            "scriptdir" => script_folder = Some(PathBuf::from(value)),
            // What is for an appliance, a terminal or a key means nothing here.
            _ if OPTIONS.iter().any(|(known, ..)| *known == name) => {}
            _ => given.push((name, value)),
        }
    }
    if !format_is_used {
        return Err(error("--format parameter must appear before -a parameter".to_owned()));
    }
    let disks = match (disks.is_empty(), domain) {
        (false, None) => Disks::Files(disks),
        (true, Some(domain)) => Disks::Domain(domain),
        (true, None) => {
            let page = format!("Read {program}(1) man page for further information.");
            return Err(error(format!("you must give either -a or -d options.  {page}")));
        }
        (false, Some(_)) => return Err(error("you cannot give -a and -d options together".to_owned())),
    };
    let customize = Customize::new(given, crypto);
    Ok(Parsed::Run(Arguments {
        disks,
        selection,
        customize,
        keep_accounts,
        remove_accounts,
        scripts,
        script_folder,
        dry_run,
        quiet,
        verbose,
    }))
}

/// The option that a name stands for, and whether it takes an argument.
fn known(tool: Tool, name: &str) -> Result<(&'static str, bool)> {
    if let Some((_, long)) = SHORT.iter().find(|(short, _)| *short == name) {
        return known(tool, long);
    }
    let own = OPTIONS.iter().filter(|(.., tools)| tools.contains(&tool)).map(|(name, has, _)| (*name, *has));
    let all = own.chain(CUSTOMIZE_OPTIONS.iter().map(|option| (option.name, !option.argument.is_empty())));
    let candidates: Vec<_> = all.filter(|(known, _)| known.starts_with(name)).collect();
    let exact = candidates.iter().find(|(known, _)| *known == name).copied();
    match (exact, candidates.as_slice()) {
        (Some(option), _) | (None, &[option]) => Ok(option),
        _ => anyhow::bail!(
            "{program}: unrecognized option '--{}'\nTry ‘{program} --help’ or consult {program}(1) for more information.",
            render::escape(name),
            program = tool.name()
        ),
    }
}

/// As virt-sysprep lists them.
pub(super) fn list_operations() -> String {
    let ours = seal::operations().iter().filter(|operation| seal::is_of_virt_sysprep(operation.name));
    let mut all: Vec<_> = ours.map(|operation| (operation.name, operation.enabled, operation.heading)).collect();
    all.sort_unstable();
    let lines: Vec<_> = all
        .iter()
        .map(|(name, enabled, heading)| format!("{name} {} {heading}", if *enabled { '*' } else { ' ' }))
        .collect();
    lines.join("\n")
}

fn help(tool: Tool) -> String {
    let program = tool.name();
    let own: Vec<_> =
        OPTIONS.iter().filter(|(.., tools)| tools.contains(&tool)).map(|(name, ..)| format!("--{name}")).collect();
    let customize: Vec<_> = CUSTOMIZE_OPTIONS.iter().map(|option| format!("--{}", option.name)).collect();
    format!(
        "{program}: goldenseal under the name of {program}, with its options\n\n {program} [--options] -d domname\n\n \
         {program} [--options] -a disk.img\n\nOptions: {}\n\nCustomizing: {}\n\n\
         `goldenseal seal --help` and `goldenseal customize --help` say what each does.",
        own.join(" "),
        customize.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &str) -> Result<Parsed> {
        parse(Tool::VirtSysprep, &words.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    fn arguments(words: &str) -> Arguments {
        match parse_words(words).unwrap() {
            Parsed::Run(arguments) => arguments,
            Parsed::Print(text) => panic!("{text}"),
        }
    }

    #[test]
    fn options_are_read_as_getopt_reads_them() {
        let read =
            arguments("-q --format=raw -add a.img -write /etc/motd:x --operations defaults,-utmp --dryr --no-net");
        assert!(read.quiet && read.dry_run && !read.verbose);
        assert!(matches!(&read.disks, Disks::Files(files) if files == &[(PathBuf::from("a.img"), Some(Format::Raw))]));
        assert_eq!(read.selection, [(false, "defaults,-utmp".to_owned())]);
        assert_eq!(read.customize.customizations().unwrap().len(), 1);
        let read = arguments("-a x --script ./one --script=two --scriptdir /mnt");
        assert_eq!((read.scripts.len(), read.script_folder), (2, Some(PathBuf::from("/mnt"))));
    }

    #[test]
    fn what_is_wrong_is_said_in_the_tools_own_words() {
        for (words, said) in [
            ("--nonsense", "unrecognized option '--nonsense'\nTry"),
            ("-q", "error: you must give either -a or -d options."),
            ("-a x --format raw", "error: --format parameter must appear before -a parameter"),
            ("-a", "requires an argument"),
            ("-a x -d y", "together"),
            ("-a x y", "extra parameter"),
        ] {
            let error = parse_words(words).unwrap_err().to_string();
            assert!(error.starts_with("virt-sysprep: ") && error.contains(said), "{words}: {error}");
        }
    }

    #[test]
    fn the_operations_are_those_of_virt_sysprep() {
        let list = list_operations();
        assert_eq!(list.lines().count(), 45);
        assert!(list.contains("\nca-certificates   Remove CA certificates in the guest\n"));
        assert!(list.contains("\nmachine-id * Remove the local machine ID\n"));
    }
}
