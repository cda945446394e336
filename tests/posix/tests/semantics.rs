//! The examples of `docs/semantics.md`: what the page shows is what a shell shows.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use hypernet_kit::machine::{Need, has};
use hypernet_kit::{Agent, Mesh, hn};
use hypernet_posix::{Mounted, Profile};

/// As many as the page says.
const PEERS: u32 = 10;

const FENCE: &str = "```";

/// A transcript: lines after a `$` are typed, all others come out.
#[derive(Debug)]
struct Example {
    heading: String,
    text: String,
}

/// Every fenced block of the page.
fn examples(page: &str) -> Vec<Example> {
    let (mut all, mut heading, mut open): (Vec<Example>, _, Option<String>) = (Vec::new(), "", None);
    for line in page.lines() {
        match (&mut open, line.strip_prefix(FENCE)) {
            (None, Some(kind)) => {
                assert_eq!(kind, "console", "below {heading:?}: every block of this page is an example that runs");
                open = Some(String::new());
            }
            (Some(_), Some(_)) => {
                let text = open.take().unwrap();
                assert!(text.starts_with("$ "), "below {heading:?}: an example begins with a command");
                all.push(Example { heading: heading.to_owned(), text });
            }
            (Some(text), None) => text.extend([line, "\n"]),
            (None, None) => heading = line.strip_prefix("### ").unwrap_or(heading),
        }
    }
    assert!(open.is_none(), "a block has no end");
    all
}

/// A script that shows each command before it runs it.
fn script(example: &str) -> String {
    let mut script = "exec 2>&1\n".to_owned();
    for command in example.lines().filter_map(|line| line.strip_prefix("$ ")) {
        let quoted = command.replace('\'', r"'\''");
        script.push_str(&format!("printf '$ %s\\n' '{quoted}'\n{command}\n"));
    }
    script
}

fn run(mounted: &Mounted, example: &Example) -> Result<()> {
    let dir = mounted.path().join("example");
    fs::create_dir(&dir)?;
    let bin = hn::binary("hn")?;
    let path = format!("{}:{}", bin.parent().context("hn is nowhere")?.display(), std::env::var("PATH")?);
    let mut bash = mounted.command("timeout");
    bash.args(["-k", "5", "120", "bash", "-c", &script(&example.text)]).current_dir(&dir).env("PATH", path);
    bash.env("HN_HOME", mounted.agent.home()).env("NO_COLOR", "1");
    let shown = hn::run(&mut bash)?.stdout;
    ensure!(
        shown == example.text,
        "{:?} in a {} mount: the page says\n{}and it was\n{shown}",
        example.heading,
        mounted.profile().name(),
        example.text
    );
    fs::remove_dir_all(&dir)?;
    Ok(())
}

#[test]
fn the_examples_of_the_page_show_what_happens() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/semantics.md"))?;
    let examples = examples(&page);
    ensure!(examples.len() >= 8, "only {} examples were found", examples.len());
    let mesh = Mesh::start(PEERS)?;
    for profile in Profile::all() {
        let mounted = Mounted::with(Agent::on(&mesh)?, profile)?;
        mounted.agent.wait_for_peers(PEERS)?;
        for example in &examples {
            run(&mounted, example)?;
        }
    }
    Ok(())
}
