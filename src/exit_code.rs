//! How the program ends, for scripts.

use std::process::ExitCode as ProcessExitCode;

/// An exit code; the numbers are a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ExitCode {
    /// Done; for `audit`: sealed.
    Done = 0,
    /// An error; the image is exactly as it was.
    Error = 1,
    /// The command line is wrong.
    Usage = 2,
    /// `audit` found something to seal, `diff` something that differs.
    Found = 3,
    /// A warning under `--strict`; nothing was written.
    Strict = 4,
}

impl From<ExitCode> for ProcessExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// A command line that parses, but asks for what does not go together.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// The exit code of a command line that does not parse, or asks for help. To qemu-img, and so to `image`, a wrong one is an error like
/// any other.
pub(crate) fn of_usage(error: &clap::Error, is_image: bool) -> ProcessExitCode {
    match (error.use_stderr(), is_image) {
        (false, _) => ExitCode::Done.into(),
        (true, true) => ExitCode::Error.into(),
        (true, false) => ExitCode::Usage.into(),
    }
}

/// The exit code that an error leads to.
pub(crate) fn of_error(error: &anyhow::Error) -> ExitCode {
    if error.is::<Usage>() || error.is::<seal::SelectionError>() { ExitCode::Usage } else { ExitCode::Error }
}

/// Whether an error is that nobody reads our output any more.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_pipe = |kind| kind == std::io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|io| is_pipe(io.kind()))
            || cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind).is_some_and(is_pipe)
    })
}
