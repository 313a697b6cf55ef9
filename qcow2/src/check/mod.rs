//! The check of an image, and its repair.

mod problem;
mod repair;
mod tally;
mod walk;

pub use problem::{CheckReport, Problem, Severity};
pub use repair::Repair;

use crate::Result;
use crate::image::{Image, State};
use tally::Tally;
use walk::{Refcounts, Walk};

/// A check with what a repair needs of it.
struct Checked {
    report: CheckReport,
    /// References by everything but the refcounts' own structures.
    without_refcounts: Tally,
    /// References by everything.
    all: Tally,
    /// Clusters beyond the end of the file that something leads to.
    beyond: std::collections::BTreeSet<u64>,
    /// Of the corruptions: COPIED flags that contradict the refcounts.
    wrong_flags: u64,
}

impl Image {
    /// Checks the whole metadata: counts the references to every cluster, compares them with the refcounts, and looks
    /// at every entry. Damage is told to `problem` and counted; it is no error.
    ///
    /// It takes a byte of memory and a few bits for each cluster of the file: 18 MiB for a terabyte at 64 KiB clusters.
    ///
    /// Nothing is written. The counts are those of `qemu-img check` for the same image.
    ///
    /// # Errors
    /// [`crate::Error::Io`]; [`crate::Error::Unsupported`] for a file too large to keep account of.
    pub fn check(&self, problem: &mut dyn FnMut(&Problem)) -> Result<CheckReport> {
        let state = self.settled()?;
        let refcounts = Refcounts::read(&*self.storage, self.geometry, &state.header.roots)?;
        let mut walk = Walk::new(self, problem)?;
        walk.walk(&state, &refcounts)?;
        walk.walk_refcounts(&state.header.roots, &refcounts)?;
        walk.compare(&refcounts)?;
        Ok(walk.report)
    }

    fn check_in(&self, state: &State, problem: &mut dyn FnMut(&Problem)) -> Result<Checked> {
        let refcounts = Refcounts::read(&*self.storage, self.geometry, &state.header.roots)?;
        let mut walk = Walk::new(self, problem)?;
        walk.walk(state, &refcounts)?;
        let without_refcounts = walk.tally.clone();
        walk.walk_refcounts(&state.header.roots, &refcounts)?;
        walk.compare(&refcounts)?;
        Ok(Checked {
            report: walk.report,
            without_refcounts,
            all: walk.tally,
            beyond: walk.beyond,
            wrong_flags: walk.wrong_flags,
        })
    }
}
