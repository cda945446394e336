//! `hn gc`.

use hypernet_sdk::api::{GcRequest, GcVolume};
use hypernet_sdk::{Client, Home};

use crate::args::gc::Gc;
use crate::error::Failure;
use crate::output::{Output, table, words};

pub(crate) async fn gc(home: Home, args: &Gc, out: &mut Output) -> Result<(), Failure> {
    let (client, _) = Client::connect(home).await?;
    let volumes = client.gc(&GcRequest { dry_run: args.dry_run }).await?;
    out.json(&volumes)?;
    out.line(gc_table(&volumes))?;
    for line in remarks(&volumes, args.dry_run) {
        out.line(line)?;
    }
    Ok(())
}

fn name(volume: &GcVolume) -> String {
    match volume.path.as_os_str().is_empty() {
        true => format!("branch {}", words::short(&volume.id)),
        false => volume.path.display().to_string(),
    }
}

fn gc_table(volumes: &[GcVolume]) -> String {
    let rows = volumes.iter().map(|volume| {
        let gain = volume.dead_bytes + volume.sparse_bytes;
        vec![
            name(volume),
            words::count(volume.segments),
            words::bytes(volume.live_bytes),
            words::count(volume.dead_segments),
            words::count(volume.sparse_segments),
            words::bytes(gain),
            words::bytes(volume.freed_bytes),
            words::bytes(volume.waiting_bytes),
        ]
    });
    let columns = ["PATH", "SEGMENTS", "NEEDED", "EMPTY", "SPARSE", "ON PEERS", "FREED", "WAITING"];
    table::table(&columns, rows.collect(), &[1, 2, 3, 4, 5, 6, 7])
}

/// What the table does not say.
fn remarks(volumes: &[GcVolume], dry: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for volume in volumes {
        if let Some(why) = &volume.skipped {
            lines.push(format!("{}: nothing was looked at, because {why}", name(volume)));
        }
        for what in &volume.waits_for {
            lines.push(format!("{}: waits for {what}", name(volume)));
        }
    }
    let found: u64 = volumes.iter().map(|volume| volume.dead_segments + volume.sparse_segments).sum();
    let moves: u64 = volumes.iter().map(|volume| volume.sparse_live_bytes).sum();
    if dry && moves > 0 {
        lines.push(format!("of the sparse ones {} would be moved into new segments first", words::bytes(moves)));
    }
    if dry && found > 0 {
        lines.push("nothing was changed; `hn gc` gives it back".into());
    } else if volumes.iter().any(|volume| volume.waiting_bytes > 0) {
        lines.push("what waits is given up by itself, some time after nobody can need it any more".into());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_there_is_and_what_is_in_the_way() {
        let main = GcVolume {
            id: "0123456789abcdef".repeat(2),
            path: "/".into(),
            segments: 1_200,
            dead_segments: 7,
            dead_bytes: 3 << 30,
            sparse_segments: 2,
            sparse_bytes: 1 << 30,
            sparse_live_bytes: 1 << 20,
            waits_for: vec!["device laptop to publish a head".into()],
            ..GcVolume::default()
        };
        let branch =
            GcVolume { path: "".into(), skipped: Some("something waits to be published".into()), ..main.clone() };
        let text = gc_table(&[main.clone(), branch.clone()]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("/ ") && lines[1].contains("4.00 GiB"), "{text}");
        assert!(lines[2].starts_with("branch …456789abcdef"), "{text}");
        let remarks = remarks(&[main, branch], true);
        assert!(remarks.iter().any(|line| line == "/: waits for device laptop to publish a head"), "{remarks:?}");
        assert!(remarks.iter().any(|line| line.contains("because something waits to be published")), "{remarks:?}");
        assert!(remarks.iter().any(|line| line.contains("nothing was changed")), "{remarks:?}");
    }
}
