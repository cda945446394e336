//! Arguments of `hn gc`.

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Only say what there is, and what it waits for.
    #[arg(long)]
    pub(crate) dry_run: bool,
}
