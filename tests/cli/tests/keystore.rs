//! What opens the keystore: passphrases, and the keyring of a desktop. That is a real Secret Service, in a session of its own
//! that nothing of this machine's can see.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::{Command, Stdio};

use anyhow::Result;
use hypernet_kit::hn::{self, Ran, binary};
use hypernet_kit::machine::{Need, has};
use hypernet_kit::{Agent, Mesh};

/// Begins like a login: a keyring is made, or unlocked, by this password. Without one it stays locked.
const SESSION: &str = r#"
    eval "$(printf %s "$PASSWORD" | gnome-keyring-daemon --unlock --components=secrets 2>/dev/null)" >/dev/null
    eval "$SCRIPT" 2>&3
"#;

/// What the bus has to say of itself is of no interest.
const QUIETLY: &str = r#"exec 3>&2; exec dbus-run-session -- sh -euc "$SESSION" 2>/dev/null"#;

/// Runs a script in a session of its own, whose keyring lies in the agent's scratch directory.
fn session(agent: &Agent, password: &str, script: &str) -> Result<Ran> {
    let home = agent.scratch().join("user");
    fs::create_dir_all(home.join("run"))?;
    let mut command = Command::new("sh");
    command
        .args(["-euc", QUIETLY])
        .env("SESSION", SESSION)
        .env("PASSWORD", password)
        .env("SCRIPT", script)
        .env("HN", binary("hn")?)
        .env("HN_HND", binary("hnd")?)
        .env("HN_HOME", agent.home())
        .env("HOME", &home)
        .env("XDG_DATA_HOME", home.join("data"))
        .env("XDG_RUNTIME_DIR", home.join("run"))
        .env_remove("DBUS_SESSION_BUS_ADDRESS")
        .env_remove("DISPLAY")
        .stdin(Stdio::null());
    hn::run(&mut command)
}

#[test]
fn a_keyring_opens_the_keystore_and_every_lack_of_it_is_named() -> Result<()> {
    if !has(&[Need::Keyring]) {
        return Ok(());
    }
    let agent = Agent::empty()?;
    let made = session(&agent, "login", r#""$HN" --json init --no-confirm --no-mdns --listen 127.0.0.1 --keyring"#)?
        .ok()?
        .json()?;
    assert_eq!(made["sealed_by"], "keyring");
    assert!(!agent.home().join("keystore.key").exists(), "there is a key file beside it");
    assert!(fs::read_to_string(agent.scratch().join("user/data/keyrings/login.keyring")).is_err(), "it is in plain");

    // The next login has it unlocked, and the agent starts.
    let script = r#""$HN" up --no-mount >/dev/null; "$HN" --json status; "$HN" down >/dev/null"#;
    let status = session(&agent, "login", script)?.ok()?.json()?;
    assert_eq!(status["keystore"]["sealed_by"], "keyring");

    // Another key, while the agent runs; the old one is taken out, and the new one opens.
    let script = r#"
        "$HN" up --no-mount >/dev/null
        "$HN" --json passphrase --keyring
        "$HN" down >/dev/null; "$HN" up --no-mount >/dev/null; "$HN" down >/dev/null
    "#;
    let before = fs::read(agent.home().join("keystore.age"))?;
    let sealed = session(&agent, "login", script)?.ok()?.json()?;
    assert_eq!((&sealed["sealed_by"], &sealed["warning"]), (&"keyring".into(), &serde_json::Value::Null));

    // The file from before names a key that is not there any more.
    let now = fs::read(agent.home().join("keystore.age"))?;
    fs::write(agent.home().join("keystore.age"), before)?;
    let up = r#""$HN" up --no-mount"#;
    session(&agent, "login", up)?.fails(77, "the keyring has not got the key", "hn recover");
    fs::write(agent.home().join("keystore.age"), now)?;

    // Locked, and nobody there to unlock it.
    session(&agent, "", up)?.fails(77, "the keyring is locked", "unlock it");

    // None at all: no daemon, and no bus.
    let mut bare = agent.command(["up", "--no-mount"])?;
    bare.env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent").env("XDG_RUNTIME_DIR", "/nonexistent");
    hn::run(&mut bare)?.fails(69, "there is no keyring in this session", "key file");

    // Out of it again: from then on no keyring is asked.
    let sealed = session(&agent, "login", r#""$HN" --json passphrase --key-file"#)?.ok()?.json()?;
    assert_eq!(sealed["sealed_by"], "key file");
    agent.up_unmounted()?;
    agent.down()
}

/// `hn`, told this on its standard input.
fn told(agent: &Agent, args: &[&str], text: &str) -> Result<Ran> {
    let path = agent.scratch().join("told");
    fs::write(&path, text)?;
    let mut command = agent.command(args)?;
    command.stdin(fs::File::open(path)?);
    hn::run(&mut command)
}

#[test]
fn a_passphrase_is_changed_whether_the_agent_runs_or_not() -> Result<()> {
    let agent = Agent::alone()?;
    let change = |text: &str, more: &[&str]| {
        told(&agent, &[&["--json", "passphrase", "--passphrase-stdin"], more].concat(), text)
    };
    let up = |text: &str| told(&agent, &["up", "--no-mount", "--passphrase-stdin"], text);
    assert_eq!(change("one\n", &[])?.ok()?.json()?["sealed_by"], "passphrase");
    up("one\n")?.ok()?;
    let refused = change("not it\ntwo\n", &[])?;
    assert!(refused.code == Some(77) && refused.stderr.contains("wrong passphrase"), "{refused:?}");
    change("one\ntwo\n", &[])?.ok()?;
    agent.down()?;
    up("one\n")?.fails(77, "wrong passphrase", "type it again");
    up("two\n")?.ok()?;
    agent.down()?;
    let refused = change("one\nthree\n", &[])?;
    assert!(refused.code == Some(77) && refused.stderr.contains("wrong passphrase"), "{refused:?}");
    assert_eq!(change("two\n", &["--key-file"])?.ok()?.json()?["sealed_by"], "key file");
    agent.up_unmounted()?;
    assert_eq!(agent.status()?["keystore"]["sealed_by"], "key file");
    agent.down()?;
    let storage = Agent::empty()?;
    storage.hn(["init", "--storage-only", "--no-mdns"])?.ok()?;
    storage.hn(["passphrase", "--key-file"])?.fails(78, "there is no keystore", "only stores");
    Ok(())
}

/// A command that has failed has left an agent behind, which was told something else.
#[test]
fn what_a_repeated_recovery_says_opens_the_keystore_does() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(3)?;
    let agent = Agent::up_on(&mesh, 3)?;
    fs::write(agent.mount().join("file"), "content")?;
    agent.sync()?;
    told(&agent, &["passphrase", "--passphrase-stdin"], "one\n")?.ok()?;
    agent.down()?;
    let recover = |other: &Agent, args: &[&str], text: &str| {
        told(other, &[&["recover", "--no-mdns", "--listen", "127.0.0.1"], args].concat(), text)
    };
    let sealed_by =
        |other: &Agent| -> Result<serde_json::Value> { Ok(other.status()?["keystore"]["sealed_by"].clone()) };

    let (other, home) = (Agent::empty()?, agent.home());
    let from = ["--from", home.to_str().unwrap(), "--passphrase-stdin"];
    recover(&other, &from, "not it\n")?.fails(77, "wrong passphrase", "type it again");
    recover(&other, &from, "one\n")?.ok()?;
    assert_eq!(sealed_by(&other)?, "passphrase");

    // By the words of somebody else first, of whom the mesh knows nothing.
    let (other, stranger) = (Agent::empty()?, Agent::alone()?);
    let words = |agent: &Agent| fs::read_to_string(agent.scratch().join("words"));
    let first = recover(&other, &["--phrase-stdin", "--timeout", "1", "--join", mesh.link()], &words(&stranger)?)?;
    first.fails(75, "cannot recover yet", "hn recover");
    let text = words(&agent)? + "two\n";
    recover(&other, &["--phrase-stdin", "--passphrase-stdin"], &text)?.ok()?;
    assert_eq!(sealed_by(&other)?, "passphrase");
    other.down()?;
    told(&other, &["up", "--no-mount", "--passphrase-stdin"], "two\n")?.ok()?;
    Ok(())
}

/// `hn` was killed before it has shown the words.
#[test]
fn an_identity_whose_words_nobody_was_shown_is_none() -> Result<()> {
    let agent = Agent::empty()?;
    let words = hn::run(Command::new(binary("hnd")?).arg("phrase"))?.ok()?.json()?;
    let words: Vec<&str> = words["words"].as_array().unwrap().iter().filter_map(serde_json::Value::as_str).collect();
    let path = agent.scratch().join("told");
    fs::write(&path, words.join(" ") + "\n\n")?;
    let mut hnd = Command::new(binary("hnd")?);
    hnd.args(["init", "--tell-first", "--no-mdns", "--listen", "127.0.0.1"]).env("HN_HOME", agent.home());
    let ran = hn::run(hnd.stdin(fs::File::open(path)?))?;
    assert!(ran.code != Some(0) && ran.stdout.lines().next().unwrap().contains("identity"), "{ran:?}");
    assert!(ran.json()?["error"]["message"].as_str().unwrap().contains("nobody has told"), "{ran:?}");
    // So it is begun again, and the words are told together with what is made.
    let made = agent.init(&[])?;
    assert_eq!((made["phrase"].as_array().unwrap().len(), &made["sealed_by"]), (24, &"key file".into()));
    agent.up_unmounted()?;
    Ok(())
}
