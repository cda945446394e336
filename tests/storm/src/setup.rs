//! The hosts of a storm, and the agents on them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use hypernet_kit::Disk;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use serde_json::{Value, json};

use crate::Settings;
use crate::Storm;
use crate::host::Host;
use crate::network::{self, Place};
use crate::switch::Switch;
use crate::tally::Tally;
use crate::weather::Weather;

/// The directories that the devices write to, each its own.
pub(crate) const DIRECTORIES: [&str; 3] = ["a", "b", "c"];
/// How the devices are called.
const DEVICES: [&str; 3] = ["anna-1", "anna-2", "ben"];
/// One that is used when all is over.
const FRESH: &str = "fresh";
/// Bytes of a disk that can be filled.
const DISK: u64 = 192 << 20;
/// Every so many donors have such a disk.
const DISK_EVERY: usize = 5;
/// What a donor gives,
const DONATE: &str = "4G";
/// and what one gives that has not got much; it fills up by itself.
const DONATE_LITTLE: &str = "24M";

/// How long the words may take to bring a device back, in seconds.
const RECOVERED_WITHIN: u64 = 300;
/// How long a device that has just started may take to find all donors, in seconds: behind a router this takes relays.
pub(crate) const FOUND_WITHIN: &str = "200";

/// Where the words of the first device are kept, for those that come by them.
pub(crate) fn words(work: &Path) -> PathBuf {
    work.join("words")
}

fn place(number: usize, is_fresh: bool) -> Place {
    // The first ones are where others find the mesh; of the rest a third and more is at home.
    match number {
        0..=2 => Place::Open,
        _ if is_fresh => Place::Open,
        number if number % 6 == 3 => Place::Cone,
        number if number % 6 == 5 => Place::Symmetric,
        _ => Place::Open,
    }
}

/// Makes everything, and returns when the devices are connected to all donors and have synced.
pub(crate) fn storm(
    settings: Settings,
    work: &Path,
    random: &mut ChaCha8Rng,
    tell: Box<dyn Fn(&str) + Send + Sync>,
) -> Result<Storm> {
    let began = Instant::now();
    let donors: Vec<usize> = (0..settings.donors).collect();
    let owners: Vec<usize> = (settings.donors..settings.donors + DEVICES.len()).collect();
    let fresh = settings.donors + DEVICES.len();
    let mut devices = Vec::new();
    let mut hosts = Vec::new();
    for number in 0..=fresh {
        devices.push((network::address(number), network::make(number, place(number, number == fresh))?));
        let disk = donors.contains(&number) && number % DISK_EVERY == 4;
        let disk = if disk { Some(Disk::new(DISK)?) } else { None };
        let name = match number.checked_sub(settings.donors) {
            None => format!("donor-{number:02}"),
            Some(device) => (*DEVICES.get(device).unwrap_or(&FRESH)).to_owned(),
        };
        hosts.push(Host::new(number, &name, work, number >= settings.donors, disk)?);
    }
    let mut storm = Storm {
        hosts,
        donors,
        owners,
        rotten: Vec::new(),
        spare: 0,
        switch: Switch::start(random.next_u64(), devices)?,
        weather: Weather::default(),
        tally: Tally::default(),
        began,
        over: AtomicBool::new(false),
        tell,
    };
    start_donors(&storm)?;
    start_devices(&storm, work)?;
    let plans = storm.owners.iter().map(|owner| storm.hosts[*owner].plan()).collect::<Result<Vec<_>>>()?;
    let spare = plans.iter().map(|(k, n)| n.saturating_sub(*k)).min().unwrap_or(0);
    storm.spare = usize::try_from(spare)?;
    ensure!(storm.spare > 0, "the plans allow no loss: {plans:?}");
    // Half of what a segment can lose may rot; the rest may be away beside it.
    let mut candidates = storm.donors.clone();
    for _ in 0..(storm.spare / 2).max(1) {
        let at = (random.next_u64() % candidates.len() as u64) as usize;
        storm.rotten.push(candidates.swap_remove(at));
    }
    let rotten: Vec<&str> = storm.rotten.iter().map(|host| storm.hosts[*host].name.as_str()).collect();
    storm.say(&format!("plans (k, n): {plans:?}; disks that rot: {}", rotten.join(" ")));
    Ok(storm)
}

fn start_donors(storm: &Storm) -> Result<()> {
    let mut link = String::new();
    for donor in &storm.donors {
        let host = &storm.hosts[*donor];
        let donate = if donor % DISK_EVERY == 3 { DONATE_LITTLE } else { DONATE };
        let mut args = vec!["init", "--storage-only", "--no-mdns", "--donate", donate];
        if *donor > 0 {
            args.extend(["--join", &link]);
        }
        host.hn(&args)?;
        host.up()?;
        if *donor == 0 {
            link = invite(host)?;
        }
    }
    storm.say(&format!("{} donors run", storm.donors.len()));
    Ok(())
}

/// The link by which others join, which names addresses of this host that they can reach.
pub(crate) fn invite(host: &Host) -> Result<String> {
    let link = host.hn(&["invite"])?["link"].as_str().context("there is no link")?.to_owned();
    let (mesh, via) = link.split_once('?').context("the link names no address")?;
    let address = format!("via=/ip4/{}/", network::address(host.number));
    let via: Vec<&str> = via.split('&').filter(|via| via.starts_with(&address)).collect();
    ensure!(!via.is_empty(), "nobody can reach {}: {link}", host.name);
    Ok(format!("{mesh}?{}", via.join("&")))
}

/// Has repair and audits looked after within seconds instead of days.
fn hasten(host: &Host) -> Result<()> {
    host.configure(&[("collect_every", json!(2)), ("audits_every", json!(20))])
}

fn start_devices(storm: &Storm, work: &Path) -> Result<()> {
    let link = invite(&storm.hosts[0])?;
    let [first, second, other] = [0, 1, 2].map(|at| &storm.hosts[storm.owners[at]]);
    let own = ["init", "--no-confirm", "--no-mdns", "--donate", "0", "--join", &link];
    let made = first.hn(&own)?;
    let told: Vec<&str> = made["phrase"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    fs::write(words(work), told.join(" ") + "\n").context("cannot keep the words")?;
    start(storm, first)?;
    first.hn(&["sync"])?;
    recover(second, &link, work)?;
    start(storm, second)?;
    other.hn(&own)?;
    start(storm, other)?;
    storm.say("three devices run");
    Ok(())
}

fn start(storm: &Storm, host: &Host) -> Result<()> {
    hasten(host)?;
    host.up()?;
    host.hn(&["peers", "--wait", &storm.donors.len().to_string(), "--timeout", FOUND_WITHIN]).map(drop)
}

/// Makes a host a device of whom the words belong to. Its agent does not run yet.
pub(crate) fn recover(host: &Host, link: &str, work: &Path) -> Result<()> {
    let args = ["recover", "--no-mdns", "--donate", "0", "--join", link, "--phrase-stdin"];
    host.hn_within(RECOVERED_WITHIN, &args, Some(&words(work)))?.ok()?;
    // It was started for that, without a mount.
    host.down()
}

/// The directories that the devices write to, which all of them know of.
pub(crate) fn directories(storm: &Storm) -> Result<Vec<PathBuf>> {
    let mut dirs = Vec::new();
    for (owner, name) in storm.owners.iter().zip(DIRECTORIES) {
        let host = &storm.hosts[*owner];
        let dir = host.mount.as_ref().context("it has no mount")?.join(name);
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        // The name must outlive the first kill.
        fs::File::open(&dir)?.sync_all().with_context(|| format!("cannot sync {}", dir.display()))?;
        host.hn(&["sync"])?;
        dirs.push(dir);
    }
    Ok(dirs)
}
