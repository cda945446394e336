//! `hn branch` and `hn merge`.

use std::path::{Path, PathBuf};

use hypernet_sdk::api::{BranchInfo, BranchRequest, DropBranchRequest, MergeRequest, Status, SwitchRequest};
use hypernet_sdk::{Client, Home};
use os_display::Quotable;

use super::history::{now_revision, place, plain, root_of, short};
use crate::args::branch::{Branch, Merge, Switch};
use crate::error::Failure;
use crate::output::table::table;
use crate::output::{Output, words};
use crate::volume_path;

/// Where it is for whoever has the mount before them.
pub(super) fn seen(status: &Status, path: &Path) -> PathBuf {
    status.mount.as_ref().map_or_else(|| path.to_owned(), |mount| volume_path::outside(mount, path))
}

pub(crate) async fn branch(home: Home, args: Branch, out: &mut Output) -> Result<(), Failure> {
    let (client, status) = Client::connect(home).await?;
    let Some(name) = args.name else {
        return all(&client.branches().await?, &status, out);
    };
    if args.delete {
        let gone = client.drop_branch(&DropBranchRequest { name, force: args.force }).await?;
        out.json(&gone)?;
        return out.line(format_args!("branch {} is gone", gone.name));
    }
    let path = place(&status, args.of.as_deref())?;
    let revision = args.snapshot.as_deref().map(now_revision).transpose()?;
    let made = client.make_branch(&BranchRequest { path, name, revision }).await?;
    out.json(&made)?;
    let at = seen(&status, &made.path);
    out.line(format_args!("branch {} begins with snapshot {}: {}", made.name, short(&made.from), at.quote()))
}

fn all(branches: &[BranchInfo], status: &Status, out: &mut Output) -> Result<(), Failure> {
    out.json(&branches)?;
    if branches.is_empty() {
        out.note("there are no branches: `hn branch NAME` makes one");
        return Ok(());
    }
    let merged = |branch: &BranchInfo| match branch.merged {
        Some(true) => "merged",
        Some(false) => "not merged",
        None => "not known here",
    };
    let row = |branch: &BranchInfo| {
        let at = seen(status, &branch.path).quote().to_string();
        vec![plain(&branch.name), plain(&branch.of), short(&branch.from).to_owned(), merged(branch).to_owned(), at]
    };
    out.line(table(&["BRANCH", "OF", "FROM", "STATE", "PATH"], branches.iter().map(row).collect(), &[]))
}

pub(crate) async fn switch(home: Home, args: Switch, out: &mut Output) -> Result<(), Failure> {
    let (client, _) = Client::connect(home).await?;
    let shown = client.switch(&SwitchRequest { name: args.name }).await?;
    out.json(&shown)?;
    match &shown.dir {
        Some(dir) => out.line(format_args!("{} shows {}", dir.quote(), shown.name)),
        None => out.line(format_args!("the next mount shows {}", shown.name)),
    }
}

pub(crate) async fn merge(home: Home, args: Merge, out: &mut Output) -> Result<(), Failure> {
    let (client, status) = Client::connect(home).await?;
    let path = place(&status, args.path.as_deref())?;
    let merged = client.merge(&MergeRequest { path: path.clone(), from: args.name.clone() }).await?;
    out.json(&merged)?;
    if merged.already {
        return out.line(format_args!("all of {} is here already", args.name));
    }
    for kept in &merged.conflicts {
        out.line(format_args!("{} is kept beside {}", plain(&kept.name).quote(), plain(&kept.wanted).quote()))?;
    }
    let beside = match merged.conflicts.len() {
        0 => "nothing is in conflict".to_owned(),
        count => format!("{} kept beside others", words::plural(count as u64, "version")),
    };
    let texts = match merged.texts {
        0 => String::new(),
        count => format!(", {} merged line by line", words::plural(count, "text")),
    };
    out.line(format_args!("{} is merged: {beside}{texts}", args.name))?;
    if let Some(before) = &merged.before {
        out.note(format_args!("what was there is in {}", short(before)));
    }
    if let Some(snapshot) = &merged.snapshot {
        // All of the volume, wherever in it one stands or has named something.
        let root = match args.path {
            Some(_) => format!(" {}", seen(&status, &root_of(&client, &path).await?).maybe_quote()),
            None => String::new(),
        };
        out.note(format_args!("snapshot {}: `hn revert {0}{root}` undoes it", short(snapshot)));
    }
    if !merged.conflicts.is_empty() {
        out.note("`hn conflicts` shows them, `hn resolve` settles which stays");
    }
    Ok(())
}
