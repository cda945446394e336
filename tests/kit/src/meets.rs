//! A command that meets somebody, with a program in the place of the person.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Agent;

/// It runs, and says line by line what happens.
#[derive(Debug)]
pub struct Meets {
    /// Its process.
    pub child: Child,
    words: ChildStdin,
    events: BufReader<ChildStdout>,
}

impl Meets {
    /// Runs `hn` for an agent.
    pub fn start(agent: &Agent, args: &[&str]) -> Result<Self> {
        let mut command = agent.command(["--json"])?;
        command.args(args).arg("--words-stdin").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let words = child.stdin.take().context("no input")?;
        let events = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Self { child, words, events })
    }

    /// The next event of this kind. One that is the last is an error.
    pub fn wait_for(&mut self, event: &str) -> Result<Value> {
        loop {
            let mut line = String::new();
            ensure!(self.events.read_line(&mut line)? > 0, "no {event} came: {}", self.said()?);
            let found: Value = serde_json::from_str(&line)?;
            if found["event"] == event {
                return Ok(found);
            }
            ensure!(found.get("error").is_none(), "{found} instead of {event}");
        }
    }

    fn said(&mut self) -> Result<String> {
        let mut text = String::new();
        if let Some(stderr) = self.child.stderr.take() {
            BufReader::new(stderr).read_to_string(&mut text)?;
        }
        Ok(text)
    }

    /// The words of the pictures that it shows, when it shows them.
    pub fn pictures(&mut self) -> Result<String> {
        let shown = self.wait_for("compare")?;
        let list = |what: &str| -> Result<Vec<&str>> {
            let all = shown[what].as_array().context("nothing is shown")?;
            Ok(all.iter().filter_map(Value::as_str).collect())
        };
        let words = list("words")?;
        ensure!((words.len(), list("emoji")?.len()) == (7, 7), "{shown}");
        Ok(words.join(" "))
    }

    /// Tells it what the other side shows.
    pub fn tell(&mut self, words: &str) -> Result<()> {
        Ok(writeln!(self.words, "{words}")?)
    }

    /// Each of two is told what the other one shows.
    pub fn compare(&mut self, other: &mut Self) -> Result<()> {
        let (here, there) = (self.pictures()?, other.pictures()?);
        ensure!(here == there, "they show {here} and {there}");
        self.tell(&there)?;
        other.tell(&here)
    }

    /// Its last answer, when it has succeeded.
    pub fn ends(mut self) -> Result<Value> {
        let lines = (&mut self.events).lines().collect::<Result<Vec<String>, _>>()?;
        let said = self.said()?;
        let status = self.child.wait()?;
        ensure!(status.success(), "{status}: {lines:?} {said}");
        Ok(serde_json::from_str(lines.last().context("it said nothing")?)?)
    }

    /// What it says when it has failed.
    pub fn fails(mut self) -> Result<String> {
        let said = self.said()?;
        ensure!(!self.child.wait()?.success(), "it did not fail");
        Ok(said)
    }
}
