//! The accounts of ordinary users.

mod account_files;

use std::collections::BTreeSet;

use guest::FileKind;
use guest::path::join;

use crate::accounts::{Account, decode_id};
use crate::changes::Changes;
use crate::ledger::is_within;
use crate::operation::{Operation, Step, Treatment};
use crate::options::Accounts;
use crate::system_directories::is_system_directory;
use crate::{GuestPath, Options, Result, text};
use account_files::Departure;

pub(crate) static OPERATION: Operation = Operation {
    name: "user-account",
    heading: "Remove the user accounts in the guest",
    enabled: false,
    about: "The accounts whose numbers lie between `UID_MIN` and `UID_MAX` of `/etc/login.defs` (1000 and 60000 where \
            that does not say), but for those of `--keep-user-accounts`; or of these only those of \
            `--remove-user-accounts`. With an account go its lines in all account files, its name in the member lists \
            of groups, the group that has its name unless others are in it, its mail, and its home. A home that is a \
            directory of the system, or that is or holds the home of an account that stays, is left with a warning.",
    steps: &[
        Step::new(
            Treatment::Edit,
            &["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/subuid", "/etc/subgid"],
        ),
        Step::new(
            Treatment::RemoveTrees,
            &[
                "~",
                "/var/lib/AccountsService/icons/*",
                "/var/lib/AccountsService/users/*",
                "/var/lib/systemd/linger/*",
                "/var/mail/*",
                "/var/spool/mail/*",
            ],
        ),
    ],
    perform: Some(perform),
};

fn perform(changes: &mut Changes<'_>, options: &Options) -> Result<()> {
    let Some(passwd) = changes.read_text(b"/etc/passwd")? else { return Ok(()) };
    let range = uid_range(changes)?;
    let goes = |account: &Account<'_>| goes(account, &range, &options.accounts);
    let (going, staying): (Vec<_>, Vec<_>) = Account::all(&passwd).partition(goes);
    if going.is_empty() {
        return Ok(());
    }

    let departure = Departure::new(&going, &staying);
    changes.edit(
        b"/etc/passwd",
        &text::without_lines(&passwd, |line| Account::decode(line).is_some_and(|one| goes(&one))),
    )?;
    departure.edit_files(changes)?;
    for name in departure.names().filter(|name| is_file_name(name)) {
        for directory in BY_NAME {
            changes.remove_tree(&join(directory.as_bytes(), name))?;
        }
    }
    remove_homes(changes, &going, &staying)
}

fn goes(account: &Account<'_>, range: &std::ops::RangeInclusive<u32>, accounts: &Accounts) -> bool {
    range.contains(&account.uid) && accounts.goes(account.name)
}

/// The numbers of ordinary accounts, of which 0 is never one.
fn uid_range(changes: &mut Changes<'_>) -> Result<std::ops::RangeInclusive<u32>> {
    let definitions = changes.read_text(b"/etc/login.defs")?.unwrap_or_default();
    let value = |wanted: &[u8]| {
        text::lines(&definitions)
            .filter_map(|line| {
                let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
                words.next().filter(|name| *name == wanted)?;
                decode_id(words.next()?)
            })
            .last()
    };
    Ok(value(b"UID_MIN").unwrap_or(1000).max(1)..=value(b"UID_MAX").unwrap_or(60000))
}

fn remove_homes(changes: &mut Changes<'_>, going: &[Account<'_>], staying: &[Account<'_>]) -> Result<()> {
    let mut occupied = Vec::new();
    for account in staying.iter().filter(|account| account.has_home()) {
        let home = changes.resolve(account.home)?.unwrap_or_else(|| account.home.to_vec());
        occupied.push((home, account.name));
    }
    let mut seen = BTreeSet::new();
    for account in going.iter().filter(|account| account.has_home()) {
        let Some(home) = changes.resolve(account.home)? else { continue };
        let is_directory = changes.lstat(&home)?.is_some_and(|metadata| metadata.kind == FileKind::Directory);
        if !is_directory || !seen.insert(home.clone()) {
            continue;
        }
        let holds = occupied.iter().find(|(other, _)| is_within(other, &home));
        let reason = match holds {
            _ if is_system_directory(&home) => "it is a directory of the system".to_owned(),
            Some((_, other)) => format!("account {} has its home there", GuestPath::from(*other)),
            None => {
                changes.remove_tree(&home)?;
                // If it was reached by a link, the link leads nowhere now.
                if changes.lstat(account.home)?.is_some_and(|metadata| metadata.kind == FileKind::Symlink) {
                    changes.remove_file(account.home)?;
                }
                continue;
            }
        };
        let (home, name) = (GuestPath::from(home), GuestPath::from(account.name));
        changes.warn(format!("the home {home} of the removed account {name} was left: {reason}"));
    }
    Ok(())
}

fn is_file_name(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0) && name.len() < 256
}

/// Directories in which an account has a file or directory of its name.
const BY_NAME: &[&str] = &[
    "/var/lib/AccountsService/icons",
    "/var/lib/AccountsService/users",
    "/var/lib/systemd/linger",
    "/var/mail",
    "/var/spool/mail",
];
