//! `hn device`.

use std::io::{self, IsTerminal};

use hypernet_sdk::api::{DeviceInfo, NamedDevice, RecoverRequest, RenewDeviceRequest, RevokeDeviceRequest};
use hypernet_sdk::{Client, ErrorCode, Home};
use os_display::Quotable;

use crate::args::{Device, DeviceJoin, Meet, Renew, Revoke};
use crate::error::Failure;
use crate::output::{Output, table, words};
use crate::{passphrase, phrase};

use super::meet;
use super::recover::{self, Begun, Seal};

/// Seconds to look for the newest head once a device is on the list.
const FOUND_WITHIN: u64 = 90;

pub(crate) async fn device(home: Home, command: Device, out: &mut Output) -> Result<(), Failure> {
    match command {
        Device::List => list(home, out).await,
        Device::Add(meet) => add(home, meet, out).await,
        Device::Join(args) => join(&home, args, out).await,
        Device::Revoke(args) => revoke(home, args, out).await,
        Device::Renew(args) => renew(home, args, out).await,
    }
}

async fn add(home: Home, how: Meet, out: &mut Output) -> Result<(), Failure> {
    meet::needs_person(how)?;
    let client = Client::new(home)?;
    let events = client.add_device(&meet::request(how, None, None)).await?;
    let added = meet::run(&client, events, how, "hn device join", out).await?;
    out.line(format_args!("{} is a device of this identity now", added.name))
}

async fn join(home: &Home, mut args: DeviceJoin, out: &mut Output) -> Result<(), Failure> {
    let Begun { begun, is_found } = recover::begun(home)?;
    if !is_found {
        meet::needs_person(args.meet)?;
        // Whoever is there is asked; a program says that it gives one.
        let asked = io::stdin().is_terminal().then(|| "-".to_owned());
        args.code = args.code.or(asked).map(|code| meet::code(code, out)).transpose()?;
    }
    if let Some((code, mesh)) = args.code.as_deref().and_then(meet::apart) {
        args.setup.join.get_or_insert(mesh);
        args.code = Some(code.to_owned());
    }
    if !is_found && args.code.is_none() {
        return Err(Failure::new(ErrorCode::Usage, "there is no code")
            .hint("`hn device add` on a device of the identity shows one; `-` reads it from standard input"));
    }
    if !begun && args.setup.join.is_none() {
        return Err(Failure::new(ErrorCode::Usage, "the code alone does not say on which mesh to look")
            .hint("give the link that `hn device add` shows, or add --join LINK, which `hn invite` prints"));
    }
    let from_stdin = args.setup.passphrase.passphrase_stdin;
    let secret = match is_found {
        true => passphrase::existing(&home.keystore(), from_stdin)?,
        false if args.passphrase => Some(passphrase::new("New passphrase: ")?),
        false if from_stdin => Some(passphrase::read_line()?),
        false => None,
    };
    let seal = Seal { keyring: false, secret };
    let client = recover::set_up(home, begun, None, &args.setup, seal, out).await?;
    if !is_found {
        let request = meet::request(args.meet, args.code, None);
        let events = client.join_identity(&request).await?;
        meet::run(&client, events, args.meet, "hn device join", out).await?;
    }
    recover::find(home, &client, &RecoverRequest::default(), FOUND_WITHIN, out).await
}

async fn revoke(home: Home, args: Revoke, out: &mut Output) -> Result<(), Failure> {
    let client = Client::new(home)?;
    let Revoke { name, force, phrase, phrase_stdin, phrase_passphrase } = args;
    let phrase = match phrase || phrase_stdin {
        true => Some(phrase::ask(phrase_stdin, phrase_passphrase, out)?),
        false => None,
    };
    let revoked = client.revoke_device(&RevokeDeviceRequest { name, force, phrase }).await?;
    out.json(&revoked)?;
    if let Some(late) = &revoked.late {
        out.note(format_args!(
            "it published head {} at {} just now, which no other device has: `hn recover --device {}` in an empty HN_HOME \
             shows it",
            late.sequence,
            late.time,
            late.device.maybe_quote()
        ));
    }
    if !revoked.with.is_empty() {
        out.note(format_args!(
            "off the list with it: {}; a device of yours that is among them comes back with `hn device renew` on it",
            names(&revoked.with)
        ));
    }
    if !revoked.brought.is_empty() {
        out.note(format_args!(
            "still on the list, enrolled by it: {}; take off what is not yours with `hn device revoke`",
            names(&revoked.brought)
        ));
    }
    out.line(format_args!("{} is not on the list any more", revoked.name))
}

/// As a person can type them.
fn names(devices: &[NamedDevice]) -> String {
    let one =
        |device: &NamedDevice| format!("{} ({})", device.name.maybe_quote(), device.id.get(..10).unwrap_or(&device.id));
    devices.iter().map(one).collect::<Vec<_>>().join(", ")
}

async fn renew(home: Home, args: Renew, out: &mut Output) -> Result<(), Failure> {
    let client = Client::new(home)?;
    let phrase = phrase::ask(args.phrase_stdin, args.phrase_passphrase, out)?;
    let renewed = client.renew_device(&RenewDeviceRequest { phrase }).await?;
    out.json(&renewed)?;
    if renewed.back {
        out.note(format_args!("this device had been taken off the list, and is on it again"));
    }
    out.note(format_args!("take off what is not yours with `hn device revoke NAME --phrase`"));
    out.line(format_args!("the keys are new, and the words lead to them; on the list: {}", names(&renewed.devices)))
}

async fn list(home: Home, out: &mut Output) -> Result<(), Failure> {
    let client = Client::new(home)?;
    let devices = client.devices().await?;
    out.json(&devices)?;
    if devices.is_empty() {
        return out.line("no device of this identity has synced anything yet");
    }
    out.line(device_table(&devices))
}

fn device_table(devices: &[DeviceInfo]) -> String {
    let rows = devices.iter().map(|device| {
        let note = match device {
            DeviceInfo { this: true, .. } => "this device",
            DeviceInfo { here: true, .. } => "part of this tree",
            DeviceInfo { head: Some(_), .. } => "NOT part of this tree",
            DeviceInfo { .. } => "no head is found",
        };
        let (number, age) = device.head.map_or_else(
            || ("-".to_owned(), "-".to_owned()),
            |head| (words::count(head.sequence), words::seconds(head.age_seconds)),
        );
        // The beginning of an id is enough to name a device by it.
        let id = device.id.get(..10).unwrap_or(&device.id).to_owned();
        vec![device.name.clone(), id, device.enrolled.clone(), number, age, note.to_owned()]
    });
    table::table(&["DEVICE", "ID", "ENROLLED", "HEAD", "AGE", "WHAT"], rows.collect(), &[3, 4])
}

#[cfg(test)]
mod tests {
    use hypernet_sdk::api::HeadStatus;

    use super::*;

    #[test]
    fn what_is_not_here_stands_out() {
        let device = |name: &str, head, this, here| DeviceInfo {
            name: name.into(),
            id: "0123456789abcdef".repeat(4),
            enrolled: "2026-11-24T00:00:00Z".into(),
            head,
            this,
            here,
        };
        let head = Some(HeadStatus { sequence: 7, age_seconds: 60 });
        let text = device_table(&[
            device("laptop", head, true, true),
            device("desktop", head, false, true),
            device("vm", head, false, false),
            device("phone", None, false, false),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("0123456789 ") && lines[1].trim_end().ends_with("this device"), "{text}");
        assert!(lines[2].trim_end().ends_with(" part of this tree") && !lines[2].contains("NOT"), "{text}");
        assert!(lines[3].contains("NOT part of this tree") && lines[4].contains("no head is found"), "{text}");
    }
}
