//! `hnd`: the agent. It is the only crate that knows all the others: it wires the node to mesh, store and filesystem,
//! and serves the local socket that `hn` and other programs talk to.
#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use hypernet_sdk::api::{self, SealedBy};
use hypernet_sdk::size::parse_size;

mod agent;
mod config;
mod databases;
mod driver;
mod failure;
mod files;
#[cfg(test)]
mod golden;
mod invite;
mod keystore;
mod log;
mod peers;
mod reserve;
mod server;
mod setup;
mod status;
mod volume;

use config::Home;
use failure::{Failure, Kind};
use keystore::{Keystore, Unlock};
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
    /// Set up an agent in an empty HN_HOME from a keystore.
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
    /// Read the keystore's passphrase from standard input.
    #[arg(long)]
    passphrase_stdin: bool,
}

#[derive(Args)]
struct Init {
    /// Store for others only: no identity, no volume.
    #[arg(long)]
    storage_only: bool,
    #[command(flatten)]
    setup: Setup,
}

#[derive(Args)]
struct Recover {
    /// The keystore file.
    #[arg(long)]
    keystore: PathBuf,
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
    /// Read the keystore's passphrase from standard input.
    #[arg(long)]
    passphrase_stdin: bool,
}

/// What opens the keystore: the passphrase on standard input, or its key file.
pub(crate) fn unlock(passphrase_stdin: bool) -> Result<Unlock, Failure> {
    if !passphrase_stdin {
        return Ok(Unlock::KeyFile);
    }
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Failure::new(Kind::NoInput, format!("cannot read the passphrase: {error}")))?;
    let passphrase = line.trim_end_matches(['\n', '\r']).to_owned();
    if passphrase.is_empty() {
        return Err(Failure::new(Kind::Usage, "the passphrase is empty").hint("leave it out to use a key file"));
    }
    Ok(Unlock::Passphrase(passphrase.into()))
}

/// As [`unlock`], for a keystore that exists: says what is missing instead of failing to open it.
pub(crate) fn unlock_existing(keystore: &std::path::Path, passphrase_stdin: bool) -> Result<Unlock, Failure> {
    if !passphrase_stdin && Keystore::sealed_by(keystore)? == SealedBy::Passphrase {
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
            let unlock = unlock(args.setup.passphrase_stdin)?;
            setup::init(home, &choices(args.setup, args.storage_only), &unlock)
        }
        Verb::Recover(args) => {
            let named = |failure: Failure| match failure.kind {
                Kind::NoInput => {
                    failure.hint("name the keystore.age of an agent, or a copy of it; its key is beside it")
                }
                _ => failure,
            };
            let unlock = unlock_existing(&args.keystore, args.setup.passphrase_stdin).map_err(named)?;
            setup::recover(home, &args.keystore, &choices(args.setup, false), &unlock).map_err(named)
        }
        Verb::Join(args) => {
            let unlock = match config::Config::load(home)?.storage_only {
                true => Unlock::KeyFile,
                false => unlock_existing(&home.keystore(), args.passphrase_stdin)?,
            };
            setup::join(home, &args.link, &unlock)
        }
        Verb::Clear | Verb::Run(_) => Err(Failure::new(Kind::Usage, "not a set-up command")),
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
