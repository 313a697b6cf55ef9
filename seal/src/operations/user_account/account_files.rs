//! Taking accounts out of the files beside `/etc/passwd`.

use std::collections::HashSet;

use crate::accounts::{Account, decode_id};
use crate::changes::Changes;
use crate::{Result, text};

/// The accounts that leave, as the account files name them.
#[derive(Debug)]
pub(super) struct Departure<'a> {
    names: HashSet<&'a [u8]>,
    uids: HashSet<u32>,
    /// Groups that an account that stays has for its own.
    needed_gids: HashSet<u32>,
}

impl<'a> Departure<'a> {
    pub(super) fn new(going: &[Account<'a>], staying: &[Account<'_>]) -> Self {
        let staying_names: HashSet<_> = staying.iter().map(|account| account.name).collect();
        let staying_uids: HashSet<_> = staying.iter().map(|account| account.uid).collect();
        Self {
            names: going.iter().map(|account| account.name).filter(|name| !staying_names.contains(name)).collect(),
            uids: going.iter().map(|account| account.uid).filter(|uid| !staying_uids.contains(uid)).collect(),
            needed_gids: staying.iter().map(|account| account.gid).collect(),
        }
    }

    /// The names that are no account's any more, in their order.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut names: Vec<_> = self.names.iter().copied().collect();
        names.sort_unstable();
        names.into_iter()
    }

    pub(super) fn edit_files(&self, changes: &mut Changes<'_>) -> Result<()> {
        edit(changes, b"/etc/shadow", |file| text::without_lines(file, |line| self.names.contains(first_field(line))))?;

        let mut groups_left = HashSet::new();
        if let Some(group) = changes.read_text(b"/etc/group")? {
            let staying = text::lines(&group).filter(|line| !self.takes_group_along(line));
            groups_left = staying.map(|line| first_field(line).to_vec()).collect();
            let remaining = text::without_lines(&group, |line| self.takes_group_along(line));
            changes.edit(b"/etc/group", &text::with_lines(&remaining, |line| self.without_members(line, 3..4)))?;
        }
        edit(changes, b"/etc/gshadow", |file| {
            let goes = |line: &[u8]| {
                let name = first_field(line);
                self.names.contains(name) && !groups_left.contains(name)
            };
            text::with_lines(&text::without_lines(file, goes), |line| self.without_members(line, 2..4))
        })?;

        for file in [&b"/etc/subuid"[..], b"/etc/subgid"] {
            edit(changes, file, |file| {
                text::without_lines(file, |line| {
                    let owner = first_field(line);
                    self.names.contains(owner) || decode_id(owner).is_some_and(|uid| self.uids.contains(&uid))
                })
            })?;
        }
        Ok(())
    }

    /// Whether a group has the name of an account that leaves, and nobody else has to do with it.
    fn takes_group_along(&self, line: &[u8]) -> bool {
        let mut fields = text::without_end(line).split(|&byte| byte == b':');
        let is_own = fields.next().is_some_and(|name| self.names.contains(name));
        let is_needed = fields.nth(1).and_then(decode_id).is_some_and(|gid| self.needed_gids.contains(&gid));
        let mut members = fields.next().unwrap_or_default().split(|&byte| byte == b',');
        is_own && !is_needed && members.all(|member| member.is_empty() || self.names.contains(member))
    }

    /// The line without the accounts in its lists of members, if any is there.
    fn without_members(&self, line: &[u8], lists: std::ops::Range<usize>) -> Option<Vec<u8>> {
        let content = text::without_end(line);
        let end = line.get(content.len()..).unwrap_or_default();
        let fields = content.split(|&byte| byte == b':').enumerate().map(|(index, field)| {
            let leaves = |member: &&[u8]| self.names.contains(member);
            let members = || field.split(|&byte| byte == b',');
            if lists.contains(&index) && members().any(|member| leaves(&member)) {
                members().filter(|member| !leaves(member)).collect::<Vec<_>>().join(&b',')
            } else {
                field.to_vec()
            }
        });
        let mut changed = fields.collect::<Vec<_>>().join(&b':');
        changed.extend_from_slice(end);
        (changed != line).then_some(changed)
    }
}

fn first_field(line: &[u8]) -> &[u8] {
    text::without_end(line).split(|&byte| byte == b':').next().unwrap_or_default()
}

/// Edits a file, if it is there.
fn edit(changes: &mut Changes<'_>, path: &[u8], change: impl Fn(&[u8]) -> Vec<u8>) -> Result<()> {
    match changes.read_text(path)? {
        Some(old) => changes.edit(path, &change(&old)),
        None => Ok(()),
    }
}
