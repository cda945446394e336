//! Arguments of `hn donate`.

use clap::Args;
use hypernet_sdk::size::parse_size;

#[derive(Debug, Args)]
pub(crate) struct Donate {
    /// Space to give to others from now on.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) space: Option<u64>,
    /// How much of it all newcomers together may have from now on, in percent: peers that you do not know and that store
    /// nothing for you.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(..=100))]
    pub(crate) newcomers: Option<u8>,
}
