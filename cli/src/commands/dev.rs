//! `hn dev mesh`: a mesh of storage peers on this machine.

use std::path::PathBuf;

use hypernet_sdk::ErrorCode;
use serde::Serialize;

use crate::args;
use crate::args::MeshCommand;
use crate::error::Failure;
use crate::mesh::{self, Mesh, NewPeers, Peer, PeerState};
use crate::output::{Output, bar::Bar, table, words};

/// The answer of `hn dev mesh up` and `status`.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(with = "hypernet_sdk::exact_path")]
    dir: PathBuf,
    /// None while no peer runs.
    invite: Option<String>,
    running: usize,
    peers: Vec<PeerState>,
}

pub(crate) async fn mesh(args: args::Mesh, out: &mut Output) -> Result<(), Failure> {
    let dir = args.dir.unwrap_or_else(Mesh::default_dir);
    let dir = std::path::absolute(&dir).map_err(|error| Failure::io(dir.display(), &error))?;
    let mesh = match args.command {
        MeshCommand::Up { .. } => Some(Mesh::begin(&dir)?),
        _ => Mesh::find(&dir)?,
    };
    let Some(mesh) = mesh else { return none(&args.command, dir, out) };
    match args.command {
        MeshCommand::Up { peers, donate, record_lifetime } => {
            up(&mesh, peers, &NewPeers { donate, record_lifetime }, out).await
        }
        MeshCommand::Down => down(&mesh, out).await,
        MeshCommand::Kill { count, peer } => kill(&mesh, count, &peer, out).await,
        MeshCommand::Revive { count, all: _, peer } => revive(&mesh, count, &peer, out).await,
        MeshCommand::Status => status(&mesh, out).await,
    }
}

/// Where there is no mesh there is nothing to stop and nothing to show, which are answers; and nothing to kill.
fn none(asked: &MeshCommand, dir: PathBuf, out: &mut Output) -> Result<(), Failure> {
    let (what, next) = (format!("no mesh in {}", dir.display()), "`hn dev mesh up` begins one");
    match asked {
        MeshCommand::Down => out.json(&serde_json::json!({ "stopped": 0 }))?,
        MeshCommand::Status => out.json(&Shown { dir, invite: None, running: 0, peers: Vec::new() })?,
        _ => return Err(Failure::new(ErrorCode::Usage, what).hint(next)),
    }
    out.line(format_args!("{what}; {next}"))
}

async fn up(mesh: &Mesh, count: u32, new: &NewPeers, out: &mut Output) -> Result<(), Failure> {
    let mut bar = Bar::new(out, "starting peers");
    let mut running = 0;
    mesh.up(count, new, |_| {
        running += 1;
        bar.count(running, count.into());
    })
    .await?;
    let link = mesh.invite().await?;
    bar.clear();
    let peers = mesh.state().await?;
    let running = peers.iter().filter(|peer| peer.running).count();
    out.line(format_args!("{} run in {}", words::plural(running as u64, "peer"), mesh.dir().display()))?;
    if let Some(link) = &link {
        out.line(link)?;
    }
    out.json(&Shown { dir: mesh.dir().to_path_buf(), invite: link, running, peers })
}

async fn down(mesh: &Mesh, out: &mut Output) -> Result<(), Failure> {
    let running: Vec<Peer> = mesh.peers()?.into_iter().filter(|peer| peer.process().is_some()).collect();
    let total = running.len() as u64;
    let mut bar = Bar::new(out, "stopping peers");
    let mut stopped = 0;
    mesh::stop_all(running, &mut |_| {
        stopped += 1;
        bar.count(stopped, total);
    })
    .await?;
    bar.clear();
    out.json(&serde_json::json!({ "stopped": total }))?;
    out.line(format_args!("{} stopped; their data stays in {}", words::plural(total, "peer"), mesh.dir().display()))
}

/// The lowest-numbered `count` of some peers, or those that were named.
fn choose(mut from: Vec<Peer>, count: Option<u32>, named: &[u32], what: &str) -> Result<Vec<Peer>, Failure> {
    if !named.is_empty() {
        if let Some(missing) = named.iter().find(|number| !from.iter().any(|peer| peer.number == **number)) {
            return Err(Failure::new(ErrorCode::Usage, format!("peer {missing} is not {what}"))
                .hint("`hn dev mesh status` shows all of them"));
        }
        from.retain(|peer| named.contains(&peer.number));
        return Ok(from);
    }
    let count = count.map_or(from.len(), |count| count as usize);
    if count > from.len() {
        return Err(Failure::new(ErrorCode::Usage, format!("{} {what}, fewer than {count}", from.len()))
            .hint("`hn dev mesh status` shows all of them"));
    }
    from.truncate(count);
    Ok(from)
}

async fn kill(mesh: &Mesh, count: Option<u32>, named: &[u32], out: &mut Output) -> Result<(), Failure> {
    let running = mesh.peers()?.into_iter().filter(|peer| peer.process().is_some()).collect();
    let chosen = choose(running, count, named, "running")?;
    for peer in &chosen {
        peer.kill().await?;
    }
    tell(&chosen, "killed", out)
}

async fn revive(mesh: &Mesh, count: Option<u32>, named: &[u32], out: &mut Output) -> Result<(), Failure> {
    let dead = mesh.peers()?.into_iter().filter(|peer| peer.process().is_none()).collect();
    let chosen = choose(dead, count, named, "dead")?;
    let mut bar = Bar::new(out, "starting peers");
    let (mut started, total) = (0, chosen.len() as u64);
    mesh::start_all(chosen.clone(), None, &mut |_| {
        started += 1;
        bar.count(started, total);
    })
    .await?;
    bar.clear();
    tell(&chosen, "revived", out)
}

fn tell(peers: &[Peer], what: &str, out: &mut Output) -> Result<(), Failure> {
    let numbers: Vec<u32> = peers.iter().map(|peer| peer.number).collect();
    out.json(&serde_json::json!({ (what): numbers }))?;
    match peers {
        [] => out.line(format_args!("none {what}")),
        _ => out.line(format_args!("{what}: {}", peers.iter().map(Peer::name).collect::<Vec<_>>().join(", "))),
    }
}

async fn status(mesh: &Mesh, out: &mut Output) -> Result<(), Failure> {
    let peers = mesh.state().await?;
    let running = peers.iter().filter(|peer| peer.running).count();
    out.line(peer_table(&peers))?;
    if !out.is_json() {
        return Ok(());
    }
    out.json(&Shown { dir: mesh.dir().to_path_buf(), invite: mesh.invite().await?, running, peers })
}

fn peer_table(peers: &[PeerState]) -> String {
    let rows = peers.iter().map(|peer| {
        let state = match (peer.running, &peer.status) {
            (false, _) => "dead",
            (true, Some(_)) => "running",
            (true, None) => "no answer",
        };
        let of = |show: &dyn Fn(&hypernet_sdk::api::Status) -> String| {
            peer.status.as_ref().map_or_else(|| "-".to_owned(), show)
        };
        vec![
            peer.number.to_string(),
            state.to_owned(),
            peer.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            of(&|status| words::short(&status.peer)),
            of(&|status| words::count(status.peers.connected)),
            of(&|status| words::count(status.donate.shards)),
            of(&|status| words::bytes(status.donate.used)),
            of(&|status| words::bytes(status.rss_bytes)),
        ]
    });
    let head = ["NO", "STATE", "PID", "PEER", "CONNECTED", "SHARDS", "USED", "MEMORY"];
    table::table(&head, rows.collect(), &[0, 2, 4, 5, 6, 7])
}
