//! Arguments of the commands for snapshots.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::examples;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Snap {
    #[command(subcommand)]
    pub(crate) command: Option<SnapCommand>,
    /// Something in the volume, which is taken as a whole [default: the working directory, or the main volume].
    pub(crate) path: Option<PathBuf>,
    /// What is said about it.
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    pub(crate) message: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapCommand {
    /// Let go of snapshots: of some, or of those that a policy does not keep. One that has a name stays.
    #[command(after_help = examples::SNAP_PRUNE)]
    Prune(Prune),
}

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Let go of these.
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshots: Vec<String>,
    /// Something in the volume.
    #[arg(long, value_name = "PATH")]
    pub(crate) of: Option<PathBuf>,
    /// Keep the last N.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) keep_last: u32,
    /// Keep the last one of each hour, for N hours in which there are some.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) keep_hourly: u32,
    /// Of each day.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) keep_daily: u32,
    /// Of each week.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) keep_weekly: u32,
    /// Of each month.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) keep_monthly: u32,
    /// Of each year.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) keep_yearly: u32,
    /// Let go of those, too, that were taken by hand.
    #[arg(long)]
    pub(crate) all: bool,
    /// Only say which.
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Policy {
    /// Something in the volume, of which all has one policy [default: the working directory, or the main volume].
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Keep the last N.
    #[arg(long, value_name = "N")]
    pub(crate) last: Option<u32>,
    /// Take one each hour, and keep the last one of each hour, for N hours in which there are some.
    #[arg(long, value_name = "N")]
    pub(crate) hourly: Option<u32>,
    /// The same of days; of the periods that are named the shortest says how often one is taken.
    #[arg(long, value_name = "N")]
    pub(crate) daily: Option<u32>,
    /// Of weeks, which begin on Monday.
    #[arg(long, value_name = "N")]
    pub(crate) weekly: Option<u32>,
    /// Of months.
    #[arg(long, value_name = "N")]
    pub(crate) monthly: Option<u32>,
    /// Of years.
    #[arg(long, value_name = "N")]
    pub(crate) yearly: Option<u32>,
    /// Take none by itself from now on. Those that there are stay.
    #[arg(long, conflicts_with_all = ["last", "hourly", "daily", "weekly", "monthly", "yearly"])]
    pub(crate) off: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Log {
    /// Those in which this is not as in the one before; it need not be there now.
    pub(crate) path: Option<PathBuf>,
    /// At most so many.
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// One line for each.
    #[arg(long)]
    pub(crate) oneline: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// HEAD, HEAD~2, a tag, the beginning of a number, or @{yesterday}.
    #[arg(value_name = "SNAPSHOT", default_value = "HEAD")]
    pub(crate) snapshot: String,
    /// Only what is at this path or below it.
    pub(crate) path: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// Two snapshots as A..B or A B, or one, which is compared with what is there now.
    #[arg(value_name = "A[..B]", default_value = "HEAD")]
    pub(crate) range: String,
    /// Only what is at this path or below it; where neither now nor in A anything is there, B is meant.
    #[arg(value_name = "PATH|B")]
    pub(crate) path: Option<PathBuf>,
    /// The path, after A and B.
    #[arg(value_name = "PATH")]
    pub(crate) below: Option<PathBuf>,
    /// So many lines around each change.
    #[arg(short = 'U', long, value_name = "N", default_value_t = 3)]
    pub(crate) unified: u32,
    /// How many lines of each file are new and gone, and in all.
    #[arg(long, conflicts_with = "unified")]
    pub(crate) stat: bool,
    /// A letter and a path for each change: A is added, D deleted, M modified, R renamed, m of other mode, owner or attributes.
    #[arg(long, conflicts_with_all = ["stat", "unified"])]
    pub(crate) name_status: bool,
    /// Paths alone.
    #[arg(long, conflicts_with_all = ["stat", "unified", "name_status"])]
    pub(crate) name_only: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// HEAD, HEAD~2, a tag, the beginning of a number, or @{yesterday}.
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshot: String,
    /// A file or a directory below the mount; it need not be there now.
    pub(crate) path: PathBuf,
    /// Put it into this directory, and leave what is in its place now.
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Revert {
    /// HEAD, HEAD~2, a tag, the beginning of a number, or @{yesterday}.
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshot: String,
    /// Only what is at this path or below it.
    pub(crate) path: Option<PathBuf>,
    /// Take no snapshot of what comes of it.
    #[arg(long)]
    pub(crate) no_snap: bool,
    /// Change nothing, and say what would be undone.
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Tag {
    /// The name; without it all are shown.
    pub(crate) name: Option<String>,
    /// Which snapshot [default: HEAD].
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshot: Option<String>,
    /// Take the name away.
    #[arg(short, long, requires = "name", conflicts_with = "snapshot")]
    pub(crate) delete: bool,
    /// Another snapshot may have it so far.
    #[arg(short, long, requires = "name")]
    pub(crate) force: bool,
    /// Something in the volume.
    #[arg(long, value_name = "PATH")]
    pub(crate) of: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Which snapshot.
    #[arg(value_name = "SNAPSHOT", default_value = "HEAD")]
    pub(crate) snapshot: String,
    /// Something in the volume.
    #[arg(long, value_name = "PATH")]
    pub(crate) of: Option<PathBuf>,
}
