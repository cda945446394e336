//! What the mesh can give back now: asked before a local copy is dropped, because having been durable once is no claim
//! that it can be read today.

use hypernet_core::id::ExtentId;
use hypernet_core::limits::MIB;
use hypernet_core::port::PortError;
use hypernet_core::seal::ExtentRef;
use hypernet_core::tree::{self, Content, Item, Run, Source, TreeRef};

use super::Volume;
use super::census::{Census, Enough};
use super::read::{Deadline, Nodes, tree_error};

/// Bytes of a file whose runs are looked at together.
pub(super) const WINDOW: u64 = 1024 * MIB as u64;

/// Where the next window begins, after the runs of one that ended at `end`: the last may reach far beyond it, as a hole
/// can be as long as it likes.
pub(super) fn after_window(found: &[(u64, Run)], end: u64) -> u64 {
    found.last().map_or(end, |(from, run)| from.saturating_add(run.weight()).max(end))
}

/// Tree nodes that the peers of now serve, and an error for any other: nobody is waited for who is not there.
struct ServedNodes<'a> {
    nodes: Nodes<'a>,
    census: &'a Census,
}

impl Source for ServedNodes<'_> {
    type Error = PortError;

    fn get(&self, refs: &[ExtentRef]) -> Result<Vec<Vec<u8>>, PortError> {
        if !self.nodes.0.all_stored(refs.iter().map(ExtentRef::id), self.census)? {
            return Err(PortError::Unreachable("too few of a tree node's holders are connected".into()));
        }
        self.nodes.get(refs)
    }
}

impl Volume {
    /// Which of these can be read from the peers of the census. What cannot be told counts as what cannot.
    pub(crate) fn served(&self, contents: &[&Content], census: &Census) -> Vec<bool> {
        let served = |content: &&Content| {
            self.is_served(content, census).unwrap_or_else(|error| {
                tracing::debug!(%error, "a file is not served by the peers of now");
                false
            })
        };
        contents.iter().map(served).collect()
    }

    /// Empties the cache of tree nodes, but for those that the peers of the census do not serve; without one, of all.
    pub(crate) fn drop_nodes(&self, census: Option<&Census>) -> Result<(), PortError> {
        self.db.drop_nodes(|ids| match census {
            Some(census) => census.stored(self, ids, Enough::Read),
            None => Ok(vec![true; ids.len()]),
        })
    }

    fn all_stored(&self, ids: impl Iterator<Item = ExtentId>, census: &Census) -> Result<bool, PortError> {
        Ok(census.stored(self, &ids.collect::<Vec<_>>(), Enough::Read)?.into_iter().all(|stored| stored))
    }

    fn is_served(&self, content: &Content, census: &Census) -> Result<bool, PortError> {
        match content {
            // Those lie in the directory's entry.
            Content::Empty | Content::Inline(_) | Content::Symlink(_) => Ok(true),
            Content::Extent(extent) => self.all_stored(std::iter::once(extent.id()), census),
            Content::Runs { tree, .. } => self.are_runs_served(tree, census),
            Content::Directory(directory) => self.all_stored(std::iter::once(directory.node.id()), census),
        }
    }

    /// Whether all of a file's tree and content is, a stretch of it at a time.
    fn are_runs_served(&self, runs: &TreeRef, census: &Census) -> Result<bool, PortError> {
        let mut at = 0;
        while at < runs.weight {
            let nodes = ServedNodes { nodes: Nodes(self, Deadline::of_read()), census };
            let end = at.saturating_add(WINDOW);
            let found = tree::range::<Run, _>(runs, &nodes, at, end).map_err(tree_error)?;
            let data = found.iter().filter_map(|(_, run)| match run {
                Run::Data(extent) => Some(extent.id()),
                Run::Hole(_) => None,
            });
            if !self.all_stored(data, census)? {
                return Ok(false);
            }
            at = after_window(&found, end);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use hypernet_core::codec;
    use hypernet_core::id::PeerId;
    use hypernet_core::seal::Kind;
    use hypernet_core::segment::Placement;
    use hypernet_core::tree::Sink;

    use super::super::double::Mesh;
    use super::super::progress::Meter;
    use super::super::write::Writer;
    use super::*;

    #[test]
    fn a_file_is_served_while_all_of_it_is() {
        let mesh = Mesh::new(20);
        let dir = tempfile::tempdir().unwrap();
        let volume = mesh.volume(dir.path(), 7);
        let census = || Census::new(&volume).unwrap();
        let served = |contents: &[&Content]| volume.served(contents, &census());
        // Two syncs, and so two segments: of the second file a part is in each.
        let mut writer = Writer::new(volume.clone(), Meter::new()).unwrap();
        let first = writer.put(Kind::Content, &[1; 5_000]).unwrap();
        writer.finish().unwrap();
        let mut writer = Writer::new(volume.clone(), Meter::new()).unwrap();
        let second = writer.put(Kind::Content, &[2; 5_000]).unwrap();
        // The hole is longer than all windows that there is time for.
        let runs = [Run::Data(second.clone()), Run::Hole(1 << 60), Run::Data(first.clone())];
        let runs = Content::Runs { tree: tree::build(runs, &mut writer).unwrap(), data: 10_000 };
        writer.finish().unwrap();
        let unknown = unknown_content(&volume);
        let (one, two) = (Content::Extent(first.clone()), Content::Extent(second));
        let inline = Content::Inline(vec![1]);
        let all = [&one, &two, &runs, &inline, &unknown];
        assert_eq!(served(&all), [true, true, true, true, false]);

        // So many holders of the first segment go that it cannot be read; the second one can.
        let holders = |extent: &ExtentRef| -> Placement {
            codec::decode(&volume.db.locate(&extent.id()).unwrap().unwrap().descriptor).unwrap()
        };
        let placement = holders(&first);
        let spare = usize::from(placement.n - placement.segment.k);
        let gone: Vec<PeerId> = placement.holders.iter().map(|holder| holder.peer).take(spare + 1).collect();
        mesh.disconnect(gone[1..].to_vec());
        assert_eq!(served(&all), [true, true, true, true, false], "k of them are there");
        mesh.disconnect([gone[0]]);
        assert_eq!(served(&all)[..4], [false, served(&[&two])[0], false, true]);

        // With all of them gone nobody is waited for, and tree nodes stay, too.
        mesh.disconnect((1..=20).map(|i| PeerId([i; 32])));
        let fetches = mesh.fetches();
        assert_eq!(served(&all), [false, false, false, true, false]);
        let Content::Runs { tree, .. } = &runs else { unreachable!() };
        let nodes = tree::node_refs::<Run, _>(tree, &Nodes(&volume, Deadline::of_read())).unwrap().len() as u64;
        volume.drop_nodes(Some(&census())).unwrap();
        assert!(volume.db.node(&tree.node.id()).unwrap().is_some());
        volume.drop_nodes(None).unwrap();
        assert!(volume.db.node(&tree.node.id()).unwrap().is_none());
        assert_eq!(served(&[&runs]), [false]);
        assert_eq!(mesh.fetches(), fetches);

        mesh.connect((1..=20).map(|i| PeerId([i; 32])));
        assert_eq!(served(&all), [true, true, true, true, false]);
        assert!((1..=nodes).contains(&(mesh.fetches() - fetches)), "the nodes of the tree, each once");
        volume.drop_nodes(Some(&census())).unwrap();
        assert!(volume.db.node(&tree.node.id()).unwrap().is_none());
    }

    /// Content that no segment has.
    fn unknown_content(volume: &Volume) -> Content {
        let sealer = hypernet_core::seal::Sealer::new(&volume.keys());
        Content::Extent(sealer.seal(Kind::Content, &[9; 600]).unwrap().reference)
    }
}
