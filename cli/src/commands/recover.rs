//! `hn recover`: from 24 words to a running agent that knows the newest head. It goes on where it was broken off.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hypernet_sdk::api::{RecoverEvent, RecoverRequest, Recovered, SealRequest, SealedBy};
use hypernet_sdk::{Client, ErrorCode, Home, SecretText};

use crate::args::{Recover, Setup};
use crate::error::Failure;
use crate::output::{Output, bar::Bar, words};
use crate::{hnd, passphrase, phrase};

use super::agent;
use super::guardians;
use super::init;

/// A mesh that has not answered is asked again when a donor has come or gone, and after this time at the latest: peers
/// that store nothing keep records, too, and one that is there already may have found the others only now.
const ASK_AGAIN: Duration = Duration::from_secs(5);

pub(crate) async fn recover(home: &Home, args: Recover, out: &mut Output) -> Result<(), Failure> {
    let absolute = |dir: &PathBuf| std::path::absolute(dir).map_err(|error| Failure::io(dir.display(), &error));
    let from = args.from.as_ref().map(absolute).transpose()?;
    let Begun { begun, is_found } = begun(home)?;
    if !begun && from.is_none() && args.setup.join.is_none() {
        return Err(Failure::new(ErrorCode::Usage, "the words alone do not say on which mesh to look")
            .hint("add --join LINK, a link that `hn invite` prints on any machine of that mesh"));
    }
    let by_guardians = args.guardians && !is_found;
    if by_guardians {
        guardians::needs_person(&args)?;
    }
    // All that is asked for is asked first: standard input can be read only once.
    let words = match from.is_none() && !is_found && !by_guardians {
        true => {
            let words = phrase::ask(args.phrase_stdin, args.phrase_passphrase, out)?;
            hnd::check_words(home, &SecretText::new(words.words().to_owned())).await?;
            Some(words)
        }
        false => None,
    };
    let secret = match (&from, is_found) {
        (_, true) => passphrase::existing(&home.keystore(), args.setup.passphrase.passphrase_stdin)?,
        (Some(from), _) => passphrase::existing(&Home::new(from).keystore(), args.setup.passphrase.passphrase_stdin)?,
        (None, _) if args.passphrase => Some(passphrase::new("New passphrase: ")?),
        (None, _) if args.setup.passphrase.passphrase_stdin => Some(passphrase::read_line()?),
        (None, _) => None,
    };
    let seal = Seal { keyring: args.keyring, secret };
    let client = set_up(home, begun, from.as_deref(), &args.setup, seal, out).await?;
    let words = match by_guardians {
        true => Some(guardians::gather(&client, &args, out).await?),
        false => words,
    };
    let (without_keystore, empty) = (args.without_keystore, args.empty);
    let request = RecoverRequest { phrase: words, from, device: args.device.clone(), without_keystore, empty };
    find(home, &client, &request, args.timeout, out).await
}

/// How far an agent has come that is to find its identity.
pub(crate) struct Begun {
    /// There is a directory for it.
    pub(crate) begun: bool,
    /// Where the keystore is there, the identity was found.
    pub(crate) is_found: bool,
}

/// An error where an agent has its state already.
pub(crate) fn begun(home: &Home) -> Result<Begun, Failure> {
    let begun = match home.settings() {
        None if !home.is_set_up() => false,
        Some(settings) if settings.recovering => true,
        _ => {
            return Err(Failure::new(
                ErrorCode::CantCreate,
                format!("{} is in use by an agent already", home.path().display()),
            )
            .hint("set HN_HOME to an empty directory and recover there"));
        }
    };
    // A set-up that was broken off leaves a keystore that is made anew.
    Ok(Begun { begun, is_found: begun && home.keystore().exists() })
}

/// What is to open the keystore, or opens it: a passphrase, where there is one.
pub(crate) struct Seal {
    pub(crate) keyring: bool,
    pub(crate) secret: Option<SecretText>,
}

impl Seal {
    /// For an agent that runs, and was told something at its start.
    fn request(&self) -> SealRequest {
        let by = match (&self.secret, self.keyring) {
            (Some(_), _) => SealedBy::Passphrase,
            (None, true) => SealedBy::Keyring,
            (None, false) => SealedBy::KeyFile,
        };
        SealRequest { old: None, by, new: self.secret.clone() }
    }
}

/// Makes an agent that is to find its identity, or goes on with one, and starts it.
pub(crate) async fn set_up(
    home: &Home,
    begun: bool,
    from: Option<&Path>,
    setup: &Setup,
    seal: Seal,
    out: &Output,
) -> Result<Client, Failure> {
    if begun {
        out.note("going on with what was begun here");
        if let Some(link) = &setup.join {
            // A way into the mesh that was not known before: the agent looks at them at its start.
            if let Some((client, status)) = agent::running(home).await? {
                agent::stop(&client, &status, out).await?;
            }
            hnd::set_up(home, vec!["join".into(), link.into()], &[]).await?;
        }
    } else {
        let mut arguments = init::arguments("recover", setup);
        if let Some(from) = from {
            arguments.extend(["--from".into(), from.into()]);
        }
        hnd::set_up(home, arguments, &[]).await?;
    }
    Ok(match agent::running(home).await? {
        Some((client, _)) => {
            // The command that has started it may have named another passphrase, or none; where this one names nothing, that stays.
            if !home.keystore().exists() && (seal.secret.is_some() || seal.keyring) {
                client.seal_keystore(&seal.request()).await?;
            }
            client
        }
        None => {
            let bar = Bar::new(out, "starting the agent");
            let how = seal.keyring.then(|| "--keyring".into());
            hnd::start(home, how.into_iter().collect(), seal.secret.as_ref()).await?;
            bar.clear();
            Client::new(home.clone())?
        }
    })
}

/// Asks until the newest head is found, for so many seconds.
pub(crate) async fn find(
    home: &Home,
    client: &Client,
    asked: &RecoverRequest,
    timeout: u64,
    out: &mut Output,
) -> Result<(), Failure> {
    // Nothing counts as found only when there was time to find something.
    let mut request = RecoverRequest { empty: false, ..asked.clone() };
    let bar = Bar::new(out, "asking the mesh");
    let empty = asked.empty;
    let (began, within) = (Instant::now(), Duration::from_secs(timeout));
    loop {
        // Listened to from before the question on: who comes while it is asked is a reason to ask again.
        let mut donors = client.donors(None).await?;
        donors.next().await?;
        match attempt(client, &request, &bar, out).await {
            Ok(found) => {
                bar.clear();
                return tell(home, &found, out);
            }
            // An agent that has just started has met few peers yet, and the ones it needs may still be starting.
            Err(failure) if failure.code == ErrorCode::TryAgain && began.elapsed() < within => {
                bar.message(format!("{}; asking again", failure.message));
                let wait = ASK_AGAIN.min(within.saturating_sub(began.elapsed()));
                // An agent that has stopped in the meantime is told of by the next question.
                let _ = tokio::time::timeout(wait, donors.next()).await;
            }
            Err(failure) if failure.code == ErrorCode::TryAgain && empty && !request.empty => request.empty = true,
            Err(mut failure) => {
                bar.clear();
                failure.hint.get_or_insert_with(|| {
                    "nothing is lost: bring more of the mesh's peers up, then run the same command again".to_owned()
                });
                return Err(failure);
            }
        }
    }
}

/// Asks once. Answers for programs are written as they come.
async fn attempt(client: &Client, request: &RecoverRequest, bar: &Bar, out: &mut Output) -> Result<Recovered, Failure> {
    let mut events = client.recover(request).await?;
    while let Some(event) = events.next().await? {
        // The failure at the end is written once, where every failure is.
        if !matches!(event, RecoverEvent::Error(_)) {
            out.json(&event)?;
        }
        match event {
            RecoverEvent::Progress { text } => bar.message(text),
            RecoverEvent::Error(error) => return Err(error.into()),
            RecoverEvent::Done(found) => return Ok(found),
        }
    }
    Err(events.interrupted().into())
}

fn tell(home: &Home, found: &Recovered, out: &mut Output) -> Result<(), Failure> {
    if found.head_sequence == 0 {
        out.line(format_args!("nothing is found that was synced: the directory is empty"))?;
    } else {
        out.line(format_args!(
            "found head {} of device {}, {} old; {} before this one",
            found.head_sequence,
            found.head_device,
            words::seconds(found.head_age_seconds),
            words::plural(found.devices, "device")
        ))?;
    }
    for warning in &found.warnings {
        out.warning(warning);
    }
    out.line(format_args!("Next: {}hn mount", init::prefix(home)))
}
