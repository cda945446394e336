//! `hnd`: the agent. It is the only crate that knows all the others: it wires the node to mesh, store and filesystem,
//! and serves the local socket that `hn` and other programs talk to.
#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::io::{BufRead, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use hypernet_core::identity::phrase::Phrase;
use hypernet_core::key::RecoveryKeys;
use hypernet_sdk::api::{self, SealedBy};
use hypernet_sdk::size::parse_size;
use zeroize::Zeroizing;

mod agent;
mod config;
mod databases;
mod driver;
mod failure;
mod files;
#[cfg(test)]
mod golden;
mod identity;
mod invite;
mod keystore;
mod log;
mod pairing;
mod peers;
mod people;
mod reserve;
mod sealing;
mod server;
mod setup;
mod status;
mod volume;

use config::Home;
use failure::{Failure, Kind};
use keystore::{KeystoreFile, Unlock};
use setup::Choices;

/// No line with a secret in it is longer.
const SECRET_MAX: u64 = 4096;

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
    Phrase,
    /// Set up an agent in an empty HN_HOME that will look for its identity.
    Recover(Recover),
    /// Join a mesh by an invite link.
    Join(Join),
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
    /// Read the keystore's passphrase from standard input, after those.
    #[arg(long)]
    passphrase_stdin: bool,
    #[command(flatten)]
    setup: Setup,
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
fn secret_line() -> Result<Zeroizing<String>, Failure> {
    let mut line = Zeroizing::new(String::new());
    std::io::stdin()
        .lock()
        .take(SECRET_MAX)
        .read_line(&mut line)
        .map_err(|error| Failure::new(Kind::NoInput, format!("cannot read standard input: {error}")))?;
    Ok(Zeroizing::new(line.trim_end_matches(['\n', '\r']).to_owned()))
}

/// What the words on standard input yield, together with the passphrase on the line after them.
fn phrase() -> Result<RecoveryKeys, Failure> {
    let words = Phrase::parse(&secret_line()?).map_err(|error| Failure::new(Kind::Usage, error.to_string()))?;
    Ok(words.keys(&secret_line()?))
}

/// What opens the keystore: the passphrase on standard input, or its key file.
pub(crate) fn unlock(passphrase_stdin: bool) -> Result<Unlock, Failure> {
    if !passphrase_stdin {
        return Ok(Unlock::KeyFile);
    }
    let passphrase = secret_line()?.to_string();
    if passphrase.is_empty() {
        return Err(Failure::new(Kind::Usage, "the passphrase is empty").hint("leave it out to use a key file"));
    }
    Ok(Unlock::Passphrase(passphrase.into()))
}

/// As [`unlock`], for a keystore that exists: says what is missing instead of failing to open it.
pub(crate) fn unlock_existing(keystore: &std::path::Path, passphrase_stdin: bool) -> Result<Unlock, Failure> {
    if !passphrase_stdin && KeystoreFile::sealed_by(keystore)? == SealedBy::Passphrase {
        return Err(Failure::new(Kind::Permission, format!("{} is sealed by a passphrase", keystore.display()))
            .hint("run the command on a terminal, or pass it with --passphrase-stdin"));
    }
    unlock(passphrase_stdin)
}

fn choices(setup: Setup, storage_only: bool) -> Choices {
    Choices {
        device_name: setup.device_name,
        join: setup.join,
        storage_only,
        donate: setup.donate,
        listen: setup.listen,
        record_lifetime: setup.record_lifetime,
        mdns: !setup.no_mdns,
    }
}

/// These lines are the interface to `hn`.
fn print_json(value: &impl serde::Serialize) {
    if let Ok(text) = serde_json::to_string(value) {
        // Whoever started this may be gone: that is no reason to end.
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}

fn set_up(command: Verb, home: &Home) -> Result<api::SetUp, Failure> {
    match command {
        Verb::Init(args) => {
            let phrase = if args.storage_only { None } else { Some(phrase()?) };
            let unlock = unlock(args.passphrase_stdin)?;
            setup::init(home, &choices(args.setup, args.storage_only), phrase.as_ref(), &unlock)
        }
        Verb::Recover(args) => setup::recover(home, args.from.as_deref(), &choices(args.setup, false)),
        Verb::Join(args) => setup::join(home, &args.link),
        Verb::Phrase | Verb::Clear | Verb::Run(_) => Err(Failure::new(Kind::Usage, "not a set-up command")),
    }
}

fn main() -> ExitCode {
    // Secrets are in memory: no core file may ever show them.
    let _ = rustix::process::setrlimit(
        rustix::process::Resource::Core,
        rustix::process::Rlimit { current: Some(0), maximum: Some(0) },
    );
    let cli = Cli::parse();
    let home = Home::new(hypernet_sdk::home::resolve());
    let result = match cli.command {
        Verb::Run(args) => agent::run(home, args),
        Verb::Clear => agent::mount::clear_left(&home).map(|mount| print_json(&api::Cleared { mount })),
        Verb::Join(args) if args.check => invite::Invite::parse(&args.link).map(|_| print_json(&serde_json::json!({}))),
        Verb::Phrase => keystore::random_secret().map(|entropy| {
            let words = Phrase::new(&entropy).words().map(str::to_owned).collect();
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

/// The line that says that the agent is ready.
pub(crate) fn print_ready(ready: &api::Ready) {
    print_json(ready);
}
