//! From what stays to trees.

use std::collections::BTreeMap;

use super::gather::Gathered;
use super::inodes::{Outcome, Outcomes};
use super::places::{Leads, Places, names_elsewhere};
use super::{Holding, MergeError};
use crate::id::FileId;
use crate::tree::{self, Content, Entry, Inode, LinkEntry, Sink, Target, TreeRef};

/// The root directory, the link table, and what they hold where the trees differ.
type Built = (Inode, Option<TreeRef>, Vec<Holding>);

/// Writes all directories that were looked into, those below before those above, and the link table.
pub(super) fn build<K: Sink>(
    gathered: &Gathered<'_>,
    mut outcomes: Outcomes,
    places: Places,
    sink: &mut K,
) -> Result<Built, MergeError<K::Error>> {
    let mut held = Vec::new();
    for (id, mark) in &places.marks {
        if let Some(outcome) = outcomes.get_mut(id) {
            mark.put(&mut outcome.inode);
        }
    }
    let mut rows = rows(gathered);
    let mut linked: BTreeMap<FileId, u32> = BTreeMap::new();
    for id in gathered.ids() {
        let here = places.names.get(&id).copied().unwrap_or(0);
        let elsewhere = names_elsewhere(gathered, id);
        rows.remove(&id);
        if elsewhere > 0 || here > 1 {
            linked.insert(id, elsewhere + here);
        }
    }
    let mut built: BTreeMap<FileId, Content> = BTreeMap::new();
    for (id, names) in places.directories.into_iter().rev() {
        let mut entries = Vec::with_capacity(names.len());
        for (name, leads) in names {
            entries.extend(match leads {
                Leads::Same(entry) => Some(Entry { name, ..entry }),
                Leads::Copy(inode, dot) => {
                    held.extend(hold(gathered, &inode));
                    Some(Entry { name, dot, target: Target::Inode(inode) })
                }
                Leads::To(id, dot) => {
                    let target = match gathered.volumes.get(&id) {
                        Some(volume) => {
                            let id = gathered.aliases.get(&id).copied().unwrap_or(id);
                            Some(Target::Volume { volume: *volume, id })
                        }
                        None if linked.contains_key(&id) => Some(Target::Link(id)),
                        None => outcomes.remove(&id).map(|Outcome { mut inode, .. }| {
                            match built.remove(&id) {
                                Some(content) => inode.content = content,
                                None => held.extend(hold(gathered, &inode)),
                            }
                            Target::Inode(inode.into())
                        }),
                    };
                    target.map(|target| Entry { name, dot, target })
                }
            });
        }
        built.insert(id, Content::Directory(tree::build(entries, sink)?));
    }
    for (id, links) in linked {
        if let Some(Outcome { inode, .. }) = outcomes.remove(&id) {
            held.extend(hold(gathered, &inode));
            rows.insert(id, LinkEntry { inode, links });
        }
    }
    let links = match rows.is_empty() {
        true => None,
        false => Some(tree::build(rows.into_values(), sink)?),
    };
    let root = outcomes.remove(&gathered.root).ok_or(MergeError::Nothing)?;
    let mut inode = root.inode;
    match built.remove(&gathered.root) {
        Some(content) => inode.content = content,
        None => held.extend(hold(gathered, &inode)),
    }
    Ok((inode, links, held))
}

/// What an inode holds that is not in its record, and who has it in the same one.
fn hold(gathered: &Gathered<'_>, inode: &Inode) -> Option<Holding> {
    if matches!(inode.content, Content::Empty | Content::Inline(_) | Content::Symlink(_)) {
        return None;
    }
    let has = |id: FileId| gathered.seen.iter().map(move |seen| seen.inodes.get(&id).map(|inode| &inode.content));
    let parts = gathered.parts.iter().zip(has(inode.id));
    let of = parts.filter(|(_, content)| *content == Some(&inode.content)).map(|(part, _)| part.number);
    Some(Holding { content: inode.content.clone(), of: of.collect() })
}

/// What is in the link tables, for what was not looked at: in all of them. What is not in one of them, and has no name that is in
/// all trees or where they differ, has its names in a directory that is a volume of its own there, or none.
fn rows(gathered: &Gathered<'_>) -> BTreeMap<FileId, LinkEntry> {
    let mut tables = gathered.parts.iter().zip(&gathered.seen).filter(|(part, _)| !part.is_below).map(|(_, seen)| seen);
    let Some(first) = tables.next() else { return BTreeMap::new() };
    let others: Vec<_> = tables.collect();
    let in_all = first.links.iter().filter(|(id, _)| others.iter().all(|other| other.links.contains_key(id)));
    let row =
        |(id, links): (&FileId, &u32)| Some((*id, LinkEntry { inode: first.inodes.get(id)?.clone(), links: *links }));
    in_all.filter_map(row).collect()
}
