//! The 24 words of an identity: shown once, asked for again, and read when something is to be recovered.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, BufRead, IsTerminal, Read};

use hypernet_sdk::api::PhraseInput;
use hypernet_sdk::{ErrorCode, SecretText};
use zeroize::Zeroizing;

use crate::error::Failure;
use crate::output::Output;
use crate::passphrase;

/// Words of a phrase.
const WORDS: usize = 24;
/// Words in a line.
const COLUMNS: usize = 4;
/// Words that are asked for again.
const ASKED: usize = 3;
/// How often.
const TRIES: usize = 3;
/// No line of words is longer.
const LINE_MAX: u64 = 4096;

/// The words with their numbers, for a person to write down.
pub(crate) fn table(words: &[SecretText]) -> Zeroizing<String> {
    let rows = words.len().div_ceil(COLUMNS);
    let longest = words.iter().map(|word| word.expose().len()).max().unwrap_or(0);
    let cell = |row: usize, column: usize| {
        let at = column * rows + row;
        words.get(at).map(|word| format!("{:>4}. {:<longest$}", at + 1, word.expose()))
    };
    let line = |row| (0..COLUMNS).filter_map(|column| cell(row, column)).collect::<String>();
    let lines: Vec<_> = (0..rows).map(|row| Zeroizing::new(line(row))).collect();
    let lines: Vec<_> = lines.iter().map(|line| line.trim_end()).collect();
    Zeroizing::new(lines.join("\n"))
}

/// Some numbers of words, in order.
fn some_numbers() -> BTreeSet<usize> {
    let mut numbers = BTreeSet::new();
    while numbers.len() < ASKED {
        numbers.insert(1 + (RandomState::new().build_hasher().finish() as usize) % WORDS);
    }
    numbers
}

/// That somebody is there to write words down; else a failure, before anything is made. `in_script` needs nobody.
pub(crate) fn needs_terminal(in_script: &str) -> Result<(), Failure> {
    if io::stdin().is_terminal() && io::stderr().is_terminal() {
        return Ok(());
    }
    Err(Failure::new(ErrorCode::Usage, "there is no terminal to show the 24 words on and to confirm them")
        .hint(format!("run this on a terminal; in a script: {in_script}, whose output has the words")))
}

/// Shows words, and returns when the person has shown that they are written down. `otherwise`: what is so where they have not.
pub(crate) fn confirm(words: &[SecretText], otherwise: &str, out: &Output) -> Result<(), Failure> {
    let answer = |number| {
        out.prompt(format_args!("Word {number}: "));
        line()
    };
    confirm_by(answer, words, otherwise, out)
}

/// The same of whoever answers so, given the number of a word.
fn confirm_by(
    mut answer: impl FnMut(usize) -> Result<Zeroizing<String>, Failure>,
    words: &[SecretText],
    otherwise: &str,
    out: &Output,
) -> Result<(), Failure> {
    for left in (0..TRIES).rev() {
        out.note(format_args!(
            "These {WORDS} words bring everything back, on any machine. They are shown now and never again, and nobody \
             else has them: write them down, on paper.\n\n{}\n",
            *table(words)
        ));
        if asked(&mut answer, words)? {
            return Ok(());
        }
        if left > 0 {
            out.note("That is another word. Look at them once more:\n");
        }
    }
    Err(Failure::new(ErrorCode::Usage, "the words were not confirmed")
        .hint(format!("{otherwise}: run the command again")))
}

fn asked(
    answer: &mut impl FnMut(usize) -> Result<Zeroizing<String>, Failure>,
    words: &[SecretText],
) -> Result<bool, Failure> {
    for number in some_numbers() {
        if words.get(number - 1).map(SecretText::expose) != Some(answer(number)?.trim().to_lowercase().as_str()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// One line of standard input.
fn line() -> Result<Zeroizing<String>, Failure> {
    let mut line = Zeroizing::new(String::new());
    let read = io::stdin().lock().take(LINE_MAX).read_line(&mut line);
    match read.map_err(|error| Failure::io("cannot read standard input", &error))? {
        0 => Err(Failure::new(ErrorCode::NoInput, "standard input has ended")),
        _ => Ok(line),
    }
}

/// The words of an identity that is to come back, from a terminal or from the first line of standard input, and the
/// passphrase that belongs to them, if there is one.
pub(crate) fn ask(from_stdin: bool, with_passphrase: bool, out: &Output) -> Result<PhraseInput, Failure> {
    let words = if from_stdin {
        line()?
    } else if io::stdin().is_terminal() {
        typed(out)?
    } else {
        return Err(Failure::new(ErrorCode::Usage, "there is no terminal to ask for the 24 words on")
            .hint("pass them with --phrase-stdin, in one line"));
    };
    let passphrase = match (with_passphrase, from_stdin) {
        (false, _) => SecretText::default(),
        (true, true) => passphrase::read_line()?,
        (true, false) => passphrase::ask("Passphrase of the words: ")?,
    };
    Ok(PhraseInput::new(words.trim().into(), passphrase))
}

/// Words in as many lines as the person likes.
fn typed(out: &Output) -> Result<Zeroizing<String>, Failure> {
    let count = |text: &str| text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).count();
    out.prompt(format_args!("The {WORDS} words, in order: "));
    let mut words = Zeroizing::new(String::new());
    loop {
        words.push_str(&line()?);
        match count(&words) {
            found if found >= WORDS => {
                return Ok(Zeroizing::new(words.split_whitespace().collect::<Vec<_>>().join(" ")));
            }
            found => out.prompt(format_args!("{} more: ", WORDS - found)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_numbered_down_the_columns() {
        let words: Vec<SecretText> = (1..=24).map(|i| SecretText::new(format!("w{i}"))).collect();
        let shown = table(&words);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[0], "   1. w1    7. w7   13. w13  19. w19");
        assert_eq!(lines[5], "   6. w6   12. w12  18. w18  24. w24");
    }

    #[test]
    fn different_words_are_asked_for_and_each_can_be() {
        let mut seen = BTreeSet::new();
        for _ in 0..2_000 {
            let numbers = some_numbers();
            assert_eq!(numbers.len(), ASKED);
            seen.extend(numbers);
        }
        assert_eq!(seen, (1..=WORDS).collect());
    }
    #[test]
    fn words_are_confirmed_by_whoever_has_written_them_down_and_by_nobody_else() {
        let words: Vec<SecretText> = (1..=24).map(|i| SecretText::new(format!("w{i}"))).collect();
        let out = Output::new(true);
        let right = |number: usize| Ok(Zeroizing::new(format!(" W{number}\n")));
        assert!(confirm_by(right, &words, "nothing was made", &out).is_ok());
        // One wrong word, the last of those that are asked for, and they are shown and asked for again.
        let mut asked = 0;
        let once = |number| {
            asked += 1;
            if asked == ASKED { Ok(Zeroizing::new("w0\n".into())) } else { right(number) }
        };
        assert!(confirm_by(once, &words, "nothing was made", &out).is_ok());
        assert_eq!(asked, 2 * ASKED);
        let mut asked = 0;
        let never = |_| {
            asked += 1;
            Ok(Zeroizing::new("\n".into()))
        };
        let refused = confirm_by(never, &words, "nothing was made", &out).unwrap_err();
        assert_eq!((asked, refused.code), (TRIES, ErrorCode::Usage));
        assert!(refused.hint.unwrap().contains("nothing was made"));
        let ended = |_| Err(Failure::new(ErrorCode::NoInput, "standard input has ended"));
        assert_eq!(confirm_by(ended, &words, "nothing was made", &out).unwrap_err().code, ErrorCode::NoInput);
    }
}
