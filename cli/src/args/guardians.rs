//! Arguments of `hn guardians`.

use clap::{Args, Subcommand};

use super::Meet;
use crate::examples;

#[derive(Debug, Subcommand)]
pub(crate) enum Guardians {
    /// Share the 24 words among contacts, so that some of them together can bring them back. Asks for the words, which are kept
    /// nowhere; guardians of before are none any more.
    #[command(after_help = examples::GUARDIANS_SET)]
    Set(GuardiansSet),
    /// Show who has shares of your words, and whose words you have a share of; what you have none of yet is looked for.
    #[command(after_help = examples::GUARDIANS_LIST)]
    List,
    /// Hand your share of somebody's words over to them, by the code that `hn recover --guardians` shows there.
    #[command(after_help = examples::GUARDIANS_HELP)]
    Help {
        /// Whose words: a contact's name, or their address, or the id that `hn guardians list` shows.
        name: String,
        /// The code that they are shown, or the link; without it, or for `-`, it is asked for, or read from standard input, where no
        /// other user of this machine sees it.
        #[arg(default_value = "-", hide_default_value = true)]
        code: String,
        #[command(flatten)]
        meet: Meet,
    },
    /// Take your guardians back: who has not fetched their share yet finds none.
    #[command(after_help = examples::GUARDIANS_CLEAR)]
    Clear,
}

/// So many of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Of {
    pub(crate) threshold: u8,
    pub(crate) count: u8,
}

fn parse_of(text: &str) -> Result<Of, String> {
    let wrong = || "it looks like 3-of-5: so many are needed, of so many".to_owned();
    let (threshold, count) = text.split_once("-of-").ok_or_else(wrong)?;
    match (threshold.parse(), count.parse()) {
        (Ok(threshold), Ok(count)) => Ok(Of { threshold, count }),
        _ => Err(wrong()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct GuardiansSet {
    /// How many of how many are needed: 3-of-5.
    #[arg(value_name = "T-of-N", value_parser = parse_of)]
    pub(crate) of: Of,
    /// Contacts, by their names or addresses.
    #[arg(required = true)]
    pub(crate) guardians: Vec<String>,
    /// Read the 24 words from the first line of standard input instead of asking for them.
    #[arg(long)]
    pub(crate) phrase_stdin: bool,
    /// A passphrase belongs to the words, which guardians get nothing of: it is asked for, or stands in the next line of
    /// standard input.
    #[arg(long)]
    pub(crate) phrase_passphrase: bool,
}
