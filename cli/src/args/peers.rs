//! Arguments of `hn peers`.

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Peers {
    /// Return when this many peers that store for others are connected.
    #[arg(long, value_name = "N")]
    pub(crate) wait: Option<u64>,
    /// Seconds to wait at most.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "wait")]
    pub(crate) timeout: u64,
}
