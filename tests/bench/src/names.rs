//! What it costs to make, list, look at and remove files: each thread in a directory of its own, empty files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

fn name(at: u64) -> String {
    format!("file-{at:07}")
}

/// Runs `work` on a thread for each directory, and gives how many of `count` calls were made in a second.
fn rate(dirs: &[PathBuf], count: u64, work: impl Fn(&Path) -> Result<()> + Sync) -> Result<u64> {
    let began = Instant::now();
    std::thread::scope(|scope| {
        let running: Vec<_> = dirs.iter().map(|dir| scope.spawn(|| work(dir))).collect();
        running.into_iter().try_for_each(|thread| thread.join().expect("a thread panicked"))
    })?;
    Ok((count as f64 / began.elapsed().as_secs_f64()) as u64)
}

/// Calls per second with `files` files by `threads` threads, below `parent`.
pub(crate) fn run(parent: &Path, files: u64, threads: u64) -> Result<Value> {
    let each = files / threads.max(1);
    let total = each * threads;
    let dirs: Vec<PathBuf> = (0..threads).map(|thread| parent.join(format!("names-{thread}"))).collect();
    for dir in &dirs {
        fs::create_dir(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let create = rate(&dirs, total, |dir| {
        (0..each).try_for_each(|at| {
            File::create(dir.join(name(at)))?;
            Ok(())
        })
    })?;
    let list = rate(&dirs, total, |dir| {
        let found = fs::read_dir(dir)?.count() as u64;
        ensure!(found == each, "{found} of {each} files are listed");
        Ok(())
    })?;
    let look = |dir: &Path| {
        (0..each).try_for_each(|at| {
            fs::symlink_metadata(dir.join(name(at)))?;
            Ok(())
        })
    };
    let first = rate(&dirs, total, look)?;
    let warm = rate(&dirs, total, look)?;
    let unlink = rate(&dirs, total, |dir| {
        (0..each).try_for_each(|at| {
            fs::remove_file(dir.join(name(at)))?;
            Ok(())
        })
    })?;
    dirs.iter().try_for_each(fs::remove_dir).context("cannot remove the directories")?;
    Ok(json!({ "create": create, "list": list, "first_stat": first, "stat": warm, "unlink": unlink }))
}
