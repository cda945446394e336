//! `hn recover`: from a keystore to a running agent that knows the newest head. It goes on where it was broken off.

use std::time::{Duration, Instant};

use hypernet_sdk::api::{RecoverEvent, Recovered};
use hypernet_sdk::{Client, ErrorCode, Home};

use crate::args::Recover;
use crate::error::Failure;
use crate::output::{Output, bar::Bar, words};
use crate::{hnd, passphrase};

use super::agent;
use super::init;

/// A mesh that has not answered is asked again when a donor has come or gone, and after this time at the latest: peers
/// that store nothing keep records, too, and one that is there already may have found the others only now.
const ASK_AGAIN: Duration = Duration::from_secs(5);

pub(crate) async fn recover(home: &Home, args: Recover, out: &mut Output) -> Result<(), Failure> {
    let keystore = std::path::absolute(&args.keystore).map_err(|error| Failure::io(args.keystore.display(), &error))?;
    // Read once: setting up and starting both need it, and standard input can be read only once.
    let secret = passphrase::existing(&keystore, args.setup.passphrase.passphrase_stdin)?;
    match home.settings() {
        None if !home.is_set_up() => {
            let mut arguments = init::arguments("recover", &args.setup);
            arguments.extend(["--keystore".into(), keystore.into()]);
            hnd::set_up(home, arguments, secret.as_deref()).await?;
        }
        Some(settings) if settings.recovering => {
            out.note("going on with the recovery that was begun here");
            if let Some(link) = &args.setup.join {
                // A way into the mesh that was not known before: the agent looks at them at its start.
                if let Some((client, status)) = agent::running(home).await? {
                    agent::stop(&client, &status, out).await?;
                }
                hnd::set_up(home, vec!["join".into(), link.into()], secret.as_deref()).await?;
            }
        }
        _ => {
            return Err(Failure::new(
                ErrorCode::CantCreate,
                format!("{} is in use by an agent already", home.path().display()),
            )
            .hint("set HN_HOME to an empty directory and recover there"));
        }
    }
    let client = match agent::running(home).await? {
        Some((client, _)) => client,
        None => {
            let bar = Bar::new(out, "starting the agent");
            hnd::start(home, Vec::new(), secret.as_deref()).await?;
            bar.clear();
            Client::new(home.clone())?
        }
    };
    let bar = Bar::new(out, "asking the mesh");
    let (began, within) = (Instant::now(), Duration::from_secs(args.timeout));
    loop {
        // Listened to from before the question on: who comes while it is asked is a reason to ask again.
        let mut donors = client.donors(None).await?;
        donors.next().await?;
        match attempt(&client, args.device.as_deref(), &bar, out).await {
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
async fn attempt(client: &Client, device: Option<&str>, bar: &Bar, out: &mut Output) -> Result<Recovered, Failure> {
    let mut events = client.recover(device).await?;
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
    out.line(format_args!(
        "found head {} of device {}, {} old; {} before this one",
        found.head_sequence,
        found.head_device,
        words::seconds(found.head_age_seconds),
        words::plural(found.devices, "device")
    ))?;
    for warning in &found.warnings {
        out.warning(warning);
    }
    out.line(format_args!("Next: {}hn mount", init::prefix(home)))
}
