//! Who stores for whom: a stranger fills the share of newcomers and no more, and a contact stores all the same.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hypernet_kit::machine::{Need, has};
use hypernet_kit::{Agent, Mesh};
use serde_json::Value;

const MIB: u64 = 1 << 20;
/// How long something may take that happens by itself.
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes that nobody can compress or share.
fn noise(seed: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// An agent with an identity that looks every second whose peers are.
fn person(mesh: &Mesh, args: &[&str]) -> Result<Agent> {
    let agent = Agent::empty()?;
    agent.init(&[&["--join", mesh.link()], args].concat())?;
    let path = agent.home().join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    config["acquaint_every"] = 1.into();
    fs::write(&path, config.to_string())?;
    agent.up_with(&["--hold"])?;
    Ok(agent)
}

/// Bytes that some have at a donor, and may have.
fn share(donor: &Agent, depositor: &str) -> Result<(u64, u64)> {
    let told = donor.json(["donate"])?;
    let shares = told["shares"].as_array().unwrap();
    let one = shares.iter().find(|share| share["depositor"] == depositor).unwrap();
    Ok((one["used"].as_u64().unwrap(), one["limit"].as_u64().unwrap()))
}

/// What an agent tells of a peer, once that is so.
fn peer(agent: &Agent, of: &Agent, is: impl Fn(&Value) -> bool) -> Result<Value> {
    let (name, until) = (of.status()?["peer"].clone(), Instant::now() + PATIENCE);
    loop {
        let peers = agent.json(["peers"])?;
        let found = peers.as_array().unwrap().iter().find(|peer| peer["peer"] == name);
        match found {
            Some(peer) if is(peer) => return Ok(peer.clone()),
            _ => ensure!(Instant::now() < until, "{found:?}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_stranger_fills_the_share_of_newcomers_and_a_contact_stores_all_the_same() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(2)?;
    let donor = person(&mesh, &["--donate", "100M"])?;
    let friend = person(&mesh, &["--donate", "0"])?;
    let stranger = person(&mesh, &["--donate", "0"])?;
    for agent in [&friend, &stranger] {
        agent.wait_for_peers(3)?;
    }
    let limit = 10 * MIB;
    assert_eq!(share(&donor, "newcomer")?, (0, limit));

    // Each of three donors would get a copy of it; the others have room for that.
    fs::write(stranger.mount().join("much"), noise(1, 40 * MIB))?;
    stranger.sync()?;
    let (used, _) = share(&donor, "newcomer")?;
    assert!((limit / 2..=limit).contains(&used), "{used} of {limit}");
    fs::write(stranger.mount().join("more"), noise(2, 4 * MIB))?;
    stranger.sync()?;
    assert!(share(&donor, "newcomer")?.0 <= limit);
    let told = peer(&stranger, &donor, |peer| peer["to_newcomer"] == true && !peer["note"].is_null())?;
    assert!(told["note"].as_str().unwrap().contains("this agent is a newcomer to it"), "{told}");
    assert_eq!((told["honesty"].as_f64(), told["presence"].as_str()), (Some(1.0), Some("here")), "it is not blamed");
    let table = stranger.hn(["peers"])?.ok()?.stdout;
    assert!(table.contains("keeps the space that it has left for peers that it knows"), "{table}");

    // Two who have each other as a contact know each other's peers.
    let address = |agent: &Agent| -> Result<String> { Ok(agent.json(["id"])?["address"].as_str().unwrap().to_owned()) };
    friend.sync()?;
    donor.sync()?;
    donor.json(["contact", "add", &address(&friend)?, "--name", "friend"])?;
    friend.json(["contact", "add", &address(&donor)?, "--name", "donor"])?;
    let known = peer(&donor, &friend, |peer| peer["name"] == "friend")?;
    assert_eq!((known["whose"].as_str(), known["depositor"].as_str()), (Some("contact"), Some("known")), "{known}");
    let known = peer(&friend, &donor, |peer| peer["name"] == "donor" && peer["to_newcomer"] == false)?;
    assert_eq!(known["operator"].as_str(), donor.status()?["identity"].as_str());
    assert!(known["free"].as_u64() > Some(50 * MIB), "{known}");
    let before = share(&donor, "known")?.0;
    fs::write(friend.mount().join("file"), noise(3, 20 * MIB))?;
    friend.sync()?;
    let known = share(&donor, "known")?.0;
    assert!(known > before + 8 * MIB, "{known} bytes of a friend");
    let text = donor.hn(["donate"])?.ok()?.stdout;
    assert!(text.contains("own devices and contacts") && text.contains("newcomers"), "{text}");

    // All of that is counted anew after a crash, and a share that is made larger is there at once.
    let counted = ["known", "reciprocal", "newcomer"].map(|one| share(&donor, one).unwrap().0);
    donor.kill()?;
    donor.up_with(&["--hold"])?;
    assert_eq!(["known", "reciprocal", "newcomer"].map(|one| share(&donor, one).unwrap().0), counted);
    donor.json(["donate", "--newcomers", "40"])?;
    assert_eq!(share(&donor, "newcomer")?.1, 40 * MIB);
    peer(&stranger, &donor, |peer| peer["connected"] == true && peer["free"].as_u64() > Some(20 * MIB))?;
    let wrong = donor.hn(["donate", "--newcomers", "101"])?;
    assert_eq!(wrong.code, Some(64), "{wrong:?}");
    Ok(())
}

#[test]
fn a_peer_that_knows_nobody_says_that_most_of_what_it_gives_is_for_nobody() -> Result<()> {
    let agent = Agent::empty()?;
    agent.hn(["init", "--storage-only", "--no-mdns", "--listen", "127.0.0.1", "--donate", "1G"])?.ok()?;
    agent.up_unmounted()?;
    let warned = |agent: &Agent| -> Result<bool> {
        let warnings = agent.status()?["warnings"].to_string();
        Ok(warnings.contains("others can use 10 % of what it gives"))
    };
    assert!(warned(&agent)?);
    let told = agent.json(["donate", "--newcomers", "100", "--space", "2G"])?;
    assert_eq!((&told["newcomers_percent"], &told["quota"]), (&100.into(), &(2u64 << 30).into()));
    assert!(!warned(&agent)?);
    agent.down()?;
    agent.up_unmounted()?;
    assert_eq!(agent.json(["donate"])?, told, "it is for good");
    Ok(())
}
