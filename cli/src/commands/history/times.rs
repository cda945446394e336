//! Words for a time in a revision: `@{yesterday}`, `@{last friday 6PM}`, and as git has them, too: `HEAD@{2.days.ago}`.

use hypernet_sdk::ErrorCode;
use jiff::{ToSpan, Zoned};

use crate::error::Failure;

/// Letters of a word; the parser stops the process at one that is longer.
const LETTERS_MAX: usize = 15;
/// Letters by which a day of the week is known, as the parser has it.
const DAY_LETTERS: usize = 3;
const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

const HINT: &str = "yesterday, 3 hours ago, last friday 18:00, or 2026-11-29 12:00";

/// The parser takes small letters only, no dots between words, `18:00` rather than `6pm` after a day, and has noon and midnight the wrong
/// way round there.
fn spelled(text: &str) -> String {
    let text = text.trim().to_ascii_lowercase();
    let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    let mut spelled = String::new();
    for (at, c) in text.char_indices() {
        let (before, after) = (text[..at].chars().next_back(), text[at + c.len_utf8()..].chars().next());
        let is_between = is_digit(before) && is_digit(after);
        match c {
            '.' if !is_between => spelled.push(' '),
            't' if is_between => spelled.push(' '),
            c => spelled.push(c),
        }
    }
    let mut words: Vec<String> = spelled.split_whitespace().map(str::to_owned).collect();
    for at in 0..words.len() {
        let hour = match words[at].as_str() {
            "am" | "pm" if at > 0 => &mut words[at - 1],
            word if word.ends_with("am") || word.ends_with("pm") => &mut words[at],
            _ => continue,
        };
        let digits = hour.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len();
        if digits > 0 && hour[..digits].bytes().all(|byte| byte.is_ascii_digit()) {
            hour.insert_str(digits, ":00");
        }
    }
    words.join(" ")
}

fn is_day(word: &str) -> bool {
    word.len() >= DAY_LETTERS && DAYS.iter().any(|day| day.starts_with(word))
}

/// The time that is meant, or why none is.
fn moment(text: &str, now: &Zoned) -> Result<Zoned, String> {
    let spelled = spelled(text);
    // For git this many moves of HEAD back, which nothing here remembers; for the parser so many seconds or years.
    let digits = spelled.strip_prefix('-').unwrap_or(&spelled);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("it is a number alone, and HEAD~1 is the snapshot before HEAD".to_owned());
    }
    let words = || spelled.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
    if let Some(long) = words().find(|word| word.len() > LETTERS_MAX) {
        return Err(format!("{long} is no word for a time"));
    }
    let time =
        interim::parse_date_string(&spelled, now.clone(), interim::Dialect::Us).map_err(|error| error.to_string())?;
    if time <= *now {
        return Ok(time);
    }
    // A day without a word is the next one for the parser, and what is asked for is never to come.
    let is_bare = words().any(is_day) && !words().any(|word| word == "next");
    let before = time.checked_sub(7.days()).ok().filter(|before| is_bare && before <= now);
    before.ok_or_else(|| format!("that is {}, which is still to come", time.strftime("%Y-%m-%d %H:%M")))
}

/// Words for a time, as the agent takes it: milliseconds since 1970.
fn revision(text: &str, now: &Zoned) -> Result<String, Failure> {
    // There is one line of snapshots, so HEAD says nothing more there.
    let braced = text.strip_prefix("HEAD@{").or_else(|| text.strip_prefix("@{"));
    let Some((words, rest)) = braced.and_then(|rest| rest.split_once('}')) else {
        return Ok(text.to_owned());
    };
    let time = moment(words, now)
        .map_err(|why| Failure::new(ErrorCode::Usage, format!("{words:?} is no time: {why}")).hint(HINT))?;
    Ok(format!("@{{{}}}{rest}", time.timestamp().as_millisecond().max(0)))
}

pub(in crate::commands) fn now_revision(text: &str) -> Result<String, Failure> {
    revision(text, &Zoned::now())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jiff::tz::TimeZone;

    use super::*;

    const HOUR: u64 = 3_600_000;
    /// 2023-11-14, a Tuesday, at 22:13:20.
    const NOW: u64 = 1_700_000_000_000;
    const TODAY: u64 = 1_699_920_000_000;

    fn now() -> Zoned {
        Timestamp::from_millisecond(NOW as i64).unwrap().to_zoned(TimeZone::UTC)
    }

    fn millis(text: &str) -> u64 {
        let read = revision(text, &now()).unwrap_or_else(|error| panic!("{text}: {}", error.message));
        read.trim_start_matches("@{").split('}').next().unwrap().parse().unwrap()
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(millis("@{2 hours ago}"), NOW - 2 * HOUR);
        assert_eq!(millis("@{yesterday}~2"), NOW - 24 * HOUR);
        assert_eq!(millis("@{2023-01-02 03:04}"), 1_672_628_640_000);
        assert_eq!(millis("@{2023-01-02T03:04Z}"), 1_672_628_640_000);
        assert!(revision("@{yesterday}~2", &now()).unwrap().ends_with("}~2"));
        for text in ["HEAD~2", "v1", "HEAD", "@", "0123abcd", "@{yesterday", "x@{yesterday}"] {
            assert_eq!(revision(text, &now()).unwrap(), text);
        }
        // As git has them.
        assert_eq!(millis("HEAD@{yesterday}^"), NOW - 24 * HOUR);
        assert_eq!(millis("@{2.days.ago}"), NOW - 48 * HOUR);
        assert_eq!(millis("@{yesterday.18:00}"), TODAY - 6 * HOUR);
        assert_eq!(millis("@{now}"), NOW);
    }

    #[test]
    fn hours_are_read_however_they_are_written() {
        for text in ["yesterday 6PM", "Yesterday 6 pm", "YESTERDAY 6:00PM", "yesterday 6.00pm", "yesterday 18:00"] {
            assert_eq!(millis(&format!("@{{{text}}}")), TODAY - 6 * HOUR, "{text}");
        }
        assert_eq!(millis("@{yesterday 12am}"), TODAY - 24 * HOUR);
        assert_eq!(millis("@{yesterday 12 PM}"), TODAY - 12 * HOUR);
        assert_eq!(millis("@{9am}"), TODAY + 9 * HOUR);
        assert_eq!(millis("@{2023-11-13 6PM}"), TODAY - 6 * HOUR);
    }

    #[test]
    fn a_day_is_the_last_one_and_what_is_to_come_is_refused() {
        assert_eq!(millis("@{friday}"), TODAY - 4 * 24 * HOUR);
        assert_eq!(millis("@{Fri 18:00}"), TODAY - (4 * 24 - 18) * HOUR);
        assert_eq!(millis("@{last friday}"), millis("@{friday}"));
        assert_eq!(millis("@{wednesday}"), TODAY - 6 * 24 * HOUR);
        assert_eq!(millis("@{tuesday}"), TODAY);
        assert_eq!(millis("@{tuesday 23:00}"), TODAY - (7 * 24 - 23) * HOUR);
        for text in ["tomorrow", "next friday", "2 days", "23:00", "december 24", "2030-01-01"] {
            let error = revision(&format!("@{{{text}}}"), &now()).unwrap_err();
            assert!(error.message.contains("to come"), "{text}: {}", error.message);
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let long = "x".repeat(100);
        for text in [
            "sometime",
            "",
            " ",
            "yesterday 6T",
            "yesterday 6 T5",
            "yesterday 6xxxxxxxxxxxxxxx",
            "9999 years",
            "yesterday 6 ÄM",
            "ät",
            "2 ago",
            "am",
            "pm pm",
            "13pm",
            "yesterday 9999PM",
            "99:99",
            "1",
            "-1",
            "2023",
            "1700000000000",
            "2023-02-30",
            "-",
            "9999999 days ago",
            &long,
            &format!("yesterday 6{long}"),
            &format!("yesterday 6 {}", "x".repeat(16)),
        ] {
            let error = revision(&format!("@{{{text}}}"), &now()).map(|read| panic!("{text:?}: {read}")).unwrap_err();
            assert!(error.message.contains("is no time"), "{text:?}: {}", error.message);
        }
    }
}
