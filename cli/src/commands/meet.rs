//! Two sides that meet: a code that one shows and the other enters, and seven pictures that people compare.

use std::io::{self, BufRead, IsTerminal, Read};
use std::os::fd::AsFd;

use hypernet_sdk::api::{PairEvent, PairRequest, Paired};
use hypernet_sdk::{Client, ErrorCode, Events};
use rustix::termios::{QueueSelector, tcflush};
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

/// The code or the link that was given; for `-` it is asked for, or read from standard input, so that other users of this machine do
/// not see it in the list of processes.
pub(crate) fn code(given: String, out: &Output) -> Result<String, Failure> {
    if given != "-" {
        return Ok(given);
    }
    if io::stdin().is_terminal() {
        out.prompt("Code: ");
    }
    read_code(io::stdin().lock())
}

fn read_code(from: impl BufRead) -> Result<String, Failure> {
    let mut line = String::new();
    from.take(LINE_MAX)
        .read_line(&mut line)
        .map_err(|error| Failure::io("cannot read the code from standard input", &error))?;
    match line.trim() {
        "" => Err(Failure::new(ErrorCode::NoInput, "standard input holds no code")
            .hint("give the one that the other side shows, in a line of its own")),
        code => Ok(code.to_owned()),
    }
}

/// Lines of standard input, each read when it is asked for. Nobody waits for one when the meeting has ended before it comes.
#[derive(Default)]
pub(crate) struct Typed {
    reader: Option<(mpsc::Sender<()>, mpsc::Receiver<String>)>,
    /// One was asked for and has not come.
    asked: bool,
}

impl Typed {
    /// Asks for a line. What was typed before for a meeting that is over is no answer in this one.
    fn ask(&mut self) {
        let (ask, lines) = self.reader.get_or_insert_with(reader);
        if self.asked && lines.try_recv().is_ok() {
            self.asked = false;
        }
        if !self.asked {
            self.asked = ask.try_send(()).is_ok();
        }
    }

    /// The line that was asked for; none at the end of input.
    async fn line(&mut self) -> Option<String> {
        match &mut self.reader {
            Some((_, lines)) if self.asked => {
                let line = lines.recv().await;
                self.asked = false;
                line
            }
            Some(_) => None,
            None => std::future::pending().await,
        }
    }
}

fn reader() -> (mpsc::Sender<()>, mpsc::Receiver<String>) {
    let (ask, mut asked) = mpsc::channel(1);
    let (give, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        while asked.blocking_recv().is_some() {
            let mut line = String::new();
            match io::stdin().lock().take(LINE_MAX).read_line(&mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) if give.blocking_send(line).is_err() => return,
                Ok(_) => {}
            }
        }
    });
    (ask, lines)
}

/// What was typed on a terminal before a question was shown there is no answer to it: whoever types ahead has compared nothing.
fn forget_typed(terminal: impl AsFd) -> Result<(), Failure> {
    if !terminal.as_fd().is_terminal() {
        return Ok(());
    }
    tcflush(&terminal, QueueSelector::IFlush)
        .map_err(|error| Failure::io("cannot forget what was typed before the question", &error.into()))
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
    events: Events<PairEvent>,
    how: Meet,
    join: &str,
    out: &mut Output,
) -> Result<Paired, Failure> {
    run_typed(client, events, how, join, &mut Typed::default(), out).await
}

/// The same, one of several in one command.
pub(crate) async fn run_typed(
    client: &Client,
    mut events: Events<PairEvent>,
    how: Meet,
    join: &str,
    typed: &mut Typed,
    out: &mut Output,
) -> Result<Paired, Failure> {
    let mut bar: Option<Bar> = None;
    let mut is_asked = false;
    let mut shown = Vec::new();
    loop {
        let line = async {
            match is_asked {
                true => typed.line().await,
                false => std::future::pending().await,
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
                        forget_typed(io::stdin())?;
                        if !how.words_stdin {
                            out.prompt("Do both show the same, in the same order? (yes/no) ");
                        }
                        shown = words;
                        is_asked = true;
                        typed.ask();
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
                        is_asked = false;
                        client.compared(words).await?;
                    }
                    None => {
                        out.prompt("Please type yes or no: ");
                        typed.ask();
                    }
                }
            }
        }
    }
}

fn told(code: &str, link: &str, join: &str) -> String {
    match join.starts_with("hn device join") {
        false => format!("The other one runs:   {join} {code}\n"),
        true => format!(
            "On the other machine:   {join} '{link}'\nor by hand:   {join} {code} --join LINK   with a link of `hn invite`\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    #[test]
    fn a_link_has_a_code_and_a_mesh_in_it() {
        let (code, mesh) = apart("hypernet:pair/aaaa-bbbb/network?via=/ip4/1.2.3.4&via=/ip6/::1").unwrap();
        assert_eq!((code, mesh.as_str()), ("aaaa-bbbb", "hypernet:join/network?via=/ip4/1.2.3.4&via=/ip6/::1"));
        assert_eq!((apart("aaaa-bbbb"), apart("hypernet:pair/aaaa"), apart("hypernet:join/x/y")), (None, None, None));
    }

    #[test]
    fn a_code_is_one_line_and_leaves_what_comes_after() {
        let mut typed = io::Cursor::new("  aaaa-bbbb \r\ndog cat\n");
        assert_eq!(read_code(&mut typed).unwrap(), "aaaa-bbbb");
        assert_eq!(io::read_to_string(typed).unwrap(), "dog cat\n");
        for nothing in ["", "\n", "  \ndog"] {
            assert_eq!(read_code(nothing.as_bytes()).unwrap_err().code, ErrorCode::NoInput, "{nothing:?}");
        }
    }

    #[test]
    fn what_was_typed_before_the_question_is_no_answer() {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let terminal = ptsname(&keyboard, Vec::new()).unwrap();
        let terminal = File::options().read(true).write(true).open(terminal.to_str().unwrap()).unwrap();
        // What is typed is there once it is echoed.
        let mut keyboard = File::from(keyboard);
        let mut typed = |text: &str| {
            keyboard.write_all(text.as_bytes()).unwrap();
            let mut echo = vec![0; text.len() + 1];
            keyboard.read_exact(&mut echo).unwrap();
        };
        typed("yes\n");
        forget_typed(&terminal).unwrap();
        typed("no\n");
        let mut line = String::new();
        io::BufReader::new(&terminal).read_line(&mut line).unwrap();
        assert_eq!(line, "no\n");
        // What a program has written is there to be read.
        let (from, to) = io::pipe().unwrap();
        (&to).write_all(b"dog cat\n").unwrap();
        forget_typed(&from).unwrap();
        let mut line = String::new();
        io::BufReader::new(from).read_line(&mut line).unwrap();
        assert_eq!(line, "dog cat\n");
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
