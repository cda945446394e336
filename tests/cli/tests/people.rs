//! Devices that join by a code, and people who know one another.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hypernet_kit::machine::{Need, has};
use hypernet_kit::{Agent, Meets, Mesh};
use serde_json::Value;

const PEERS: u32 = 4;

fn join<'a>(code: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["device", "join", code, "--no-mdns", "--listen", "127.0.0.1", "--device-name", "second"][..], more].concat()
}

#[test]
fn a_device_joins_by_a_code_and_has_the_files_and_a_code_that_leads_nowhere_says_so() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(PEERS)?;
    let first = Agent::up_on(&mesh, PEERS)?;
    fs::write(first.mount().join("file"), "of the first device")?;
    first.sync()?;
    let second = Agent::empty()?;

    // Somebody sees something else: nothing happens, and both sides say so.
    let mut adds = Meets::start(&first, &["device", "add"])?;
    let shown = adds.wait_for("code")?;
    let link = shown["link"].as_str().unwrap();
    assert!(link.starts_with(&format!("hypernet:pair/{}/", shown["code"].as_str().unwrap())), "{shown}");
    let mut joins = Meets::start(&second, &join(link, &[]))?;
    assert_eq!(adds.wait_for("met")?["name"], "second");
    let words = joins.pictures()?;
    assert_eq!(words, adds.pictures()?);
    joins.tell("dog dog dog dog dog dog dog")?;
    let here = joins.fails()?;
    assert!(here.contains("NOT the same"), "{here}");
    let there = adds.fails()?;
    assert!(there.contains("NOT the same"), "{there}");
    let listed = first.json(["device", "list"])?;
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");

    // A code is good once, and a slip in one is found before anybody is asked.
    let used = second.hn(join(shown["code"].as_str().unwrap(), &["--words-stdin", "--timeout", "5"]))?;
    assert!(used.code != Some(0) && !used.stderr.contains("panicked"), "{used:?}");
    let slip = second.hn(join("aaaa-aaaa-aaaa-aaaa", &["--words-stdin"]))?;
    assert!(slip.code == Some(64) && slip.stderr.contains("a character of it is mistyped"), "{slip:?}");

    // Now they are the same. The second device goes on in the directory in which it has begun.
    let mut adds = Meets::start(&first, &["device", "add"])?;
    let code = adds.wait_for("code")?["code"].as_str().unwrap().to_owned();
    // Where no other user of the machine sees the code.
    let mut joins = Meets::start(&second, &join("-", &[]))?;
    joins.tell(&code)?;
    adds.compare(&mut joins)?;
    assert_eq!(adds.ends()?["name"], "second");
    assert_eq!(joins.ends()?["event"], "done");
    second.json(["mount".as_ref(), second.mount().as_os_str()])?;
    assert_eq!(fs::read_to_string(second.mount().join("file"))?, "of the first device");
    let listed = first.json(["device", "list"])?;
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(names.len() == 2 && names.contains(&"second"), "{listed}");
    fs::write(second.mount().join("other"), "of the second device")?;
    second.sync()?;
    second.hn(join(&code, &["--words-stdin"]))?.fails(73, "in use by an agent already", "HN_HOME");

    // Nobody enters a code, and nobody waits at one.
    let expired = first.hn(["device", "add", "--words-stdin", "--timeout", "1"])?;
    assert!(expired.code == Some(75) && expired.stderr.contains("it has expired"), "{expired:?}");
    let third = Agent::empty()?;
    let nobody = third.hn(join("aaaa-aaaa-aaaa-aaaa", &["--words-stdin"]))?;
    nobody.fails(64, "does not say on which mesh", "--join LINK");
    Ok(())
}

/// Wherever the new device is killed, it comes onto the list once and for all or not at all.
#[test]
fn a_device_that_is_killed_while_it_joins_goes_on_or_begins_again() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(PEERS)?;
    let first = Agent::up_on(&mesh, PEERS)?;
    let nothing = first.hn(["device", "add", "--words-stdin"])?;
    nothing.fails(78, "nothing was synced yet", "hn sync");
    fs::write(first.mount().join("file"), "of the first device")?;
    first.sync()?;
    let second = Agent::empty()?;

    // While people compare: nothing is there of it.
    let mut adds = Meets::start(&first, &["device", "add", "--timeout", "20"])?;
    let link = adds.wait_for("code")?["link"].as_str().unwrap().to_owned();
    let mut joins = Meets::start(&second, &join(&link, &[]))?;
    assert_eq!(adds.pictures()?, joins.pictures()?);
    second.kill()?;
    assert!(joins.fails()?.contains("stopped before"));
    drop(adds.child.kill());
    adds.child.wait()?;
    assert!(!second.home().join("keystore.age").exists());
    assert_eq!(first.json(["device", "list"])?.as_array().unwrap().len(), 1);

    // Once it has written down who it is.
    let mut adds = Meets::start(&first, &["device", "add", "--timeout", "60"])?;
    let code = adds.wait_for("code")?["code"].as_str().unwrap().to_owned();
    let mut joins = Meets::start(&second, &join(&code, &[]))?;
    joins.wait_for("compare")?;
    let pid = second.status()?["pid"].as_u64().unwrap();
    let words = adds.pictures()?;
    adds.tell(&words)?;
    joins.tell(&words)?;
    let deadline = Instant::now() + Duration::from_secs(120);
    while !second.home().join("keystore.age").exists() {
        ensure!(Instant::now() < deadline, "it does not come that far");
        std::thread::sleep(Duration::from_millis(2));
    }
    second.kill_process(pid)?;
    let ended = joins.child.wait()?;
    drop((adds.child.kill(), adds.child.wait()));
    match ended.success() {
        // It was through.
        true => drop(second.up_unmounted()?),
        false => drop(second.hn(["--json", "device", "join"])?.ok()?),
    }
    second.sync()?;
    let listed = first.json(["device", "list"])?;
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    Ok(())
}

#[test]
fn contacts_are_added_verified_on_both_sides_and_come_back_with_the_words() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(PEERS)?;
    let (anna, bob) = (Agent::up_on(&mesh, PEERS)?, Agent::up_on(&mesh, PEERS)?);
    for agent in [&anna, &bob] {
        fs::write(agent.mount().join("file"), "so that there is a head")?;
        agent.sync()?;
    }
    let address = |agent: &Agent| -> Result<String> {
        let id = agent.json(["id"])?;
        Ok(id["address"].as_str().context("no address")?.to_owned())
    };
    let (of_anna, of_bob) = (address(&anna)?, address(&bob)?);
    assert!(of_anna.starts_with("hn1") && of_anna.len() == 86 && of_anna != of_bob);
    let drawn = anna.hn(["id", "--qr"])?.ok()?.stdout;
    assert!(drawn.starts_with(&of_anna) && drawn.lines().count() > 15, "{drawn}");

    // An address that is cut short, has a slip, or is nobody's.
    let add = |agent: &Agent, address: &str, name: &str| agent.hn(["contact", "add", address, "--name", name]);
    add(&bob, &of_anna[..60], "anna")?.fails(64, "cut short: it has 60 of 86 characters", "hn id");
    let slip = if of_anna.ends_with('q') { "p" } else { "q" };
    add(&bob, &format!("{}{slip}", &of_anna[..85]), "anna")?.fails(64, "a character of it is mistyped", "hn id");
    add(&bob, &of_bob, "me")?.fails(64, "your own address", "you add theirs");
    assert_eq!(bob.json(["contact", "list"])?, Value::Array(vec![]));

    let added = bob.json(["contact", "add", &of_anna, "--name", "anna"])?;
    assert_eq!((&added["verified"], &added["address"]), (&false.into(), &of_anna.as_str().into()));
    add(&bob, &of_anna, "eve")?.fails(64, "the address of anna, whom you know already", "hn contact remove");
    anna.json(["contact", "add", &of_bob, "--name", "bob"])?;
    // A name stands for one person.
    let taken = add(&anna, &of_bob, "bob")?;
    assert_eq!(taken.code, Some(0), "the same one again is nothing new: {taken:?}");

    // Both make sure of each other at once.
    let mut shows = Meets::start(&bob, &["contact", "verify", "anna"])?;
    let code = shows.wait_for("code")?["code"].as_str().unwrap().to_owned();
    let mut enters = Meets::start(&anna, &["contact", "verify", "bob", "-"])?;
    enters.tell(&code)?;
    shows.compare(&mut enters)?;
    assert_eq!(shows.ends()?["name"], "anna");
    assert_eq!(enters.ends()?["name"], "bob");
    for agent in [&anna, &bob] {
        let known = agent.json(["contact", "list"])?;
        assert_eq!(known[0]["verified"], true, "{known}");
    }

    // A third one has another name for whom they meet: it is found out, by both.
    let eve = Agent::up_on(&mesh, PEERS)?;
    fs::write(eve.mount().join("file"), "so that there is a head")?;
    eve.sync()?;
    eve.json(["contact", "add", &of_bob, "--name", "bob"])?;
    let mut shows = Meets::start(&bob, &["contact", "verify", "anna"])?;
    let code = shows.wait_for("code")?["code"].as_str().unwrap().to_owned();
    let mut enters = Meets::start(&eve, &["contact", "verify", "bob", &code])?;
    shows.compare(&mut enters)?;
    let said = shows.fails()?;
    assert!(said.contains("the key of anna has CHANGED, or this is NOT anna"), "{said}");
    let said = enters.fails()?;
    assert!(said.contains("the identity is another one than is expected there"), "{said}");
    assert_eq!(eve.json(["contact", "list"])?[0]["verified"], false);
    add(&bob, &address(&eve)?, "anna")?.fails(65, "THE ADDRESS THAT IS KNOWN OF anna IS ANOTHER ONE", "ask them");

    // The machine is lost. With the words the contacts come back, as they were.
    bob.sync()?;
    bob.down()?;
    bob.wipe()?;
    bob.recover(&["--json", "--join", mesh.link()])?.ok()?;
    let known = bob.json(["contact", "list"])?;
    let back = (&known[0]["name"], &known[0]["verified"], &known[0]["address"]);
    assert_eq!(back, (&"anna".into(), &true.into(), &of_anna.as_str().into()));
    bob.json(["contact", "remove", "anna"])?;
    assert_eq!(bob.json(["contact", "list"])?, Value::Array(vec![]));
    Ok(())
}
