//! Failures: one line that says what happened, one that says what to do, an exit code of sysexits(3), and JSON for
//! programs.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::process::Stdio;

use anyhow::Result;
use hypernet_kit::{Agent, Ran, hn};

fn hn_in<S: AsRef<OsStr>>(home: impl AsRef<OsStr>, args: impl IntoIterator<Item = S>) -> Result<Ran> {
    hn::run(hn::command(args)?.env("HN_HOME", home))
}

#[test]
fn without_an_agent_every_command_says_what_to_do() -> Result<()> {
    let agent = Agent::empty()?;
    for command in [
        &["status"][..],
        &["peers"],
        &["sync"],
        &["mount"],
        &["umount"],
        &["cache", "drop"],
        &["fsck"],
        &["invite"],
        &["id"],
        &["contact", "list"],
        &["device", "list"],
        &["up"],
    ] {
        agent.hn(command)?.fails(78, "not running", "hn init");
    }
    assert!(!agent.home().exists(), "asking made {}", agent.home().display());
    agent.hn(["init", "--no-confirm", "--no-mdns", "--listen", "127.0.0.1"])?.ok()?;
    for command in [&["status"][..], &["sync"], &["fsck"], &["invite"]] {
        agent.hn(command)?.fails(69, "not running", "hn up");
    }
    // To stop what does not run is no failure.
    assert!(agent.hn(["down"])?.ok()?.stdout.contains("was not running"));
    Ok(())
}

#[test]
fn json_tells_a_failure_to_programs_too() -> Result<()> {
    let agent = Agent::empty()?;
    let ran = agent.hn(["status", "--json"])?;
    assert_eq!(ran.code, Some(78));
    let error = &ran.json()?["error"];
    assert_eq!(error["code"], "config");
    assert!(error["message"].as_str().unwrap().contains("not running"));
    assert!(error["hint"].as_str().unwrap().contains("hn init"));
    Ok(())
}

#[test]
fn nothing_is_set_up_twice() -> Result<()> {
    let agent = Agent::alone()?;
    let keystore = fs::read(agent.home().join("keystore.age"))?;
    agent.hn(["init", "--no-confirm"])?.fails(73, "in use by an agent already", "HN_HOME");
    agent.hn(["recover".as_ref(), "--from".as_ref(), agent.home().as_os_str()])?.fails(
        73,
        "in use by an agent already",
        "HN_HOME",
    );
    assert_eq!(fs::read(agent.home().join("keystore.age"))?, keystore);
    Ok(())
}

#[test]
fn a_set_up_that_did_not_end_is_begun_again() -> Result<()> {
    let agent = Agent::alone()?;
    let [config, keystore] = ["config.json", "keystore.age"].map(|name| agent.home().join(name));
    let (settings, sealed) = (fs::read_to_string(&config)?, fs::read(&keystore)?);
    assert!(settings.contains("\"begun\": false"), "{settings}");
    // As a crash leaves it that comes before the device has its keys.
    fs::write(&config, settings.replace("\"begun\": false", "\"begun\": true"))?;
    fs::remove_file(agent.home().join("device.age"))?;
    agent.hn(["up", "--no-mount"])?.fails(78, "the agent is not running", "begin with `hn init`");
    agent.hn(["init", "--no-confirm", "--no-mdns", "--listen", "127.0.0.1"])?.ok()?;
    assert_ne!(fs::read(&keystore)?, sealed, "an identity that nobody has seen");
    agent.up_unmounted().map(drop)
}

#[test]
fn a_directory_that_cannot_be_made_is_named() -> Result<()> {
    let agent = Agent::empty()?;
    let file = agent.scratch().join("file");
    fs::write(&file, "")?;
    let ran = hn_in(file.join("home"), ["init", "--no-confirm"])?;
    ran.fails(73, "file/home", "set HN_HOME");
    hn_in("/proc/foo", ["init", "--no-confirm"])?.fails(73, "/proc/foo", "set HN_HOME");
    Ok(())
}

#[test]
fn a_directory_in_which_no_socket_can_be_is_refused_before_anything_is_made() -> Result<()> {
    let from = Agent::alone()?;
    let (from, agent) = (from.home(), Agent::empty()?);
    let home = agent.scratch().join("x".repeat(107));
    let recover = [OsStr::new("recover"), OsStr::new("--from"), from.as_os_str()];
    for ran in [hn_in(&home, ["init", "--no-confirm"])?, hn_in(&home, recover)?, hn_in(&home, ["up"])?] {
        ran.fails(78, "hnd.sock is too long for a Unix socket (107 bytes at most)", "set HN_HOME to a shorter path");
    }
    assert!(!home.exists(), "it was begun all the same");
    Ok(())
}

#[test]
fn what_is_printed_to_type_next_can_be_typed() -> Result<()> {
    let agent = Agent::empty()?;
    let home = agent.scratch().join("sp ace/ü $x");
    let made = hn_in(&home, ["init", "--no-mdns", "--listen", "127.0.0.1", "--storage-only"])?.ok()?.stdout;
    let next = made.lines().find_map(|line| line.strip_prefix("Next: ")).unwrap();
    let typed = next.replace("hn up", "printenv HN_HOME");
    let read = std::process::Command::new("sh").args(["-c", &typed]).output()?;
    assert_eq!(String::from_utf8(read.stdout)?.trim_end(), home.to_str().unwrap(), "{next}");
    Ok(())
}

/// An agent that was set up may have the only copy of something: nobody is told to begin it anew.
#[test]
fn a_file_that_is_gone_is_to_be_put_back() -> Result<()> {
    let agent = Agent::alone()?;
    for name in ["peer.key", "keystore.age", "device.age", "config.json"] {
        let (file, away) = (agent.home().join(name), agent.scratch().join("away"));
        fs::rename(&file, &away)?;
        let ran = agent.hn(["up", "--no-mount"])?;
        ran.fails(ran.code.unwrap(), name, "put it back from a copy");
        assert!(!ran.stderr.contains("hn init") && ran.stderr.contains("hn recover"), "{ran:?}");
        fs::rename(away, file)?;
    }
    let file = agent.home().join("peer.key");
    let whole = fs::read(&file)?;
    fs::write(&file, "short")?;
    agent.hn(["up", "--no-mount"])?.fails(65, "peer.key is damaged", "put it back from a copy");
    fs::write(&file, whole)?;
    agent.up_unmounted()?;
    Ok(())
}

#[test]
fn links_words_and_directories_that_are_none_are_refused_in_words() -> Result<()> {
    let agent = Agent::empty()?;
    agent.hn(["init", "--no-confirm", "--join", "http://example.org"])?.fails(64, "not an invite link", "hn invite");
    agent.hn(["init"])?.fails(64, "no terminal to show the 24 words on", "hn init --no-confirm");
    agent.hn(["recover"])?.fails(64, "do not say on which mesh", "--join LINK");
    let link = "hypernet:join/aaaaaaaaaaaaaaaaaaaaaaaaaa?via=/ip4/127.0.0.1/udp/9/quic-v1";
    agent.hn(["recover", "--join", link])?.fails(64, "no terminal to ask for the 24 words on", "--phrase-stdin");
    let mistyped = "abandon ".repeat(4) + "abandom " + &"abandon ".repeat(19) + "\n";
    let recover = ["recover", "--join", link, "--phrase-stdin"];
    with_input(&agent, &recover, &mistyped)?.fails(64, "word 5, `abandom`", "look at the paper again");
    assert!(!agent.home().exists(), "it was begun all the same");
    let missing = agent.scratch().join("missing");
    let recover = |path: &std::path::Path| agent.hn(["recover".as_ref(), "--from".as_ref(), path.as_os_str()]);
    recover(&missing)?.fails(66, "there is no agent in", "name the HN_HOME of a device");
    assert!(!agent.home().exists(), "it was begun all the same");
    agent.init(&[])?;
    agent.hn(["join", "hypernet:join/x"])?.fails(64, "not an invite link", "hn invite");
    Ok(())
}

/// Runs `hn` with a line on its standard input.
fn with_input(agent: &Agent, args: &[&str], input: &str) -> Result<Ran> {
    let mut child = agent.command(args)?.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().unwrap().write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    Ok(Ran {
        what: args.join(" "),
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

#[test]
fn a_passphrase_is_asked_for_checked_and_told_of() -> Result<()> {
    let agent = Agent::empty()?;
    let init = ["init", "--no-confirm", "--no-mdns", "--listen", "127.0.0.1", "--passphrase-stdin"];
    with_input(&agent, &init, "\n")?.fails(66, "no passphrase", "--passphrase-stdin");
    with_input(&agent, &init, "correct horse\n")?.ok()?;
    agent.hn(["up", "--no-mount"])?.fails(77, "sealed by a passphrase", "--passphrase-stdin");
    let up = ["up", "--no-mount", "--passphrase-stdin"];
    with_input(&agent, &up, "wrong\n")?.fails(77, "wrong passphrase", "again");
    with_input(&agent, &up, "correct horse\n")?.ok()?;
    assert_eq!(agent.status()?["keystore"]["sealed_by"], "passphrase");
    assert!(agent.hn(["status"])?.ok()?.stdout.contains("sealed by a passphrase"));
    Ok(())
}

#[test]
fn an_agent_that_is_no_program_is_named() -> Result<()> {
    let agent = Agent::empty()?;
    let ran = hn::run(agent.command(["init", "--no-confirm"])?.env("HN_HND", "/does/not/exist"))?;
    ran.fails(78, "/does/not/exist", "HN_HND");
    // One that ends without saying why.
    let ran = hn::run(agent.command(["init", "--no-confirm"])?.env("HN_HND", "/bin/false"))?;
    assert_eq!(ran.code, Some(70), "{ran:?}");
    Ok(())
}

#[test]
fn a_reader_that_goes_away_is_no_failure_to_talk_about() -> Result<()> {
    let mut child = hn::command(["completions", "bash"])?.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    drop(child.stdout.take());
    let output = child.wait_with_output()?;
    assert_eq!(String::from_utf8(output.stderr)?, "");
    Ok(())
}
