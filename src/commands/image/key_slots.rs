//! `image amend -o encrypt...`: passphrases of an encrypted image, added and taken away.

use std::time::Duration;

use anyhow::Result;
use qcow2::{Image, NewPassphrase, Secret};

use crate::exit_code::Usage;
use crate::secret::Secrets;

/// What is to become of the key slots.
#[derive(Debug, Default)]
pub(super) struct KeySlots {
    state: Option<State>,
    slot: Option<usize>,
    new: Option<Secret>,
    old: Option<Secret>,
    iter_time: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Active,
    Inactive,
}

impl KeySlots {
    /// Takes an option whose name starts with `encrypt.`, given without that.
    pub(super) fn take(&mut self, name: &str, value: &str, secrets: &Secrets) -> Result<()> {
        let wrong = || Usage(format!("option encrypt.{name} cannot be {value:?}"));
        match (name, value) {
            ("state", "active") => self.state = Some(State::Active),
            ("state", "inactive") => self.state = Some(State::Inactive),
            ("keyslot", slot) => {
                self.slot = Some(slot.parse().ok().filter(|slot: &usize| *slot < 8).ok_or_else(wrong)?);
            }
            ("new-secret", id) => self.new = Some(secrets.get(id)?),
            ("old-secret", id) => self.old = Some(secrets.get(id)?),
            ("iter-time", time) => {
                let time = time.parse().ok().filter(|&time: &u64| time > 0).ok_or_else(wrong)?;
                self.iter_time = Some(Duration::from_millis(time));
            }
            ("state", _) => return Err(wrong().into()),
            _ => return Err(Usage(format!("option encrypt.{name} cannot be amended")).into()),
        }
        Ok(())
    }

    /// Whether anything is to be done, and makes sense.
    pub(super) fn check(&self) -> Result<bool> {
        let wrong = |text: &str| Err(Usage(text.to_owned()).into());
        match self.state {
            None if self.slot.is_some() || self.new.is_some() || self.old.is_some() || self.iter_time.is_some() => {
                wrong("key slots need encrypt.state: active or inactive")
            }
            None => Ok(false),
            Some(State::Active) if self.new.is_none() => wrong("an active key slot needs encrypt.new-secret"),
            Some(State::Active) if self.old.is_some() => {
                wrong("encrypt.old-secret is of use only with encrypt.state=inactive")
            }
            Some(State::Inactive) if self.new.is_some() => {
                wrong("encrypt.new-secret is of use only with encrypt.state=active")
            }
            Some(State::Inactive) if self.slot.is_none() && self.old.is_none() => {
                wrong("which key slot is erased is told by encrypt.keyslot or encrypt.old-secret")
            }
            Some(_) => Ok(true),
        }
    }

    /// Does it.
    pub(super) fn apply(&self, image: &mut Image, force: bool) -> qcow2::Result<()> {
        if let (Some(State::Active), Some(new)) = (self.state, &self.new) {
            let mut new = NewPassphrase::new(new.clone()).replace(force);
            if let Some(slot) = self.slot {
                new = new.slot(slot);
            }
            if let Some(time) = self.iter_time {
                new = new.iter_time(time);
            }
            return image.add_passphrase(&new).map(drop);
        }
        let mut slots: Vec<usize> = self.slot.into_iter().collect();
        if let Some(old) = &self.old {
            let found = image.key_slots_of(old)?;
            slots =
                if slots.is_empty() { found } else { slots.into_iter().filter(|slot| found.contains(slot)).collect() };
            if slots.is_empty() {
                return Err(qcow2::Error::WrongPassphrase);
            }
        }
        slots.into_iter().try_for_each(|slot| image.erase_key_slot(slot, force))
    }
}
