use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const CACHE: u64 = 10_000;
const VOLUME: VolumeId = VolumeId([1; 16]);

fn extent(i: u32) -> ExtentId {
    ExtentId(*blake3::hash(&i.to_be_bytes()).as_bytes())
}

fn segment(i: u8) -> SegmentId {
    SegmentId([i; 32])
}

/// A segment, its descriptor, and numbers that stand for extents, with their place.
type NewSeeds = (u8, u8, Vec<(u32, u32, u32)>);

#[derive(Clone, Debug)]
enum Step {
    Add(Vec<NewSeeds>),
    Replace(u8, u8),
    State(u8, Option<u8>),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let extents = prop::collection::vec((0..40u32, any::<u32>(), any::<u32>()), 0..10);
    let one = (0..12u8, any::<u8>(), extents);
    prop_oneof![
        4 => prop::collection::vec(one, 0..4).prop_map(Step::Add),
        2 => (0..12u8, any::<u8>()).prop_map(|(segment, descriptor)| Step::Replace(segment, descriptor)),
        2 => (0..4u8, any::<Option<u8>>()).prop_map(|(key, value)| Step::State(key, value)),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Default)]
struct Model {
    /// The newest number.
    last: u64,
    /// By number.
    segments: BTreeMap<u64, (SegmentId, Vec<u8>, Vec<ExtentAt>)>,
    extents: BTreeMap<ExtentId, (SegmentId, u32, u32)>,
    state: BTreeMap<String, Vec<u8>>,
}

impl Model {
    fn add(&mut self, id: SegmentId, descriptor: Vec<u8>, extents: Vec<ExtentAt>) -> u64 {
        self.segments.retain(|_, row| row.0 != id);
        self.extents.retain(|_, at| at.0 != id);
        self.last += 1;
        for (extent, offset, len) in &extents {
            self.extents.insert(*extent, (id, *offset, *len));
        }
        self.segments.insert(self.last, (id, descriptor, extents));
        self.last
    }

    fn row(&self, num: u64) -> SegmentRow {
        let (id, descriptor, _) = &self.segments[&num];
        SegmentRow { num, id: *id, descriptor: descriptor.clone() }
    }

    fn check(&self, db: &VolumeDb) {
        let ids: Vec<ExtentId> = (0..40).map(extent).collect();
        let has: Vec<bool> = ids.iter().map(|id| self.extents.contains_key(id)).collect();
        assert_eq!(db.has_extents(&ids).unwrap(), has);
        let located: Vec<Option<Location>> = ids
            .iter()
            .map(|id| {
                let (segment, offset, len) = *self.extents.get(id)?;
                let (_, descriptor, _) = self.segments.values().find(|row| row.0 == segment)?;
                Some(Location { descriptor: descriptor.clone(), segment, offset, len })
            })
            .collect();
        assert_eq!(db.locate_many(&ids).unwrap(), located);
        assert_eq!(db.locate(&ids[0]).unwrap(), located[0]);
        let all: Vec<SegmentRow> = self.segments.keys().map(|num| self.row(*num)).collect();
        let (mut paged, mut after) = (Vec::new(), 0);
        loop {
            let page = db.segments_iter(after, 3).unwrap();
            let Some(last) = page.last() else { break };
            after = last.num;
            paged.extend(page);
        }
        assert_eq!(paged, all);
        for from in [0, 1, 3, 100] {
            let since: Vec<_> =
                self.segments.range(from..).map(|(num, row)| (self.row(*num), row.2.clone())).take(5).collect();
            assert_eq!(db.segments_since(from, 5).unwrap(), since);
        }
        assert_eq!(db.next_segment().unwrap(), self.last + 1);
        for i in 0..12 {
            assert_eq!(db.segment(&segment(i)).unwrap(), all.iter().find(|row| row.id == segment(i)).cloned());
        }
        let bytes = self.extents.values().map(|(_, _, len)| u64::from(*len)).sum();
        let counts = Counts { segments: all.len() as u64, extents: self.extents.len() as u64, bytes };
        assert_eq!(db.counts().unwrap(), counts);
        for key in 0..4 {
            assert_eq!(db.get_state(&format!("key {key}")).unwrap().as_ref(), self.state.get(&format!("key {key}")));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_the_model(steps in prop::collection::vec(step(), 1..15)) {
        let dir = tempfile::tempdir().unwrap();
        let mut db = VolumeDb::open(dir.path(), VOLUME, CACHE).unwrap();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Add(segments) => {
                    let rows: Vec<(SegmentId, Vec<u8>, Vec<ExtentAt>)> = segments
                        .into_iter()
                        .map(|(id, descriptor, extents)| {
                            let extents = extents.into_iter().map(|(id, offset, len)| (extent(id), offset, len));
                            (segment(id), vec![descriptor; 3], extents.collect())
                        })
                        .collect();
                    let new: Vec<NewSegment<'_>> = rows
                        .iter()
                        .map(|(id, descriptor, extents)| NewSegment { id: *id, descriptor, extents, leases: None, is_foreign: false })
                        .collect();
                    let nums = db.add_segments(&new).unwrap();
                    let expected: Vec<u64> =
                        rows.into_iter().map(|(id, descriptor, extents)| model.add(id, descriptor, extents)).collect();
                    prop_assert_eq!(nums, expected);
                }
                Step::Replace(id, descriptor) => {
                    let row = model.segments.values_mut().find(|row| row.0 == segment(id));
                    let known = db.segment(&segment(id)).unwrap().is_some();
                    db.replace_descriptors(&[(segment(id), vec![descriptor])]).unwrap();
                    prop_assert_eq!(known, row.is_some());
                    if let Some(row) = row {
                        row.1 = vec![descriptor];
                    }
                }
                Step::State(key, value) => {
                    let (key, value) = (format!("key {key}"), value.map(|value| vec![value; 5]));
                    db.put_states(&[(&key, value.as_deref())]).unwrap();
                    match value {
                        Some(value) => model.state.insert(key, value),
                        None => model.state.remove(&key),
                    };
                }
                Step::Reopen => {
                    drop(db);
                    db = VolumeDb::open(dir.path(), VOLUME, CACHE).unwrap();
                }
            }
            model.check(&db);
        }
    }
}

#[test]
fn many_descriptors_are_replaced_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let db = VolumeDb::open(dir.path(), VOLUME, CACHE).unwrap();
    db.add_segment(segment(1), b"one", &[(extent(1), 0, 9)]).unwrap();
    db.add_segment(segment(2), b"two", &[]).unwrap();
    let changed = [(segment(2), b"2".to_vec()), (segment(7), b"unknown".to_vec()), (segment(1), b"1".to_vec())];
    db.replace_descriptors(&changed).unwrap();
    assert_eq!(db.locate(&extent(1)).unwrap().unwrap().descriptor, b"1");
    assert_eq!(db.segment(&segment(2)).unwrap().unwrap().descriptor, b"2");
    assert_eq!(db.segment(&segment(7)).unwrap(), None);
}

#[test]
fn a_segment_that_comes_again_is_told_of_again() {
    let dir = tempfile::tempdir().unwrap();
    let db = VolumeDb::open(dir.path(), VOLUME, CACHE).unwrap();
    let contents = [(extent(1), 0, 9), (extent(2), 9, 9)];
    assert_eq!(db.add_segment(segment(1), b"gone", &contents).unwrap(), 1);
    assert_eq!(db.add_segment(segment(2), b"two", &[(extent(2), 0, 9)]).unwrap(), 2);
    assert_eq!(db.add_segment(segment(1), b"new", &contents).unwrap(), 3);
    let nums: Vec<(u64, SegmentId)> = db.segments_iter(0, 9).unwrap().iter().map(|row| (row.num, row.id)).collect();
    assert_eq!(nums, [(2, segment(2)), (3, segment(1))]);
    assert_eq!(db.segments_since(3, 9).unwrap()[0].1, contents);
    for i in [1, 2] {
        assert_eq!(db.locate(&extent(i)).unwrap().unwrap().descriptor, b"new");
    }
}

fn numbered(num: u64, i: u8, descriptor: &[u8]) -> SegmentRow {
    SegmentRow { num, id: segment(i), descriptor: descriptor.to_vec() }
}

#[test]
fn another_catalog_is_taken_over_with_its_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let db = VolumeDb::open(dir.path(), VOLUME, CACHE).unwrap();
    db.add_segment(segment(1), b"one", &[(extent(1), 0, 9)]).unwrap();
    db.put_state("kept", b"state").unwrap();
    db.clear_segments().unwrap();
    assert_eq!(db.counts().unwrap(), Counts::default());
    // Segment 2 was placed again under a higher number, which some page of the index still tells of as the lower.
    db.take_segments(&[numbered(5, 2, b"old"), numbered(6, 3, b"3")]).unwrap();
    db.take_segments(&[numbered(9, 2, b"2")]).unwrap();
    let contents = |num| (num, vec![(extent(2), num as u32, 9)]);
    db.take_contents(&[contents(5), (6, vec![(extent(3), 0, 9)])]).unwrap();
    db.take_contents(&[contents(9), contents(7)]).unwrap();
    assert_eq!(db.segments_iter(0, 9).unwrap(), [numbered(6, 3, b"3"), numbered(9, 2, b"2")]);
    assert_eq!(db.locate(&extent(2)).unwrap().unwrap().offset, 9);
    assert_eq!(db.locate(&extent(3)).unwrap().unwrap().descriptor, b"3");
    assert_eq!(db.segments_since(9, 9).unwrap()[0].1, contents(9).1);
    assert_eq!(db.counts().unwrap(), Counts { segments: 2, extents: 2, bytes: 18 });
    assert_eq!(db.get_state("kept").unwrap().unwrap(), b"state");
    // Whoever took it over goes on above it.
    assert_eq!(db.next_segment().unwrap(), 10);
    db.number_from(20).unwrap();
    db.number_from(15).unwrap();
    assert_eq!(db.next_segment().unwrap(), 20);
    assert_eq!(db.add_segment(segment(7), b"7", &[]).unwrap(), 20);
}

#[test]
fn numbers_begin_where_an_empty_catalog_ends() {
    let dir = tempfile::tempdir().unwrap();
    let db = VolumeDb::open(dir.path(), VOLUME, CACHE).unwrap();
    db.number_from(20).unwrap();
    assert_eq!(db.add_segment(segment(1), b"1", &[]).unwrap(), 20);
}

#[test]
fn the_node_cache_is_bounded_and_drops_what_is_unused() {
    let dir = tempfile::tempdir().unwrap();
    let mut db = VolumeDb::open(dir.path(), VOLUME, CACHE).unwrap();
    let plain = |i: u32| vec![i as u8; 1_000];
    for i in 0..9 {
        db.put_nodes(&[(extent(i), &plain(i))]).unwrap();
    }
    // The first is used again, so the second is the oldest.
    assert_eq!(db.node(&extent(0)).unwrap(), Some(plain(0)));
    db.put_nodes(&[(extent(9), &plain(9))]).unwrap();
    db.put_nodes(&[(extent(10), &plain(10)), (extent(11), &plain(11))]).unwrap();
    assert_eq!(db.node(&extent(0)).unwrap(), Some(plain(0)));
    assert_eq!(db.node(&extent(1)).unwrap(), None);
    assert_eq!(db.node(&extent(2)).unwrap(), None);
    assert_eq!(db.node(&extent(3)).unwrap(), Some(plain(3)));
    // The bound holds over a restart, and for what is put twice or is too large by itself.
    drop(db);
    db = VolumeDb::open(dir.path(), VOLUME, CACHE).unwrap();
    db.put_nodes(&[(extent(11), &plain(11)), (extent(12), &plain(12)), (extent(12), &plain(12))]).unwrap();
    let held = || (0..100).filter(|i| db.node(&extent(*i)).unwrap().is_some()).count();
    assert_eq!(held(), 10);
    assert_eq!(db.node(&extent(12)).unwrap(), Some(plain(12)));
    db.put_nodes(&[(extent(50), &[0; 20_000])]).unwrap();
    assert_eq!(held(), 0);
    db.put_nodes(&[(extent(1), b"one")]).unwrap();
    assert_eq!(held(), 1);
    for i in 2..9 {
        db.put_nodes(&[(extent(i), &plain(i))]).unwrap();
    }
    db.drop_nodes(|ids| Ok::<_, StoreError>(ids.iter().map(|id| *id != extent(5)).collect())).unwrap();
    assert_eq!((held(), db.node(&extent(5)).unwrap()), (1, Some(plain(5))));
    db.drop_nodes(|ids| Ok::<_, StoreError>(vec![true; ids.len()])).unwrap();
    assert_eq!(held(), 0);
    // What went makes room.
    for i in 0..10 {
        db.put_nodes(&[(extent(i), &plain(i))]).unwrap();
    }
    assert_eq!(held(), 10);
}

#[test]
fn a_cut_row_is_corruption_not_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let db = VolumeDb::open(dir.path(), VOLUME, CACHE).unwrap();
    db.add_segment(segment(1), b"one", &[(extent(1), 0, 9), (extent(2), 9, 9)]).unwrap();
    let sql = rusqlite::Connection::open(SCHEMA.path(dir.path())).unwrap();
    sql.execute("UPDATE segments SET contents = substr(contents, 1, 50)", []).unwrap();
    let error = db.segments_since(0, 10).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    sql.execute("UPDATE segments SET id = x'00'", []).unwrap();
    let error = db.segments_iter(0, 10).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("volume.db"));
}

#[test]
fn changes_are_counted_and_the_cache_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let db = VolumeDb::open(dir.path(), VOLUME, CACHE).unwrap();
    let mut last = db.changes();
    let mut has_changed = || std::mem::replace(&mut last, db.changes()) != db.changes();
    db.add_segment(segment(1), b"one", &[(extent(1), 0, 9)]).unwrap();
    assert!(has_changed());
    db.replace_descriptors(&[(segment(1), b"1".to_vec())]).unwrap();
    assert!(has_changed());
    db.take_segments(&[SegmentRow { num: 7, id: segment(2), descriptor: b"two".to_vec() }]).unwrap();
    assert!(has_changed());
    db.put_state("latest", b"head").unwrap();
    assert!(has_changed());
    db.clear_segments().unwrap();
    assert!(has_changed());
    db.put_nodes(&[(extent(1), b"node")]).unwrap();
    db.locate(&extent(1)).unwrap();
    assert!(!has_changed());
}

#[test]
fn each_volume_has_its_own_catalog_and_what_one_knows_all_can_read() {
    let dir = tempfile::tempdir().unwrap();
    let one = VolumeDb::open(dir.path(), VOLUME, CACHE).unwrap();
    let two = one.of(VolumeId([2; 16])).unwrap();
    assert_eq!(one.add_segment(segment(1), b"of one", &[(extent(1), 0, 9), (extent(2), 9, 9)]).unwrap(), 1);
    assert_eq!(two.add_segment(segment(2), b"of two", &[(extent(3), 0, 9)]).unwrap(), 1);
    // The second one takes over a part of what lies in the first one's segment.
    assert_eq!(two.add_segment(segment(1), b"in both", &[(extent(2), 9, 9)]).unwrap(), 2);
    let descriptors = |db: &VolumeDb| {
        let located = db.locate_many(&[extent(1), extent(2), extent(3), extent(4)]).unwrap();
        located.into_iter().map(|at| at.map(|at| at.descriptor)).collect::<Vec<_>>()
    };
    let known = |names: [&[u8]; 3]| [names.map(|name| Some(name.to_vec())).to_vec(), vec![None]].concat();
    assert_eq!(descriptors(&one), known([b"of one", b"of one", b"of two"]));
    assert_eq!(descriptors(&two), known([b"of one", b"in both", b"of two"]));
    let ids = [extent(1), extent(2), extent(3)];
    assert_eq!(
        (one.has_extents(&ids).unwrap(), two.has_extents(&ids).unwrap()),
        (vec![true, true, false], vec![false, true, true])
    );
    assert!(one.locate_own(&ids).unwrap()[2].is_none() && two.locate_own(&ids).unwrap()[0].is_none());
    assert_eq!(two.locate_own(&ids).unwrap()[1].as_ref().unwrap().descriptor, b"in both");
    assert_eq!((one.counts().unwrap().extents, two.counts().unwrap().extents), (2, 2));
    assert_eq!((one.own_segments_iter(0, 9).unwrap().len(), two.own_segments_iter(0, 9).unwrap().len()), (1, 1));
    one.put_state("latest", b"1").unwrap();
    two.put_state("latest", b"2").unwrap();
    two.number_from(20).unwrap();

    drop((one, two));
    let one = VolumeDb::open(dir.path(), VOLUME, CACHE).unwrap();
    assert_eq!(one.volumes().unwrap(), [VOLUME, VolumeId([2; 16])]);
    let two = one.of(VolumeId([2; 16])).unwrap();
    assert_eq!(
        (one.get_state("latest").unwrap().unwrap(), two.get_state("latest").unwrap().unwrap()),
        (b"1".to_vec(), b"2".to_vec())
    );
    assert_eq!((one.next_segment().unwrap(), two.next_segment().unwrap()), (2, 20));
    one.replace_descriptors(&[(segment(1), b"moved".to_vec())]).unwrap();
    assert_eq!(descriptors(&two), known([b"moved", b"in both", b"of two"]));
    // What one forgets the other still has.
    one.clear_segments().unwrap();
    assert_eq!(descriptors(&one), [vec![None], known([b"", b"in both", b"of two"])[1..].to_vec()].concat());
    two.take_segments(&[SegmentRow { num: 30, id: segment(2), descriptor: b"again".to_vec() }]).unwrap();
    assert_eq!(two.segments_iter(0, 9).unwrap().iter().map(|row| row.num).collect::<Vec<_>>(), [2, 30]);
}

#[test]
fn another_catalog_takes_the_place_of_one_and_the_state_stays() {
    let dir = tempfile::tempdir().unwrap();
    let one = VolumeDb::open(dir.path(), VOLUME, CACHE).unwrap();
    let beside = one.of(VolumeId([9; 16])).unwrap();
    one.add_segment(segment(1), b"old", &[(extent(1), 0, 9)]).unwrap();
    one.put_states(&[("handed", Some(b"1")), ("latest", Some(b"1"))]).unwrap();
    for round in 0..3u8 {
        let row = SegmentRow { num: 7, id: segment(2 + round), descriptor: vec![round] };
        beside.take_segments(std::slice::from_ref(&row)).unwrap();
        beside.take_contents(&[(7, vec![(extent(u32::from(2 + round)), 0, 9)])]).unwrap();
        // What is not taken over yet can be read.
        assert_eq!(one.locate(&extent(u32::from(2 + round))).unwrap().unwrap().descriptor, [round]);
        one.take_over(&beside, &[("latest", Some(&[round])), ("intent", None)]).unwrap();
        for one in [&one, &one.of(VOLUME).unwrap()] {
            assert_eq!(one.segments_iter(0, 9).unwrap(), std::slice::from_ref(&row));
            assert!(one.locate(&extent(u32::from(1 + round))).unwrap().is_none());
            assert_eq!(one.get_state("latest").unwrap().unwrap(), [round]);
            assert_eq!(one.get_state("handed").unwrap().unwrap(), b"1");
        }
        assert_eq!((beside.counts().unwrap().segments, one.next_segment().unwrap()), (0, 8));
    }
    drop((one, beside));
    let one = VolumeDb::open(dir.path(), VOLUME, CACHE).unwrap();
    assert_eq!(one.segments_iter(0, 9).unwrap()[0].id, segment(4));
    assert_eq!(one.add_segment(segment(8), b"new", &[]).unwrap(), 8);
}

#[test]
fn what_is_dropped_is_not_found_and_pages_that_tell_of_it_are_stale_until_they_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let db = VolumeDb::open(dir.path(), VolumeId([1; 16]), 1 << 20).unwrap();
    let at = |byte: u8| (ExtentId([byte; 32]), 0, 9);
    for byte in 1..5 {
        db.add_segment(segment(byte), b"there", &[at(byte), at(9)]).unwrap();
    }
    let moved = |byte: u8| (segment(byte), b"moved".to_vec());
    db.replace_descriptors(&[moved(1), moved(2), moved(7)]).unwrap();
    db.drop_segments(&[segment(2), segment(4), segment(8)]).unwrap();
    let stale = |num, is_gone| Stale { num, is_gone };
    let all = vec![stale(1, false), stale(2, true), stale(4, true)];
    assert_eq!((db.stale().unwrap(), db.has_dropped().unwrap()), (all.clone(), true));
    let located = |byte: u8| db.locate(&ExtentId([byte; 32])).unwrap().map(|at| at.segment);
    assert_eq!([1, 2, 3, 4, 9].map(located), [Some(segment(1)), None, Some(segment(3)), None, None]);
    let numbers = db.numbers_of(&[ExtentId([1; 32]), ExtentId([2; 32]), ExtentId([3; 32])]).unwrap();
    assert_eq!(numbers, [Some(1), None, Some(3)]);
    // What has become stale in another way meanwhile stays so.
    db.drop_segments(&[segment(1)]).unwrap();
    db.forget_stale(&all).unwrap();
    assert_eq!(db.stale().unwrap(), [stale(1, true)]);
    // It is of a catalog, and goes with that.
    let other = db.of(VolumeId([2; 16])).unwrap();
    db.take_over(&other, &[]).unwrap();
    assert_eq!((db.stale().unwrap(), other.stale().unwrap()), (vec![], vec![]));
    assert!(!db.has_dropped().unwrap());
}

#[test]
fn pages_that_tell_of_a_segment_by_the_number_it_had_before_are_stale() {
    let dir = tempfile::tempdir().unwrap();
    let db = VolumeDb::open(dir.path(), VolumeId([1; 16]), 1 << 20).unwrap();
    for byte in 1..4 {
        db.add_segment(segment(byte), b"there", &[(ExtentId([byte; 32]), 0, 9)]).unwrap();
    }
    assert!(db.stale().unwrap().is_empty());
    // Placed again, and read from the catalog of somebody who has placed it again; or read as it is here.
    assert_eq!(db.add_segment(segment(1), b"again", &[(ExtentId([1; 32]), 0, 9)]).unwrap(), 4);
    let row = |num, byte| SegmentRow { num, id: segment(byte), descriptor: b"again".to_vec() };
    db.take_segments(&[row(40, 2), row(3, 3)]).unwrap();
    let gone = |num| Stale { num, is_gone: true };
    assert_eq!(db.stale().unwrap(), [gone(1), gone(2)]);
    db.drop_segments(&[segment(1)]).unwrap();
    assert_eq!(db.stale().unwrap(), [gone(1), gone(2), gone(4)]);
}

#[test]
fn an_extent_stays_where_it_is_when_others_have_it_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let db = VolumeDb::open(dir.path(), VolumeId([1; 16]), 1 << 20).unwrap();
    let at = |byte: u8| (ExtentId([byte; 32]), 0, 9);
    db.add_segment(segment(1), b"mine", &[at(1)]).unwrap();
    let theirs =
        NewSegment { id: segment(2), descriptor: b"theirs", extents: &[at(1), at(2)], leases: None, is_foreign: true };
    db.add_segments(&[theirs]).unwrap();
    let located = |byte: u8| db.locate(&ExtentId([byte; 32])).unwrap().map(|at| at.segment);
    assert_eq!([1, 2].map(located), [Some(segment(1)), Some(segment(2))]);
    db.add_segment(segment(3), b"mine", &[at(2)]).unwrap();
    assert_eq!(located(2), Some(segment(3)));
}

/// Whoever looks at many segments, a few at a time, has mostly nothing to write, and each write waits for the disk.
#[test]
fn nothing_to_write_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let db = VolumeDb::open(dir.path(), VolumeId([1; 16]), 1 << 20).unwrap();
    let before = db.changes();
    assert!(db.add_segments(&[]).unwrap().is_empty());
    db.replace_descriptors(&[]).unwrap();
    db.add_leases(&[]).unwrap();
    db.change_leases(&[]).unwrap();
    assert_eq!(db.changes(), before);
}

#[test]
fn leases_are_written_down_with_what_they_are_for_and_until_they_are_over() {
    let dir = tempfile::tempdir().unwrap();
    let db = VolumeDb::open(dir.path(), VolumeId([1; 16]), 1 << 20).unwrap();
    let other = db.of(VolumeId([2; 16])).unwrap();
    let leases = |byte: u8| NewLeases { number: [byte; 16], segment: segment(byte), descriptor: b"held", until: 90 };
    let new =
        NewSegment { id: segment(1), descriptor: b"held", extents: &[], leases: Some(leases(1)), is_foreign: false };
    db.add_segments(&[new]).unwrap();
    db.add_leases(&[leases(2), leases(3)]).unwrap();
    other.add_leases(&[leases(4)]).unwrap();
    let numbers = |db: &VolumeDb, after| -> Vec<u8> {
        db.leases_iter(after, 2).unwrap().iter().map(|leased| leased.number[0]).collect()
    };
    assert_eq!((numbers(&db, 0), numbers(&other, 0)), (vec![1, 2], vec![4]));
    let last = db.leases_iter(0, 2).unwrap()[1].row;
    assert_eq!(numbers(&db, last), [3]);
    assert_eq!((db.leases_of(&segment(1)).unwrap().len(), db.leases_of(&segment(4)).unwrap().len()), (1, 0));
    // A number is given out once.
    assert!(other.add_leases(&[leases(5), leases(1)]).is_err());
    assert_eq!(numbers(&other, 0), [4]);

    db.change_leases(&[
        LeaseChange::Renewed([1; 16], 180),
        LeaseChange::Gone([2; 16], Some((7, 1_000))),
        LeaseChange::Held([2; 16], b"less".to_vec()),
        LeaseChange::Over([3; 16]),
    ])
    .unwrap();
    let all = db.leases_iter(0, 9).unwrap();
    let told: Vec<_> = all.iter().map(|row| (row.until, row.gone, row.descriptor.as_slice())).collect();
    assert_eq!(told, [(180, None, &b"held"[..]), (90, Some((7, 1_000)), b"less")]);
    db.change_leases(&[LeaseChange::Gone([2; 16], None)]).unwrap();
    assert_eq!(db.leases_of(&segment(2)).unwrap()[0].gone, None);
    assert!(db.has_leases(&segment(2)).unwrap() && !db.has_leases(&segment(3)).unwrap());
    db.change_leases(&[LeaseChange::Gone([2; 16], Some((8, 1_000)))]).unwrap();
    assert!(!db.has_leases(&segment(2)).unwrap());
}
