//! `hnd`: the agent. It is the only crate that knows all the others: it wires the node to mesh, store and filesystem,
//! and serves the local socket that `hn` and other programs talk to.
#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::io::{BufRead, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use hypernet_core::identity::phrase::Phrase;
use hypernet_core::key::RecoveryKeys;
use hypernet_sdk::SecretText;
use hypernet_sdk::api::{self, SealedBy};
use hypernet_sdk::secret::SECRET_MAX;
use hypernet_sdk::size::parse_size;
use hypernet_store::shards::ShardStore;
use zeroize::Zeroizing;

mod agent;
mod branch;
mod config;
mod custody;
mod databases;
mod driver;
mod failure;
mod files;
#[cfg(test)]
mod golden;
mod health;
mod identity;
mod invite;
mod keyring;
mod keystore;
mod locked;
mod log;
mod pairing;
mod peers;
mod people;
mod reserve;
mod sealing;
mod server;
mod setup;
mod share;
mod standings;
mod status;
mod volume;
mod volumes;

use config::{Config, Home};
use failure::{Failure, Kind};
use keystore::{KeystoreFile, Passphrase, Unlock};
use setup::Choices;

/// Uploads and reads come in bursts on many threads; what they took is to be given back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The Hypernet agent. People use `hn`, which starts and asks it.
#[derive(Parser)]
#[command(name = "hnd", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Set up a new agent in HN_HOME and print what was made as JSON.
    Init(Init),
    /// Make 24 words and print them as JSON.
    Phrase(Words),
    /// Set up an agent in an empty HN_HOME that will look for its identity.
    Recover(Recover),
    /// Join a mesh by an invite link.
    Join(Join),
    /// Have something else open the keystore from now on, and print what does as JSON. Standard input has the passphrase
    /// that opens it now, where one does, and the new one, where there will be one, a line each.
    Seal(Seal),
    /// Clear away the mount that an agent which died has left, and print where it was as JSON.
    Clear,
    /// Run in the foreground; prints one line of JSON when ready.
    Run(agent::RunArgs),
}

#[derive(Args)]
struct Setup {
    /// What this device is called [default: the host's name].
    #[arg(long)]
    device_name: Option<String>,
    /// Invite link of the mesh to join; without one a new mesh begins.
    #[arg(long)]
    join: Option<String>,
    /// Space for others, such as 50G.
    #[arg(long, value_parser = parse_size)]
    donate: Option<u64>,
    /// Percent of it for all peers together that it does not know and that store nothing for it [default: 10].
    #[arg(long, value_parser = clap::value_parser!(u8).range(..=100))]
    newcomers: Option<u8>,
    /// IP addresses to listen on [default: all].
    #[arg(long)]
    listen: Vec<String>,
    /// Seconds for which records of the mesh are kept that nobody hands on.
    #[arg(long)]
    record_lifetime: Option<u64>,
    /// Do not look for peers on the local network.
    #[arg(long)]
    no_mdns: bool,
}

#[derive(Args)]
struct Init {
    /// Store for others only: no identity, no volume. Else the first two lines of standard input are the 24 words and the
    /// passphrase that belongs to them, which may be empty.
    #[arg(long)]
    storage_only: bool,
    /// Print what is being made, too, before it counts: it does when one more line of standard input says that it was told.
    #[arg(long)]
    tell_first: bool,
    /// Only say whether one could be set up here.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    opened: Opened,
    #[command(flatten)]
    setup: Setup,
}

/// What opens a new keystore: a key file where nothing is said.
#[derive(Args, Clone, Copy)]
pub(crate) struct Opened {
    /// Read the keystore's passphrase from standard input.
    #[arg(long)]
    pub(crate) passphrase_stdin: bool,
    /// Keep the key of a new keystore in the keyring of the desktop.
    #[arg(long, conflicts_with = "passphrase_stdin")]
    keyring: bool,
}

#[derive(Args)]
struct Seal {
    /// What is to open it.
    #[arg(long, value_parser = parse_seal)]
    by: SealedBy,
}

fn parse_seal(word: &str) -> Result<SealedBy, String> {
    SealedBy::ALL.into_iter().find(|by| by.words() == word).ok_or_else(|| "not a way to seal a keystore".to_owned())
}

#[derive(Args)]
struct Words {
    /// Only say whether the line on standard input is such words.
    #[arg(long)]
    check: bool,
}

#[derive(Args)]
struct Recover {
    /// The HN_HOME of a device of the identity, or a copy of it.
    #[arg(long)]
    from: Option<PathBuf>,
    #[command(flatten)]
    setup: Setup,
}

#[derive(Args)]
struct Join {
    /// The link that `hn invite` printed.
    link: String,
    /// Only say whether it is one.
    #[arg(long)]
    check: bool,
}

/// The next line of standard input, where no other program sees it.
fn secret_line() -> Result<SecretText, Failure> {
    next_secret(std::io::stdin().lock())
}

fn next_secret(from: impl BufRead) -> Result<SecretText, Failure> {
    let mut line = Zeroizing::new(String::new());
    // Room for how the line ends.
    from.take(SECRET_MAX as u64 + 2)
        .read_line(&mut line)
        .map_err(|error| Failure::new(Kind::NoInput, format!("cannot read standard input: {error}")))?;
    let secret: SecretText = line.trim_end_matches(['\n', '\r']).into();
    not_too_long(&secret)?;
    Ok(secret)
}

/// Waits until whoever has started this has told of what is being made. Who is gone has not.
fn is_told() -> Result<(), Failure> {
    let mut said = String::new();
    match std::io::stdin().lock().take(1).read_to_string(&mut said) {
        Ok(1) => Ok(()),
        Ok(_) | Err(_) => Err(Failure::new(Kind::NoInput, "nobody has told of what was to be made, so it is not")
            .hint("begin again: the directory is as good as empty")),
    }
}

/// What is longer could be told to no command: no line that is read for it is.
fn not_too_long(secret: &SecretText) -> Result<(), Failure> {
    if secret.expose().len() <= SECRET_MAX {
        return Ok(());
    }
    Err(Failure::new(Kind::Usage, format!("a passphrase, or another secret, is longer than {SECRET_MAX} bytes"))
        .hint("take a shorter one; nothing was changed"))
}

/// What the words on standard input yield, together with the passphrase on the line after them.
fn phrase() -> Result<RecoveryKeys, Failure> {
    let words = Phrase::parse(secret_line()?.expose()).map_err(|error| Failure::new(Kind::Usage, error.to_string()))?;
    Ok(words.keys(secret_line()?.expose()))
}

/// What is to open a new keystore.
pub(crate) fn unlock(opened: Opened) -> Result<Unlock, Failure> {
    unlock_by(match opened {
        Opened { passphrase_stdin: true, .. } => SealedBy::Passphrase,
        Opened { keyring: true, .. } => SealedBy::Keyring,
        Opened { .. } => SealedBy::KeyFile,
    })
}

/// The passphrase, if it is one, stands in the next line of standard input.
fn unlock_by(by: SealedBy) -> Result<Unlock, Failure> {
    match by {
        SealedBy::KeyFile => Ok(Unlock::KeyFile),
        SealedBy::Keyring => Ok(Unlock::Keyring),
        SealedBy::Passphrase => unlock_with(&secret_line()?),
    }
}

/// By a passphrase.
pub(crate) fn unlock_with(passphrase: &SecretText) -> Result<Unlock, Failure> {
    if passphrase.is_empty() {
        return Err(Failure::new(Kind::Usage, "the passphrase is empty").hint("leave it out to use a key file"));
    }
    not_too_long(passphrase)?;
    Ok(Unlock::Passphrase(Passphrase::new(passphrase)))
}

/// What opens a keystore that exists, as its file says. Says what is missing instead of failing to open it.
pub(crate) fn unlock_existing(keystore: &std::path::Path, passphrase_stdin: bool) -> Result<Unlock, Failure> {
    match KeystoreFile::sealed_by(keystore)? {
        SealedBy::Passphrase if !passphrase_stdin => {
            Err(Failure::new(Kind::Permission, format!("{} is sealed by a passphrase", keystore.display()))
                .hint("run the command on a terminal, or pass it with --passphrase-stdin"))
        }
        by => unlock_by(by),
    }
}

fn choices(setup: Setup, storage_only: bool) -> Choices {
    Choices {
        device_name: setup.device_name,
        join: setup.join,
        storage_only,
        donate: setup.donate,
        newcomers: setup.newcomers,
        listen: setup.listen,
        record_lifetime: setup.record_lifetime,
        mdns: !setup.no_mdns,
    }
}

/// These lines are the interface to `hn`. One of them has 24 words in it.
fn print_json(value: &impl serde::Serialize) {
    if let Ok(text) = serde_json::to_string(value).map(Zeroizing::new) {
        // Whoever started this may be gone: that is no reason to end.
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{}", *text).and_then(|()| out.flush());
    }
}

fn print_nothing() {
    print_json(&serde_json::json!({}));
}

/// libp2p writes the keys of every TLS session to the file that this variable names. They are secrets, too, and the
/// environment is not asked whether they may be written down.
#[expect(unsafe_code, reason = "a variable can be taken away only so")]
fn no_key_log() {
    // SAFETY: nothing has begun yet, so no other thread reads the environment.
    unsafe { std::env::remove_var("SSLKEYLOGFILE") };
}

fn set_up(command: Verb, home: &Home) -> Result<api::SetUp, Failure> {
    match command {
        Verb::Init(args) => {
            let phrase = if args.storage_only { None } else { Some(phrase()?) };
            let unlock = unlock(args.opened)?;
            let tell = |made: &api::SetUp| {
                if !args.tell_first {
                    return Ok(());
                }
                print_json(made);
                is_told()
            };
            setup::init(home, &choices(args.setup, args.storage_only), phrase.as_ref(), &unlock, tell)
        }
        Verb::Recover(args) => setup::recover(home, args.from.as_deref(), &choices(args.setup, false)),
        Verb::Join(args) => setup::join(home, &args.link),
        Verb::Seal(_) | Verb::Phrase(_) | Verb::Clear | Verb::Run(_) => {
            Err(Failure::new(Kind::Usage, "not a set-up command"))
        }
    }
}

fn main() -> ExitCode {
    no_key_log();
    hypernet_sdk::secret::no_core_dumps();
    let cli = Cli::parse();
    let home = Home::new(hypernet_sdk::home::resolve());
    let result = match cli.command {
        Verb::Run(args) => agent::run(home, args),
        Verb::Seal(args) => reseal(&home, args.by).map(|sealed| print_json(&sealed)),
        Verb::Clear => agent::mount::clear_left(&home).map(|mount| print_json(&api::Cleared { mount })),
        Verb::Join(args) if args.check => invite::Invite::parse(&args.link).map(|_| print_nothing()),
        Verb::Init(args) if args.check => {
            setup::check(&home, &choices(args.setup, args.storage_only), args.opened.keyring).map(|()| print_nothing())
        }
        Verb::Phrase(args) if args.check => {
            secret_line().and_then(|words| agent::recovery::words_of(words.expose())).map(|_| print_nothing())
        }
        Verb::Phrase(_) => keystore::random_secret().map(|entropy| {
            let words = Phrase::new(&entropy).words().map(SecretText::from).collect();
            print_json(&api::Words { words });
        }),
        other => set_up(other, &home).map(|made| print_json(&made)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            print_json(&serde_json::json!({ "ready": false, "error": server::api_error(&failure) }));
            ExitCode::FAILURE
        }
    }
}

/// Has something else open the keystore of an agent that does not run.
fn reseal(home: &Home, by: SealedBy) -> Result<api::KeystoreSealed, Failure> {
    let before = unlock_existing(&home.keystore(), true)?;
    let after = unlock_by(by)?;
    // Held while an agent runs, which would write what it has over this.
    let _alone = ShardStore::open(&home.donated(), Config::load(home)?.quota()).map_err(agent::store_failure)?;
    setup::reseal(&KeystoreFile::load(&home.keystore(), &before)?, home, &after)
}

/// The line that says that the agent is ready.
pub(crate) fn print_ready(ready: &api::Ready) {
    print_json(ready);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_is_too_long_is_refused_and_not_cut_off() {
        let read = |text: String| next_secret(text.as_bytes()).map(|secret| secret.expose().len());
        for (end, more) in [("\n", ""), ("\r\n", ""), ("\n", "the next one\n")] {
            let line = |len| "x".repeat(len) + end + more;
            assert_eq!((read(line(0)), read(line(SECRET_MAX))), (Ok(0), Ok(SECRET_MAX)), "{end:?}");
            assert_eq!(read(line(SECRET_MAX + 2)).unwrap_err().kind, Kind::Usage, "{end:?}");
        }
        assert_eq!(read("x".repeat(2 * SECRET_MAX)).unwrap_err().kind, Kind::Usage);
        assert_eq!((read(String::new()), read("no end".into())), (Ok(0), Ok(6)));
        let unlock = |len| unlock_with(&SecretText::new("x".repeat(len))).map(drop);
        assert!(unlock(SECRET_MAX).is_ok() && unlock(SECRET_MAX + 1).is_err() && unlock(0).is_err());
    }
}
