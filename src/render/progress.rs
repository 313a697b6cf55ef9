//! A progress bar, on a terminal only.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The progress of something measured in bytes.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar that ends at `len`; nothing is drawn where the standard error is no terminal, or if `hidden`.
    pub(crate) fn bytes(what: &'static str, len: u64, hidden: bool) -> Self {
        let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(len), target).with_message(what);
        if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:40}] {bytes}/{total_bytes} {eta}") {
            bar.set_style(style);
        }
        Self { bar }
    }

    pub(crate) fn set(&self, done: u64) {
        self.bar.set_position(done);
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
