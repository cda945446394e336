//! `hn` explains itself: help with examples for every command, completions, manual pages.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Stdio};

use anyhow::Result;
use hypernet_kit::hn;

/// The names below "Commands:" in a help text.
fn commands(help: &str) -> Vec<String> {
    let section = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
    section
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|name| name != "help")
        .collect()
}

fn walk(at: &[String], seen: &mut Vec<String>) -> Result<()> {
    let args: Vec<String> = at.iter().cloned().chain(["--help".to_owned()]).collect();
    let help = hn::hn(&args)?.ok()?.stdout;
    let name = at.join(" ");
    assert!(help.contains("\nExamples:\n  hn"), "`hn {name} --help` shows no example:\n{help}");
    assert!(help.contains("--json"), "`hn {name}` has no --json");
    for command in commands(&help) {
        walk(&[at, &[command]].concat(), seen)?;
    }
    seen.push(name);
    Ok(())
}

#[test]
fn every_command_explains_itself_with_examples() -> Result<()> {
    let mut seen = Vec::new();
    walk(&[], &mut seen)?;
    let promised = [
        "init",
        "invite",
        "join",
        "up",
        "down",
        "status",
        "peers",
        "health",
        "sync",
        "mount",
        "umount",
        "recover",
        "device list",
        "device add",
        "device join",
        "device revoke",
        "device renew",
        "id",
        "contact add",
        "contact list",
        "contact remove",
        "contact verify",
        "guardians set",
        "guardians list",
        "guardians clear",
        "cache drop",
        "fsck",
        "dev mesh up",
        "dev mesh down",
        "dev mesh kill",
        "dev mesh revive",
        "dev mesh status",
        "completions",
        "man",
    ];
    // The list of commands is read without `help`, which clap gives to all others; this one is a command.
    walk(&["guardians".to_owned(), "help".to_owned()], &mut seen)?;
    for command in promised {
        assert!(seen.iter().any(|name| name == command), "there is no `hn {command}`: {seen:?}");
    }
    Ok(())
}

#[test]
fn manual_pages_are_written_for_every_command() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let into = dir.path().join("man1");
    hn::hn(["man".as_ref(), into.as_os_str()])?.ok()?;
    for page in ["hn.1", "hn-up.1", "hn-recover.1", "hn-dev-mesh-up.1", "hn-cache-drop.1"] {
        let text = std::fs::read_to_string(into.join(page))?;
        assert!(text.contains(".TH") && text.contains("Examples:"), "{page} is no manual page:\n{text}");
    }
    // Where nothing can be created it says so, with the exit code for that.
    std::fs::write(dir.path().join("file"), "")?;
    let ran = hn::hn(["man".as_ref(), dir.path().join("file/man1").as_os_str()])?;
    assert_eq!(ran.code, Some(73), "{ran:?}");
    Ok(())
}

#[test]
fn completions_are_scripts_that_know_the_commands() -> Result<()> {
    for shell in ["bash", "zsh", "fish"] {
        let script = hn::hn(["completions", shell])?.ok()?.stdout;
        assert!(script.contains("recover") && script.contains("phrase-stdin"), "{shell}");
        if shell == "bash" {
            let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn()?;
            std::io::Write::write_all(&mut bash.stdin.take().unwrap(), script.as_bytes())?;
            assert!(bash.wait()?.success(), "bash does not accept its completions");
        }
    }
    Ok(())
}

#[test]
fn help_and_version_are_answers_and_wrong_use_is_not() -> Result<()> {
    assert!(hn::hn(["--version"])?.ok()?.stdout.starts_with("hn "));
    for wrong in [&["frobnicate"][..], &["up", "--donate", "lots"], &["recover"], &[], &["dev", "mesh", "kill"]] {
        let ran = hn::hn(wrong)?;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(64), ""), "{wrong:?}: {ran:?}");
        assert!(!ran.stderr.is_empty(), "{wrong:?}");
        let ran = hn::hn(wrong.iter().copied().chain(["--json"]))?;
        assert_eq!((ran.code, &ran.json()?["error"]["code"]), (Some(64), &"usage".into()), "{wrong:?}: {ran:?}");
    }
    Ok(())
}
