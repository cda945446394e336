//! Guardians: people who have shares of somebody's words, and bring everything back together.
#![allow(clippy::unwrap_used)]

use std::fs;

use anyhow::{Context, Result};
use hypernet_kit::machine::{Need, has};
use hypernet_kit::{Agent, Meets, Mesh, hn};
use serde_json::{Value, json};

const PEERS: u32 = 4;

/// One who has synced something, and their address.
fn person(mesh: &Mesh) -> Result<(Agent, String)> {
    let agent = Agent::up_on(mesh, PEERS)?;
    fs::write(agent.mount().join("file"), "so that there is a head")?;
    agent.sync()?;
    let address = agent.json(["id"])?["address"].as_str().context("no address")?.to_owned();
    Ok((agent, address))
}

/// Changes one bit of the share that a guardian has, who is called so by the one whose words they are.
fn forge(agent: &Agent, name: &str) -> Result<()> {
    let (path, key) = (agent.home().join("keystore.age"), fs::read_to_string(agent.home().join("keystore.key"))?);
    let key: age::x25519::Identity = key.lines().next().unwrap().parse().map_err(anyhow::Error::msg)?;
    let mut plain = age::decrypt(&key, &fs::read(&path)?)?;
    // Behind the name, that no passphrase belongs to the words, and 32 bytes.
    let before = [name.as_bytes(), &[0xf4, 0x58, 32]].concat();
    let at = plain.windows(before.len()).position(|part| part == before).context("there is no share")?;
    plain[at + before.len()] ^= 1;
    Ok(fs::write(path, age::encrypt(&key.to_public(), &plain)?)?)
}

/// A guardian enters the code that the one who recovers shows, and both have the same pictures.
fn helps(recovers: &mut Meets, guardian: &Agent, whom: &str) -> Result<Meets> {
    let code = recovers.wait_for("code")?["code"].as_str().unwrap().to_owned();
    let mut helps = Meets::start(guardian, &["guardians", "help", whom, &code])?;
    recovers.compare(&mut helps)?;
    Ok(helps)
}

fn guardians_of(agent: &Agent) -> Result<Value> {
    Ok(agent.json(["guardians", "list"])?["mine"].clone())
}

#[test]
fn two_of_three_guardians_bring_everything_back_and_a_forged_share_is_named() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(PEERS)?;
    let (owner, of_owner) = person(&mesh)?;
    fs::write(owner.mount().join("file"), "what is to come back")?;
    owner.sync()?;
    let people = [person(&mesh)?, person(&mesh)?, person(&mesh)?];
    let [anna, ben, carl] = people.each_ref().map(|(agent, _)| agent);
    for ((agent, address), name) in people.iter().zip(["anna", "ben", "carl"]) {
        owner.json(["contact", "add", address, "--name", name])?;
        agent.json(["contact", "add", &of_owner, "--name", "olga"])?;
    }

    // What cannot be is refused before anything is shared, and says why.
    let set = |args: &[&str]| owner.by_words(&[&["guardians", "set"], args].concat());
    set(&["2-of-3", "anna", "ben"])?.fails(64, "2 guardians named where 3 are to be", "hn contact list");
    set(&["1-of-2", "anna", "ben"])?.fails(64, "1 of 2 cannot be", "2-of-3");
    set(&["2-of-2", "anna", "anna"])?.fails(64, "anna is named twice", "one share");
    set(&["2-of-2", "anna", "emil"])?.fails(64, "no contact is called emil", "hn contact add");
    let mut others = owner.command(["guardians", "set", "2-of-2", "anna", "ben", "--phrase-stdin"])?;
    let others = hn::run(others.stdin(fs::File::open(anna.scratch().join("words"))?))?;
    others.fails(64, "are not those of this identity", "nothing was changed");
    owner.hn(["guardians", "clear"])?.fails(64, "no guardians are set", "hn guardians set");
    let help = |code: &str| Meets::start(anna, &["guardians", "help", "olga", code])?.fails();
    assert!(help("aaaa-aaaa-aaaa-aaaa")?.contains("a character of it is mistyped"));
    let mut verifies = Meets::start(&owner, &["contact", "verify", "anna", "--timeout", "1"])?;
    let said = help(verifies.wait_for("code")?["code"].as_str().unwrap())?;
    verifies.fails()?;
    assert!(said.contains("olga has put no share of their words on the mesh for you"), "{said}");
    assert_eq!(guardians_of(&owner)?, Value::Null);

    let made = set(&["--json", "2-of-3", "anna", "ben", "carl"])?.ok()?.json()?;
    assert_eq!(made["threshold"], 2);
    let placed: Vec<_> = made["guardians"].as_array().unwrap().iter().map(|one| &one["placed"]).collect();
    assert_eq!(placed, [true, true, true], "{made}");
    // Ben never looks before he is needed.
    for agent in [anna, carl] {
        let held = &agent.json(["guardians", "list"])?["held"];
        assert_eq!(
            (&held[0]["name"], &held[0]["threshold"], &held[0]["count"]),
            (&json!("olga"), &json!(2), &json!(3))
        );
    }
    // Who removes a contact has the share still, and hears so. The mesh would mend what of a contact's is damaged.
    let id = carl.json(["guardians", "list"])?["held"][0]["identity"].as_str().unwrap()[..10].to_owned();
    let removed = carl.hn(["contact", "remove", "olga"])?.ok()?;
    assert!(removed.stderr.contains(&format!("`hn guardians help {id}`")), "{removed:?}");
    carl.down()?;
    forge(carl, "carl")?;
    carl.up()?;

    let words = fs::read_to_string(owner.scratch().join("words"))?;
    owner.sync()?;
    owner.down()?;
    owner.wipe()?;
    let recover =
        ["recover", "--guardians", "--no-confirm", "--join", mesh.link(), "--no-mdns", "--listen", "127.0.0.1"];
    let mut recovers = Meets::start(&owner, &recover)?;

    let said = helps(&mut recovers, carl, &id)?.fails()?;
    assert!(said.contains("the share is refused there"), "{said}");
    let refused = recovers.wait_for("done")?["refused"]["message"].as_str().context("it was taken")?.to_owned();
    assert!(refused.contains("the share of carl") && refused.contains("is not one of this set"), "{refused}");
    assert_eq!(recovers.wait_for("shares")?["have"], json!([]));

    for (agent, have) in [(anna, json!(["anna"])), (ben, json!(["anna", "ben"]))] {
        assert_eq!(helps(&mut recovers, agent, "olga")?.ends()?["name"], "olga");
        let shares = recovers.wait_for("shares")?;
        assert_eq!((&shares["have"], &shares["needed"]), (&have, &json!(2)));
    }
    let told = recovers.wait_for("words")?;
    let told: Vec<&str> = told["phrase"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(told.join(" "), words.trim());
    assert_eq!(recovers.ends()?["event"], "done");
    owner.json(["mount".as_ref(), owner.mount().as_os_str()])?;
    assert_eq!(fs::read_to_string(owner.mount().join("file"))?, "what is to come back");
    let again = owner.hn(["recover", "--guardians", "--no-confirm", "--words-stdin"])?;
    again.fails(73, "in use by an agent already", "HN_HOME");

    // Who the guardians are has come back with the keystore; they are taken back, and whoever has a share has it.
    let names: Vec<String> = guardians_of(&owner)?["guardians"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["anna", "ben", "carl"]);
    assert_eq!(owner.json(["guardians", "clear"])?, json!({ "names": ["anna", "ben", "carl"], "left": [] }));
    assert_eq!(guardians_of(&owner)?, Value::Null);
    assert_eq!(anna.json(["guardians", "list"])?["held"].as_array().unwrap().len(), 1);
    Ok(())
}
