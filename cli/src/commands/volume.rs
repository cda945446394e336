//! `hn volume`.

use hypernet_sdk::api::{MakeVolumeRequest, VolumeInfo};
use hypernet_sdk::{Client, Home};

use crate::args::Volume;
use crate::error::Failure;
use crate::output::{Output, table, words};
use crate::volume_path;

pub(crate) async fn volume(home: Home, command: Volume, out: &mut Output) -> Result<(), Failure> {
    let (client, status) = Client::connect(home).await?;
    match command {
        Volume::List => {
            let volumes = client.volumes().await?;
            out.json(&volumes)?;
            out.line(volume_table(&volumes))
        }
        Volume::Make { dir } => {
            let path = volume_path::inside(&status, &dir)?;
            let made = client.make_volume(&MakeVolumeRequest { path }).await?;
            out.json(&made)?;
            let id = made.id.get(..10).unwrap_or(&made.id);
            out.line(format_args!("{} is volume {id} from now on", dir.display()))
        }
    }
}

fn volume_table(volumes: &[VolumeInfo]) -> String {
    let rows = volumes.iter().map(|volume| {
        let (number, age) = volume.head.map_or_else(
            || ("-".to_owned(), "-".to_owned()),
            |head| (words::count(head.sequence), words::seconds(head.age_seconds)),
        );
        let note = match volume {
            VolumeInfo { here: false, .. } => "nobody has looked into it here".to_owned(),
            VolumeInfo { dirty_files: 0, .. } => "all of it is on the mesh".to_owned(),
            VolumeInfo { dirty_files, .. } => format!("{} to be uploaded", words::count(*dirty_files)),
        };
        let id = volume.id.get(..10).unwrap_or(&volume.id).to_owned();
        vec![volume.path.display().to_string(), id, number, age, note]
    });
    table::table(&["PATH", "ID", "HEAD", "AGE", "WHAT"], rows.collect(), &[2, 3])
}

#[cfg(test)]
mod tests {
    use hypernet_sdk::api::HeadStatus;

    use super::*;

    #[test]
    fn each_is_shown_with_what_it_lacks() {
        let volume = |path: &str, here, dirty_files, head| VolumeInfo {
            id: "0123456789abcdef".repeat(2),
            path: path.into(),
            here,
            dirty_files,
            dirty_bytes: 0,
            head,
        };
        let head = Some(HeadStatus { sequence: 1_234, age_seconds: 60 });
        let text =
            volume_table(&[volume("/", true, 0, head), volume("/a", true, 3, None), volume("/b", false, 0, None)]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("/ ") && lines[1].trim_end().ends_with("all of it is on the mesh"), "{text}");
        assert!(lines[2].contains("0123456789 ") && lines[2].trim_end().ends_with("3 to be uploaded"), "{text}");
        assert!(lines[3].trim_end().ends_with("nobody has looked into it here"), "{text}");
    }
}
