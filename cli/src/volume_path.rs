//! Paths as people type them, as paths inside the volume.

use std::path::{Path, PathBuf};

use hypernet_sdk::ErrorCode;
use hypernet_sdk::api::{MountStatus, Status};

use crate::error::Failure;

/// The path in the tree of what is below a mount that shows the tree with this root. Branches are found below each of them.
fn below(top: &Path, dir: &Path, path: &Path) -> PathBuf {
    match path.strip_prefix(dir) {
        Ok(below) if below.starts_with(".branches") => Path::new("/").join(below),
        Ok(below) => top.join(below),
        Err(_) => top.to_owned(),
    }
}

/// Where a path in the tree is found in the main mount, whatever that shows.
pub(crate) fn outside(mount: &MountStatus, path: &Path) -> PathBuf {
    let all = Path::new("/.branches");
    match path.strip_prefix(&mount.top) {
        Ok(below) if mount.top != Path::new("/") || !path.starts_with(all) => mount.dir.join(below),
        _ if path.starts_with(all) => mount.dir.join(path.strip_prefix("/").unwrap_or(path)),
        _ => mount.dir.join(".branches/main").join(path.strip_prefix("/").unwrap_or(path)),
    }
}

/// Where a path in the tree is found, in the mount that shows it.
pub(crate) fn found_at(status: &Status, path: &Path) -> Result<PathBuf, Failure> {
    let side = status.side_mounts.iter().find_map(|side| {
        let top = side.top.as_ref().filter(|top| *top != Path::new("/"))?;
        let below = path.strip_prefix(top).ok()?;
        Some(if below.as_os_str().is_empty() { side.dir.clone() } else { side.dir.join(below) })
    });
    let main = || status.mount.as_ref().map(|mount| outside(mount, path));
    side.or_else(main).ok_or_else(|| {
        Failure::new(ErrorCode::Usage, "nothing is mounted: what was is read from the mount, and comes back there")
            .hint("`hn mount` first")
    })
}

/// The path below the volume's root, with a leading slash, of a path below the mount.
pub(crate) fn inside(status: &Status, path: &Path) -> Result<PathBuf, Failure> {
    let Some(mount) = &status.mount else {
        return Err(Failure::new(
            ErrorCode::Usage,
            format!("{} is not below a mount: nothing is mounted", path.display()),
        )
        .hint("`hn mount` first, or leave the path out to mean everything"));
    };
    // Follows links and dots where the path exists; one that does not is taken as it is written.
    let real = std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    let real = real.map_err(|error| Failure::io(path.display(), &error))?;
    if let Some(side) = status.side_mounts.iter().find(|side| real.starts_with(&side.dir)) {
        // The agent says what it is.
        return Ok(side.top.as_ref().map_or(real.clone(), |top| below(top, &side.dir, &real)));
    }
    match real.starts_with(&mount.dir) {
        true => Ok(below(&mount.top, &mount.dir, &real)),
        false => Err(Failure::new(
            ErrorCode::Usage,
            format!("{} is not below the mount {}", path.display(), mount.dir.display()),
        )
        .hint("name something below the mount, or leave the path out to mean everything")),
    }
}

#[cfg(test)]
mod tests {
    use hypernet_sdk::api::MountProfile;

    use super::*;

    #[test]
    fn what_is_in_the_tree_is_found_in_the_mount_whatever_it_shows() {
        let mount = |top: &str| MountStatus {
            dir: "/m".into(),
            profile: MountProfile::Writeback,
            reason: None,
            top: top.into(),
        };
        for (top, path, seen) in [
            ("/", "/", "/m/"),
            ("/", "/a/b", "/m/a/b"),
            ("/", "/.branches/try/a", "/m/.branches/try/a"),
            ("/.branches/try", "/.branches/try/a", "/m/a"),
            ("/.branches/try", "/.branches/other/a", "/m/.branches/other/a"),
            ("/.branches/try", "/a", "/m/.branches/main/a"),
        ] {
            assert_eq!(outside(&mount(top), Path::new(path)), Path::new(seen), "{top} {path}");
        }
        assert_eq!(
            below(Path::new("/.branches/try"), Path::new("/m"), Path::new("/m/a")),
            Path::new("/.branches/try/a")
        );
        assert_eq!(
            below(Path::new("/.branches/try"), Path::new("/m"), Path::new("/m/.branches/x")),
            Path::new("/.branches/x")
        );
    }
}
