//! Arguments of `hn up`.

use std::path::PathBuf;

use clap::Args;
use hypernet_sdk::size::{Limit, parse_limit, parse_size};

use super::PassphraseFrom;

#[derive(Debug, Default, Args)]
pub(crate) struct Up {
    /// Mount here [default: /hypernet where permitted, else ~/hypernet].
    #[arg(long, value_name = "DIR", conflicts_with = "no_mount")]
    pub(crate) mount: Option<PathBuf>,
    /// Mount nothing.
    #[arg(long)]
    pub(crate) no_mount: bool,
    /// Mount in writeback mode even where passthrough is possible.
    #[arg(long)]
    pub(crate) no_passthrough: bool,
    /// Space to give to others from now on.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) donate: Option<u64>,
    /// Space for local copies of what the mesh has from now on, roughly; `none` for no limit.
    #[arg(long, value_name = "SIZE", value_parser = parse_limit)]
    pub(crate) cache: Option<Limit>,
    /// Bytes of shards a second that go out from now on, such as 2M, or `none` for no limit.
    #[arg(long, value_name = "SIZE", value_parser = parse_limit)]
    pub(crate) upload: Option<Limit>,
    /// Bytes of shards a second that come in from now on, such as 10M, or `none` for no limit.
    #[arg(long, value_name = "SIZE", value_parser = parse_limit)]
    pub(crate) download: Option<Limit>,
    /// Whether to ask the router to let others in (UPnP) from now on.
    #[arg(long, value_name = "BOOL")]
    pub(crate) upnp: Option<bool>,
    /// Hold the upload back until `hn sync`.
    #[arg(long)]
    pub(crate) hold: bool,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseFrom,
}
