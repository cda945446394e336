//! The command line. Every command explains itself and shows examples.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand};
use hypernet_sdk::size::parse_size;

use crate::examples;

pub(crate) mod branch;
pub(crate) mod conflicts;
pub(crate) mod custodian;
pub(crate) mod donate;
pub(crate) mod gc;
pub(crate) mod guardians;
pub(crate) mod health;
pub(crate) mod history;
pub(crate) mod peers;
pub(crate) mod up;

pub(crate) use up::Up;

/// Your files, encrypted and spread over peers.
///
/// The agent keeps everything under HN_HOME (default: hypernet in the XDG data directory), so that many agents run on
/// one machine.
#[derive(Debug, Parser)]
#[command(name = "hn", version, after_help = examples::HN, max_term_width = 100)]
pub(crate) struct Cli {
    /// Answer in JSON: one document, or one per line where it takes long.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an identity, a device and a volume.
    #[command(after_help = examples::INIT)]
    Init(Init),
    /// Print a link by which others join this mesh.
    #[command(after_help = examples::INVITE)]
    Invite,
    /// Join the mesh of an invite link.
    #[command(after_help = examples::JOIN)]
    Join(Join),
    /// Start the agent in the background and mount the volume.
    #[command(after_help = examples::UP)]
    Up(Up),
    /// Stop the agent.
    #[command(after_help = examples::DOWN)]
    Down,
    /// Show what runs and how safe the data is.
    #[command(after_help = examples::STATUS)]
    Status,
    /// Show how safe each volume is, what of it waits, and what is being mended.
    ///
    /// Exits with 0 when all that is stored can be read now; 65 when some of it is lost; 69 when some of it cannot be read until more peers
    /// are back; 75 when it is not known yet, or nothing of what was written is on the mesh.
    #[command(after_help = examples::HEALTH)]
    Health(health::Health),
    /// Show the peers.
    #[command(after_help = examples::PEERS)]
    Peers(peers::Peers),
    /// Return when everything written so far is durable on the mesh.
    #[command(after_help = examples::SYNC)]
    Sync(Sync),
    /// Mount the volume.
    #[command(after_help = examples::MOUNT)]
    Mount(Mount),
    /// Unmount the volume.
    #[command(after_help = examples::UMOUNT)]
    Umount(Umount),
    /// Bring everything back by the 24 words, or by guardians who have shares of them, on a new device.
    #[command(after_help = examples::RECOVER)]
    Recover(Recover),
    /// The devices of this identity.
    #[command(after_help = examples::DEVICE)]
    #[command(subcommand)]
    Device(Device),
    /// Print the address by which others find this identity, and as a QR code.
    #[command(after_help = examples::ID)]
    Id(Id),
    /// Other people.
    #[command(after_help = examples::CONTACT)]
    #[command(subcommand)]
    Contact(Contact),
    /// People who together can bring your 24 words back.
    #[command(after_help = examples::GUARDIANS, disable_help_subcommand = true)]
    #[command(subcommand)]
    Guardians(guardians::Guardians),
    /// Peers that keep your files whole while none of your devices runs, and what this one looks after for others.
    #[command(after_help = examples::CUSTODIAN)]
    Custodian(custodian::Custodian),
    /// The volumes of the tree: a directory can be one of its own.
    #[command(after_help = examples::VOLUME)]
    #[command(subcommand)]
    Volume(Volume),
    /// Give back the space of what was deleted and overwritten, and that no snapshot keeps.
    ///
    /// It is done once a day by itself. Devices that may write have to be heard of first, so that none of them relies on what goes.
    #[command(after_help = examples::GC)]
    Gc(gc::Gc),
    /// Show what you give to others, and who has it; or give more or less.
    #[command(after_help = examples::DONATE)]
    Donate(donate::Donate),
    /// Share a directory with others; without --with and --public show who has a part in it.
    ///
    /// It becomes a volume of its own, where it is; nothing is uploaded again, and what was before stays private.
    #[command(after_help = examples::SHARE)]
    Share(Share),
    /// Take that back: what is written from then on is sealed with other keys.
    #[command(after_help = examples::UNSHARE)]
    Unshare(Unshare),
    /// Show what is shared, and what contacts offer.
    #[command(after_help = examples::SHARES)]
    Shares,
    /// Put what somebody shares into your tree.
    #[command(after_help = examples::ATTACH)]
    Attach(Attach),
    /// Take what you have attached out of your tree again: it can be attached anew.
    ///
    /// What is in it stays where it is shared. What you have changed in it must be synced, and nothing in it open.
    #[command(after_help = examples::DETACH)]
    Detach(Detach),
    /// Take a snapshot of a volume as it is now, and keep it. It takes milliseconds, and no network.
    #[command(after_help = examples::SNAP)]
    Snap(history::Snap),
    /// Have snapshots taken by themselves, and old ones thinned out; or show when the last one was, and when the next one is.
    ///
    /// All devices of a volume have one policy: it is an extended attribute of the volume's directory. What was taken by hand, or has
    /// a name, stays.
    #[command(after_help = examples::POLICY)]
    Policy(history::Policy),
    /// Show the snapshots that are kept, the newest first.
    #[command(after_help = examples::LOG)]
    Log(history::Log),
    /// Show a snapshot, and what has changed in it since the one before.
    #[command(after_help = examples::SHOW)]
    Show(history::Show),
    /// Show what has changed from one snapshot to another, or since then, as a patch.
    ///
    /// It is what git would write: `patch -p1` and `git apply` take it.
    #[command(after_help = examples::DIFF)]
    Diff(history::Diff),
    /// Put something back as it was in a snapshot: in its place, or elsewhere.
    ///
    /// What is there now is in a snapshot that is taken first.
    #[command(after_help = examples::RESTORE)]
    Restore(history::Restore),
    /// Undo what a snapshot has changed, and leave what was changed since.
    ///
    /// What is there now is in a snapshot that is taken first. Texts that were changed since are merged line by line; what cannot be undone
    /// stays as it is, and is listed with the reason.
    #[command(after_help = examples::REVERT)]
    Revert(history::Revert),
    /// Give a snapshot a name, or show all names.
    #[command(after_help = examples::TAG)]
    Tag(history::Tag),
    /// Begin a branch of a volume: a tree that can go another way, and be merged later. Or show all branches.
    ///
    /// It is found below .branches in the mount. Nothing is copied.
    #[command(after_help = examples::BRANCH)]
    Branch(branch::Branch),
    /// Show a branch where the main tree is mounted, or the main tree again.
    #[command(after_help = examples::SWITCH)]
    Switch(branch::Switch),
    /// Merge a branch into the volume that one stands in.
    ///
    /// What was written on one side only is taken. Of what was written on both, texts are merged line by line where that is clear;
    /// otherwise both versions are kept, which `hn conflicts` shows.
    #[command(after_help = examples::MERGE)]
    Merge(branch::Merge),
    /// Show the versions in a volume that are kept beside others, because two have written to one file at once.
    #[command(after_help = examples::CONFLICTS)]
    Conflicts(conflicts::Conflicts),
    /// Settle which of two versions stays: the file as it is, the version that is kept beside it, or both.
    ///
    /// What goes is in a snapshot that is taken first.
    #[command(after_help = examples::RESOLVE)]
    Resolve(conflicts::Resolve),
    /// Prove who has taken a snapshot, that it came after those that it follows, and that nothing in it was altered.
    #[command(after_help = examples::VERIFY)]
    Verify(history::Verify),
    /// Change what opens the keystore of this device: a new passphrase, or a new key in a file or in the keyring.
    #[command(after_help = examples::PASSPHRASE)]
    Passphrase(Passphrase),
    /// Look after local copies.
    #[command(after_help = examples::CACHE)]
    #[command(subcommand)]
    Cache(Cache),
    /// Check databases and working tree on this device; with --verify also that every shard is where it should be.
    #[command(after_help = examples::FSCK)]
    Fsck(Fsck),
    /// For those who work on Hypernet or try it out.
    #[command(after_help = examples::DEV)]
    #[command(subcommand)]
    Dev(Dev),
    /// Print completions for a shell.
    #[command(after_help = examples::COMPLETIONS)]
    Completions(Completions),
    /// Write the manual pages into a directory.
    #[command(after_help = examples::MAN)]
    Man(Man),
}

/// How the keystore is opened.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct PassphraseFrom {
    /// Read the keystore's passphrase from standard input instead of asking for it.
    #[arg(long)]
    pub(crate) passphrase_stdin: bool,
}

/// What a new agent may be told.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Setup {
    /// Invite link of the mesh to join.
    #[arg(long, value_name = "LINK")]
    pub(crate) join: Option<String>,
    /// What this device is called [default: the host's name].
    #[arg(long, value_name = "NAME")]
    pub(crate) device_name: Option<String>,
    /// Space to give to others [default: 10G].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) donate: Option<u64>,
    /// How much of it all newcomers together may have, in percent [default: 10].
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(..=100))]
    pub(crate) newcomers: Option<u8>,
    /// Address to listen on; may be given several times [default: all].
    #[arg(long, value_name = "IP")]
    pub(crate) listen: Vec<std::net::IpAddr>,
    /// Do not look for peers on the local network.
    #[arg(long)]
    pub(crate) no_mdns: bool,
    /// Keep records of the mesh for this many seconds when nobody hands them on.
    #[arg(long, value_name = "SECONDS", hide_short_help = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) record_lifetime: Option<u64>,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseFrom,
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Store for others only: no identity, no volume.
    #[arg(long)]
    pub(crate) storage_only: bool,
    /// Seal the keystore by a passphrase that is asked for, instead of a key file.
    #[arg(long, conflicts_with_all = ["storage_only", "passphrase_stdin"])]
    pub(crate) passphrase: bool,
    /// Keep the key of the keystore in the keyring of the desktop, instead of in a key file.
    #[arg(long, conflicts_with_all = ["storage_only", "passphrase", "passphrase_stdin"])]
    pub(crate) keyring: bool,
    /// Print the 24 words and do not ask for some of them again.
    #[arg(long, conflicts_with = "storage_only")]
    pub(crate) no_confirm: bool,
    /// Ask for a passphrase that belongs to the words: without it they bring nothing back.
    #[arg(long, conflicts_with = "storage_only")]
    pub(crate) phrase_passphrase: bool,
    #[command(flatten)]
    pub(crate) setup: Setup,
}

#[derive(Debug, Args)]
pub(crate) struct Passphrase {
    /// No passphrase any more: a new key, in a file beside the keystore.
    #[arg(long, conflicts_with = "keyring")]
    pub(crate) key_file: bool,
    /// No passphrase any more: a new key, in the keyring of the desktop.
    #[arg(long)]
    pub(crate) keyring: bool,
    /// Read passphrases from standard input, a line each: the one that opens it now, where there is one, then the new one.
    #[arg(long)]
    pub(crate) passphrase_stdin: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// The link that `hn invite` printed.
    pub(crate) link: String,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseFrom,
}

#[derive(Debug, Args)]
pub(crate) struct Sync {
    /// Say how durable this file or directory is in the end; everything written before is synced all the same.
    pub(crate) path: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Mount {
    /// Where [default: where it was last, else /hypernet or ~/hypernet].
    pub(crate) dir: Option<PathBuf>,
    /// Use writeback mode even where passthrough is possible.
    #[arg(long)]
    pub(crate) no_passthrough: bool,
    /// Mount this branch, beside the main mount.
    #[arg(long, value_name = "NAME", requires = "dir")]
    pub(crate) branch: Option<String>,
    /// Mount this snapshot, beside the main mount: HEAD, HEAD~2, a tag, the beginning of a number, or @{yesterday}.
    #[arg(long, value_name = "SNAPSHOT", requires = "dir", conflicts_with = "branch")]
    pub(crate) snapshot: Option<String>,
    /// Something in the volume that it is a snapshot of.
    #[arg(long, value_name = "PATH", requires = "snapshot")]
    pub(crate) of: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Umount {
    /// Only what is mounted here [default: all].
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Recover {
    /// By a device of yours instead of the words: its HN_HOME, or a copy of it.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["phrase_stdin", "phrase_passphrase", "passphrase", "guardians"])]
    pub(crate) from: Option<PathBuf>,
    /// By guardians instead of the words: shows a code for each of them, until as many as it takes have helped.
    #[arg(long, conflicts_with_all = ["phrase_stdin", "phrase_passphrase"])]
    pub(crate) guardians: bool,
    /// Print the 24 words that the guardians have brought back, and do not ask for some of them again.
    #[arg(long, requires = "guardians")]
    pub(crate) no_confirm: bool,
    /// Read what each guardian's device shows from a line of standard input, instead of asking whether it is the same.
    #[arg(long, requires = "guardians")]
    pub(crate) words_stdin: bool,
    /// Read the 24 words from the first line of standard input instead of asking for them.
    #[arg(long)]
    pub(crate) phrase_stdin: bool,
    /// A passphrase belongs to the words: it is asked for, or stands in the next line of standard input.
    #[arg(long)]
    pub(crate) phrase_passphrase: bool,
    /// Seal the keystore of this device by a passphrase that is asked for, instead of a key file.
    #[arg(long, conflicts_with_all = ["phrase_stdin", "passphrase_stdin"])]
    pub(crate) passphrase: bool,
    /// Keep the key of this device's keystore in the keyring of the desktop, instead of in a key file.
    #[arg(long, conflicts_with_all = ["from", "passphrase", "passphrase_stdin"])]
    pub(crate) keyring: bool,
    /// Take the head of this device, by name or id, and not the newest of all.
    #[arg(long, value_name = "NAME")]
    pub(crate) device: Option<String>,
    /// Go on though a stolen device has put something else in the place of the keystore.
    #[arg(long, conflicts_with = "from")]
    pub(crate) without_keystore: bool,
    /// Begin with an empty directory where nothing that was synced is found within --timeout. What is found later comes into it.
    #[arg(long, conflicts_with = "device")]
    pub(crate) empty: bool,
    /// Seconds to go on asking a mesh of which too few peers answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 90)]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) setup: Setup,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Device {
    /// Show them, and what each has published.
    #[command(after_help = examples::DEVICE_LIST)]
    List,
    /// Show a code, by which another machine becomes a device of this identity.
    #[command(after_help = examples::DEVICE_ADD)]
    Add(Meet),
    /// On another machine: become a device of the identity whose device shows a code.
    #[command(after_help = examples::DEVICE_JOIN)]
    Join(DeviceJoin),
    /// Take one off the list: what comes after is closed to it.
    #[command(after_help = examples::DEVICE_REVOKE)]
    Revoke(Revoke),
    /// By the 24 words: new keys, this device on the list, and the words lead to it; for when something is in the way and it
    /// is not known whose device has put it there. Takes nobody off.
    #[command(after_help = examples::DEVICE_RENEW)]
    Renew(Renew),
}

/// How two sides meet.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Meet {
    /// Read the seven words that the other side shows from a line of standard input, instead of asking whether they are
    /// the same.
    #[arg(long)]
    pub(crate) words_stdin: bool,
    /// Seconds to wait for the other side, and for each person.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
}

#[derive(Debug, Args)]
pub(crate) struct DeviceJoin {
    /// The code that `hn device add` shows, or its link, which also says which mesh it is; `-` reads it from standard input, where
    /// no other user of this machine sees it; nothing to be asked for it, or to go on with what was begun.
    #[arg(value_name = "CODE")]
    pub(crate) code: Option<String>,
    /// Seal the keystore of this device by a passphrase that is asked for, instead of a key file.
    #[arg(long, conflicts_with_all = ["words_stdin", "passphrase_stdin"])]
    pub(crate) passphrase: bool,
    #[command(flatten)]
    pub(crate) meet: Meet,
    #[command(flatten)]
    pub(crate) setup: Setup,
}

#[derive(Debug, Args)]
pub(crate) struct Id {
    /// Also draw the picture where it goes to no terminal.
    #[arg(long)]
    pub(crate) qr: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Contact {
    /// Add somebody by the address that `hn id` prints there.
    #[command(after_help = examples::CONTACT_ADD)]
    Add {
        /// Their address: hn1…
        address: String,
        /// What they are to be called here.
        #[arg(long)]
        name: String,
    },
    /// Show them all.
    #[command(after_help = examples::CONTACT_LIST)]
    List,
    /// Forget somebody.
    #[command(after_help = examples::CONTACT_REMOVE)]
    Remove {
        /// Their name, or their address where several are called so.
        name: String,
    },
    /// Make sure, together with them, that nobody has put another key in the place of theirs.
    #[command(after_help = examples::CONTACT_VERIFY)]
    Verify {
        /// Their name, or their address where several are called so.
        name: String,
        /// The code that the other one was shown; without it one is shown here; `-` asks for it, or reads it from standard input,
        /// where no other user of this machine sees it.
        code: Option<String>,
        #[command(flatten)]
        meet: Meet,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// Its name, or its id where several are called so.
    pub(crate) name: String,
    /// Also when nothing would lead to what it published.
    #[arg(long)]
    pub(crate) force: bool,
    /// By the 24 words, which are asked for: they count more than anything that the device has signed or put in the way.
    #[arg(long)]
    pub(crate) phrase: bool,
    /// The same, the words in the first line of standard input.
    #[arg(long)]
    pub(crate) phrase_stdin: bool,
    /// A passphrase belongs to the words: it is asked for, or stands in the next line of standard input.
    #[arg(long)]
    pub(crate) phrase_passphrase: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Renew {
    /// Read the 24 words from the first line of standard input instead of asking for them.
    #[arg(long)]
    pub(crate) phrase_stdin: bool,
    /// A passphrase belongs to the words: it is asked for, or stands in the next line of standard input.
    #[arg(long)]
    pub(crate) phrase_passphrase: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Volume {
    /// Show them: where each begins, and what of it the mesh lacks.
    #[command(after_help = examples::VOLUME_LIST)]
    List,
    /// Make a directory a volume of its own, where it is: with keys and heads of its own; nothing is uploaded again. From then
    /// on names cannot be moved across its border (`mv` copies).
    #[command(after_help = examples::VOLUME_MAKE)]
    Make {
        /// A directory below the mount.
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whom").args(["with", "public"]).multiple(true))]
pub(crate) struct Share {
    /// A directory below the mount.
    pub(crate) dir: PathBuf,
    /// A contact; again for each of several.
    #[arg(long, value_name = "NAME")]
    pub(crate) with: Vec<String>,
    /// They may also write; or whoever has the link may.
    #[arg(long, conflicts_with = "admin", requires = "whom")]
    pub(crate) write: bool,
    /// They may also write, bring others and take them off.
    #[arg(long, requires = "with")]
    pub(crate) admin: bool,
    /// Make a link: whoever has it reads the directory, and writes it with --write.
    #[arg(long)]
    pub(crate) public: bool,
    /// The link ends after this, such as 7days.
    #[arg(long, requires = "public", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) until: Option<Duration>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Unshare {
    /// A directory below the mount.
    pub(crate) dir: PathBuf,
    /// A contact, or an identity that `hn share DIR` shows; again for each of several.
    #[arg(long, value_name = "NAME")]
    pub(crate) with: Vec<String>,
    /// A link to it.
    #[arg(long, value_name = "LINK")]
    pub(crate) link: Vec<String>,
    /// All links to it.
    #[arg(long, conflicts_with = "link")]
    pub(crate) all_links: bool,
    /// Seal anew what was written before, too: in the background, and everything is uploaded once more; not snapshots that are
    /// kept.
    #[arg(long)]
    pub(crate) rekey: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// What `hn shares` shows, such as anna/photos, or a link.
    pub(crate) share: String,
    /// Where: a directory below the mount that is not there yet.
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Detach {
    /// Where it was attached.
    pub(crate) dir: PathBuf,
    /// Give up what was changed in it and is not synced.
    #[arg(long)]
    pub(crate) discard: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cache {
    /// Forget local copies of what is safe on the mesh.
    #[command(after_help = examples::CACHE_DROP)]
    Drop {
        /// Only this file, or what is below this directory.
        path: Option<PathBuf>,
        /// Also what cannot be read from the peers that are connected now.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Fsck {
    /// Also ask every holder whether it still has its shards.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Mend what can be mended on this device.
    #[arg(long)]
    pub(crate) repair: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Dev {
    /// A mesh of storage peers on this machine.
    #[command(after_help = examples::MESH)]
    Mesh(Mesh),
}

#[derive(Debug, Args)]
pub(crate) struct Mesh {
    /// Directory of the mesh [default: hypernet-dev-mesh in the XDG data directory].
    #[arg(long, global = true, env = "HN_DEV_MESH", value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: MeshCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MeshCommand {
    /// Start what is missing and print the invite link.
    #[command(after_help = examples::MESH_UP)]
    Up {
        /// How many.
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=200))]
        peers: u32,
        /// Space that each gives.
        #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "20G")]
        donate: u64,
        /// Keep records of the mesh for this many seconds when nobody hands them on; applies to new peers.
        #[arg(long, value_name = "SECONDS", hide_short_help = true, value_parser = clap::value_parser!(u64).range(1..))]
        record_lifetime: Option<u64>,
    },
    /// Stop all of them; their data stays.
    #[command(after_help = examples::MESH_DOWN)]
    Down,
    /// Kill some with SIGKILL.
    // Said here: what clap makes of it leaves out one of the two and names --dir as if it were needed.
    #[command(after_help = examples::MESH_KILL, override_usage = "hn dev mesh kill [OPTIONS] <COUNT|--peer <NUMBER>>")]
    Kill {
        /// How many of those that run, the lowest-numbered first.
        #[arg(required_unless_present = "peer", conflicts_with = "peer")]
        count: Option<u32>,
        /// The one of this number; may be given several times.
        #[arg(long, value_name = "NUMBER")]
        peer: Vec<u32>,
    },
    /// Start dead ones again.
    #[command(after_help = examples::MESH_REVIVE)]
    Revive {
        /// How many of the dead ones, the lowest-numbered first [default: all].
        #[arg(conflicts_with_all = ["all", "peer"])]
        count: Option<u32>,
        /// All of them.
        #[arg(long)]
        all: bool,
        /// The one of this number; may be given several times.
        #[arg(long, value_name = "NUMBER", conflicts_with = "all")]
        peer: Vec<u32>,
    },
    /// Show them.
    #[command(after_help = examples::MESH_STATUS)]
    Status,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// For which shell.
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Directory to write them into; it is made if it is missing.
    pub(crate) dir: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_command_has_examples() {
        let command = Cli::command();
        command.clone().debug_assert();
        let mut open = vec![command];
        let mut seen = 0;
        while let Some(command) = open.pop() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Examples:\n  "), "{} shows no example", command.get_name());
            assert!(command.get_about().is_some(), "{} does not say what it does", command.get_name());
            open.extend(command.get_subcommands().cloned());
            seen += 1;
        }
        assert!(seen >= 24, "{seen}");
    }

    #[test]
    fn examples_are_command_lines_that_parse() {
        let mut open = vec![Cli::command()];
        let mut tried = 0;
        while let Some(command) = open.pop() {
            open.extend(command.get_subcommands().cloned());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().skip(1).map(str::trim).filter(|line| line.starts_with("hn ")) {
                // What follows the command on its line is an explanation, a pipe or a redirection.
                let line = line.split("   ").next().unwrap().split(" | ").next().unwrap();
                let line = [" > ", " < ", " && "].iter().fold(line, |line, end| line.split(end).next().unwrap());
                let words: Vec<String> =
                    line.split_whitespace().map(|word| word.trim_matches(['\'', '"']).to_owned()).collect();
                if line.contains("$(") {
                    continue;
                }
                assert!(Cli::try_parse_from(&words).is_ok(), "{line}");
                tried += 1;
            }
        }
        assert!(tried > 30, "{tried}");
    }

    #[test]
    fn json_is_taken_anywhere() {
        assert!(Cli::try_parse_from(["hn", "--json", "status"]).unwrap().json);
        assert!(Cli::try_parse_from(["hn", "dev", "mesh", "status", "--json"]).unwrap().json);
    }

    #[test]
    fn contradictions_are_refused() {
        for wrong in [
            &["hn", "up", "--mount", "/x", "--no-mount"][..],
            &["hn", "dev", "mesh", "kill"],
            &["hn", "dev", "mesh", "kill", "2", "--peer", "1"],
            &["hn", "dev", "mesh", "revive", "1", "--all"],
            &["hn", "init", "--passphrase", "--passphrase-stdin"],
            &["hn", "init", "--passphrase", "--keyring"],
            &["hn", "recover", "--from", "/x", "--keyring"],
            &["hn", "passphrase", "--key-file", "--keyring"],
            &["hn", "recover", "--from", "/x", "--phrase-stdin"],
            &["hn", "recover", "--guardians", "--phrase-stdin"],
            &["hn", "recover", "--no-confirm"],
            &["hn", "guardians", "set", "2", "anna", "ben", "carl"],
            &["hn", "guardians", "set", "2-of-3"],
            &["hn", "guardians", "help"],
            &["hn", "init", "--storage-only", "--no-confirm"],
            &["hn", "up", "--donate", "lots"],
        ] {
            assert!(Cli::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }
}
