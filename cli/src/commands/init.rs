//! `hn init`, and the arguments of setting up that `hn recover` and the development mesh share.

use std::ffi::OsString;
use std::path::Path;

use hypernet_sdk::api::SetUp;
use hypernet_sdk::{Home, SecretText, home};
use os_display::Quotable;
use serde::Serialize;

use crate::args::{Init, Setup};
use crate::error::Failure;
use crate::output::{Output, table};
use crate::{hnd, passphrase, phrase};

/// What to tell `hnd`. The passphrase travels apart from it, by a pipe.
pub(crate) fn arguments(verb: &str, setup: &Setup) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec![verb.into()];
    let mut add = |flag: &str, value: OsString| args.extend([flag.into(), value]);
    if let Some(link) = &setup.join {
        add("--join", link.into());
    }
    if let Some(name) = &setup.device_name {
        add("--device-name", name.into());
    }
    if let Some(bytes) = setup.donate {
        add("--donate", bytes.to_string().into());
    }
    if let Some(percent) = setup.newcomers {
        add("--newcomers", percent.to_string().into());
    }
    for ip in &setup.listen {
        add("--listen", ip.to_string().into());
    }
    if let Some(seconds) = setup.record_lifetime {
        add("--record-lifetime", seconds.to_string().into());
    }
    if setup.no_mdns {
        args.push("--no-mdns".into());
    }
    args
}

pub(crate) async fn init(home: &Home, args: Init, out: &mut Output) -> Result<(), Failure> {
    let mut arguments = arguments("init", &args.setup);
    if args.storage_only {
        arguments.push("--storage-only".into());
        let made = hnd::set_up(home, arguments, &[]).await?;
        tell(&Made { made, phrase: None }, out)?;
        return next(home, out);
    }
    if !args.no_confirm {
        phrase::needs_terminal("hn init --no-confirm")?;
    }
    let mut tried = arguments.clone();
    tried.extend(args.keyring.then(|| "--keyring".into()));
    hnd::check_set_up(home, tried).await?;
    let words = hnd::new_words(home).await?;
    if !args.no_confirm {
        phrase::confirm(&words.words, "nothing was made", out)?;
    }
    let of_words = match args.phrase_passphrase {
        true => passphrase::new("Passphrase that belongs to the words: ")?,
        false => SecretText::default(),
    };
    let passphrase = if args.passphrase {
        Some(passphrase::new("New passphrase: ")?)
    } else if args.setup.passphrase.passphrase_stdin {
        Some(passphrase::read_line()?)
    } else {
        None
    };
    let line = SecretText::new(words.words.iter().map(SecretText::expose).collect::<Vec<_>>().join(" "));
    let mut secrets = vec![&line, &of_words];
    if let Some(passphrase) = &passphrase {
        arguments.push("--passphrase-stdin".into());
        secrets.push(passphrase);
    }
    if args.keyring {
        arguments.push("--keyring".into());
    }
    if args.no_confirm {
        // Nobody has seen the words yet, and there is to be no identity whose words nobody has.
        let mut told = |made| tell(&Made { made, phrase: Some(words.words.clone()) }, out);
        hnd::set_up_told(home, arguments, &secrets, &mut told).await?;
    } else {
        let made = hnd::set_up(home, arguments, &secrets).await?;
        tell(&Made { made, phrase: None }, out)?;
    }
    next(home, out)
}

/// What was made, and the words where nobody has seen them yet.
#[derive(Serialize)]
struct Made {
    #[serde(flatten)]
    made: SetUp,
    #[serde(skip_serializing_if = "Option::is_none")]
    phrase: Option<Vec<SecretText>>,
}

fn tell(made: &Made, out: &mut Output) -> Result<(), Failure> {
    out.json(made)?;
    out.line(table::list(rows(&made.made)))?;
    if let Some(words) = &made.phrase {
        out.line(format_args!(
            "\nThe words that bring everything back; keep them where nobody finds them:\n\n{}\n",
            *phrase::table(words)
        ))?;
    }
    Ok(())
}

fn next(home: &Home, out: &mut Output) -> Result<(), Failure> {
    out.line(format_args!("Next: {}hn up", prefix(home)))
}

/// What to put before a command, so that it means this agent.
pub(crate) fn prefix(home: &Home) -> String {
    match std::env::var_os(home::ENV) {
        Some(_) => assignment(home.path()),
        None => String::new(),
    }
}

/// As a shell reads it.
fn assignment(home: &Path) -> String {
    format!("{}={} ", home::ENV, home.maybe_quote())
}

/// What was made, in words.
pub(crate) fn rows(made: &SetUp) -> Vec<(String, String)> {
    let mut rows = vec![("home".to_owned(), made.home.display().to_string())];
    let mut add = |name: &str, value: Option<String>| rows.extend(value.map(|value| (name.to_owned(), value)));
    add("identity", made.identity.clone());
    add("device", made.device.clone());
    add("peer", Some(made.peer.clone()));
    add("network", Some(made.network.clone()));
    add("volume", made.volume.clone());
    add(
        "keystore",
        made.keystore.as_ref().map(|path| match made.sealed_by {
            Some(by) => format!("{}, sealed by a {}", path.display(), by.words()),
            None => path.display().to_string(),
        }),
    );
    rows
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_shell_reads_the_directory_as_it_is() {
        assert_eq!(assignment(Path::new("/home/me/.local/share/hn-2")), "HN_HOME=/home/me/.local/share/hn-2 ");
        for odd in
            [&b"/sp ace/\xc3\xbc"[..], b"/it's", b"/$HOME `id` \\ \"x\"", b"/a;b&c|d#*?", b"/new\nline", b"/\xff"]
        {
            let path = Path::new(OsStr::from_bytes(odd));
            let script = format!("{}printenv HN_HOME", assignment(path));
            let read = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
            assert_eq!(read.stdout.strip_suffix(b"\n"), Some(odd), "{script}");
        }
    }

    #[test]
    fn every_choice_reaches_hnd() {
        let setup = Setup {
            join: Some("hypernet:join/x".into()),
            device_name: Some("desk".into()),
            donate: Some(5 << 30),
            newcomers: Some(25),
            listen: vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
            no_mdns: true,
            record_lifetime: Some(3),
            ..Setup::default()
        };
        let words: Vec<String> =
            arguments("init", &setup).into_iter().map(|word| word.into_string().unwrap()).collect();
        let expected = "init --join hypernet:join/x --device-name desk --donate 5368709120 --newcomers 25 \
                        --listen 127.0.0.1 --listen ::1 --record-lifetime 3 --no-mdns";
        assert_eq!(words.join(" "), expected);
        assert_eq!(arguments("recover", &Setup::default()), ["recover"]);
    }
}
