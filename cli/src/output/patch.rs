//! Changes as git writes them, so that `patch -p1` and `git apply` read them.
//!
//! What a patch cannot hold (directories, devices, owners) is said in lines that begin with `#`, which these programs skip.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::builder::styling::{AnsiColor, Style};
use hypernet_sdk::api::{ChangeInfo, ThingInfo};

/// What files are meant.
const HEAD: Style = Style::new().bold();
/// Where in a file.
const PLACE: Style = AnsiColor::Cyan.on_default();
const ADDED: Style = AnsiColor::Green.on_default();
const REMOVED: Style = AnsiColor::Red.on_default();

/// In the place of a number where there is nothing.
const NOTHING: &str = "000000000000";

/// A path as git has it in a patch: in quotes with escapes where it would be misread, or reach a terminal.
fn quoted(prefix: &str, path: &Path, with_spaces: bool) -> String {
    let mut text = String::from(prefix);
    let mut is_plain = true;
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                '\t' => text.push_str("\\t"),
                '\n' => text.push_str("\\n"),
                c if c.is_control() => escape(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes()),
                c => text.push(c),
            }
            is_plain &= !(c == '"' || c == '\\' || c.is_control() || with_spaces && c == ' ');
        }
        escape(&mut text, chunk.invalid());
        is_plain &= chunk.invalid().is_empty();
    }
    if is_plain { text } else { format!("\"{text}\"") }
}

fn escape(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // To a string it cannot fail.
        let _ = write!(text, "\\{byte:03o}");
    }
}

/// In the line before hunks: a name with spaces ends with a tab there, as git has it.
fn named(prefix: &str, path: &Path) -> String {
    let text = quoted(prefix, path, false);
    let tab = if text.contains(' ') && !text.starts_with('"') { "\t" } else { "" };
    format!("{text}{tab}")
}

/// Whether a patch can hold it.
fn is_held(thing: &ThingInfo) -> bool {
    thing.kind == "file" || thing.kind == "symlink"
}

/// As git writes it: kind and permissions.
fn mode(thing: &ThingInfo) -> u32 {
    if thing.kind == "symlink" { 0o120_000 } else { 0o100_000 | thing.mode & 0o7777 }
}

/// What has changed of one file, ready to be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Patch<'a> {
    head: String,
    hunks: &'a str,
}

impl<'a> Patch<'a> {
    /// Of a change; its kind is the same before and after.
    pub(crate) fn of(change: &'a ChangeInfo) -> Self {
        let (before, after) = (change.before.as_ref(), change.after.as_ref());
        let mut head = String::new();
        match (before.or(after), after.or(before)) {
            (Some(was), Some(is)) if is_held(was) && is_held(is) => {
                let hunks = change.text.as_ref().and_then(|text| text.hunks.as_deref()).unwrap_or_default();
                extended(&mut head, was, is, change);
                let side = |there: bool, prefix, thing: &ThingInfo, write: fn(&str, &Path) -> String| {
                    if there { write(prefix, &thing.path) } else { "/dev/null".to_owned() }
                };
                let both = |write| (side(before.is_some(), "a/", was, write), side(after.is_some(), "b/", is, write));
                if change.binary || change.large {
                    let (a, b) = both(|prefix, path| quoted(prefix, path, false));
                    head.push_str(&index(change));
                    head.push_str(&format!("Binary files {a} and {b} differ\n"));
                } else if !hunks.is_empty() {
                    let (a, b) = both(named);
                    head.push_str(&format!("--- {a}\n+++ {b}\n"));
                }
                if !head.is_empty() {
                    let (a, b) = (quoted("a/", &was.path, true), quoted("b/", &is.path, true));
                    head.insert_str(0, &format!("diff --git {a} {b}\n"));
                }
                if change.large {
                    let name = quoted("", &is.path, false);
                    head.insert_str(0, &format!("# too large to be compared line by line: {name}\n"));
                }
                if change.metadata && mode(was) == mode(is) {
                    head.insert_str(
                        0,
                        &format!("# other owner, or extended attributes: {}\n", quoted("", &is.path, false)),
                    );
                }
                Self { head, hunks }
            }
            (Some(was), Some(is)) => Self { head: aside(was, is, change), hunks: "" },
            _ => Self { head, hunks: "" },
        }
    }

    /// As bytes; with colours, or with nothing that a terminal would take for a command, or with both.
    pub(crate) fn written(&self, colours: bool, is_terminal: bool) -> Vec<u8> {
        if !colours && !is_terminal {
            return [self.head.as_bytes(), self.hunks.as_bytes()].concat();
        }
        let mut text = String::new();
        let head = self.head.split_inclusive('\n').map(|line| (HEAD, line));
        let hunks = self.hunks.split_inclusive('\n').map(|line| match line.as_bytes().first() {
            Some(b'@') => (PLACE, line),
            Some(b'+') => (ADDED, line),
            Some(b'-') => (REMOVED, line),
            _ => (Style::new(), line),
        });
        for (style, line) in head.chain(hunks) {
            let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
            let (line, end) = line.strip_suffix('\r').map_or((line, end), |line| (line, "\r\n"));
            let line: String = match is_terminal {
                true => line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect(),
                false => line.to_owned(),
            };
            match colours {
                // Before the end: what follows is not of that colour, whatever the terminal does with lines.
                true => text.push_str(&format!("{style}{line}{style:#}{end}")),
                false => text.extend([&line, end]),
            }
        }
        text.into_bytes()
    }
}

/// The lines by which git tells what hunks do not.
fn extended(head: &mut String, was: &ThingInfo, is: &ThingInfo, change: &ChangeInfo) {
    match (&change.before, &change.after) {
        (None, _) => head.push_str(&format!("new file mode {:o}\n", mode(is))),
        (_, None) => head.push_str(&format!("deleted file mode {:o}\n", mode(was))),
        _ => {
            // Only by that does `patch` know that it is no regular file.
            let is_link = is.kind == "symlink" && change.content;
            if mode(was) != mode(is) || is_link {
                head.push_str(&format!("old mode {:o}\nnew mode {:o}\n", mode(was), mode(is)));
            }
            if was.path != is.path {
                let same = if change.content { "" } else { "similarity index 100%\n" };
                let (from, to) = (quoted("", &was.path, false), quoted("", &is.path, false));
                head.push_str(&format!("{same}rename from {from}\nrename to {to}\n"));
            }
        }
    }
}

/// The line by which `git apply` knows what follows, and says of which file it is that it cannot do that one: without it what it says is of
/// the next one. The numbers are ours, and shorter than those that it would take for its own.
fn index(change: &ChangeInfo) -> String {
    let id = |thing: &Option<ThingInfo>| thing.as_ref().and_then(|thing| thing.content.clone());
    let [was, is] = [&change.before, &change.after].map(|thing| id(thing).unwrap_or_else(|| NOTHING.to_owned()));
    let same = change.before.as_ref().zip(change.after.as_ref()).filter(|(was, is)| mode(was) == mode(is));
    let mode = same.map(|(_, is)| format!(" {:o}", mode(is))).unwrap_or_default();
    format!("index {was}..{is}{mode}\n")
}

/// A line for what no patch holds.
fn aside(was: &ThingInfo, is: &ThingInfo, change: &ChangeInfo) -> String {
    let slash = |thing: &ThingInfo| if matches!(&thing.kind[..], "directory" | "volume") { "/" } else { "" };
    let name = |thing: &ThingInfo| format!("{}{}", quoted("", &thing.path, false), slash(thing));
    let kind = if is.kind == "special" { "special file" } else { &is.kind };
    match (&change.before, &change.after) {
        (None, _) => format!("# new {kind}: {}\n", name(is)),
        (_, None) => format!("# deleted {kind}: {}\n", name(was)),
        _ if was.path != is.path => format!("# renamed {kind}: {} -> {}\n", name(was), name(is)),
        _ if was.mode != is.mode => format!("# {kind} of mode {:o}, before {:o}: {}\n", is.mode, was.mode, name(is)),
        _ if change.content => format!("# other {kind}: {}\n", name(is)),
        _ => format!("# other owner, or extended attributes: {}\n", name(is)),
    }
}

#[cfg(test)]
mod tests {
    use hypernet_sdk::api::TextInfo;

    use super::*;

    fn thing(kind: &str, path: &str, mode: u32) -> Option<ThingInfo> {
        let content = Some("0123456789ab".to_owned()).filter(|_| kind == "file");
        Some(ThingInfo { path: path.into(), kind: kind.into(), size: 1, mode, content })
    }

    fn change(before: Option<ThingInfo>, after: Option<ThingInfo>, hunks: &str) -> ChangeInfo {
        let text = TextInfo { added: 1, removed: 1, hunks: Some(hunks.into()) };
        let (content, text) = (!hunks.is_empty(), Some(text).filter(|_| !hunks.is_empty()));
        ChangeInfo { before, after, renamed: false, content, metadata: false, text, binary: false, large: false }
    }

    fn written(change: &ChangeInfo) -> String {
        String::from_utf8(Patch::of(change).written(false, false)).unwrap()
    }

    #[test]
    fn files_are_told_as_git_tells_them() {
        let file = |path: &str| thing("file", path, 0o644);
        let hunk = "@@ -1 +1 @@\n-a\n+b\n";
        let all = [
            (change(file("x"), file("x"), hunk), "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n"),
            (change(None, file("x"), ""), "diff --git a/x b/x\nnew file mode 100644\n"),
            (
                change(None, thing("symlink", "x", 0o777), hunk),
                "diff --git a/x b/x\nnew file mode 120000\n--- /dev/null\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n",
            ),
            (
                change(thing("file", "x", 0o755), None, hunk),
                "diff --git a/x b/x\ndeleted file mode 100755\n--- a/x\n+++ /dev/null\n@@ -1 +1 @@\n-a\n+b\n",
            ),
            (
                change(file("a b"), thing("file", "c d", 0o755), hunk),
                "diff --git \"a/a b\" \"b/c d\"\nold mode 100644\nnew mode 100755\nrename from a b\nrename to c d\n\
                --- a/a b\t\n+++ b/c d\t\n@@ -1 +1 @@\n-a\n+b\n",
            ),
            (
                change(thing("symlink", "x", 0o777), thing("symlink", "x", 0o777), hunk),
                "diff --git a/x b/x\nold mode 120000\nnew mode 120000\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n",
            ),
            (
                change(file("x"), file("y"), ""),
                "diff --git a/x b/y\nsimilarity index 100%\nrename from x\nrename to y\n",
            ),
            (
                ChangeInfo { binary: true, ..change(file("x"), file("x"), "") },
                "diff --git a/x b/x\nindex 0123456789ab..0123456789ab 100644\nBinary files a/x and b/x differ\n",
            ),
            (
                ChangeInfo { binary: true, ..change(None, file("a b"), "") },
                "diff --git \"a/a b\" \"b/a b\"\nnew file mode 100644\nindex 000000000000..0123456789ab\n\
                Binary files /dev/null and b/a b differ\n",
            ),
            (
                ChangeInfo { large: true, ..change(file("x"), None, "") },
                "# too large to be compared line by line: x\ndiff --git a/x b/x\ndeleted file mode 100644\n\
                index 0123456789ab..000000000000\nBinary files a/x and /dev/null differ\n",
            ),
            (change(file("x"), file("x"), ""), ""),
            (
                ChangeInfo { metadata: true, ..change(file("x"), file("x"), "") },
                "# other owner, or extended attributes: x\n",
            ),
            (change(None, thing("directory", "x", 0o755), ""), "# new directory: x/\n"),
            (change(thing("special", "x", 0o644), None, ""), "# deleted special file: x\n"),
            (
                change(thing("directory", "x", 0o700), thing("directory", "x", 0o755), ""),
                "# directory of mode 755, before 700: x/\n",
            ),
        ];
        for (change, expected) in all {
            assert_eq!(written(&change), expected);
        }
    }

    #[test]
    fn a_name_never_looks_like_something_else() {
        let quoted = |bytes: &[u8]| super::quoted("a/", Path::new(std::ffi::OsStr::from_bytes(bytes)), false);
        assert_eq!(quoted("ä b".as_bytes()), "a/ä b");
        assert_eq!(quoted(b"a\nb\t\"\\\x1b\xff"), r#""a/a\nb\t\"\\\033\377""#);
        assert_eq!(quoted("\u{9b}m".as_bytes()), r#""a/\302\233m""#);
    }

    #[test]
    fn a_terminal_gets_colours_and_no_commands() {
        let file = || thing("file", "x", 0o644);
        let change = change(file(), file(), "@@ -1,2 +1,2 @@\n-\x1b[2J\ta\r\n+-- b\n c\n");
        let text = |colours, is_terminal| String::from_utf8(Patch::of(&change).written(colours, is_terminal)).unwrap();
        assert!(text(false, false).contains("-\x1b[2J\ta\r\n"));
        assert!(text(false, true).contains("-\u{fffd}[2J\ta\r\n+-- b\n c\n"));
        let coloured = text(true, true);
        assert!(coloured.contains("\x1b[31m-\u{fffd}[2J\ta\x1b[0m\r\n\x1b[32m+-- b\x1b[0m\n c\n"), "{coloured:?}");
        assert!(coloured.starts_with("\x1b[1mdiff --git a/x b/x\x1b[0m\n"), "{coloured:?}");
    }
}
