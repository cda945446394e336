//! Arguments of `hn custodian`.

use clap::{Args, Subcommand};

use crate::examples;

#[derive(Debug, Args)]
pub(crate) struct Custodian {
    /// Without it, all are shown.
    #[command(subcommand)]
    pub(crate) command: Option<CustodianCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CustodianCommand {
    /// Appoint a peer by the ticket that `hn custodian offer` has printed there.
    ///
    /// It learns which peers hold shards of yours, and can read none of them. It renews what runs out and makes anew what is lost,
    /// whether or not a device of yours runs; it gets no new shards itself.
    #[command(after_help = examples::CUSTODIAN_ADD)]
    Add {
        /// The ticket: one line that begins with hnc1.
        ticket: String,
        /// What to call it.
        #[arg(long)]
        name: String,
    },
    /// Take in what a custodian has moved, and have it look after nothing any more.
    #[command(after_help = examples::CUSTODIAN_REMOVE)]
    Remove {
        /// Its name or its id.
        name: String,
    },
    /// Offer to look after somebody's files: prints a ticket, which is for one owner. Keep it secret on the way.
    #[command(after_help = examples::CUSTODIAN_OFFER)]
    Offer {
        /// For whom it is.
        #[arg(long, default_value = "somebody")]
        name: String,
    },
    /// Look after nothing any more by a ticket that was given out.
    #[command(after_help = examples::CUSTODIAN_WITHDRAW)]
    Withdraw {
        /// The name that it was given, or the beginning of its id.
        name: String,
    },
    /// Show your custodians, and what is looked after here.
    #[command(after_help = examples::CUSTODIAN_LIST)]
    List,
}
