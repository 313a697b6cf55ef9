//! A progress bar, on a terminal only.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The progress of something measured in bytes.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// Since when, and how many bytes in a second at most.
    pace: Option<(Instant, u64)>,
}

impl Progress {
    /// A bar that ends at `len`; nothing is drawn where the standard error is no terminal, or if `hidden`.
    pub(crate) fn bytes(what: &'static str, len: u64, hidden: bool) -> Self {
        let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(len), target).with_message(what);
        if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:40}] {bytes}/{total_bytes} {eta}") {
            bar.set_style(style);
        }
        Self { bar, pace: None }
    }

    /// No more than `rate` bytes in a second: who is faster waits when it tells how far it is.
    pub(crate) fn paced(self, rate: Option<u64>) -> Self {
        Self { pace: rate.map(|rate| (Instant::now(), rate.max(1))), ..self }
    }

    pub(crate) fn set(&self, done: u64) {
        self.bar.set_position(done);
        if let Some((start, rate)) = self.pace {
            let due = Duration::from_secs_f64(done as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
