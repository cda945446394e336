//! The keyring of the desktop, by the Secret Service of D-Bus: GNOME Keyring, KWallet, KeePassXC.
//!
//! A key lies in its default collection under the name of its public half, which the keystore file carries. So keys of
//! several agents lie there side by side, and a new one is there before the old one goes.
//!
//! Everything has a deadline: a keyring may ask a person to unlock it, and nobody may be there.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use age::secrecy::ExposeSecret;
use age::x25519::{Identity, Recipient};
use secret_service::{Collection, EncryptionType, Error, Item, SecretService};
use zeroize::Zeroizing;

use crate::failure::{Failure, Kind};

/// A person may have to be fetched to type the keyring's password.
const WITHIN: Duration = Duration::from_secs(60);

const OTHERWISE: &str = "in a session without a keyring seal the keystore by a passphrase or a key file";
const LOST: &str = "bring the keyring back from a copy; without it `hn recover` by the 24 words makes this device anew, in \
                    another HN_HOME";

/// By which a key is found.
fn attributes(name: &str) -> HashMap<&str, &str> {
    HashMap::from([("application", "hypernet"), ("opens", name)])
}

fn failed(what: &str, error: &Error) -> Failure {
    match error {
        Error::Locked | Error::Prompt | Error::PromptDisconnected => {
            Failure::new(Kind::Permission, format!("{what}: the keyring is locked"))
                .hint("unlock it, and try again in the same session")
        }
        error => Failure::new(Kind::Unavailable, format!("{what}: {error}")).hint(OTHERWISE),
    }
}

async fn connect() -> Result<SecretService<'static>, Failure> {
    // The session is encrypted: what goes over the bus cannot be read by who watches it.
    SecretService::connect(EncryptionType::Dh).await.map_err(|error| {
        Failure::new(Kind::Unavailable, format!("there is no keyring in this session: {error}")).hint(OTHERWISE)
    })
}

/// What lies under a name, unlocked. Where nothing does, none.
async fn find<'a>(service: &'a SecretService<'static>, name: &str) -> Result<Option<Item<'a>>, Failure> {
    let what = "the keyring cannot be searched";
    let mut found = service.search_items(attributes(name)).await.map_err(|error| failed(what, &error))?;
    if let Some(item) = found.unlocked.pop() {
        return Ok(Some(item));
    }
    let Some(item) = found.locked.pop() else { return Ok(None) };
    item.unlock().await.map_err(|error| failed("the key cannot be read", &error))?;
    Ok(Some(item))
}

async fn unlocked_default<'a>(service: &'a SecretService<'static>) -> Result<Collection<'a>, Failure> {
    let collection = service.get_default_collection().await.map_err(|error| match error {
        Error::NoResult => Failure::new(Kind::Unavailable, "the keyring has no default collection to keep a key in")
            .hint("make one with the program of your desktop for passwords and keys, or log in to it once"),
        error => failed("the keyring's default collection cannot be opened", &error),
    })?;
    let what = "the key cannot be kept";
    if collection.is_locked().await.map_err(|error| failed(what, &error))? {
        collection.unlock().await.map_err(|error| failed(what, &error))?;
    }
    Ok(collection)
}

/// An error where no key can be kept.
pub(crate) fn check() -> Result<(), Failure> {
    run(async { unlocked_default(&connect().await?).await.map(drop) })
}

/// Runs to its end, on a thread of its own: whoever calls may be in a runtime already.
fn run<T: Send>(work: impl Future<Output = Result<T, Failure>> + Send) -> Result<T, Failure> {
    let cannot = |error: &dyn std::fmt::Display| Failure::new(Kind::System, format!("cannot ask the keyring: {error}"));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| cannot(&error))?;
            runtime.block_on(async {
                tokio::time::timeout(WITHIN, work).await.unwrap_or_else(|_| {
                    Err(Failure::new(
                        Kind::TryAgain,
                        format!("the keyring did not answer within {} s", WITHIN.as_secs()),
                    )
                    .hint("it may wait for somebody to unlock it: do that, then try again"))
                })
            })
        });
        asking.join().unwrap_or_else(|_| Err(cannot(&"the thread that asked ended")))
    })
}

/// Makes a key and keeps it. The label is what a person sees of it in the keyring.
pub(crate) fn create(label: &str) -> Result<Recipient, Failure> {
    let key = Identity::generate();
    let recipient = key.to_public();
    let (name, secret) = (recipient.to_string(), key.to_string());
    run(async {
        let service = connect().await?;
        let collection = unlocked_default(&service).await?;
        collection
            .create_item(label, attributes(&name), secret.expose_secret().as_bytes(), true, "text/plain")
            .await
            .map_err(|error| failed("the key cannot be kept", &error))?;
        Ok(())
    })?;
    Ok(recipient)
}

/// The key of which this is the public half.
pub(crate) fn load(recipient: &Recipient) -> Result<Identity, Failure> {
    let name = recipient.to_string();
    let text = run(async {
        let service = connect().await?;
        let item = find(&service, &name).await?.ok_or_else(|| {
            Failure::new(Kind::Permission, "the keyring has not got the key of this keystore").hint(LOST)
        })?;
        let secret = item.get_secret().await.map_err(|error| failed("the key cannot be read", &error))?;
        Ok(Zeroizing::new(secret))
    })?;
    let damaged = |why: &str| Failure::new(Kind::Data, format!("what the keyring has is no key: {why}")).hint(LOST);
    let text = std::str::from_utf8(&text).map_err(|_| damaged("it is not text"))?;
    Identity::from_str(text.trim()).map_err(damaged)
}

/// Takes a key out. One that is not there is no failure.
pub(crate) fn remove(recipient: &Recipient) -> Result<(), Failure> {
    let name = recipient.to_string();
    run(async {
        let service = connect().await?;
        match find(&service, &name).await? {
            Some(item) => item.delete().await.map_err(|error| failed("the old key cannot be deleted", &error)),
            None => Ok(()),
        }
    })
}
