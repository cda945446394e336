//! Secrets stay in memory, and there where no swap, no core file and no log has them.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::str::FromStr;

use age::secrecy::SecretString;
use data_encoding::{BASE32_NOPAD, BASE64, HEXLOWER};
use hypernet_sdk::api;

use crate::mesh::{Agent, Mesh, hnd, hnd_told, new_phrase};

const PLACE: [&str; 3] = ["--listen", "127.0.0.1", "--no-mdns"];

/// An identity on a mesh of its own, whose keystore a key file opens.
fn alone(dir: &std::path::Path) -> Agent {
    let agent = Agent::at(dir.join("home"));
    hnd_told(&agent.home, &[&["init"], &PLACE[..]].concat(), &format!("{}\n\n", new_phrase())).unwrap();
    agent
}

/// A number of KiB that the kernel tells.
fn kib(status: &str, what: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim_matches([':', '\t', ' ']).trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn what_an_agent_keeps_is_locked_and_a_crash_leaves_no_core() {
    let dir = tempfile::tempdir().unwrap();
    let mut mine = alone(dir.path());
    mine.start(&[]);
    // The keystore, the device's seed where it is used, and the era's secret: a page each at least.
    assert!(kib(&mine.proc("status"), "VmLck") >= 4 * 4, "{}", mine.proc("status"));
    assert!(!mine.status().notes.iter().any(|note| note.contains("swap")), "{:?}", mine.status().notes);
    let limits = mine.proc("limits");
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"]);
    let ended = mine.abort();
    assert_eq!(ended.signal(), Some(6));
    assert!(!ended.core_dumped());
}

/// Where the limit on memory that may be locked is 0 it runs all the same, and says so. Root has no such limit, unless it
/// gives up the capability.
#[test]
fn a_system_that_locks_nothing_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let mine = alone(dir.path());
    let limited = "ulimit -l 0; exec setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock \"$HND\" run";
    let mut child = Command::new("sh")
        .args(["-c", limited])
        .env("HND", env!("CARGO_BIN_EXE_hnd"))
        .env("HN_HOME", &mine.home)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    assert!(line.contains("\"ready\":true"), "{line}\n{}", mine.log());
    let notes = mine.status().notes;
    mine.call(async |client| client.down().await).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(notes.iter().any(|note| note.contains("ulimit -l")), "{notes:?}");
}

/// A secret, in each way in which bytes are written down.
pub(crate) fn written(bytes: &[u8]) -> Vec<String> {
    let numbers: Vec<String> = bytes.iter().take(12).map(u8::to_string).collect();
    vec![
        HEXLOWER.encode(bytes),
        BASE32_NOPAD.encode(bytes).to_lowercase(),
        BASE64.encode(bytes).trim_end_matches('=').to_lowercase(),
        numbers.join(", "),
    ]
}

/// That and all else of a home that was logged does not have these.
pub(crate) fn assert_not_logged(agent: &Agent, secrets: &[String]) {
    let mut logged = agent.log().to_lowercase();
    logged.push_str(&fs::read_to_string(agent.home.join("hnd.log.old")).unwrap_or_default().to_lowercase());
    assert!(logged.contains("trace"), "it was logged at this level");
    for secret in secrets {
        assert!(!logged.contains(secret.as_str()), "{} has {secret:?}", agent.home.display());
    }
}

/// What opens the shares in a keystore that a key file opens: of each its secret, those of its epochs, and those of its links.
pub(crate) fn of_shares(agent: &Agent) -> Vec<Vec<u8>> {
    let key = fs::read_to_string(agent.home.join("keystore.key")).unwrap();
    let key = key.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).unwrap();
    let key = age::x25519::Identity::from_str(key).unwrap();
    let plain = age::decrypt(&key, &fs::read(agent.home.join("keystore.age")).unwrap()).unwrap();
    let mut decoder = minicbor::Decoder::new(&plain[2..]);
    assert_eq!((decoder.array().unwrap(), decoder.array().unwrap()), (Some(2), Some(10)));
    (0..6).for_each(|_| decoder.skip().unwrap());
    let mut secrets = Vec::new();
    for _ in 0..decoder.array().unwrap().unwrap() {
        assert_eq!(decoder.array().unwrap(), Some(11));
        (0..4).for_each(|_| decoder.skip().unwrap());
        secrets.push(decoder.bytes().unwrap().to_vec());
        for _ in 0..decoder.array().unwrap().unwrap() {
            assert_eq!(decoder.array().unwrap(), Some(2));
            decoder.skip().unwrap();
            secrets.push(decoder.bytes().unwrap().to_vec());
        }
        decoder.skip().unwrap();
        for _ in 0..decoder.array().unwrap().unwrap() {
            // What is not there at the end is left out.
            let len = decoder.array().unwrap().unwrap();
            decoder.skip().unwrap();
            assert_eq!(decoder.array().unwrap(), Some(2));
            decoder.skip().unwrap();
            secrets.push(decoder.bytes().unwrap().to_vec());
            (2..len).for_each(|_| decoder.skip().unwrap());
        }
        for _ in 0..decoder.array().unwrap().unwrap() {
            assert_eq!(decoder.array().unwrap(), Some(5));
            decoder.skip().unwrap();
            let len = decoder.array().unwrap().unwrap();
            secrets.push((0..len).map(|_| decoder.u8().unwrap()).collect());
            (0..3).for_each(|_| decoder.skip().unwrap());
        }
        // When it was taken out, and who has begun it.
        (0..2).for_each(|_| decoder.skip().unwrap());
    }
    secrets
}

/// The secrets of the eras in a keystore, and the key to which the device's seed is sealed.
fn inside(plain: &[u8]) -> (Vec<Vec<u8>>, String) {
    let mut decoder = minicbor::Decoder::new(&plain[2..]);
    assert_eq!((decoder.array().unwrap(), decoder.array().unwrap()), (Some(2), Some(10)));
    (0..2).for_each(|_| decoder.skip().unwrap());
    let eras = (0..decoder.array().unwrap().unwrap()).map(|_| {
        assert_eq!(decoder.array().unwrap(), Some(2));
        decoder.skip().unwrap();
        decoder.bytes().unwrap().to_vec()
    });
    let eras = eras.collect();
    (0..5).for_each(|_| decoder.skip().unwrap());
    (eras, decoder.str().unwrap().to_owned())
}

#[test]
fn no_log_has_a_secret_at_any_level() {
    let mesh = Mesh::start(3);
    let home = |name| Agent::at(mesh.dir.path().join(name));
    let (mut mine, mut other) = (home("mine"), home("other"));
    let (phrase, factor) = (new_phrase(), "a factor of my own");
    let (first, second) = ("the first passphrase", "the second passphrase");
    let place = [&PLACE[..], &["--donate", "0", "--join", &mesh.link]].concat();
    // Keys of connections are secrets, too, and libp2p writes them where this says.
    let keys = mesh.dir.path().join("keys");
    let trace = [("HN_LOG", "trace"), ("SSLKEYLOGFILE", keys.to_str().unwrap())];
    let start = |agent: &mut Agent, passphrase: &str| {
        let told = format!("{passphrase}\n");
        agent.try_start_told(&["--hold", "--passphrase-stdin"], &told, &trace).unwrap();
        agent.wait_for_donors(3);
    };
    let init = [&["init", "--passphrase-stdin"], &place[..]].concat();
    hnd_told(&mine.home, &init, &format!("{phrase}\n{factor}\n{first}\n")).unwrap();
    start(&mut mine, first);
    hnd(&other.home, &[&["recover"], &place[..]].concat()).unwrap();
    start(&mut other, first);
    let words = |text: &str| Some(api::PhraseInput::new(text.into(), factor.into()));
    // Mistyped first: what is wrong is told to the person, and to nobody else.
    let misspelt = phrase.replacen(' ', "x ", 1);
    let request = |text: &str| api::RecoverRequest { phrase: words(text), ..Default::default() };
    other.recover_by(&request(&misspelt)).unwrap_err();
    // It has no head yet, as nothing was written; until its agent has met its peers it is not found at all.
    let mut told = (0..100).map(|_| other.recover_by(&request(&phrase)).unwrap_err().message);
    assert!(told.any(|message| message.contains("has published a head")), "{}", other.log());
    let seal = |old: &str| {
        let request =
            api::SealRequest { old: Some(old.into()), by: api::SealedBy::Passphrase, new: Some(second.into()) };
        other.call(async |client| client.seal_keystore(&request).await)
    };
    assert!(seal("not the first").is_err());
    let sealed = seal(first).unwrap();
    assert_eq!((sealed.keystore.sealed_by, sealed.warning), (api::SealedBy::Passphrase, None));
    other.stop();
    start(&mut other, second);
    other.stop();
    mine.stop();

    assert!(!keys.exists());
    let keystore = fs::read(other.home.join("keystore.age")).unwrap();
    let opens = |passphrase: &str| {
        age::decrypt(&age::scrypt::Identity::new(SecretString::from(passphrase.to_owned())), &keystore)
    };
    assert!(opens(first).is_err());
    let (eras, device_key) = inside(&opens(second).unwrap());
    assert!(!eras.is_empty());
    let device = age::x25519::Identity::from_str(&device_key).unwrap();
    let seed = age::decrypt(&device, &fs::read(other.home.join("device.age")).unwrap()).unwrap();
    let peer = fs::read(other.home.join("peer.key")).unwrap();
    let pairs = phrase.split(' ').collect::<Vec<_>>();
    let mut secrets: Vec<String> = pairs.windows(2).map(|pair| pair.join(" ")).collect();
    secrets.extend(pairs.windows(2).map(|pair| pair.join("\", \"")));
    secrets.extend([first, second, factor, "not the first", &device_key].map(str::to_lowercase));
    secrets.extend(misspelt.split(' ').next().map(str::to_owned));
    secrets.extend(eras.iter().chain([&seed, &peer]).flat_map(|bytes| written(bytes)));
    for agent in [&mine, &other] {
        assert_not_logged(agent, &secrets);
    }
}

/// Whatever moment it is killed in, the old or the new opens the keystore.
#[test]
fn a_change_of_what_opens_the_keystore_may_be_killed_at_any_time() {
    let dir = tempfile::tempdir().unwrap();
    let mine = alone(dir.path());
    let identity = fs::read(mine.home.join("identity")).unwrap();
    let mut killed = 0;
    for round in 0..60 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hnd"))
            .args(["seal", "--by", "key file"])
            .env("HN_HOME", &mine.home)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // From before it has begun to after it has ended.
        std::thread::sleep(std::time::Duration::from_millis(round));
        let _ = child.kill();
        killed += u32::from(!child.wait().unwrap().success());
    }
    assert!(killed > 0, "each had ended before it was killed");
    let sealed = hnd(&mine.home, &["seal", "--by", "key file"]).unwrap();
    assert_eq!(sealed["sealed_by"], "key file");
    assert_eq!(fs::read(mine.home.join("identity")).unwrap(), identity);
    let keys = fs::read_to_string(mine.home.join("keystore.key")).unwrap();
    assert_eq!(keys.lines().count(), 1, "nothing is left of those that were killed");
    // To a passphrase, and back.
    let told = |args: &[&str], told: &str| hnd_told(&mine.home, args, told);
    assert_eq!(told(&["seal", "--by", "passphrase"], "one\n").unwrap()["sealed_by"], "passphrase");
    assert!(!mine.home.join("keystore.key").exists());
    let wrong = told(&["seal", "--by", "key file"], "two\n").unwrap_err();
    assert_eq!(wrong["error"]["code"], "permission", "{wrong}");
    assert_eq!(told(&["seal", "--by", "key file"], "one\n").unwrap()["sealed_by"], "key file");
}
