//! Checking a working tree: names, link counts and backing files against one another.

use std::collections::{BTreeMap, BTreeSet};

use hypernet_core::port::{InodeRow, Local};
use hypernet_core::tree::FileKind;

use super::life::each_row;
use super::node::ROOT;
use super::state::Need;
use super::{Result, Vfs, VfsError};

/// A tree that others change while it is checked is checked again this often.
const TRIES: u32 = 5;

/// A finding, and what mends it.
enum Fix {
    None,
    Links(u64, u32),
    Fetch(u64),
    Remove(u64),
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// What is wrong, one line for each finding.
    pub problems: Vec<String>,
    /// How many of them were mended.
    pub mended: u64,
}

impl Vfs {
    /// Says what is wrong; with `fix` also mends what can be, and says of each finding what became of it.
    pub fn fsck(&self, fix: bool) -> Result<Checked> {
        let mut tries = 0;
        let findings = loop {
            self.commit()?;
            let before = self.state.lock().batch;
            let findings = self.check()?;
            tries += 1;
            let state = self.state.lock();
            if findings.is_empty() || tries == TRIES || (state.batch == before && state.ops.is_empty()) {
                break findings;
            }
        };
        let mut checked = Checked::default();
        for (mut line, repair) in findings {
            if fix {
                let mended = self.mend(&repair)?;
                checked.mended += u64::from(mended);
                line.push_str(if mended { ": mended" } else { ": left as it is" });
            }
            checked.problems.push(line);
        }
        if fix {
            self.commit()?;
        }
        Ok(checked)
    }

    fn check(&self) -> Result<Vec<(String, Fix)>> {
        let mut findings = Vec::new();
        let mut names: BTreeMap<u64, (u32, InodeRow)> = BTreeMap::new();
        let mut seen_dirs = BTreeSet::from([ROOT]);
        let mut queue = vec![(ROOT, ROOT)];
        // Branches have no name anywhere.
        let tops = self.meta.roots()?.into_iter().filter(|row| row.parent == 0).map(|row| row.ino);
        queue.extend(tops.filter(|top| seen_dirs.insert(*top)).map(|top| (top, top)));
        while let Some((dir, root)) = queue.pop() {
            let Some(row) = self.meta.inode(dir)? else {
                findings.push((format!("directory {dir} has no inode"), Fix::None));
                continue;
            };
            let children = self.meta.children(dir)?;
            if row.local == Local::Absent && !children.is_empty() {
                findings.push((format!("directory {dir} is not here but has entries"), Fix::None));
            }
            let mut subdirectories = 0;
            for (name, child) in children {
                let text = String::from_utf8_lossy(&name).into_owned();
                if child.kind == FileKind::Directory {
                    subdirectories += 1;
                    if !seen_dirs.insert(child.ino) {
                        findings.push((format!("directory {} has a second name, {text:?}", child.ino), Fix::None));
                        continue;
                    }
                    queue.push((child.ino, if child.volume.is_some() { child.ino } else { root }));
                }
                if child.parent != if child.linked { root } else { dir } {
                    let line = format!("{text:?} in directory {dir} leads to an inode of directory {}", child.parent);
                    findings.push((line, Fix::None));
                }
                names.entry(child.ino).and_modify(|(count, _)| *count += 1).or_insert((1, child));
            }
            if row.local != Local::Absent && row.nlink != 2 + subdirectories {
                let line = format!("directory {dir} counts {} links, {} are there", row.nlink, 2 + subdirectories);
                findings.push((line, Fix::Links(dir, 2 + subdirectories)));
            }
        }
        self.check_files(&names, &mut findings)?;
        self.check_unreached(&names, &mut findings)?;
        Ok(findings)
    }

    fn check_files(&self, names: &BTreeMap<u64, (u32, InodeRow)>, findings: &mut Vec<(String, Fix)>) -> Result<()> {
        for (ino, (count, row)) in names {
            // Names in directories that are not here yet count too; so a linked inode may have more than were found.
            let fewer_is_fine = row.linked && row.remote.is_some();
            if row.kind != FileKind::Directory && (row.nlink < *count || (row.nlink > *count && !fewer_is_fine)) {
                let line = format!("inode {ino} counts {} names, {count} lead to it", row.nlink);
                findings.push((line, Fix::Links(*ino, *count)));
            }
            if row.kind != FileKind::Regular {
                continue;
            }
            let stat = self.backing.stat(*ino)?;
            match (row.local, stat) {
                (Local::Absent, _) if row.remote.is_none() => {
                    findings.push((format!("the content of inode {ino} is neither here nor on the mesh"), Fix::None));
                }
                (Local::Clean { size, .. }, None) if size > 0 => {
                    let line = format!("the content of inode {ino} is gone; the mesh has it");
                    findings.push((line, Fix::Fetch(*ino)));
                }
                (Local::Clean { size, .. }, Some(stat)) if stat.size != size => {
                    findings.push((format!("inode {ino} is marked clean but was written to"), Fix::None));
                }
                (Local::Complete, None) if row.size > 0 => {
                    findings.push((format!("the content of inode {ino} is gone and was never published"), Fix::None));
                }
                _ => {}
            }
        }
        for ino in self.backing.all()? {
            if !names.contains_key(&ino) && !self.is_needed(ino)? {
                findings.push((format!("backing file {ino:x} belongs to nothing"), Fix::Remove(ino)));
            }
        }
        Ok(())
    }

    /// Inodes that no name leads to: of those that can be listed, the dirty and the clean ones.
    fn check_unreached(&self, names: &BTreeMap<u64, (u32, InodeRow)>, findings: &mut Vec<(String, Fix)>) -> Result<()> {
        let mut check = |row: InodeRow| {
            // It may have its names in directories that are not here.
            let is_elsewhere = row.linked && row.remote.is_some();
            let is_top = row.parent == 0 && row.volume.is_some();
            if !is_top && row.nlink > 0 && !names.contains_key(&row.ino) && !is_elsewhere {
                findings.push((format!("no name leads to inode {}", row.ino), Fix::None));
            }
            Ok(())
        };
        each_row(|after, limit| self.meta.pending(after, limit), &mut check)?;
        each_row(|after, limit| self.meta.clean(after, limit), check)
    }

    /// It is open, on its way to removal, held for a cut, or of a file that may have its names in directories that are not
    /// here.
    fn is_needed(&self, ino: u64) -> Result<bool> {
        if self.meta.inode(ino)?.is_some_and(|row| row.linked && row.nlink > 0 && row.local != Local::Absent) {
            return Ok(true);
        }
        let state = self.state.lock();
        let waiting = state.doomed.contains(&ino) || state.held.contains(&ino) || state.removing.contains(&ino);
        Ok(waiting || state.nodes.contains_key(&ino))
    }

    fn mend(&self, fix: &Fix) -> Result<bool> {
        match *fix {
            Fix::None => Ok(false),
            Fix::Remove(ino) => {
                self.backing.remove(ino)?;
                Ok(true)
            }
            Fix::Links(ino, links) => self.run(|state| {
                state.node_mut(ino)?.nlink = links;
                state.queue_needed(ino);
                Ok(true)
            }),
            Fix::Fetch(ino) => self.run(|state| match state.node_mut(ino) {
                Ok(node) if node.remote.is_some() && node.handles() == 0 && node.changed == 0 => {
                    node.set_local(Local::Absent);
                    state.queue_needed(ino);
                    Ok(true)
                }
                Ok(_) => Ok(false),
                Err(Need::Fail(VfsError::NotFound)) => Ok(false),
                Err(other) => Err(other),
            }),
        }
    }
}
