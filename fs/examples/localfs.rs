//! Mounts the filesystem alone: metadata in memory, no mesh. For measuring it, and for trying it by hand.
//!
//! `localfs DIRECTORY MOUNTPOINT [--writeback]`: content goes under DIRECTORY and is void afterwards. Ends when it is
//! unmounted, or at SIGINT and SIGTERM.

use std::path::Path;
use std::sync::Arc;

use hypernet_core::id::DeviceTag;
use hypernet_fs::fuse::{MountOptions, Passthrough, clear_stale, mount};
use hypernet_fs::testing::{MemoryMeta, NoRemote, VOLUME, unmount_at_signal};
use hypernet_fs::{Config, Vfs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (Some(dir), Some(mount_point)) = (args.first(), args.get(1)) else {
        return Err("usage: localfs DIRECTORY MOUNTPOINT [--writeback]".into());
    };
    let mount_point = Path::new(mount_point);
    let vfs = Vfs::open(Config::new(dir, VOLUME, DeviceTag(1)), MemoryMeta::quick(), Arc::new(NoRemote))?;
    clear_stale(mount_point)?;
    let mut options = MountOptions::default();
    if args.iter().any(|arg| arg == "--writeback") {
        options.passthrough = Passthrough::Off;
    }
    let mounted = Arc::new(mount(vfs.clone(), mount_point, options)?);
    let detach = mounted.clone();
    unmount_at_signal(move || detach.detach().is_ok())?;
    mounted.wait()?;
    vfs.close(true)?;
    Ok(())
}
