//! Arguments of the commands for branches.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Branch {
    /// What it is to be called; without it all are shown.
    pub(crate) name: Option<String>,
    /// The snapshot that it begins with [default: what is there now].
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshot: Option<String>,
    /// Something in the volume, which is branched as a whole [default: the working directory, or the main volume].
    #[arg(long, value_name = "PATH")]
    pub(crate) of: Option<PathBuf>,
    /// Let go of it.
    #[arg(short, long, requires = "name", conflicts_with_all = ["snapshot", "of"])]
    pub(crate) delete: bool,
    /// With what was not merged.
    #[arg(short, long, requires = "delete")]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Switch {
    /// A branch, or `main`.
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Merge {
    /// A branch, or `main`.
    pub(crate) name: String,
    /// Something in what it is merged into [default: the working directory, or the main volume].
    pub(crate) path: Option<PathBuf>,
}
