//! Names that one person gives and another one is shown: of devices, of people, of directories that are shared.
//!
//! Invariant: a name that is taken in from somebody else does nothing to a terminal, and does not look like what it is not:
//! nothing in it moves the cursor, ends a line, turns the direction of what follows or is not seen at all.

/// Whether nothing of it is hidden, and it changes nothing of what is shown beside it.
pub fn is_shown(c: char) -> bool {
    !c.is_control() && !is_bidi(c) && !is_unseen(c)
}

/// Turns the direction of what is shown after it.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}')
}

/// Has no width, or ends a line. Joiners stay: scripts and emoji need them.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{200b}' | '\u{2028}' | '\u{2029}' | '\u{2060}' | '\u{feff}')
}

/// Whether somebody or something can be called so, in at most `max` bytes.
pub fn is_name(name: &str, max: usize) -> bool {
    (1..=max).contains(&name.len()) && name.trim() == name && name.chars().all(is_shown)
}

/// What is left of a name once it is one, in at most `max` bytes; empty where nothing is.
pub fn filtered(name: &str, max: usize) -> String {
    let shown: String = name.chars().filter(|c| is_shown(*c)).collect();
    let shown = shown.trim_start();
    shown[..shown.floor_char_boundary(max)].trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 16;

    #[test]
    fn what_bends_a_terminal_or_is_not_seen_is_no_name() {
        for name in ["laptop", "Annas Büro", "con\u{301}", "👩\u{200d}💻", "-rf"] {
            assert!(is_name(name, MAX) && filtered(name, MAX) == name, "{name}");
        }
        let bent = [
            ("", ""),
            (" ", ""),
            (" laptop", "laptop"),
            ("laptop\u{a0}", "laptop"),
            ("\u{1b}[2Jlaptop", "[2Jlaptop"),
            ("lap\ntop", "laptop"),
            ("lap\0top", "laptop"),
            ("\u{9b}2J", "2J"),
            ("lap\u{202e}pot", "lappot"),
            ("\u{2066}x\u{2069}", "x"),
            ("\u{61c}x", "x"),
            ("\u{200b}", ""),
            ("lap\u{2028}top", "laptop"),
            ("\u{feff}laptop", "laptop"),
            ("0123456789abcde fghi", "0123456789abcde"),
            ("0123456789abcdeä", "0123456789abcde"),
        ];
        for (name, left) in bent {
            assert!(!is_name(name, MAX), "{name:?}");
            assert_eq!(filtered(name, MAX), left, "{name:?}");
            assert!(left.is_empty() || is_name(left, MAX), "{left:?}");
        }
    }
}
