//! Devices that do anything: what they wrote is in the tree that they come to, but for what one of them has overwritten or removed.

use super::*;

/// Bytes of each piece that is written: what a file holds is made of such.
const PIECE: usize = 16;

/// What was written, and what whoever had it has taken away again.
#[derive(Default)]
pub(super) struct Pieces {
    pub(super) written: Vec<Vec<u8>>,
    pub(super) gone: BTreeSet<Vec<u8>>,
}

/// Panics where a piece is missing that nobody has taken away.
pub(super) fn assert_found<'a>(
    tree: &Tree,
    written: impl IntoIterator<Item = &'a Vec<u8>>,
    gone: &BTreeSet<Vec<u8>>,
    seed: u64,
) {
    let contents = tree.values().filter_map(|(_, content)| content.as_deref());
    let found: BTreeSet<&[u8]> = contents.flat_map(|content| content.chunks(PIECE)).collect();
    for piece in written.into_iter().filter(|piece| !gone.contains(*piece)) {
        assert!(found.contains(&piece[..]), "seed {seed}: {} is missing", piece.escape_ascii());
    }
}

/// Something that a person does; names that are taken, or are not there, make it fail.
pub(super) fn something(home: &Home, chance: &mut Chance, pieces: &mut Pieces) {
    let dirs = ["", "x/", "y/", "x/z/"];
    let name = |chance: &mut Chance| {
        let dir = dirs[chance.below(4) as usize];
        format!("{dir}{}", ["a", "b", "c", "d", "e"][chance.below(5) as usize])
    };
    let (path, to) = (name(chance), name(chance));
    let find = |path: &str| {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = parent
            .split('/')
            .filter(|name| !name.is_empty())
            .try_fold(ROOT, |dir, name| home.vfs.lookup(dir, name.as_bytes()).ok().map(|attr| attr.ino))?;
        Some((dir, name.as_bytes().to_vec()))
    };
    let (Some((dir, name)), Some((other, new))) = (find(&path), find(&to)) else { return };
    let here = home.vfs.lookup(dir, &name).ok();
    let file = here.as_ref().filter(|attr| attr.kind == hypernet_core::tree::FileKind::Regular).map(|attr| attr.ino);
    let take_away = |pieces: &mut Pieces, ino: u64| {
        pieces.gone.extend(home.content(ino).chunks(PIECE).map(<[u8]>::to_vec));
    };
    match chance.below(13) {
        what @ 0..=4 => {
            if here.is_some() && file.is_none() {
                return;
            }
            let piece = format!("{:016x}", chance.below(u64::MAX)).into_bytes();
            let overwrites = what == 4;
            let flags = OpenFlags(libc::O_RDWR | if overwrites { libc::O_TRUNC } else { libc::O_APPEND });
            let ino = match file {
                Some(ino) => {
                    if overwrites {
                        take_away(pieces, ino);
                    }
                    home.vfs.open_file(ME, ino, flags, false).unwrap();
                    ino
                }
                None => home.vfs.create(ME, dir, &name, 0o644, flags, false).unwrap().0.ino,
            };
            let end = home.vfs.getattr(ino).unwrap().size;
            home.vfs.write(ino, end, &piece, false).unwrap();
            home.vfs.release(ino, flags).unwrap();
            pieces.written.push(piece);
        }
        5 => drop(home.vfs.rename(dir, &name, other, &new, RenameFlags::NoReplace)),
        6 => drop(here.map(|attr| home.vfs.link(attr.ino, other, &new))),
        7 => drop(here.map(|attr| {
            let mode = 0o600 + chance.below(8) as u32;
            home.vfs.setattr(ME, attr.ino, SetAttr { mode: Some(mode | 0o100), ..SetAttr::default() })
        })),
        8 => {
            if let Some(ino) = file {
                take_away(pieces, ino);
                home.vfs.unlink(dir, &name).unwrap();
            }
        }
        9 => drop(home.vfs.rmdir(dir, &name)),
        // Somebody reads it meanwhile.
        10 => drop(file.map(|ino| home.open(ino))),
        11 => home.close_all(),
        _ => drop(home.vfs.mkdir(ME, dir, &name, 0o700)),
    }
}

#[test]
fn devices_that_do_anything_come_to_one_tree_that_has_all_that_they_wrote() {
    for seed in 0..8 {
        let (mesh, mut chance, mut pieces) = (Mesh::new(6), Chance(seed), Pieces::default());
        let homes = homes(&mesh, 3, |home| ["x", "y", "x/z"].into_iter().for_each(|dir| home.mkdir(dir)));
        for _ in 0..80 {
            let home = &homes[chance.below(3) as usize];
            match chance.below(8) {
                0 => home.sync(),
                1 => {
                    home.sync();
                    home.follow();
                }
                _ => something(home, &mut chance, &mut pieces),
            }
        }
        let tree = meet(&homes);
        assert_found(&tree, &pieces.written, &pieces.gone, seed);
        for home in &homes {
            assert!(home.vfs.fsck(false).unwrap().problems.is_empty(), "seed {seed}");
        }
    }
}
