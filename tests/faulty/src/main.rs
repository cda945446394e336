//! A disk in memory that fails on command, for tests: mounted with FUSE, told what to do on standard input.
//!
//! `cut` takes its power away: what was not synced is lost or torn, and every call fails until `restore`, which nobody
//! may have anything open for. `fill BYTES` leaves so much room, `fill` as much as there was. `fail read|write|sync|change
//! N` makes N of a thousand such calls fail, `fail` none. Each line is answered by one that begins with `ok` or `error`.
//! The end of standard input ends it.
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![expect(clippy::print_stdout, reason = "it is spoken to over its standard input and output")]

mod disk;
mod handler;

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Parser;
use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use parking_lot::Mutex;
use rustix::mount::UnmountFlags;

use disk::{Call, Disk};
use handler::Handler;

/// A disk in memory that fails on command. Needs root.
#[derive(Parser)]
struct Cli {
    /// Where it is mounted.
    dir: PathBuf,
    /// Of what a power cut leaves, and of which calls fail.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn mount(disk: &Arc<Mutex<Disk>>, dir: &Path) -> Result<BackgroundSession> {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("faulty".into()),
        MountOption::DefaultPermissions,
        MountOption::Dev,
        MountOption::Suid,
    ];
    config.acl = SessionACL::All;
    config.n_threads = Some(2);
    let session = Session::new(Handler(disk.clone()), dir, &config).context("cannot mount the disk")?;
    session.spawn().context("cannot serve the disk")
}

fn call(word: &str) -> Result<Call> {
    Ok(match word {
        "read" => Call::Read,
        "write" => Call::Write,
        "sync" => Call::Sync,
        "change" => Call::Change,
        other => bail!("no call is known as {other}"),
    })
}

fn obey(line: &str, disk: &Arc<Mutex<Disk>>, session: &mut Option<BackgroundSession>, dir: &Path) -> Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["cut"] => {
            let (sectors, changes) = disk.lock().cut();
            Ok(format!("{sectors} {changes}"))
        }
        ["restore"] => {
            // The kernel must forget what it knows of it.
            rustix::mount::unmount(dir, UnmountFlags::empty()).context("cannot unmount the disk")?;
            if let Some(session) = session.take() {
                session.join().context("the disk was not left in order")?;
            }
            disk.lock().restore();
            *session = Some(mount(disk, dir)?);
            Ok(String::new())
        }
        ["fill"] => {
            disk.lock().fill(None);
            Ok(String::new())
        }
        ["fill", room] => {
            disk.lock().fill(Some(room.parse().context("no number of bytes")?));
            Ok(String::new())
        }
        ["fail"] => {
            let mut disk = disk.lock();
            let failed = disk.failed;
            disk.fail(None);
            Ok(failed.to_string())
        }
        ["fail", kind, of_thousand] => {
            let of_thousand = of_thousand.parse().context("no number")?;
            disk.lock().fail(Some((call(kind)?, of_thousand)));
            Ok(String::new())
        }
        _ => bail!("not understood: {line}"),
    }
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let disk = Arc::new(Mutex::new(Disk::new(cli.seed, u64::MAX)));
    let mut session = Some(mount(&disk, &cli.dir)?);
    println!("ok");
    for line in std::io::stdin().lock().lines() {
        match obey(&line?, &disk, &mut session, &cli.dir) {
            Ok(said) => println!("ok {said}"),
            Err(error) => println!("error {error:#}"),
        }
        std::io::stdout().flush()?;
    }
    // Whoever still uses it is told so by every call.
    disk.lock().cut();
    let _ = rustix::mount::unmount(&cli.dir, UnmountFlags::DETACH);
    Ok(())
}
