//! Arguments of the commands for conflicts.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct Conflicts {
    /// Something in the volume [default: the working directory, or the main volume].
    pub(crate) path: Option<PathBuf>,
}

/// What stays of two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Keep {
    /// The file as it is.
    File,
    /// What the version holds that is kept beside it: the file gets that.
    Version,
    /// Both, as files of their own.
    Both,
}

#[derive(Debug, Args)]
pub(crate) struct Resolve {
    /// A version that is kept beside a file, or that file; with --all a directory [default: the whole volume].
    #[arg(required_unless_present = "all")]
    pub(crate) path: Option<PathBuf>,
    /// Settle all that are in conflict there, and below it.
    #[arg(long)]
    pub(crate) all: bool,
    /// What stays.
    #[arg(long, value_name = "WHAT")]
    pub(crate) keep: Keep,
}
