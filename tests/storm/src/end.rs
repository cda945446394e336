//! When all is put right again: what must be there then.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hypernet_kit::tree::differences;
use serde_json::Value;

use crate::host::Host;
use crate::work::Work;
use crate::{CALM_SYNC_WITHIN, Storm, setup};

/// How often devices tell each other what they have before they must have the same.
const MEETINGS: u32 = 10;
/// How long repair may take to bring every segment back to what it takes to read it.
const MENDED_WITHIN: Duration = Duration::from_secs(240);
/// How often a file is read that could not be: a machine under load can be slow beyond a deadline.
const TRIES: u32 = 3;

fn sync(host: &Host) -> Result<()> {
    host.hn_within(CALM_SYNC_WITHIN, &["sync"], None)?.ok().map(drop)
}

pub(crate) fn check(storm: &Storm, works: &mut [Work<'_>]) -> Result<()> {
    works.iter_mut().try_for_each(Work::look_for_crash)?;
    let [first, second, other] = [0, 1, 2].map(|at| &storm.hosts[storm.owners[at]]);
    for host in [first, second, other] {
        host.hn(&["peers", "--wait", &storm.donors.len().to_string(), "--timeout", setup::FOUND_WITHIN])
            .with_context(|| format!("{} does not find all donors again", host.name))?;
    }
    let (Some(one), Some(two), Some(three)) = (&first.mount, &second.mount, &other.mount) else {
        bail!("a device has no mount")
    };
    storm.say("all donors are connected; syncing");
    let mut found = Vec::new();
    for _ in 0..MEETINGS {
        [first, second, other].into_iter().try_for_each(sync)?;
        found = differences(one, two)?;
        if found.is_empty() {
            break;
        }
    }
    ensure!(found.is_empty(), "two devices of one person do not come to one tree: {found:#?}");
    storm.say("both devices have one tree");
    for host in [first, second, other] {
        mended(storm, host)?;
    }
    storm.say("nothing is lost");

    // Nothing of it is here any more.
    for host in [first, second, other] {
        host.hn(&["cache", "drop"])?;
    }
    let [of_first, of_second, of_other] = works else { bail!("not three who work") };
    let mut files = 0;
    for mount in [one, two] {
        files += of_first.check(&mount.join(setup::DIRECTORIES[0]), TRIES)?;
        files += of_second.check(&mount.join(setup::DIRECTORIES[1]), TRIES)?;
    }
    files += of_other.check(&three.join(setup::DIRECTORIES[2]), TRIES)?;
    storm.tally.figure("files read from the mesh alone in the end", files);
    storm.say("all that was acknowledged was read from the mesh");

    let fresh = storm.hosts.last().context("there is no other host")?;
    let work = fresh.mount.as_ref().and_then(|mount| mount.parent()?.parent()).context("it has no mount")?;
    setup::recover(fresh, &setup::invite(&storm.hosts[0])?, work)?;
    fresh.up()?;
    sync(fresh)?;
    let Some(mount) = &fresh.mount else { bail!("it has no mount") };
    let found = differences(one, mount)?;
    ensure!(found.is_empty(), "the words bring back something else: {found:#?}");
    of_first.check(&mount.join(setup::DIRECTORIES[0]), TRIES)?;
    of_second.check(&mount.join(setup::DIRECTORIES[1]), TRIES)?;
    storm.say("a device that knows only the words has the same");
    storm.hosts.iter().try_for_each(Host::down)
}

/// `hn fsck --verify`: what it found wrong, and shards that are missing.
fn look(host: &Host) -> Result<(Vec<Value>, Vec<Value>)> {
    let ran = host.hn_within(CALM_SYNC_WITHIN, &["fsck", "--verify"], None)?;
    let report = ran.json().with_context(|| format!("{ran:?}"))?;
    let list = |name: &str| report[name].as_array().cloned().with_context(|| format!("{ran:?}"));
    Ok((list("problems")?, list("health")?))
}

/// Every segment can be read, though of some there may be shards to mend.
pub(crate) fn verify(storm: &Storm, host: &Host) -> Result<()> {
    let (problems, health) = look(host)?;
    storm.say(&format!("fsck on {}: problems {problems:?}, health {}", host.name, Value::from(health)));
    ensure!(problems.is_empty(), "fsck on {} finds {problems:?}", host.name);
    Ok(())
}

/// The same, once repair has had time.
fn mended(storm: &Storm, host: &Host) -> Result<()> {
    let until = Instant::now() + MENDED_WITHIN;
    loop {
        match verify(storm, host) {
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_secs(1)),
            Ok(()) => return Ok(()),
        }
    }
}
