//! Arguments of `hn health`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Health {
    /// Only the volume that this lies in [default: all].
    pub(crate) path: Option<PathBuf>,
    /// Show the segments of each volume by margin, also where there are many volumes.
    #[arg(short, long)]
    pub(crate) verbose: bool,
}
