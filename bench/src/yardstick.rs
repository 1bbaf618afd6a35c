//! Measurements as ratios to a limit that is measured in the same run, and their comparison with kept ones.
//!
//! A ratio above 1 is better than the limit. Both sides are measured in turn, round by round. The rounds form two series of
//! the same thing, by turns. The noise is by how much the medians of the two differ (an A/A run), or what the spread of the
//! rounds lets a median vary by, whichever is larger.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// Rounds of each workload, half of them of each series.
pub const ROUNDS: usize = 10;
/// A ratio may be this much below the baseline before it is named.
const TOLERATED_LOSS: f64 = 0.05;
/// A figure with more noise than this says nothing about a loss.
const MAX_NOISE: f64 = 0.2;
/// Two standard errors of a median, in quartile distances and roots of the rounds: 2 × 1.253 / 1.349.
const MEDIAN_ERROR: f64 = 1.86;

/// Which way a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    Higher,
    Lower,
}

/// What a workload measures.
#[derive(Clone, Copy, Debug)]
pub struct Figure<'a> {
    pub name: &'a str,
    pub unit: &'static str,
    pub better: Better,
    /// What it is measured against.
    pub limit: &'static str,
}

/// A figure's rounds.
struct Series {
    workload: &'static str,
    name: String,
    unit: &'static str,
    better: Better,
    limit: &'static str,
    /// Ours, and the limit.
    rounds: Vec<(f64, f64)>,
}

/// What is measured, as it comes.
pub struct Recorder {
    workload: &'static str,
    series: Vec<Series>,
    /// What ours is made slower by, to see that a comparison tells.
    planted_slowdown: f64,
}

impl Recorder {
    pub fn new() -> anyhow::Result<Self> {
        let percent = std::env::var("BENCH_PLANTED_SLOWDOWN").ok().map(|percent| percent.parse::<f64>()).transpose()?;
        Ok(Self { workload: "", series: Vec::new(), planted_slowdown: 1.0 + percent.unwrap_or_default() / 100.0 })
    }

    pub fn begin(&mut self, workload: &'static str) {
        eprintln!("{workload}: {ROUNDS} rounds");
        self.workload = workload;
    }

    /// Take a round of a figure.
    pub fn record(&mut self, figure: Figure<'_>, ours: f64, limit: f64) {
        let ours = match figure.better {
            Better::Higher => ours / self.planted_slowdown,
            Better::Lower => ours * self.planted_slowdown,
        };
        let workload = self.workload;
        let known = self.series.iter_mut().find(|it| it.workload == workload && it.name == figure.name);
        if let Some(known) = known {
            known.rounds.push((ours, limit));
            return;
        }
        let Figure { name, unit, better, limit: against } = figure;
        let (name, rounds) = (name.to_owned(), vec![(ours, limit)]);
        self.series.push(Series { workload, name, unit, better, limit: against, rounds });
    }

    pub fn report(&self) -> anyhow::Result<Report> {
        let measured = self.series.iter().map(Series::measured).collect();
        Ok(Report { machine: Machine::here()?, rounds: ROUNDS, measured })
    }
}

/// Whether the limit is measured first in this round: so that both series of rounds have both orders.
#[must_use]
pub const fn limit_goes_first(round: usize) -> bool {
    (round / 2).is_multiple_of(2)
}

/// Both sides of a round, in turn.
pub async fn in_turn<A, B>(
    round: usize,
    ours: impl AsyncFnOnce() -> anyhow::Result<A>,
    limit: impl AsyncFnOnce() -> anyhow::Result<B>,
) -> anyhow::Result<(A, B)> {
    if limit_goes_first(round) {
        let limit = limit().await?;
        Ok((ours().await?, limit))
    } else {
        let ours = ours().await?;
        Ok((ours, limit().await?))
    }
}

/// A measured figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    workload: String,
    name: String,
    unit: String,
    better: Better,
    limit: String,
    /// Medians of the rounds.
    ours: f64,
    limit_value: f64,
    ratio: f64,
    /// Quartiles of the rounds' ratios.
    low: f64,
    high: f64,
    /// By how much the two series of the same thing differ, as a share.
    noise: f64,
}

impl Series {
    fn measured(&self) -> Measured {
        let ratio = |(ours, limit): &(f64, f64)| match self.better {
            Better::Higher => ours / limit,
            Better::Lower => limit / ours,
        };
        let ratios: Vec<f64> = self.rounds.iter().map(ratio).collect();
        let of = |series: usize| {
            let rounds = ratios.iter().enumerate().filter(|(round, _)| round % 2 == series);
            quantile(rounds.map(|(_, ratio)| *ratio), 0.5)
        };
        let (a, b) = (of(0), of(1));
        let [low, ratio, high] = [0.25, 0.5, 0.75].map(|share| quantile(ratios.iter().copied(), share));
        let spread = MEDIAN_ERROR * (high - low) / ratio / (ratios.len() as f64).sqrt();
        let noise = (a / b - 1.0).abs().max(spread);
        Measured {
            workload: self.workload.to_owned(),
            name: self.name.clone(),
            unit: self.unit.to_owned(),
            better: self.better,
            limit: self.limit.to_owned(),
            ours: quantile(self.rounds.iter().map(|(ours, _)| *ours), 0.5),
            limit_value: quantile(self.rounds.iter().map(|(_, limit)| *limit), 0.5),
            ratio,
            low,
            high,
            noise,
        }
    }
}

/// Where and of what something was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    processor: String,
    cores: usize,
    memory_gigabytes: u64,
    system: String,
    forecourt: String,
    nats_server: String,
    rustc: String,
    commit: String,
}

impl Machine {
    fn here() -> anyhow::Result<Self> {
        let line = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let found = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            found.trim_matches([' ', '\t', ':']).to_owned()
        };
        let memory = line("/proc/meminfo", "MemTotal").trim_end_matches("kB").trim().parse::<u64>().unwrap_or_default();
        let tools = std::env::var_os("FORECOURT_TOOLS").map_or_else(|| root().join(".tools"), PathBuf::from);
        let nats = tools.join("nats-server");
        let nats = if nats.exists() { nats } else { PathBuf::from("nats-server") };
        Ok(Self {
            processor: line("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism()?.get(),
            memory_gigabytes: memory / 1_000_000,
            system: output_of(Command::new("uname").arg("-sr"))?,
            forecourt: env!("CARGO_PKG_VERSION").to_owned(),
            nats_server: output_of(Command::new(nats).arg("--version"))?.trim_start_matches("nats-server: ").to_owned(),
            rustc: output_of(Command::new("rustc").arg("--version"))?,
            commit: output_of(Command::new("git").args(["rev-parse", "--short", "HEAD"]).current_dir(root()))?,
        })
    }
}

fn output_of(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    machine: Machine,
    rounds: usize,
    measured: Vec<Measured>,
}

impl Report {
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read(file).with_context(|| format!("{} is not there; make bench writes it", file.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is not what make bench writes", file.display()))
    }

    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        Ok(fs::write(file, serde_json::to_string_pretty(self)? + "\n")?)
    }

    /// The figures as a table.
    pub fn table(&self) -> String {
        let name = |it: &Measured| format!("{} ({})", it.name, it.unit);
        let width = self.measured.iter().map(|it| name(it).chars().count()).max().unwrap_or_default();
        let mut text = format!(
            "  {:<width$} {:>12} {:>12} {:>8} {:>17} {:>7}\n",
            "", "ours", "limit", "ratio", "quartiles", "noise"
        );
        let mut last = "";
        for it in &self.measured {
            if it.workload != last {
                let _ = writeln!(text, "{}", it.workload);
                last = &it.workload;
            }
            let _ = writeln!(
                text,
                "  {:<width$} {:>12.2} {:>12.2} {:>8} {:>17} {:>6.1}%",
                name(it),
                it.ours,
                it.limit_value,
                format_ratio(it.ratio),
                format!("{} – {}", format_ratio(it.low), format_ratio(it.high)),
                it.noise * 100.0
            );
        }
        text
    }

    /// The page of documentation.
    pub fn markdown(&self) -> String {
        let Machine { processor, cores, memory_gigabytes, system, forecourt, nats_server, rustc, commit } =
            &self.machine;
        let mut text = format!(
            "# Benchmarks\n\n`make bench` writes this page. Each workload is measured beside a limit in the same run, on the \
             same machine, {} rounds in turn; a ratio above 1 is better than the limit. Ratios are medians with quartiles; \
             noise is by how much two series of the same thing differ (A/A), or what their spread lets a median vary by. \
             `make bench-compare` names each ratio that is below the kept one in `bench/baseline.json` by more than 5 %, or \
             by more than the noise of both runs.\n\n\
             Measured on {processor}, {cores} cores, {memory_gigabytes} GB, {system}; forecourt {forecourt} at {commit}, \
             nats-server {nats_server}, {rustc}.\n",
            self.rounds
        );
        let mut last = "";
        for it in &self.measured {
            if it.workload != last {
                let _ = write!(
                    text,
                    "\n## {}\n\n| measured | unit | ours | limit | | ratio | quartiles | noise |\n|---|---|--:|--:|---|--:|--:|--:|\n",
                    it.workload
                );
                last = &it.workload;
            }
            let _ = writeln!(
                text,
                "| {} | {} | {:.2} | {:.2} | {} | {} | {} – {} | {:.1} % |",
                it.name,
                it.unit,
                it.ours,
                it.limit_value,
                it.limit,
                format_ratio(it.ratio),
                format_ratio(it.low),
                format_ratio(it.high),
                it.noise * 100.0
            );
        }
        text
    }

    /// What is worse than in the baseline by more than is tolerated and than the noise; the workloads' figures that only one of
    /// the two has; and those that are no numbers.
    #[must_use]
    pub fn losses(&self, baseline: &Self) -> Vec<String> {
        let key = |it: &Measured| (it.workload.clone(), it.name.clone());
        let ran: BTreeSet<&str> = self.measured.iter().map(|it| it.workload.as_str()).collect();
        let kept = baseline.measured.iter().filter(|it| ran.contains(it.workload.as_str()));
        let mut kept: BTreeMap<_, &Measured> = kept.map(|it| (key(it), it)).collect();
        let mut losses = Vec::new();
        for it in &self.measured {
            let name = format!("{}: {}", it.workload, it.name);
            let Some(before) = kept.remove(&key(it)) else {
                losses.push(format!("{name}: the baseline has no such figure"));
                continue;
            };
            if !(it.ratio.is_finite() && it.noise.is_finite()) {
                losses.push(format!("{name}: the ratio is no number"));
                continue;
            }
            // Both runs have theirs.
            let noise = it.noise + before.noise;
            let allowed = TOLERATED_LOSS.max(noise.min(MAX_NOISE));
            let change = it.ratio / before.ratio - 1.0;
            if change < -allowed {
                losses.push(format!(
                    "{name}: {:.3} was {:.3}, {:.1} % ({:.1} % is tolerated)",
                    it.ratio,
                    before.ratio,
                    change * 100.0,
                    allowed * 100.0
                ));
            }
        }
        losses.extend(kept.keys().map(|(workload, name)| format!("{workload}: {name}: the run has no such figure")));
        losses
    }
}

/// A ratio with three digits at least.
fn format_ratio(ratio: f64) -> String {
    match ratio {
        ..0.01 => format!("{ratio:.5}"),
        ..0.1 => format!("{ratio:.4}"),
        ..10.0 => format!("{ratio:.3}"),
        _ => format!("{ratio:.1}"),
    }
}

/// Compare the last run with the baseline; whether no figure is worse.
///
/// # Errors
/// When one of the two cannot be read.
pub fn compare() -> anyhow::Result<bool> {
    let baseline = Report::read(&root().join("bench/baseline.json"))?;
    let run = Report::read(&root().join("target/bench.json"))?;
    let losses = run.losses(&baseline);
    for loss in &losses {
        println!("{loss}");
    }
    let (worse, all) = (losses.len(), run.measured.len());
    match worse {
        0 => println!("none of {all} figures is worse than the baseline"),
        _ => println!("{worse} of {all} figures are worse than the baseline"),
    }
    Ok(losses.is_empty())
}

/// The value below which a share of them lies.
pub fn quantile(values: impl IntoIterator<Item = f64>, share: f64) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.clamp(1, values.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A fixed piece of work on one core, in milliseconds: the limit of what has no other.
pub fn fixed_work() -> f64 {
    const STEPS: u64 = 3_000_000;
    let started = Instant::now();
    let mut state = 1_u64;
    for step in 0..STEPS {
        state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9).wrapping_add(step);
    }
    std::hint::black_box(state);
    milliseconds(started.elapsed())
}

#[cfg(test)]
mod tests {
    use super::{Better, Figure, Machine, Recorder, Report};

    fn report(figures: &[(&str, f64)]) -> Report {
        let mut recorder = Recorder { workload: "search", series: Vec::new(), planted_slowdown: 1.0 };
        for (name, ratio) in figures {
            for round in 0..super::ROUNDS {
                let figure = Figure { name, unit: "ms", better: Better::Lower, limit: "the limit" };
                // A quiet machine: the rounds differ by a hundredth.
                recorder.record(figure, 10.0 / ratio, 10.0 + round as f64 * 0.01);
            }
        }
        let measured = recorder.series.iter().map(super::Series::measured).collect();
        let none = String::new;
        let machine = Machine {
            processor: none(),
            cores: 2,
            memory_gigabytes: 24,
            system: none(),
            forecourt: none(),
            nats_server: none(),
            rustc: none(),
            commit: none(),
        };
        Report { machine, rounds: super::ROUNDS, measured }
    }

    #[test]
    fn a_loss_is_named_and_noise_is_not() {
        let baseline = report(&[("a page", 2.0), ("a suggestion", 5.0)]);
        assert_eq!(report(&[("a page", 1.96), ("a suggestion", 6.0)]).losses(&baseline), Vec::<String>::new());
        let losses = report(&[("a page", 2.0 / 1.2), ("a suggestion", 5.0)]).losses(&baseline);
        assert_eq!(losses.len(), 1, "{losses:?}");
        assert!(losses[0].starts_with("search: a page: 1.6") && losses[0].contains("-16.7 %"), "{losses:?}");
    }

    #[test]
    fn a_figure_that_only_one_of_the_two_has_is_named() {
        let losses = report(&[("a page", 2.0), ("new", 1.0)]).losses(&report(&[("a page", 2.0), ("old", 1.0)]));
        let named = ["search: new: the baseline has no such figure", "search: old: the run has no such figure"];
        assert_eq!(losses, named);
        let losses = report(&[("a page", f64::NAN)]).losses(&report(&[("a page", 2.0)]));
        assert_eq!(losses, ["search: a page: the ratio is no number"]);
    }
}
