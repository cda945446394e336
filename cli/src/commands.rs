//! One module per command or family of commands: arguments in, answers out.

use std::fs;

use clap::CommandFactory;
use hypernet_sdk::{Client, Home};

use crate::args::{self, Cache, Cli, Command, Dev};
use crate::error::Failure;
use crate::output::Output;

mod agent;
mod branch;
mod conflicts;
mod contact;
mod custodian;
mod dev;
mod device;
mod diff;
mod donate;
mod events;
mod gc;
mod guardians;
mod health;
mod history;
pub(crate) mod init;
mod meet;
mod passphrase;
mod policy;
mod recover;
mod restore;
mod revert;
mod share;
mod status;
mod volume;

pub(crate) async fn run(command: Command, out: &mut Output) -> Result<(), Failure> {
    let home = Home::from_env();
    match command {
        Command::Init(args) => init::init(&home, args, out).await,
        Command::Invite => invite(home, out).await,
        Command::Join(args) => agent::join(&home, args, out).await,
        Command::Up(args) => agent::up(&home, args, out).await,
        Command::Down => agent::down(&home, out).await,
        Command::Status => status::status(home, out).await,
        Command::Health(args) => health::health(home, args, out).await,
        Command::Peers(args) => status::peers(home, args, out).await,
        Command::Sync(args) => events::sync(home, args, out).await,
        Command::Mount(args) => agent::mount(home, args, out).await,
        Command::Umount(args) => umount(home, args, out).await,
        Command::Recover(args) => recover::recover(&home, args, out).await,
        Command::Device(command) => device::device(home, command, out).await,
        Command::Id(args) => contact::id(home, &args, out).await,
        Command::Contact(command) => contact::contact(home, command, out).await,
        Command::Guardians(command) => guardians::guardians(home, command, out).await,
        Command::Custodian(args) => custodian::custodian(home, args, out).await,
        Command::Volume(command) => volume::volume(home, command, out).await,
        Command::Gc(args) => gc::gc(home, &args, out).await,
        Command::Donate(args) => donate::donate(home, &args, out).await,
        Command::Share(args) => share::share(home, args, out).await,
        Command::Unshare(args) => share::unshare(home, args, out).await,
        Command::Shares => share::shares(home, out).await,
        Command::Attach(args) => share::attach(home, args, out).await,
        Command::Detach(args) => share::detach(home, args, out).await,
        Command::Snap(args) => history::snap(home, args, out).await,
        Command::Policy(args) => policy::policy(home, args, out).await,
        Command::Log(args) => history::log(home, args, out).await,
        Command::Show(args) => history::show(home, args, out).await,
        Command::Diff(args) => diff::diff(home, args, out).await,
        Command::Restore(args) => restore::restore(home, args, out).await,
        Command::Revert(args) => revert::revert(home, args, out).await,
        Command::Tag(args) => history::tag(home, args, out).await,
        Command::Branch(args) => branch::branch(home, args, out).await,
        Command::Switch(args) => branch::switch(home, args, out).await,
        Command::Merge(args) => branch::merge(home, args, out).await,
        Command::Conflicts(args) => conflicts::conflicts(home, args, out).await,
        Command::Resolve(args) => conflicts::resolve(home, args, out).await,
        Command::Verify(args) => history::verify(home, args, out).await,
        Command::Passphrase(args) => passphrase::passphrase(home, &args, out).await,
        Command::Cache(Cache::Drop { path, force }) => events::cache_drop(home, path, force, out).await,
        Command::Fsck(args) => events::fsck(home, args, out).await,
        Command::Dev(Dev::Mesh(args)) => dev::mesh(args, out).await,
        Command::Completions(args) => completions(&args, out),
        Command::Man(args) => man(&args, out),
    }
}

async fn invite(home: Home, out: &mut Output) -> Result<(), Failure> {
    let invite = Client::new(home)?.invite().await?;
    out.json(&invite)?;
    out.line(&invite.link)
}

async fn umount(home: Home, args: args::Umount, out: &mut Output) -> Result<(), Failure> {
    let (client, status) = Client::connect(home).await?;
    let dir = args.dir.map(|dir| std::path::absolute(&dir).map_err(|error| Failure::io(dir.display(), &error)));
    let dir = dir.transpose()?;
    client.umount(dir.as_deref()).await?;
    let dir = dir.or(status.mount.map(|mount| mount.dir));
    out.json(&serde_json::json!({ "unmounted": dir }))?;
    match dir {
        Some(dir) => out.line(format_args!("unmounted {}", dir.display())),
        None => out.line("nothing was mounted"),
    }
}

fn completions(args: &args::Completions, out: &mut Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "hn", &mut script);
    out.json(&serde_json::json!({ "shell": args.shell.to_string(), "script": String::from_utf8_lossy(&script) }))?;
    out.raw(&script)
}

fn man(args: &args::Man, out: &mut Output) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| Failure {
        code: hypernet_sdk::ErrorCode::CantCreate,
        ..Failure::io(format!("cannot write manual pages to {}", args.dir.display()), &error)
    };
    fs::create_dir_all(&args.dir).map_err(cannot)?;
    clap_mangen::generate_to(Cli::command(), &args.dir).map_err(cannot)?;
    out.json(&serde_json::json!({ "dir": args.dir }))?;
    out.line(format_args!(
        "manual pages are in {}; try: man -l {}",
        args.dir.display(),
        args.dir.join("hn.1").display()
    ))
}
