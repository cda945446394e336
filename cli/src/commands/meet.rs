//! Two sides that meet: a code that one shows and the other enters, and seven pictures that people compare.

use std::io::{self, BufRead, IsTerminal, Read};

use hypernet_sdk::api::{PairEvent, PairRequest, Paired};
use hypernet_sdk::{Client, ErrorCode, Events};
use tokio::sync::mpsc;

use crate::args::Meet;
use crate::error::Failure;
use crate::output::bar::Bar;
use crate::output::{Output, qr};

/// No line of words is longer.
const LINE_MAX: u64 = 4096;

/// What the agent is asked.
pub(crate) fn request(how: Meet, code: Option<String>, contact: Option<String>) -> PairRequest {
    PairRequest { code, contact, timeout_seconds: how.timeout }
}

/// That somebody is there to compare; else a failure, before anything is begun.
pub(crate) fn needs_person(how: Meet) -> Result<(), Failure> {
    if how.words_stdin || io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Failure::new(ErrorCode::Usage, "there is no terminal to compare what the two sides show on")
        .hint("run this on a terminal; a program gives the words that the other side shows with --words-stdin"))
}

/// The code and the rest of an invite link that one link carries, if it is such a link.
pub(crate) fn apart(link: &str) -> Option<(&str, String)> {
    let (code, mesh) = link.trim().strip_prefix("hypernet:pair/")?.split_once('/')?;
    Some((code, format!("hypernet:join/{mesh}")))
}

/// The lines of standard input, which nobody waits for when the meeting has ended before they come.
fn typed() -> mpsc::Receiver<String> {
    let (give, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        loop {
            let mut line = String::new();
            match io::stdin().lock().take(LINE_MAX).read_line(&mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) if give.blocking_send(line).is_err() => return,
                Ok(_) => {}
            }
        }
    });
    lines
}

/// What the agent is told for what was typed; nothing where that was no answer.
fn answer(line: &str, how: Meet, shown: &[String]) -> Option<Vec<String>> {
    let words = || line.split_whitespace().map(str::to_owned).collect();
    match (how.words_stdin, line.trim().to_lowercase().as_str()) {
        (true, _) => Some(words()),
        (false, "yes" | "y") => Some(shown.to_vec()),
        (false, "no" | "n") => Some(Vec::new()),
        (false, _) => None,
    }
}

/// Pictures over their words.
fn pictures(emoji: &[String], words: &[String]) -> String {
    let cells = emoji.iter().zip(words).map(|(emoji, word)| format!("{emoji} {word}"));
    cells.collect::<Vec<_>>().join("   ")
}

/// Goes through with it. `join` is what is run on the other side.
pub(crate) async fn run(
    client: &Client,
    mut events: Events<PairEvent>,
    how: Meet,
    join: &str,
    out: &mut Output,
) -> Result<Paired, Failure> {
    let mut bar: Option<Bar> = None;
    let mut lines: Option<mpsc::Receiver<String>> = None;
    let mut shown = Vec::new();
    loop {
        let line = async {
            match &mut lines {
                Some(lines) => lines.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = events.next() => {
                if let Some(bar) = bar.take() {
                    bar.clear();
                }
                let Some(event) = event? else { return Err(events.interrupted().into()) };
                // The failure at the end is written once, where every failure is.
                if !matches!(event, PairEvent::Error(_)) {
                    out.json(&event)?;
                }
                match event {
                    PairEvent::Code { code, link, seconds } => {
                        if let Some(picture) = qr::for_terminal(&link) {
                            out.note(format_args!("\n{picture}\n"));
                        }
                        out.note(format_args!("{}", told(&code, &link, join)));
                        bar = Some(Bar::new(out, format!("waiting for the other side, for {seconds} s")));
                    }
                    PairEvent::Met { name } if name.is_empty() => out.note("the other side is there"),
                    PairEvent::Met { name } => {
                        out.note(format_args!("{name:?} is there: that is what the other side calls itself"));
                    }
                    PairEvent::Compare { emoji, words } => {
                        out.note(format_args!(
                            "\nCompare with what the other side shows:\n\n  {}\n",
                            pictures(&emoji, &words)
                        ));
                        if !how.words_stdin {
                            out.prompt("Do both show the same, in the same order? (yes/no) ");
                        }
                        shown = words;
                        lines = Some(typed());
                    }
                    PairEvent::Progress { text } => bar = Some(Bar::new(out, text)),
                    PairEvent::Done(paired) => return Ok(paired),
                    PairEvent::Error(error) => return Err(error.into()),
                }
            }
            line = line => {
                // Nobody is there any more to compare: that is no yes.
                let told = line.map_or(Some(Vec::new()), |line| answer(&line, how, &shown));
                match told {
                    Some(words) => {
                        lines = None;
                        client.compared(words).await?;
                    }
                    None => out.prompt("Please type yes or no: "),
                }
            }
        }
    }
}

fn told(code: &str, link: &str, join: &str) -> String {
    match join.strip_prefix("hn contact verify") {
        Some(_) => format!("The other one runs:   {join} {code}\n"),
        None => format!(
            "On the other machine:   {join} '{link}'\nor by hand:   {join} {code} --join LINK   with a link of `hn invite`\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_has_a_code_and_a_mesh_in_it() {
        let (code, mesh) = apart("hypernet:pair/aaaa-bbbb/network?via=/ip4/1.2.3.4&via=/ip6/::1").unwrap();
        assert_eq!((code, mesh.as_str()), ("aaaa-bbbb", "hypernet:join/network?via=/ip4/1.2.3.4&via=/ip6/::1"));
        assert_eq!((apart("aaaa-bbbb"), apart("hypernet:pair/aaaa"), apart("hypernet:join/x/y")), (None, None, None));
    }

    #[test]
    fn only_a_plain_answer_counts() {
        let words: Vec<String> = ["dog", "cat"].map(str::to_owned).into();
        let person = Meet { words_stdin: false, timeout: 1 };
        let program = Meet { words_stdin: true, timeout: 1 };
        assert_eq!(answer("yes\n", person, &words), Some(words.clone()));
        assert_eq!(answer(" NO\n", person, &words), Some(vec![]));
        for typed in ["\n", "maybe", "dog cat", "yess"] {
            assert_eq!(answer(typed, person, &words), None, "{typed}");
        }
        // A program tells what it has read on the other side, whatever that is.
        assert_eq!(answer("dog  cat\n", program, &[]), Some(words));
        assert_eq!(answer("yes\n", program, &[]), Some(vec!["yes".into()]));
    }
}
