//! `hn passphrase`: what opens the keystore of this device from now on.

use hypernet_sdk::api::{SealRequest, SealedBy};
use hypernet_sdk::{ErrorCode, Home};

use super::agent;
use crate::args::Passphrase;
use crate::error::Failure;
use crate::output::{Output, bar::Bar};
use crate::{hnd, passphrase};

pub(crate) async fn passphrase(home: Home, args: &Passphrase, out: &mut Output) -> Result<(), Failure> {
    let path = home.keystore();
    if !path.exists() {
        return Err(Failure::new(ErrorCode::Config, format!("there is no keystore in {}", home.path().display()))
            .hint("`hn init` makes one, `hn recover` brings one back; an agent that only stores has none"));
    }
    let by = match (args.key_file, args.keyring) {
        (true, _) => SealedBy::KeyFile,
        (_, true) => SealedBy::Keyring,
        (false, false) => SealedBy::Passphrase,
    };
    let old = match passphrase::is_needed(&path) {
        true => passphrase::existing(&path, args.passphrase_stdin)?,
        false => None,
    };
    let new = match by {
        SealedBy::Passphrase if args.passphrase_stdin => Some(passphrase::read_line()?),
        SealedBy::Passphrase => Some(passphrase::new("New passphrase: ")?),
        SealedBy::KeyFile | SealedBy::Keyring => None,
    };
    let bar = Bar::new(out, "sealing the keystore");
    let sealed = match agent::running(&home).await? {
        Some((client, _)) => client.seal_keystore(&SealRequest { old, by, new }).await?,
        None => {
            let secrets: Vec<_> = old.iter().chain(&new).collect();
            hnd::seal(&home, by, &secrets).await?
        }
    };
    bar.clear();
    out.json(&sealed)?;
    if let Some(warning) = &sealed.warning {
        out.warning(warning);
    }
    let what = match by {
        SealedBy::Passphrase => "the new passphrase",
        SealedBy::KeyFile => "a new key file beside it",
        SealedBy::Keyring => "a new key in the keyring",
    };
    out.line(format_args!("the keystore is opened by {what}, and by nothing from before"))?;
    out.note("note: copies of the file that were made before still open as they did");
    Ok(())
}
