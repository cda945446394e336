//! `hn device`.

use hypernet_sdk::api::{DeviceInfo, RevokeDeviceRequest};
use hypernet_sdk::{Client, Home};
use os_display::Quotable;

use crate::args::{Device, Revoke};
use crate::error::Failure;
use crate::output::{Output, table, words};
use crate::phrase;

pub(crate) async fn device(home: Home, command: Device, out: &mut Output) -> Result<(), Failure> {
    match command {
        Device::List => list(home, out).await,
        Device::Revoke(args) => revoke(home, args, out).await,
    }
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
    out.line(format_args!("{} is not on the list any more", revoked.name))
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
