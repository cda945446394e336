use proptest::prelude::*;

use super::*;
use crate::limits::TEXT_COMPARED_MAX;

fn merged(base: &str, ours: &str, theirs: &str) -> Option<String> {
    let one = merge(base.as_bytes(), ours.as_bytes(), theirs.as_bytes());
    assert_eq!(one, merge(base.as_bytes(), theirs.as_bytes(), ours.as_bytes()));
    one.map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn what_two_have_changed_in_different_places_is_both() {
    let base = "a\nb\nc\nd\ne\n";
    let all = [
        ("A\nb\nc\nd\ne\n", "a\nb\nc\nd\nE\n", "A\nb\nc\nd\nE\n"),
        // One line between is enough.
        ("A\nb\nc\nd\ne\n", "a\nb\nC\nd\ne\n", "A\nb\nC\nd\ne\n"),
        ("x\na\nb\nc\nd\ne\n", "a\nb\nc\nd\ne\nx\n", "x\na\nb\nc\nd\ne\nx\n"),
        ("a\nc\nd\ne\n", "a\nb\nc\nd\n", "a\nc\nd\n"),
        // The same change twice is one.
        ("a\nB\nc\nd\ne\n", "a\nB\nc\nd\nE\n", "a\nB\nc\nd\nE\n"),
        ("a\nb\nc\nd\ne\nf\n", "a\nb\nc\nd\ne\nf\n", "a\nb\nc\nd\ne\nf\n"),
        ("", "", ""),
    ];
    for (ours, theirs, both) in all {
        assert_eq!(merged(base, ours, theirs).as_deref(), Some(both), "{ours:?} {theirs:?}");
    }
}

#[test]
fn what_is_not_clear_is_left_to_people() {
    let base = "a\nb\nc\nd\ne\n";
    let all = [
        // The same line.
        ("a\nX\nc\nd\ne\n", "a\nY\nc\nd\ne\n"),
        // Lines next to one another.
        ("a\nX\nc\nd\ne\n", "a\nb\nY\nd\ne\n"),
        // Written here and taken away there.
        ("a\nX\nc\nd\ne\n", "a\nc\nd\ne\n"),
        ("", "a\nb\nc\nd\ne\nf\n"),
        // Both at the end, or before the same line.
        ("a\nb\nc\nd\ne\nx\n", "a\nb\nc\nd\ne\ny\n"),
        ("a\nx\nb\nc\nd\ne\n", "a\ny\nb\nc\nd\ne\n"),
        // One of them what the other one has, and more.
        ("a\nx\nb\nc\nd\ne\n", "a\nx\ny\nb\nc\nd\ne\n"),
    ];
    for (ours, theirs) in all {
        assert_eq!(merged(base, ours, theirs), None, "{ours:?} {theirs:?}");
    }
    assert_eq!(merged("", "x\n", "y\n"), None);
    assert_eq!(merged("", "x\n", "x\n").as_deref(), Some("x\n"));
}

#[test]
fn ends_of_lines_are_part_of_them() {
    // What has no end stays so, gets one, or loses it; never does it run into the next line.
    assert_eq!(merged("a\nb\nc", "A\nb\nc", "a\nb\nc").as_deref(), Some("A\nb\nc"));
    assert_eq!(merged("a\nb\nc", "A\nb\nc", "a\nb\nc\n").as_deref(), Some("A\nb\nc\n"));
    assert_eq!(merged("a\nb\nc\n", "A\nb\nc\n", "a\nb\nc").as_deref(), Some("A\nb\nc"));
    assert_eq!(merged("a\nb\nc", "A\nb\nc", "a\nb\nc\nd").as_deref(), Some("A\nb\nc\nd"));
    assert_eq!(merged("a\nb\nc", "a\nb\nc\nd", "a\nb\nc\n"), None);
    assert_eq!(merged("a\r\nb\r\nc\r\n", "A\r\nb\r\nc\r\n", "a\r\nb\r\nC\r\n").as_deref(), Some("A\r\nb\r\nC\r\n"));
    // Other ends everywhere are a change of each line.
    assert_eq!(merged("a\nb\nc\n", "a\r\nb\r\nc\r\n", "a\nb\nC\n"), None);
    assert_eq!(merged("a\nb\nc\n", "a\r\nb\r\nc\r\n", "a\nb\nc\n").as_deref(), Some("a\r\nb\r\nc\r\n"));
    // One that ends no line.
    assert_eq!(merged("a\rb\nc\nd\n", "a\rB\nc\nd\n", "a\rb\nc\nD\n").as_deref(), Some("a\rB\nc\nD\n"));
}

#[test]
fn what_is_no_text_or_too_long_is_not_merged() {
    let long = vec![b'a'; TEXT_MAX + 1];
    let lines = "\n".repeat(TEXT_LINES_MAX + 1);
    let (binary, large) = (NotCompared::Binary, NotCompared::Large);
    for (odd, why) in [(&b"a\0b"[..], binary), (b"a\xffb", binary), (&long, large), (lines.as_bytes(), large)] {
        assert_eq!(Text::of(odd), Err(why));
        for (base, ours, theirs) in [(odd, &b""[..], &b""[..]), (b"", odd, b""), (b"", b"", odd), (odd, odd, odd)] {
            assert_eq!(merge(base, ours, theirs), None);
        }
    }
    for whole in [&long[1..], &lines.as_bytes()[1..]] {
        assert_eq!(merge(b"", whole, b"").as_deref(), Some(whole));
    }
}

#[test]
fn a_long_text_is_compared_and_merged_as_long_as_little_of_it_is_different() {
    let lines = TEXT_COMPARED_MAX + 5_000;
    // Between lines that are there once stand some that are there often.
    let line = |n: usize| if n.is_multiple_of(3) { "}\n".to_owned() } else { format!("line {n}\n") };
    let text = |change: &dyn Fn(usize) -> Option<String>| -> String {
        (0..lines).map(|n| change(n).unwrap_or_else(|| line(n))).collect()
    };
    let base = text(&|_| None);
    // One at both ends, and the other one in the middle.
    let ours = text(&|n| [0, 7, lines - 1].contains(&n).then(|| format!("ours {n}\n")));
    let theirs = text(&|n| (n == lines / 2).then(|| "theirs\nand more\n".into()));
    let both = text(&|n| match n {
        n if n == lines / 2 => Some("theirs\nand more\n".into()),
        n => [0, 7, lines - 1].contains(&n).then(|| format!("ours {n}\n")),
    });
    assert!(merged(&base, &ours, &theirs) == Some(both));
    let Hunks { added, removed, text } = hunks(&base, &ours, 1);
    assert_eq!((added, removed, text.matches("@@ -").count()), (3, 3, 3));
    assert!(patched(&base, &text) == ours);
    // What is nowhere the same is too much.
    let other: String = (0..lines).map(|n| format!("other {n}\n")).collect();
    let [one, other] = [&base, &other].map(|text| Text::of(text.as_bytes()).unwrap());
    assert_eq!(Hunks::of(&one, &other, None), Err(NotCompared::Large));
    assert_eq!(Hunks::of(&one, &Text::of(b"").unwrap(), None).map(|hunks| hunks.removed), Ok(lines as u64));
}

fn hunks(before: &str, after: &str, context: usize) -> Hunks {
    let [before, after] = [before, after].map(|text| Text::of(text.as_bytes()).unwrap());
    let hunks = Hunks::of(&before, &after, Some(context)).unwrap();
    assert_eq!(Ok(Hunks { text: String::new(), ..hunks.clone() }), Hunks::of(&before, &after, None));
    hunks
}

#[test]
fn hunks_are_as_diff_and_git_write_them() {
    let before: String = (1..=20).map(|n| format!("{n}\n")).collect();
    let after = before.replace("\n5\n", "\nfive\n").replace("\n16\n", "\n").replace("\n20\n", "\n20");
    let expected = "@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n\
        @@ -13,8 +13,7 @@\n 13\n 14\n 15\n-16\n 17\n 18\n 19\n-20\n+20\n\\ No newline at end of file\n";
    assert_eq!(hunks(&before, &after, 3), Hunks { added: 2, removed: 3, text: expected.into() });
    let bare = "@@ -5 +5 @@\n-5\n+five\n@@ -16 +15,0 @@\n-16\n@@ -20 +19 @@\n-20\n+20\n\\ No newline at end of file\n";
    assert_eq!(hunks(&before, &after, 0).text, bare);
    // All of it in one, however many lines are asked for.
    assert_eq!(hunks(&before, &after, usize::MAX).text.matches("@@ -1,20 +1,19 @@\n").count(), 1);
    assert_eq!(hunks("", "a\nb\n", 3).text, "@@ -0,0 +1,2 @@\n+a\n+b\n");
    assert_eq!(hunks("a", "", 3).text, "@@ -1 +0,0 @@\n-a\n\\ No newline at end of file\n");
    assert_eq!(hunks("a\n", "a\n", 3), Hunks::default());
    assert_eq!(hunks("a\r\n", "a\n", 3).text, "@@ -1 +1 @@\n-a\r\n+a\n");
}

/// What `patch` makes of a text and hunks.
fn patched(before: &str, hunks: &str) -> String {
    let lines: Vec<&str> = before.split_inclusive('\n').collect();
    let (mut at, mut after) = (0, String::new());
    let mut waiting = hunks.split_inclusive('\n').peekable();
    while let Some(line) = waiting.next() {
        let mut rest = line[1..].to_owned();
        if waiting.next_if(|next| next.starts_with('\\')).is_some() {
            rest.pop();
        }
        match &line[..1] {
            "@" => {
                let place = line.split(['-', ' ', ',']).nth(2).unwrap().parse::<usize>().unwrap();
                let start = if line[4..].split(' ').next().unwrap().ends_with(",0") { place } else { place - 1 };
                after.extend(lines[at..start].iter().copied());
                at = start;
            }
            "+" => after.push_str(&rest),
            sign => {
                assert_eq!(rest, lines[at]);
                at += 1;
                if sign == " " {
                    after.push_str(&rest);
                }
            }
        }
    }
    after.extend(lines[at..].iter().copied());
    after
}

/// Texts of few different lines, of which many look alike.
fn text() -> impl Strategy<Value = String> {
    let line = prop_oneof![Just("a\n"), Just("b\n"), Just("c\n"), Just("d\r\n"), Just("\n"), Just("{\n"), Just("}\n")];
    let last = prop_oneof![Just(""), Just("a"), Just("end")];
    (prop::collection::vec(line, 0..24), last).prop_map(|(lines, last)| lines.concat() + last)
}

/// One text, and what two have made of it here and there.
fn versions() -> impl Strategy<Value = [String; 3]> {
    let line =
        (any::<prop::sample::Index>(), prop_oneof![Just(""), Just("x\n"), Just("y\n"), Just("a\n"), Just("x\ny\n")]);
    let edits = || prop::collection::vec(line.clone(), 0..4);
    let edited = |base: &str, edits: Vec<(prop::sample::Index, &str)>| {
        let mut lines: Vec<String> = base.split_inclusive('\n').map(str::to_owned).collect();
        for (at, new) in edits.into_iter().filter(|_| !base.is_empty()) {
            lines[at.index(base.split_inclusive('\n').count())] = new.to_owned();
        }
        lines.concat()
    };
    (text(), edits(), edits()).prop_map(move |(base, ours, theirs)| {
        let (ours, theirs) = (edited(&base, ours), edited(&base, theirs));
        [base, ours, theirs]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whoever_alone_has_changed_something_is_right(base in text(), other in text()) {
        prop_assert_eq!(merged(&base, &other, &base), Some(other.clone()));
        prop_assert_eq!(merged(&base, &other, &other), Some(other.clone()));
        prop_assert_eq!(merged(&other, &other, &other), Some(other));
    }

    #[test]
    fn it_does_not_matter_who_merges_and_no_line_is_lost([base, ours, theirs] in versions()) {
        // `merged` tries both orders.
        let Some(both) = merged(&base, &ours, &theirs) else { return Ok(()) };
        let count = |text: &str, line: &str| text.split_inclusive('\n').filter(|one| *one == line).count();
        for side in [&ours, &theirs] {
            for line in side.split_inclusive('\n') {
                let added = count(side, line).saturating_sub(count(&base, line));
                prop_assert!(count(&both, line) >= added, "{line:?} of {side:?} is missing in {both:?}");
            }
        }
        // And nothing is there that nobody has written.
        for line in both.split_inclusive('\n') {
            prop_assert!([&base, &ours, &theirs].iter().any(|text| count(text, line) > 0), "{line:?} in {both:?}");
        }
    }

    #[test]
    fn changes_with_a_line_between_are_all_there(who in prop::collection::vec(0u8..7, 1..60)) {
        let [mut base, mut ours, mut theirs, mut both] = [const { String::new() }; 4];
        for (number, who) in who.iter().enumerate() {
            // Nobody touches what stands between.
            let (still, line, new) = (format!("s{number}\n"), format!("{number}\n"), format!("n{number}\n"));
            let (longer, nothing) = (format!("{line}{new}"), String::new());
            let (one, other, merged) = match who {
                0 => (&new, &line, &new),
                1 => (&line, &new, &new),
                2 => (&longer, &line, &longer),
                3 => (&line, &longer, &longer),
                4 => (&new, &new, &new),
                5 => (&nothing, &line, &nothing),
                _ => (&line, &line, &line),
            };
            for (text, part) in [(&mut base, &line), (&mut ours, one), (&mut theirs, other), (&mut both, merged)] {
                text.push_str(part);
                text.push_str(&still);
            }
        }
        prop_assert_eq!(merged(&base, &ours, &theirs), Some(both));
    }

    #[test]
    fn what_is_cut_leads_from_the_one_to_the_other_too([before, after, _] in versions(), max in 0usize..24) {
        let [one, other] = [&before, &after].map(|text| Text::of(text.as_bytes()).unwrap());
        let [was, is] = numbered([&one, &other]);
        let Ok(edits) = cut::edits_within(&was, &is, max) else {
            prop_assert!(was.len().max(is.len()) > max);
            return Ok(());
        };
        let (mut made, mut at) = (Vec::new(), (0, 0));
        for (number, edit) in edits.iter().enumerate() {
            prop_assert_eq!(at, (edit.old_range().start, edit.new_range().start), "{:?}", edits);
            at = (edit.old_range().end, edit.new_range().end);
            let is_equal = |edit: &DiffOp| matches!(edit, DiffOp::Equal { .. });
            if is_equal(edit) {
                prop_assert_eq!(&was[edit.old_range()], &is[edit.new_range()]);
            }
            // As hunks are made of them: what is the same is told in one.
            let next = edits.get(number + 1);
            prop_assert!(next.is_none_or(|next| is_equal(next) != is_equal(edit)), "{:?}", edits);
            made.extend_from_slice(&is[edit.new_range()]);
        }
        prop_assert_eq!((at, made), ((was.len(), is.len()), is));
    }

    #[test]
    fn hunks_lead_from_the_one_to_the_other(before in text(), after in text(), context in 0usize..5) {
        let hunks = hunks(&before, &after, context);
        prop_assert_eq!(patched(&before, &hunks.text), after);
        let count = |sign| hunks.text.lines().filter(|line| line.starts_with(sign)).count() as u64;
        prop_assert_eq!((count('+'), count('-')), (hunks.added, hunks.removed));
    }
}

/// Devices of other versions must come to the same: what another `similar` finds in these may not differ.
#[test]
fn what_is_in_common_is_the_same_for_ever() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut hasher = blake3::Hasher::new();
    for round in 0..300u64 {
        // Some are so long, and so unlike, that the shortest way is given up.
        let (lines, different) = (if round % 30 == 0 { 3_000 } else { 1 + random(60) }, 2 + random(300));
        let before: Vec<u32> = (0..lines).map(|_| random(different) as u32).collect();
        let often = if round % 60 == 0 { 2 } else { 6 };
        let mut after: Vec<u32> = Vec::new();
        for line in &before {
            match random(often) {
                0 => after.extend([*line, random(different) as u32]),
                1 => after.push(random(different) as u32),
                2 => {}
                _ => after.push(*line),
            }
        }
        for at in kept(&before, &after).unwrap() {
            hasher.update(&at.map_or(u64::MAX, |at| at as u64).to_le_bytes());
        }
    }
    assert_eq!(hasher.finalize().to_hex()[..16], *"66fbe8dd3ffc5df0");
}
