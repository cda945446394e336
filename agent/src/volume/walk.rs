//! All that a tree reaches: its nodes, and what the files in it hold.

use hypernet_core::history::{Kept, Tag};
use hypernet_core::id::ExtentId;
use hypernet_core::port::PortError;
use hypernet_core::seal::ExtentRef;
use hypernet_core::tree::{self, Content, Entry, LinkEntry, Root, Run, Target, TreeRef};

use super::Volume;
use super::read::{Deadline, Nodes, tree_error};
use super::served::{WINDOW, after_window};

/// What is told of.
pub(super) enum Seen<'a> {
    /// An extent that is reached.
    Extent(&'a ExtentRef),
    /// By this a tree goes, of whatever items, whose nodes are told of when it is new. What an extent is taken for stands where it is
    /// named, and anybody may name one as something that it is not: so to have been reached is not to have been walked.
    Tree(ExtentId),
}

/// Hears of all; whether it is new.
pub(super) type See<'a> = &'a mut dyn FnMut(Seen<'_>) -> Result<bool, PortError>;

fn tree_key(what: &str, depth: u8, weight: u64, node: &ExtentId) -> ExtentId {
    let mut hasher = blake3::Hasher::new_derive_key("hypernet 2026 tree that was walked v1");
    hasher.update(&(what.len() as u64).to_be_bytes()).update(what.as_bytes());
    hasher.update(&[depth]).update(&weight.to_be_bytes()).update(node.as_bytes());
    ExtentId(*hasher.finalize().as_bytes())
}

/// A walk through trees of one volume. Directories wait for their turn, so that memory is that of one path of them.
pub(super) struct Walk<'a> {
    volume: &'a Volume,
    see: See<'a>,
    /// What of what cannot be read does not end the walk.
    bears: fn(&PortError) -> bool,
    waiting: Vec<TreeRef>,
    /// Why something could not be read.
    pub(super) missed: Option<PortError>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(volume: &'a Volume, bears: fn(&PortError) -> bool, see: See<'a>) -> Self {
        Self { volume, see, bears, waiting: Vec::new(), missed: None }
    }

    fn miss(&mut self, seen: Result<(), PortError>) -> Result<(), PortError> {
        match seen {
            Err(error) if (self.bears)(&error) => {
                self.missed = Some(error);
                Ok(())
            }
            other => other,
        }
    }

    /// The tree below a root, without what it says of the history.
    pub(super) fn root(&mut self, root: &Root) -> Result<(), PortError> {
        self.content(&root.inode.content)?;
        self.table(root)?;
        while let Some(directory) = self.waiting.pop() {
            let seen = self.directory(&directory);
            self.miss(seen)?;
        }
        Ok(())
    }

    /// The link table of a root, and what is in it.
    pub(super) fn table(&mut self, root: &Root) -> Result<(), PortError> {
        let seen = root.links.as_ref().map_or(Ok(()), |links| self.links(links));
        self.miss(seen)
    }

    /// A root by its place, and all below it; none where it cannot be read.
    pub(super) fn root_at(&mut self, at: &ExtentRef) -> Result<Option<Root>, PortError> {
        self.extent(at)?;
        let is_new = (self.see)(Seen::Tree(tree_key("root", 0, 0, &at.id())))?;
        let root = match self.volume.root_of_any(at) {
            Err(error) => return self.miss(Err(error)).map(|()| None),
            Ok(root) => root,
        };
        if is_new {
            // Whoever merges it with others reads these, too.
            let seen = self.names_of((root.history.as_ref(), root.tags.as_ref()));
            self.miss(seen)?;
            self.root(&root)?;
        }
        Ok(Some(root))
    }

    /// The trees that a history stands in.
    fn names_of(&mut self, (kept, tags): (Option<&TreeRef>, Option<&TreeRef>)) -> Result<(), PortError> {
        kept.map_or(Ok(true), |kept| self.nodes::<Kept>(kept))?;
        tags.map_or(Ok(true), |tags| self.nodes::<Tag>(tags)).map(drop)
    }

    /// The trees that the history of a root stands in, and those of snapshots that it keeps.
    pub(super) fn history<'k>(
        &mut self,
        root: &Root,
        mut kept: impl Iterator<Item = &'k Kept>,
    ) -> Result<(), PortError> {
        let seen = self.names_of((root.history.as_ref(), root.tags.as_ref()));
        self.miss(seen)?;
        kept.try_for_each(|kept| self.root_at(&kept.snapshot.root).map(drop))
    }

    /// What some inode holds, and all below it.
    pub(super) fn held(&mut self, content: &Content) -> Result<(), PortError> {
        self.content(content)?;
        while let Some(directory) = self.waiting.pop() {
            let seen = self.directory(&directory);
            self.miss(seen)?;
        }
        Ok(())
    }

    /// One extent by itself.
    pub(super) fn extent(&mut self, extent: &ExtentRef) -> Result<(), PortError> {
        (self.see)(Seen::Extent(extent)).map(drop)
    }

    fn links(&mut self, links: &TreeRef) -> Result<(), PortError> {
        if self.nodes::<LinkEntry>(links)? {
            let rows = self.volume.link_entries(links, Deadline::of_read())?;
            rows.iter().try_for_each(|row| self.content(&row.inode.content))?;
        }
        Ok(())
    }

    fn directory(&mut self, directory: &TreeRef) -> Result<(), PortError> {
        if self.nodes::<Entry>(directory)? {
            for entry in self.volume.entries(directory, Deadline::of_read())? {
                if let Target::Inode(inode) = entry.target {
                    self.content(&inode.content)?;
                }
            }
        }
        Ok(())
    }

    fn content(&mut self, content: &Content) -> Result<(), PortError> {
        match content {
            Content::Empty | Content::Inline(_) | Content::Symlink(_) => Ok(()),
            Content::Extent(extent) => self.extent(extent),
            Content::Runs { tree, .. } => {
                let seen = self.runs(tree);
                self.miss(seen)
            }
            Content::Directory(directory) => {
                self.waiting.push(directory.clone());
                Ok(())
            }
        }
    }

    /// The nodes of a tree; false of one that was seen before.
    fn nodes<T: tree::Item>(&mut self, of: &TreeRef) -> Result<bool, PortError> {
        if !(self.see)(Seen::Tree(tree_key(T::NAME, of.depth, of.weight, &of.node.id())))? {
            return Ok(false);
        }
        let nodes = Nodes(self.volume, Deadline::of_read());
        let refs = tree::node_refs::<T, _>(of, &nodes).map_err(tree_error)?;
        refs.iter().try_for_each(|node| self.extent(node))?;
        Ok(true)
    }

    /// A file's tree and content, a stretch of it at a time.
    fn runs(&mut self, runs: &TreeRef) -> Result<(), PortError> {
        if !self.nodes::<Run>(runs)? {
            return Ok(());
        }
        let mut at = 0;
        while at < runs.weight {
            let end = at.saturating_add(WINDOW);
            let found = self.volume.runs(runs, at..end, Deadline::of_read())?;
            for (_, run) in &found {
                if let Run::Data(extent) = run {
                    self.extent(extent)?;
                }
            }
            at = after_window(&found, end);
        }
        Ok(())
    }
}
