//! Arguments of `hn donate`.

use clap::{Args, Subcommand};
use hypernet_sdk::size::parse_size;

use crate::examples;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Donate {
    /// Space to give to others from now on.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) space: Option<u64>,
    /// How much of it all newcomers together may have from now on, in percent: peers that you do not know and that store
    /// nothing for you.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(..=100))]
    pub(crate) newcomers: Option<u8>,
    #[command(subcommand)]
    pub(crate) command: Option<DonateCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DonateCommand {
    /// Stop storing for others, and hand over what they have here before this agent goes.
    ///
    /// Nothing new is taken in from now on, also after a restart. What is here is read and proven as ever until those whose it is, or
    /// their custodians, have moved it to other peers; so let the agent run meanwhile. They find out within minutes when they are
    /// there; of who is not the shards stay, until their leases end.
    #[command(after_help = examples::DONATE_STOP)]
    Stop {
        /// Wait until others have nothing here any more, and show how far they are.
        #[arg(long)]
        wait: bool,
    },
    /// Go on storing for others.
    #[command(after_help = examples::DONATE_RESUME)]
    Resume,
}
