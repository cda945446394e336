//! Benches of what needs no processes: the sealing pipeline against its own stages, in one run. A stage
//! runs on one core, the pipeline on all of them, as in a sync.
//!
//! Figures, never tests: nothing here passes or fails.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod names;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use hypernet_core::extent::Cutter;
use hypernet_core::id::VolumeId;
use hypernet_core::key::{Secret, VolumeKeys};
use hypernet_core::placement::Plan;
use hypernet_core::seal::{Kind, Prepared, Sealer};
use hypernet_core::segment::{Packed, Packer};
use hypernet_core::{erasure, placement};

/// The allocator of `hnd`, whose pipeline this is.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Threads that code, of those of a sync that code and place.
const CODERS: usize = 2;
/// Bytes that a sync reads at once.
const BUFFER: usize = 4 << 20;

/// Benches without processes.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Cut, compress, seal, pack and code: the whole pipeline, and each stage alone.
    Pipeline {
        /// MiB of input.
        #[arg(long, default_value_t = 512)]
        mib: usize,
        /// Peers that the segments are for: the more, the more rows they have.
        #[arg(long, default_value_t = 10)]
        peers: usize,
        /// With which probability one of them is online.
        #[arg(long, default_value_t = 0.95)]
        availability: f64,
        /// What the input is like.
        #[arg(long, default_value = "noise")]
        input: Input,
        /// One JSON document instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Make, list, look at and remove empty files: calls per second, as one JSON document.
    Names {
        /// Where; what is made there is removed.
        dir: PathBuf,
        /// How many.
        #[arg(long, default_value_t = 20_000)]
        files: u64,
        /// Each in a directory of its own.
        #[arg(long, default_value_t = 1)]
        threads: u64,
    },
}

#[derive(Clone, Copy, ValueEnum, PartialEq, Debug)]
enum Input {
    /// Incompressible.
    Noise,
    /// Words: compresses about three to one.
    Text,
}

fn input(kind: Input, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    if kind == Input::Text {
        const WORDS: [&[u8]; 16] = [
            b"static ",
            b"int ",
            b"return ",
            b"struct ",
            b"device ",
            b"if (",
            b") {\n",
            b"}\n\n",
            b"\t",
            b"err = ",
            b"unsigned ",
            b"long ",
            b"flags",
            b"->next",
            b" = 0;\n",
            b"/* lock */ ",
        ];
        let mut out = Vec::with_capacity(len + 16);
        for byte in &bytes {
            out.extend_from_slice(WORDS[usize::from(byte & 15)]);
            if byte >> 4 == 0 {
                out.extend_from_slice(&byte.to_be_bytes());
            }
            if out.len() >= len {
                break;
            }
        }
        out.truncate(len);
        return out;
    }
    bytes
}

/// MiB/s of a run over `bytes` bytes; the better of two, because the first also warms caches up.
fn rate(bytes: usize, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = 0f64;
    for _ in 0..2 {
        let began = Instant::now();
        run()?;
        best = best.max(bytes as f64 / (1 << 20) as f64 / began.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Cuts all of `bytes` into extents.
fn cuts<'a>(cutter: &Cutter, bytes: &'a [u8], each: &mut dyn FnMut(&'a [u8]) -> Result<()>) -> Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (head, tail) = rest.split_at(cutter.first(rest));
        each(head)?;
        rest = tail;
    }
    Ok(())
}

/// As a sync does it: extents are sealed on all cores a buffer at a time, and coded behind that.
fn whole(cutter: &Cutter, sealer: &Sealer, padding: &Secret, plan: Plan, bytes: &[u8]) -> Result<()> {
    let (full, coding) = crossbeam_channel::bounded::<Packed>(1);
    std::thread::scope(|scope| {
        let coders: Vec<_> = (0..CODERS)
            .map(|_| {
                let coding = coding.clone();
                scope.spawn(move || {
                    coding
                        .into_iter()
                        .try_for_each(|packed| packed.code(plan.k, plan.n, plan.committed, padding).map(drop))
                })
            })
            .collect();
        let mut packer = Packer::new(plan.k);
        let mut seal = |extents: &mut Vec<&[u8]>| -> Result<()> {
            for sealed in Prepared::seal_all(sealer.prepare_all(Kind::Content, extents)?)? {
                if let Some(packed) = packer.add(sealed)? {
                    full.send(packed)?;
                }
            }
            extents.clear();
            Ok(())
        };
        let (mut extents, mut waiting) = (Vec::new(), 0);
        cuts(cutter, bytes, &mut |extent| {
            waiting += extent.len();
            extents.push(extent);
            if waiting >= BUFFER {
                waiting = 0;
                seal(&mut extents)?;
            }
            Ok(())
        })?;
        seal(&mut extents)?;
        if let Some(packed) = packer.finish() {
            full.send(packed)?;
        }
        drop(full);
        coders.into_iter().try_for_each(|coder| {
            coder.join().map_err(|_| anyhow::anyhow!("a coding thread panicked"))??;
            Ok(())
        })
    })
}

fn pipeline(mib: usize, kind: Input, (peers, availability): (usize, f64)) -> Result<Vec<(&'static str, f64)>> {
    let bytes = input(kind, mib << 20);
    let keys = VolumeKeys::new(VolumeId([1; 16]), 0, Secret::new([2; 32]));
    let (cutter, sealer, padding) = (Cutter::new(&keys), Sealer::new(&keys), keys.padding());
    let plan = placement::plan(peers, availability).ok_or_else(|| anyhow::anyhow!("no plan for {peers} peers"))?;
    let mut extents = Vec::new();
    cuts(&cutter, &bytes, &mut |extent| {
        extents.push(extent);
        Ok(())
    })?;
    let mut out = Vec::new();
    out.push(("cut (FastCDC)", rate(bytes.len(), || cuts(&cutter, &bytes, &mut |_| Ok(())))?));
    let prepare = rate(bytes.len(), || {
        extents.iter().try_for_each(|extent| sealer.prepare(Kind::Content, extent).map(drop)).map_err(Into::into)
    })?;
    out.push(("compress and name (zstd, keyed BLAKE3)", prepare));
    let mut seal_seconds = 0f64;
    let mut sealed = Vec::new();
    for extent in &extents {
        let prepared = sealer.prepare(Kind::Content, extent)?;
        let began = Instant::now();
        sealed.push(prepared.seal()?);
        seal_seconds += began.elapsed().as_secs_f64();
    }
    out.push(("seal (XChaCha20-Poly1305)", mib as f64 / seal_seconds));
    let mut packer = Packer::new(plan.k);
    let mut packed = Vec::new();
    for one in &sealed {
        packed.extend(packer.add(one.clone())?);
    }
    packed.extend(packer.finish());
    let code = rate(bytes.len(), || {
        packed
            .iter()
            .try_for_each(|packed| packed.code(plan.k, plan.n, plan.committed, &padding).map(drop))
            .map_err(Into::into)
    })?;
    out.push(("lay out, code and hash (Reed-Solomon, BLAKE3)", code));
    let row = vec![7u8; 1 << 20];
    let rows: Vec<&[u8]> = (0..plan.k).map(|_| row.as_slice()).collect();
    let coded = usize::from(plan.k) << 20;
    out.push((
        "  of which Reed-Solomon alone",
        rate(coded * 20, || {
            (0..20).try_for_each(|_| erasure::parity(&rows, plan.committed.into()).map(drop)).map_err(Into::into)
        })?,
    ));
    drop((sealed, packed));
    let whole = rate(bytes.len(), || whole(&cutter, &sealer, &padding, plan, &bytes))?;
    out.push(("whole pipeline", whole));
    Ok(out)
}

fn main() -> Result<()> {
    match Cli::parse().bench {
        Bench::Pipeline { mib, peers, availability, input, json } => {
            show_pipeline(mib, input, (peers, availability), json)
        }
        Bench::Names { dir, files, threads } => {
            println!("{}", names::run(&dir, files, threads)?);
            Ok(())
        }
    }
}

fn show_pipeline(mib: usize, input: Input, peers: (usize, f64), json: bool) -> Result<()> {
    let rows = pipeline(mib, input, peers)?;
    let whole = rows.last().map_or(0.0, |(_, rate)| *rate);
    let stages = || rows[..rows.len() - 1].iter().filter(|(name, _)| !name.starts_with(' ')).map(|(_, rate)| *rate);
    let slowest = stages().fold(f64::INFINITY, f64::min);
    // What all cores would reach if nothing but the stages cost anything: they share them.
    let cores = std::thread::available_parallelism()?.get();
    let bound = cores as f64 / stages().map(|rate| 1.0 / rate).sum::<f64>();
    if json {
        let rows: serde_json::Map<String, serde_json::Value> =
            rows.iter().map(|(name, rate)| (name.trim().to_owned(), (*rate).into())).collect();
        let document = serde_json::json!({
            "input": format!("{input:?}").to_lowercase(), "mib": mib, "mib_per_second": rows,
            "of_slowest_stage": whole / slowest, "of_sum_of_stages": whole / bound,
        });
        println!("{document}");
        return Ok(());
    }
    println!("sealing pipeline, {mib} MiB of {input:?}, MiB/s: stages on one core, the pipeline on {cores}");
    for (name, rate) in &rows {
        println!("  {name:<48} {rate:>8.0}");
    }
    println!("  pipeline / slowest stage                         {:>7.0}%", whole / slowest * 100.0);
    println!("  pipeline / all stages, shared by all cores       {:>7.0}%", whole / bound * 100.0);
    Ok(())
}
